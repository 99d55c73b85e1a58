/* fmk_linear on dense weights: every format, numeric mode, type, stride, epilogue and cut of the work. */
#include "calls.h"

static fmk_linear_args args_of(const struct matrix *in, const struct matrix *out, int64_t m) {
    return (fmk_linear_args){.struct_size = sizeof(fmk_linear_args),
                             .m = m,
                             .in_type = in->type,
                             .out_type = out->type,
                             .in_stride = in->stride,
                             .out_stride = out->stride,
                             .in = buffer_of(in),
                             .out = buffer_of(out)};
}

static double *expect(const struct ref_weight *parts, int num_parts, const struct matrix *in, int64_t m,
                      int64_t n) {
    double *want = malloc((size_t)(m * n) * sizeof *want);
    assert_non_null(want);
    for (int64_t r = 0; r < m; r++)
        expect_row(parts, num_parts, 0, in, r, want + r * n);
    return want;
}

static const uint32_t modes[] = {0, FMK_LINEAR_FAST_REDUCE, FMK_LINEAR_EXACT, FMK_LINEAR_REFERENCE};
static const fmk_dtype types[] = {FMK_F32, FMK_F16, FMK_BF16};

static void one_shape(struct bench *b, int sample, int64_t n, int64_t k, int64_t m, struct ref_rng *rng) {
    struct ref_weight part;
    make_sample(&part, sample, n, k, rng);
    fmk_weight *weight = make_weight(b, &part, 1, 0);
    for (int t = 0; t < 3; t++) {
        int64_t gap = t ? 3 : 0;
        struct matrix in = random_matrix(types[t], m, k, k + gap, rng);
        double *want = expect(&part, 1, &in, m, n);
        for (int i = 0; i < 3; i++) {
            struct matrix out = matrix(types[(t + i) % 3], m, n, n + gap);
            fmk_linear_args args = args_of(&in, &out, m);
            args.flags = modes[i];
            OK(call(b, weight, &args, m % 2));
            assert_close(&out, want, bound_of(modes[i], in.type, out.type, m, k), samples[sample].name);
            assert_gaps_untouched(&out);
            free_matrix(&out);
        }
        free(want);
        free_matrix(&in);
    }
    fmk_weight_destroy(weight, b->queue);
    ref_free(&part);
}

static void test_formats(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/formats");
    struct bench b = open_bench(2);
    for (int s = 0; s < NUM_SAMPLES; s++) {
        bool marlin = samples[s].spec.format == FMK_FORMAT_MARLIN;
        bool k_quant = samples[s].spec.format == FMK_FORMAT_Q4_K || samples[s].spec.format == FMK_FORMAT_Q6_K;
        one_shape(&b, s, 64, 256, 1, &rng);
        one_shape(&b, s, 128, 512, 5, &rng);
        one_shape(&b, s, 192, 768, 33, &rng);
        one_shape(&b, s, marlin ? 64 : 71, 256, 100, &rng);
        if (!quick())
            one_shape(&b, s, 64, 256, 512, &rng);
        if (!marlin && !k_quant)
            one_shape(&b, s, 9, 264, 7, &rng);
    }
    close_bench(&b);
}

/* So many k that a block of the kernels for few tokens cannot hold all of its activations. */
static void test_long_rows(void **state) {
    (void)state;
    if (!on_gpu()) /* where roundings of activations count, so few outputs do not average them */
        skip();
    enum { N = 20, K = 40064, M = 13 };
    struct ref_rng rng = ref_rng_start("linear/long");
    struct bench b = open_bench(2);
    const struct ref_spec spec = {.format = FMK_FORMAT_GPTQ, .n = N, .k = K, .group_size = 128};
    struct ref_weight part;
    ref_make(&part, &spec, &rng);
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    for (int t = 0; t < 3; t++) {
        struct matrix in = random_matrix(types[t], M, K, K, &rng), out = matrix(FMK_F32, M, N, N);
        double *want = expect(&part, 1, &in, M, N);
        fmk_linear_args args = args_of(&in, &out, M);
        OK(call(&b, weight, &args, true));
        assert_close(&out, want, bound_of(0, in.type, out.type, M, K), "long rows");
        free(want);
        free_matrix(&in);
        free_matrix(&out);
    }
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

/* More rows than there are multiprocessors, and K of which warps come to the same pieces in every strip. */
static void test_many_strips(void **state) {
    (void)state;
    if (!on_gpu())
        skip();
    enum { N = 392, K = 2048 };
    static const int counts[] = {1, 3, 8};
    struct ref_rng rng = ref_rng_start("linear/strips");
    struct bench b = open_bench(2);
    for (int zeros = 0; zeros < 2; zeros++) {
        const struct ref_spec spec = {.format = FMK_FORMAT_GPTQ,
                                      .n = N,
                                      .k = K,
                                      .group_size = 128,
                                      .zeros = zeros ? REF_ZEROS_RANDOM : REF_ZEROS_ABSENT};
        struct ref_weight part;
        ref_make(&part, &spec, &rng);
        fmk_weight *weight = make_weight(&b, &part, 1, 0);
        for (int i = 0; i < 3; i++) {
            int m = counts[i];
            struct matrix in = random_matrix(FMK_F16, m, K, K, &rng), out = matrix(FMK_F32, m, N, N);
            double *want = expect(&part, 1, &in, m, N);
            fmk_linear_args args = args_of(&in, &out, m);
            OK(call(&b, weight, &args, true));
            assert_close(&out, want, bound_of(0, in.type, out.type, m, K), "many strips");
            free(want);
            free_matrix(&in);
            free_matrix(&out);
        }
        fmk_weight_destroy(weight, b.queue);
        ref_free(&part);
    }
    close_bench(&b);
}

/* A merged projection whose parts differ in format, and with biases. */
static void test_parts(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/parts");
    struct bench b = open_bench(2);
    const struct ref_spec specs[] = {
        {.format = FMK_FORMAT_Q4_K, .n = 72, .k = 512, .bias = FMK_F32},
        {.format = FMK_FORMAT_Q6_K, .n = 9, .k = 512},
        {.format = FMK_FORMAT_GPTQ,
         .n = 64,
         .k = 512,
         .group_size = 128,
         .zeros = REF_ZEROS_RANDOM,
         .groups = REF_GROUPS_SHUFFLED,
         .bias = FMK_F16},
        {.format = FMK_FORMAT_DENSE, .dtype = FMK_BF16, .n = 130, .k = 512},
    };
    struct ref_weight parts[4];
    int64_t n = 0;
    for (int i = 0; i < 4; i++) {
        ref_make(&parts[i], &specs[i], &rng);
        n += specs[i].n;
    }
    fmk_weight *weight = make_weight(&b, parts, 4, 0);
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_weight_info(weight, &info));
    assert_int_equal(info.n, n);
    assert_int_equal(info.num_parts, 4);
    for (int64_t m = 1; m < 70; m += 17) {
        struct matrix in = random_matrix(FMK_F32, m, 512, 512, &rng), out = matrix(FMK_F32, m, n, n);
        double *want = expect(parts, 4, &in, m, n);
        fmk_linear_args args = args_of(&in, &out, m);
        args.flags = FMK_LINEAR_EXACT;
        OK(call(&b, weight, &args, true));
        assert_close(&out, want, 1e-6, "parts");
        free(want);
        free_matrix(&in);
        free_matrix(&out);
    }
    fmk_weight_destroy(weight, b.queue);
    for (int i = 0; i < 4; i++)
        ref_free(&parts[i]);
    close_bench(&b);
}

static void test_addend(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/addend");
    struct bench b = open_bench(2);
    struct ref_weight part;
    make_sample(&part, 0, 70, 256, &rng);
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    const int64_t m = 6, n = 70;
    struct matrix in = random_matrix(FMK_F32, m, 256, 256, &rng);
    for (int i = 0; i < 4; i++) {
        bool own = i % 2; /* apart, and in out itself */
        struct matrix delta = random_matrix(own ? FMK_F32 : FMK_BF16, m, n, n + 2, &rng);
        struct matrix out = matrix(FMK_F32, m, n, n + 1);
        double *want = expect(&part, 1, &in, m, n);
        for (int64_t j = 0; j < m * n; j++)
            want[j] += at(&delta, j / n, j % n);
        struct matrix *to = own ? &delta : &out;
        fmk_linear_args args = args_of(&in, to, m);
        args.addend = buffer_of(&delta);
        args.addend_type = delta.type;
        args.addend_stride = delta.stride;
        args.flags = i / 2 ? FMK_LINEAR_EXACT : 0;
        OK(call(&b, weight, &args, false));
        /* On the CPU dense weights and their activations are not rounded in any mode. */
        assert_close(to, want, on_gpu() ? bound_of(args.flags, FMK_F32, FMK_F32, m, 256) : 1e-6, "addend");
        free(want);
        free_matrix(&delta);
        free_matrix(&out);
    }
    free_matrix(&in);
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

/* Gate and up of one format, of two, and with an addend and biases. */
static void test_glu(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/glu");
    struct bench b = open_bench(2);
    const struct ref_spec pairs[][2] = {
        {{.format = FMK_FORMAT_Q4_K, .n = 40, .k = 256}, {.format = FMK_FORMAT_Q4_K, .n = 40, .k = 256}},
        {{.format = FMK_FORMAT_Q6_K, .n = 72, .k = 512, .bias = FMK_F32},
         {.format = FMK_FORMAT_GPTQ,
          .n = 72,
          .k = 512,
          .group_size = 64,
          .bias = FMK_F16,
          .zeros = REF_ZEROS_RANDOM,
          .groups = REF_GROUPS_UNEQUAL}},
    };
    for (int p = 0; p < 2; p++) {
        struct ref_weight parts[2];
        for (int i = 0; i < 2; i++)
            ref_make(&parts[i], &pairs[p][i], &rng);
        int64_t half = pairs[p][0].n, k = pairs[p][0].k, m = 11;
        fmk_weight *weight = make_weight(&b, parts, 2, FMK_WEIGHT_GLU);
        struct matrix in = random_matrix(FMK_F32, m, k, k, &rng);
        struct matrix delta = random_matrix(FMK_F32, m, 2 * half, 2 * half, &rng);
        double *t = expect(parts, 2, &in, m, 2 * half), *want = malloc((size_t)(m * half) * sizeof *want);
        for (int act = FMK_ACT_NONE; act <= FMK_ACT_SWIGLU_CLAMP; act++) {
            int64_t width = act ? half : 2 * half;
            struct matrix out = matrix(FMK_F32, m, width, width + 5);
            fmk_linear_args args = args_of(&in, &out, m);
            args.flags = FMK_LINEAR_EXACT;
            args.act = act;
            bool add = act != FMK_ACT_SILU_MUL;
            if (add) {
                args.addend = buffer_of(&delta);
                args.addend_type = FMK_F32;
            }
            OK(call(&b, weight, &args, true));
            double *sum = malloc((size_t)(2 * m * half) * sizeof *sum);
            for (int64_t i = 0; i < 2 * m * half; i++)
                sum[i] = t[i] + (add ? at(&delta, i / (2 * half), i % (2 * half)) : 0);
            for (int64_t r = 0; act && r < m; r++)
                for (int64_t c = 0; c < half; c++)
                    want[r * half + c] = act_of(&args, sum[r * 2 * half + c], sum[r * 2 * half + half + c]);
            /* The sums are within 1e-6 of their norm; the activations' slopes stay near 1. */
            assert_close(&out, act ? want : sum, 4e-6, "glu");
            assert_gaps_untouched(&out);
            free(sum);
            free_matrix(&out);
        }
        free(t);
        free(want);
        free_matrix(&delta);
        free_matrix(&in);
        fmk_weight_destroy(weight, b.queue);
        ref_free(&parts[0]);
        ref_free(&parts[1]);
    }
    close_bench(&b);
}

static void test_gather_and_device_m(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/gather");
    struct bench b = open_bench(1);
    struct ref_weight part;
    make_sample(&part, 5, 64, 256, &rng);
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    struct matrix in = random_matrix(FMK_F16, 20, 256, 260, &rng), out = matrix(FMK_F32, 4, 64, 64);
    int32_t rows[4] = {19, 0, 7, 7}, there = 3;
    double want[4 * 64];
    for (int r = 0; r < 4; r++)
        expect_row(&part, 1, 0, &in, rows[r], want + 64 * r);
    fmk_linear_args args = args_of(&in, &out, 4);
    args.flags = FMK_LINEAR_EXACT;
    args.in_rows = buffer(rows, sizeof rows);
    OK(call(&b, weight, &args, false));
    assert_close(&out, want, 1e-6, "in_rows");

    memset(out.data, POISON, out.size);
    args.m_dev = buffer(&there, sizeof there);
    OK(call(&b, weight, &args, true));
    assert_row_untouched(&out, 3);
    out.rows = 3;
    assert_close(&out, want, 1e-6, "m_dev");
    out.rows = 4;
    there = -5;
    memset(out.data, POISON, out.size);
    OK(call(&b, weight, &args, true));
    assert_row_untouched(&out, 0);
    there = 1000; /* counts as m */
    OK(call(&b, weight, &args, true));
    assert_close(&out, want, 1e-6, "m_dev past m");

    if (!on_gpu()) { /* there the host never sees the numbers */
        rows[2] = 20;
        REFUSED(call(&b, weight, &args, true), FMK_EINVAL, "in_rows[2] is 20");
        rows[2] = -1;
        REFUSED(call(&b, weight, &args, true), FMK_EINVAL, "in_rows[2] is -1");
    }
    free_matrix(&in);
    free_matrix(&out);
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

static void caller_for(void *user, void (*body)(void *arg, int64_t i), void *arg, int64_t count) {
    ++*(int *)user;
    for (int64_t i = count; i-- > 0;)
        body(arg, i);
}

/* The bits are the same whatever the threads and the workspace; with BATCH_INVARIANT, whatever m and the
 * row's place. On a GPU the plan depends on the workspace; the same call has the same bits. */
static void test_same_bits(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/bits");
    enum { M = 70, N = 200, K = 1024 };
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_weight part;
        int64_t n = samples[s].spec.format == FMK_FORMAT_MARLIN ? 192 : N;
        make_sample(&part, s, n, K, &rng);
        struct matrix in = random_matrix(FMK_F32, M, K, K, &rng), first = matrix(FMK_F32, M, n, n);
        static const uint32_t flags[] = {0, FMK_LINEAR_BATCH_INVARIANT, FMK_LINEAR_EXACT,
                                         FMK_LINEAR_EXACT | FMK_LINEAR_BATCH_INVARIANT};
        for (int f = 0; f < 4; f++) {
            for (int variant = 0; variant < 5; variant++) {
                if ((on_gpu() && variant == 3) || (variant == 4 && !(flags[f] & FMK_LINEAR_BATCH_INVARIANT)))
                    continue;
                if (test_backend() == FMK_BACKEND_VULKAN && (s || f) && (variant == 1 || variant == 2))
                    continue; /* threads only pack weights there */
                int calls = 0;
                fmk_context_desc desc = context_desc(variant == 1 ? 1 : 2);
                if (variant == 2) {
                    desc.parallel_for = caller_for;
                    desc.parallel_user = &calls;
                }
                struct bench b = bench_of(&desc);
                fmk_weight *weight = make_weight(&b, &part, 1, 0);
                struct matrix out = matrix(FMK_F32, M, n, n);
                fmk_linear_args args = args_of(&in, &out, M);
                args.flags = flags[f];
                if (variant == 4) /* row by row */
                    for (int64_t r = 0; r < M; r++) {
                        args.m = 1;
                        args.in = buffer(in.data + r * K * 4, K * 4);
                        args.out = buffer(out.data + r * n * 4, (size_t)n * 4);
                        OK(call(&b, weight, &args, true));
                    }
                else
                    OK(call(&b, weight, &args, variant != 3));
                if (variant == 0)
                    memcpy(first.data, out.data, out.size);
                else
                    assert_memory_equal(first.data, out.data, out.size);
                assert_true(variant != 2 || on_gpu() || calls > 0);
                free_matrix(&out);
                fmk_weight_destroy(weight, b.queue);
                close_bench(&b);
            }
        }
        free_matrix(&in);
        free_matrix(&first);
        ref_free(&part);
    }
}

/* One row with a value that is not a number gives a row of NaN, and leaves the others alone. */
static void test_not_finite(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/nan");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_weight part;
        make_sample(&part, s, 64, 256, &rng);
        fmk_weight *weight = make_weight(&b, &part, 1, 0);
        struct matrix in = random_matrix(FMK_F32, 5, 256, 256, &rng), out = matrix(FMK_F32, 5, 64, 64);
        ((float *)in.data)[2 * 256 + 77] = NAN;
        for (int i = 0; i < 3; i++) {
            fmk_linear_args args = args_of(&in, &out, 5);
            args.flags = modes[i];
            OK(call(&b, weight, &args, true));
            for (int64_t r = 0; r < 5; r++)
                for (int64_t c = 0; c < 64; c++)
                    assert_int_equal(isnan(at(&out, r, c)) != 0, r == 2);
        }
        free_matrix(&in);
        free_matrix(&out);
        fmk_weight_destroy(weight, b.queue);
        ref_free(&part);
    }
    close_bench(&b);
}

/* in and out as columns of one matrix share an address range and no element. */
static void test_overlap(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/overlap");
    struct bench b = open_bench(1);
    struct ref_weight part;
    make_sample(&part, 0, 64, 256, &rng);
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    struct matrix both = random_matrix(FMK_F32, 3, 320, 320, &rng);
    double want[3 * 64];
    for (int r = 0; r < 3; r++)
        expect_row(&part, 1, 0, &both, r, want + 64 * r);
    fmk_linear_args args = args_of(&both, &both, 3);
    args.out.offset = 256 * 4;
    args.out.size -= 256 * 4;
    OK(call(&b, weight, &args, true));
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 64; c++)
            assert_true(fabs(at(&both, r, 256 + c) - want[r * 64 + c]) < 1e-4);
    args.out.offset -= 4;
    REFUSED(call(&b, weight, &args, true), FMK_EINVAL, "out overlaps in");
    args.out.offset = 0; /* the same with out in front */
    args.in.offset = 64 * 4;
    args.in.size -= 64 * 4;
    OK(call(&b, weight, &args, true));
    args.in.offset -= 4;
    REFUSED(call(&b, weight, &args, true), FMK_EINVAL, "out overlaps in");
    free_matrix(&both);
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

static void test_explain(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("linear/explain");
    struct bench b = open_bench(1);
    struct ref_weight part;
    make_sample(&part, 7, 64, 256, &rng);
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    fmk_linear_args args = {.struct_size = sizeof args,
                            .m = 1,
                            .in_type = FMK_F32,
                            .out_type = FMK_F32,
                            .flags = FMK_LINEAR_REFERENCE};
    char text[4096];
    size_t needed, again;
    OK(fmk_explain(weight, &args, text, sizeof text, &needed));
    assert_int_equal(needed, strlen(text) + 1);
    if (on_gpu()) {
        assert_non_null(strstr(text, test_backend() == FMK_BACKEND_CUDA ? ": cuda." : ": vulkan."));
    } else {
        assert_non_null(strstr(text, ": cpu.reference\n"));
        assert_non_null(strstr(text, "not cpu.portable: the call asks for REFERENCE\n"));
    }
    char small[10];
    OK(fmk_explain(weight, &args, small, sizeof small, &again));
    assert_int_equal(again, needed);
    assert_memory_equal(small, text, 9);
    assert_int_equal(small[9], 0);
    OK(fmk_explain(weight, &args, NULL, 0, &again));
    assert_int_equal(again, needed);
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

/* More rows than a task of the CPU takes, in one call and in pieces of 16 and more, which choose the same
 * kernels: the bits are the same, also with gate and up, and in the least workspace. */
static void test_many_rows(void **state) {
    (void)state;
    if (on_gpu()) { /* the plan depends on m and on the workspace */
        skip();
        return;
    }
    struct ref_rng rng = ref_rng_start("linear/many_rows");
    enum { M = 1100, N = 80, K = 512 };
    static const int64_t pieces[] = {16, 37, 600, M - 653};
    struct bench b = open_bench(3);
    for (int s = 0; s < NUM_SAMPLES; s += quick() ? 4 : 1) {
        struct ref_weight parts[2];
        int64_t n = samples[s].spec.format == FMK_FORMAT_MARLIN ? 64 : N;
        make_sample(&parts[0], s, n, K, &rng);
        make_sample(&parts[1], s, n, K, &rng);
        fmk_weight *weight = make_weight(&b, parts, 2, FMK_WEIGHT_GLU);
        struct matrix in = random_matrix(FMK_F32, M, K, K, &rng);
        for (int act = 0; act < 2; act++) {
            int64_t width = act ? n : 2 * n, row = 0;
            struct matrix whole = matrix(FMK_F32, M, width, width), out = matrix(FMK_F32, M, width, width);
            fmk_linear_args args = args_of(&in, &whole, M);
            args.act = act ? FMK_ACT_SILU_MUL : FMK_ACT_NONE;
            OK(call(&b, weight, &args, true));
            for (int i = 0; i < 4; row += pieces[i++]) {
                args.m = pieces[i];
                args.in = buffer(in.data + row * K * 4, (size_t)(pieces[i] * K * 4));
                args.out = buffer(out.data + row * width * 4, (size_t)(pieces[i] * width * 4));
                OK(call(&b, weight, &args, i != 1));
            }
            assert_memory_equal(whole.data, out.data, whole.size);
            free_matrix(&whole);
            free_matrix(&out);
        }
        free_matrix(&in);
        fmk_weight_destroy(weight, b.queue);
        ref_free(&parts[0]);
        ref_free(&parts[1]);
    }
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_many_strips),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_addend),
        cmocka_unit_test(test_glu),
        cmocka_unit_test(test_gather_and_device_m),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_explain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
