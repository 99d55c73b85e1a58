/* The same bytes in a hundred runs: every format, type and mode, through every kernel that serves them,
 * whatever the workspace held and whether the calls overlap on the device. */
#include "resident.h"

static const fmk_dtype types[] = {FMK_F16, FMK_BF16, FMK_F32};
static const uint32_t modes[] = {0, FMK_LINEAR_BATCH_INVARIANT, FMK_LINEAR_EXACT, FMK_LINEAR_REFERENCE};

static void check_repeat(struct bench *b, struct resident *r, const char *what) {
    int runs = quick() ? 3 : 100;
    OK(fmk_prepare(b->queue, r->weight, &r->args));
    uint8_t *want = NULL;
    for (int i = 0; i < runs; i++) {
        gpu_fill(r->args.workspace.handle, (unsigned char)(37 * i), r->args.workspace.size);
        for (int j = 0; j <= i % 3; j++) /* sometimes one behind another without a pause */
            OK(fmk_linear(b->queue, r->weight, &r->args));
        gpu_wait(test_stream());
        if (want)
            assert_out_is(r, want, what);
        else
            want = resident_out(r);
    }
    free(want);
}

static void test_linear(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("repeat/linear");
    struct bench b = open_bench(1);
    static const int64_t counts[] = {1, 6, 16, 33, 100, 300};
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int t = 0; t < 3; t++)
            for (int i = 0; i < 4; i += quick() ? 3 : 1)
                for (int c = quick() ? (s + t) % 6 : 0; c < 6; c += quick() ? 6 : 1) {
                    struct ref_spec spec = sample_spec(s, quick() ? 64 : 192, quick() ? 256 : 1024);
                    struct resident r =
                        resident_of(&b, &spec, types[t], types[(t + c) % 3], counts[c], modes[i], &rng);
                    check_repeat(&b, &r, samples[s].name);
                    free_resident(&r, &b);
                }
    close_bench(&b);
}

/* Sums over top_k, whose pairs different blocks make. */
static void test_experts(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("repeat/experts");
    struct bench b = open_bench(1);
    enum { EXPERTS = 6, TOP_K = 3, TOKENS = 40 };
    int32_t ids[TOKENS * TOP_K];
    for (int i = 0; i < TOKENS * TOP_K; i++)
        ids[i] = (int32_t)ref_below(&rng, EXPERTS + 1) - 1;
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_spec spec = sample_spec(s, 64, 512);
        spec.experts = EXPERTS;
        struct resident r =
            resident_of(&b, &spec, FMK_F16, FMK_F16, TOKENS * TOP_K, FMK_LINEAR_REDUCE_TOP_K, &rng);
        fmk_routing routing = {.struct_size = sizeof routing,
                               .kind = FMK_ROUTE_IDS,
                               .top_k = TOP_K,
                               .in_per_pair = 1,
                               .ids = {.handle = gpu_alloc(sizeof ids), .size = sizeof ids}};
        gpu_write(routing.ids.handle, ids, sizeof ids);
        r.args.routing = &routing;
        r.args.m = TOKENS;
        resident_workspace(&r);
        check_repeat(&b, &r, samples[s].name);
        gpu_free(routing.ids.handle);
        free_resident(&r, &b);
    }
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear), cmocka_unit_test(test_experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
