/* What a call on CUDA chooses: fmk_prepare loads all of it, and it fits into the workspace. */
#include "resident.h"

enum { WIDE_K = 28672 };

/* fmk_prepare for many rows serves every fewer, also where the most would not go through cuBLAS. */
static void test_prepared_for_fewer(void **state) {
    (void)state;
    static const fmk_dtype types[] = {FMK_F16, FMK_F32};
    struct ref_rng rng = ref_rng_start("plan/fewer");
    for (int t = 0; t < 2; t++) {
        struct bench b = open_bench(1);
        struct ref_spec spec = {.format = FMK_FORMAT_Q4_K, .n = 16, .k = WIDE_K};
        struct resident r = resident_of(&b, &spec, types[t], FMK_F32, 65, 0, &rng);
        fmk_linear_args max = r.args;
        max.m = 100000;
        max.in = max.out = max.workspace = (fmk_buffer){0};
        OK(fmk_prepare(b.queue, r.weight, &max));
        uint64_t best = r.args.workspace.size;
        for (r.args.m = 1; r.args.m <= 65; r.args.m += r.args.m < 7 ? 7 : r.args.m < 64 ? 56 : 1) {
            r.args.workspace.size = best;
            OK(fmk_linear(b.queue, r.weight, &r.args));
        }
        free_resident(&r, &b);
        close_bench(&b);
    }
}

/* best holds for every m up to args->m, so it never is less for more. */
static void test_best_ascends(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("plan/best");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (fmk_dtype type = FMK_F16; type <= FMK_F32; type++) {
            struct ref_spec spec = sample_spec(s, 4096, 512);
            struct resident r = resident_of(&b, &spec, type, FMK_F32, 1, 0, &rng);
            uint64_t before[2] = {0, 0};
            for (int64_t m = 1; m < 1 << 20; m += 1 + m / 7) {
                fmk_linear_args args = r.args;
                args.m = m;
                args.in = args.out = (fmk_buffer){0};
                uint64_t least, best;
                OK(fmk_workspace_size(r.weight, &args, &least, &best));
                assert_true(least <= best);
                assert_true(best <= 128 << 20);
                if (least < before[0] || best < before[1])
                    fail_msg("%s, type %d, m %lld: least %llu after %llu, best %llu after %llu",
                             samples[s].name, type, (long long)m, (unsigned long long)least,
                             (unsigned long long)before[0], (unsigned long long)best,
                             (unsigned long long)before[1]);
                before[0] = least;
                before[1] = best;
            }
            free_resident(&r, &b);
        }
    close_bench(&b);
}

/* The usual projections of a large model get cuBLAS for many rows, with no more than the best workspace. */
static void test_large_projections(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("plan/large");
    struct bench b = open_bench(1);
    fmk_context_info_t info = {.struct_size = sizeof info};
    OK(fmk_context_info(b.ctx, &info));
    if (!strstr(info.features, "cublas")) {
        close_bench(&b);
        skip();
    }
    static const struct {
        fmk_format format;
        int64_t n, k;
    } shapes[] = {
        {FMK_FORMAT_DENSE, 152064, 16}, {FMK_FORMAT_Q4_K, 16, WIDE_K}, {FMK_FORMAT_Q6_K, 16, WIDE_K}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct ref_spec spec = {.format = shapes[i].format, .n = shapes[i].n, .k = shapes[i].k};
        spec.dtype = shapes[i].format == FMK_FORMAT_DENSE ? FMK_F16 : 0;
        struct resident r = resident_of(&b, &spec, FMK_F16, FMK_F16, 1, 0, &rng);
        fmk_linear_args args = r.args;
        args.m = 4096;
        args.workspace = (fmk_buffer){0};
        char text[4096];
        OK(fmk_explain(r.weight, &args, text, sizeof text, NULL));
        if (!strstr(text, ".cublas\n"))
            fail_msg("n %lld k %lld: %s", (long long)spec.n, (long long)spec.k, text);
        free_resident(&r, &b);
    }
    close_bench(&b);
}

/* A count on the device that is below 0 stands for 0, however far below. */
static void test_negative_count(void **state) {
    (void)state;
    enum { M = 70 };
    static const int32_t counts[] = {-1, -8, INT32_MIN, INT32_MIN + 1};
    struct ref_rng rng = ref_rng_start("plan/negative");
    struct bench b = open_bench(1);
    uint64_t count = gpu_alloc(4);
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int i = 0; i < 4; i++) {
            struct ref_spec spec = sample_spec(s, 64, 256);
            struct resident r = resident_of(&b, &spec, i % 2 ? FMK_F32 : FMK_F16, FMK_F32, M, 0, &rng);
            r.args.m_dev = (fmk_buffer){.handle = count, .size = 4};
            gpu_free(r.args.workspace.handle);
            resident_workspace(&r);
            gpu_write(count, &counts[i], 4);
            OK(fmk_prepare(b.queue, r.weight, &r.args));
            for (r.args.m = 1; r.args.m <= M; r.args.m += 23)
                OK(fmk_linear(b.queue, r.weight, &r.args));
            gpu_wait(test_stream());
            uint8_t *out = resident_out(&r);
            for (size_t at = 0; at < r.out_size; at++)
                if (out[at] != POISON)
                    fail_msg("%s, *m_dev %d: byte %zu was written", samples[s].name, counts[i], at);
            free(out);
            free_resident(&r, &b);
        }
    gpu_free(count);
    close_bench(&b);
}

/* No pair at all, and many experts: nothing is read, and every offset is 0. */
static void test_sort_nothing(void **state) {
    (void)state;
    enum { EXPERTS = 1000 };
    struct bench b = open_bench(1);
    uint64_t memory = gpu_alloc(4 * (EXPERTS + 1));
    gpu_fill(memory, POISON, 4 * (EXPERTS + 1));
    fmk_routing ids = {.struct_size = sizeof ids, .top_k = 2};
    fmk_routing out = {.struct_size = sizeof out, .offsets = {.handle = memory, .size = 4 * (EXPERTS + 1)}};
    OK(fmk_route_sort(b.queue, &ids, 0, EXPERTS, &out));
    gpu_wait(test_stream());
    int32_t offsets[EXPERTS + 1];
    gpu_read(offsets, memory, sizeof offsets);
    for (int e = 0; e <= EXPERTS; e++)
        assert_int_equal(offsets[e], 0);
    gpu_free(memory);
    close_bench(&b);
}

int main(void) {
    if (!on_gpu()) {
        print_message("SKIPPED: FERRUMK_TEST_BACKEND is not cuda\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prepared_for_fewer), cmocka_unit_test(test_best_ascends),
        cmocka_unit_test(test_large_projections),  cmocka_unit_test(test_negative_count),
        cmocka_unit_test(test_sort_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
