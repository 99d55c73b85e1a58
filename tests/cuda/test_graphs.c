/* CUDA graphs: fmk_linear, fmk_rows, fmk_weight_dequantize and fmk_route_sort are captured right after
 * fmk_prepare, and a replay has the bytes of the call itself. */
#include "resident.h"

static const fmk_dtype types[] = {FMK_F16, FMK_BF16, FMK_F32};

/* Captured before it ever ran; then run, then replayed over a poisoned result. */
static void check_capture(struct bench *b, struct resident *r, const char *what) {
    OK(fmk_prepare(b->queue, r->weight, &r->args));
    capture_begin(test_stream());
    OK(fmk_linear(b->queue, r->weight, &r->args));
    void *graph = capture_end(test_stream());
    uint8_t poison[1] = {POISON}, first[1];
    gpu_read(first, r->args.out.handle, 1);
    assert_memory_equal(first, poison, 1); /* capturing runs nothing */
    OK(fmk_linear(b->queue, r->weight, &r->args));
    gpu_wait(test_stream());
    uint8_t *want = resident_out(r);
    for (int i = 0; i < 3; i++) {
        gpu_fill(r->args.out.handle, POISON, r->out_size);
        gpu_fill(r->args.workspace.handle, (unsigned char)i, r->args.workspace.size);
        replay(graph, test_stream());
        assert_out_is(r, want, what);
    }
    free(want);
    free_instance(graph);
}

static void test_formats(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("graphs/formats");
    static const int64_t counts[] = {1, 7, 40, 200};
    static const uint32_t modes[] = {0, FMK_LINEAR_EXACT, FMK_LINEAR_BATCH_INVARIANT, FMK_LINEAR_REFERENCE};
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int i = 0; i < 4; i++)
            for (int t = quick() ? (s + i) % 3 : 0; t < 3; t += quick() ? 3 : 1) {
                struct bench b = open_bench(1); /* a context that has loaded nothing yet */
                struct ref_spec spec = sample_spec(s, quick() ? 64 : 128, quick() ? 256 : 512);
                struct resident r = resident_of(&b, &spec, types[t], types[(t + i) % 3], counts[i],
                                                modes[(s + i + t) % 4], &rng);
                check_capture(&b, &r, samples[s].name);
                free_resident(&r, &b);
                close_bench(&b);
            }
}

/* One graph for any m up to the bound: the rows that are there have the bytes of the whole, the others are
 * left. */
static void test_device_m(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("graphs/device_m");
    struct bench b = open_bench(1);
    static const int32_t counts[] = {0, 1, 5, 33, 64, 70, -1};
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int t = 0; t < 2; t++) {
            struct ref_spec spec = sample_spec(s, 64, 256);
            struct resident r = resident_of(&b, &spec, types[t], types[t], 64, 0, &rng);
            r.args.m_dev = (fmk_buffer){.handle = gpu_alloc(4), .size = 4};
            OK(fmk_prepare(b.queue, r.weight, &r.args));
            capture_begin(test_stream());
            OK(fmk_linear(b.queue, r.weight, &r.args));
            void *graph = capture_end(test_stream());
            int32_t all = 64;
            gpu_write(r.args.m_dev.handle, &all, 4);
            replay(graph, test_stream());
            uint8_t *want = resident_out(&r);
            for (int i = 0; i < 7; i++) {
                int64_t there = counts[i] < 0 ? 0 : counts[i] > 64 ? 64 : counts[i];
                size_t row = r.out_size / 64;
                uint8_t *part = malloc(r.out_size);
                assert_non_null(part);
                memset(part, POISON, r.out_size);
                memcpy(part, want, (size_t)there * row);
                gpu_write(r.args.m_dev.handle, &counts[i], 4);
                gpu_fill(r.args.out.handle, POISON, r.out_size);
                replay(graph, test_stream());
                assert_out_is(&r, part, samples[s].name);
                free(part);
            }
            free(want);
            free_instance(graph);
            gpu_free(r.args.m_dev.handle);
            free_resident(&r, &b);
        }
    close_bench(&b);
}

enum { EXPERTS = 4, TOP_K = 2, TOKENS = 11, PAIRS = TOKENS * TOP_K };

static fmk_buffer put(const void *data, size_t size) {
    fmk_buffer buffer = {.handle = gpu_alloc(size), .size = size};
    gpu_write(buffer.handle, data, size);
    return buffer;
}

/* A layer of experts: sorted on the device and multiplied, in one graph. New ids serve the same graph. */
static void check_routes(struct bench *b, const struct ref_spec *spec, fmk_route kind, struct ref_rng *rng) {
    bool pairs = kind == FMK_ROUTE_IDS || kind == FMK_ROUTE_SORTED;
    int64_t m = kind == FMK_ROUTE_BATCH ? 3 : TOKENS;
    int64_t rows = pairs ? PAIRS : kind == FMK_ROUTE_BATCH ? EXPERTS * m : m;
    struct resident r = resident_of(b, spec, FMK_F16, FMK_F16, rows, 0, rng);
    int32_t ids[2][PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        ids[0][i] = (int32_t)ref_below(rng, EXPERTS + 1) - 1;
        ids[1][i] = (int32_t)ref_below(rng, EXPERTS);
    }
    int32_t none[PAIRS + EXPERTS + 1] = {0};
    fmk_routing routing = {.struct_size = sizeof routing, .kind = kind, .top_k = TOP_K},
                unsorted = {.struct_size = sizeof unsorted, .kind = FMK_ROUTE_IDS, .top_k = TOP_K};
    unsorted.ids = put(ids[0], sizeof ids[0]);
    fmk_buffer offsets = put(none, (EXPERTS + 1) * sizeof *none), order = put(none, PAIRS * sizeof *none);
    if (kind == FMK_ROUTE_IDS)
        routing.ids = unsorted.ids;
    if (kind == FMK_ROUTE_SORTED) {
        routing.offsets = offsets;
        routing.pairs = order;
    }
    if (kind == FMK_ROUTE_BATCH) {
        routing.expert_in_stride = m * spec->k;
        routing.expert_out_stride = m * spec->n;
    }
    if (kind == FMK_ROUTE_NONE)
        routing.expert = 2;
    r.args.routing = &routing;
    r.args.m = m;
    resident_workspace(&r);
    OK(fmk_prepare(b->queue, r.weight, &r.args));
    fmk_routing sorted = {.struct_size = sizeof sorted, .offsets = offsets, .pairs = order};
    void *graph = NULL;
    for (int i = 0; i < 3; i++) { /* captured with the first ids, then run and replayed with both */
        gpu_write(unsorted.ids.handle, ids[i == 2], sizeof ids[0]);
        gpu_fill(r.args.out.handle, POISON, r.out_size);
        if (i == 0)
            capture_begin(test_stream());
        if (kind == FMK_ROUTE_SORTED)
            OK(fmk_route_sort(b->queue, &unsorted, m, EXPERTS, &sorted));
        OK(fmk_linear(b->queue, r.weight, &r.args));
        if (i == 0) {
            graph = capture_end(test_stream());
            continue;
        }
        gpu_wait(test_stream());
        uint8_t *want = resident_out(&r);
        gpu_fill(r.args.out.handle, POISON, r.out_size);
        replay(graph, test_stream());
        assert_out_is(&r, want, "routed");
        free(want);
    }
    free_instance(graph);
    gpu_free(unsorted.ids.handle);
    gpu_free(offsets.handle);
    gpu_free(order.handle);
    r.args.routing = NULL;
    free_resident(&r, b);
}

static void test_routes(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("graphs/routes");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int kind = FMK_ROUTE_NONE; kind <= FMK_ROUTE_BATCH; kind++) {
            struct ref_spec spec = sample_spec(s, 64, 256);
            spec.experts = EXPERTS;
            check_routes(&b, &spec, kind, &rng);
        }
    close_bench(&b);
}

/* Rows by id and the whole weight as numbers. */
static void test_decoding(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("graphs/decoding");
    struct bench b = open_bench(1);
    const int32_t ids[4] = {3, 63, 64, 0};
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_spec spec = sample_spec(s, 64, 256);
        struct resident r =
            resident_of(&b, &spec, FMK_F16, FMK_F16, 272, 0, &rng); /* out has room for 68 rows of k */
        fmk_rows_args rows = {.struct_size = sizeof rows, .out_type = FMK_F16, .m = 4};
        rows.ids = put(ids, sizeof ids);
        fmk_buffer whole = r.args.out;
        rows.out = (fmk_buffer){.handle = whole.handle + 64 * 256 * 2, .size = 4 * 256 * 2};
        whole.size = 64 * 256 * 2;
        OK(fmk_prepare(b.queue, r.weight, &r.args));
        capture_begin(test_stream());
        OK(fmk_weight_dequantize(b.queue, r.weight, 0, &whole, FMK_F16, 0));
        OK(fmk_rows(b.queue, r.weight, &rows));
        void *graph = capture_end(test_stream());
        OK(fmk_weight_dequantize(b.queue, r.weight, 0, &whole, FMK_F16, 0));
        OK(fmk_rows(b.queue, r.weight, &rows));
        gpu_wait(test_stream());
        uint8_t *want = resident_out(&r);
        gpu_fill(r.args.out.handle, POISON, r.out_size);
        replay(graph, test_stream());
        assert_out_is(&r, want, samples[s].name);
        assert_memory_equal(want + 64 * 512, want + 3 * 512, 512); /* row 0 is W[3] */
        for (int i = 0; i < 512; i++)
            assert_int_equal(want[66 * 512 + i], 0); /* 64 is no row */
        free(want);
        free_instance(graph);
        gpu_free(rows.ids.handle);
        free_resident(&r, &b);
    }
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_device_m),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_decoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
