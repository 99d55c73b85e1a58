/* Stacked experts: every kind of routing, against the same products one by one in double. */
#include "calls.h"

enum { EXPERTS = 5, TOP_K = 3, TOKENS = 23, N = 72, K = 256 };

struct fixture {
    struct ref_rng rng;
    struct bench bench;
    struct ref_weight part;
    fmk_weight *weight;
    int32_t ids[TOKENS * TOP_K];
    float weights[TOKENS * TOP_K];
};

static const struct ref_spec specs[] = {
    {.format = FMK_FORMAT_Q4_K, .n = N, .k = K, .experts = EXPERTS},
    {.format = FMK_FORMAT_GPTQ,
     .n = N,
     .k = K,
     .experts = EXPERTS,
     .group_size = 32,
     .bias = FMK_F16,
     .zeros = REF_ZEROS_RANDOM,
     .groups = REF_GROUPS_UNEQUAL},
    {.format = FMK_FORMAT_DENSE, .n = N, .k = K, .experts = EXPERTS, .dtype = FMK_F16, .bias = FMK_F32},
};
enum { SPECS = sizeof specs / sizeof specs[0] };

/* Ids from -1 (nobody) to EXPERTS + 1 (two experts of another rank); some token has all slots skipped. */
static void start(struct fixture *f, int spec, uint32_t flags) {
    f->rng = ref_rng_start("routing");
    f->bench = open_bench(2);
    ref_make(&f->part, &specs[spec], &f->rng);
    f->weight = make_weight(&f->bench, &f->part, 1, flags);
    for (int i = 0; i < TOKENS * TOP_K; i++) {
        f->ids[i] = (int32_t)ref_below(&f->rng, EXPERTS + 3) - 1;
        f->weights[i] = (float)ref_normal(&f->rng);
    }
    for (int s = 0; s < TOP_K; s++)
        f->ids[4 * TOP_K + s] = s ? EXPERTS : -1;
}

static void stop(struct fixture *f) {
    fmk_weight_destroy(f->weight, f->bench.queue);
    ref_free(&f->part);
    close_bench(&f->bench);
}

static bool served(int32_t id) {
    return id >= 0 && id < EXPERTS;
}

static fmk_linear_args args_of(const struct matrix *in, const struct matrix *out, int64_t m,
                               const fmk_routing *routing) {
    return (fmk_linear_args){.struct_size = sizeof(fmk_linear_args),
                             .flags = FMK_LINEAR_EXACT,
                             .m = m,
                             .in_type = in->type,
                             .out_type = out->type,
                             .in_stride = in->stride,
                             .out_stride = out->stride,
                             .in = buffer_of(in),
                             .out = buffer_of(out),
                             .routing = routing};
}

static void assert_row(const struct matrix *out, int64_t row, const double *want, const char *what) {
    struct matrix one = *out;
    one.data += row * out->stride * ref_size(out->type);
    one.rows = 1;
    assert_close(&one, want, 2e-6, what);
}

/* Pair rows: ids, the same sorted by the library, and the same in a workspace of the least size. */
static void pairs_case(struct fixture *f, bool per_pair, bool weighted, int form) {
    int64_t in_rows = per_pair ? TOKENS * TOP_K : TOKENS;
    struct matrix in = random_matrix(FMK_F32, in_rows, K, K + 1, &f->rng);
    struct matrix out = matrix(FMK_F32, TOKENS * TOP_K, N, N + 3);
    struct matrix delta = random_matrix(FMK_F16, TOKENS * TOP_K, N, N, &f->rng);
    fmk_routing routing = {.struct_size = sizeof routing,
                           .kind = FMK_ROUTE_IDS,
                           .top_k = TOP_K,
                           .in_per_pair = per_pair,
                           .ids = buffer(f->ids, sizeof f->ids)};
    int32_t offsets[EXPERTS + 1], order[TOKENS * TOP_K];
    if (form) {
        fmk_routing sorted = {.struct_size = sizeof sorted,
                              .offsets = buffer(offsets, sizeof offsets),
                              .pairs = buffer(order, sizeof order)};
        OK(run_route_sort(f->bench.queue, &routing, TOKENS, EXPERTS, &sorted));
        routing.kind = FMK_ROUTE_SORTED;
        routing.ids = (fmk_buffer){0};
        routing.offsets = sorted.offsets;
        routing.pairs = sorted.pairs;
    }
    if (weighted)
        routing.pair_weights = buffer(f->weights, sizeof f->weights);
    fmk_linear_args args = args_of(&in, &out, TOKENS, &routing);
    args.addend = buffer_of(&delta);
    args.addend_type = delta.type;
    OK(call(&f->bench, f->weight, &args, form != 1));
    for (int64_t p = 0; p < TOKENS * TOP_K; p++) {
        if (!served(f->ids[p])) {
            assert_row_untouched(&out, p);
            continue;
        }
        double want[N];
        expect_row(&f->part, 1, f->ids[p], &in, per_pair ? p : p / TOP_K, want);
        for (int c = 0; c < N; c++)
            want[c] = (want[c] + at(&delta, p, c)) * (weighted ? (double)f->weights[p] : 1);
        assert_row(&out, p, want, "pair");
    }
    free_matrix(&in);
    free_matrix(&out);
    free_matrix(&delta);
}

static void test_pairs(void **state) {
    (void)state;
    for (int s = 0; s < SPECS; s++) {
        struct fixture f;
        start(&f, s, 0);
        for (int i = 0; i < 12; i++)
            pairs_case(&f, i & 1, i & 2, i / 4);
        stop(&f);
    }
}

static void test_sort(void **state) {
    (void)state;
    struct fixture f;
    start(&f, 0, 0);
    int32_t offsets[EXPERTS + 1], order[TOKENS * TOP_K];
    fmk_routing ids = {
        .struct_size = sizeof ids, .top_k = TOP_K, .expert_base = 1, .ids = buffer(f.ids, sizeof f.ids)};
    fmk_routing sorted = {.struct_size = sizeof sorted,
                          .offsets = buffer(offsets, sizeof offsets),
                          .pairs = buffer(order, sizeof order)};
    OK(run_route_sort(f.bench.queue, &ids, TOKENS, EXPERTS, &sorted));
    int count = 0;
    assert_int_equal(offsets[0], 0);
    for (int e = 0; e < EXPERTS; e++)
        for (int i = offsets[e]; i < offsets[e + 1]; i++, count++) {
            assert_int_equal(f.ids[order[i]], e + 1);
            assert_true(i == offsets[e] || order[i] > order[i - 1]); /* stable */
        }
    for (int i = 0; i < TOKENS * TOP_K; i++)
        count -= f.ids[i] >= 1 && f.ids[i] <= EXPERTS;
    assert_int_equal(count, 0);
    fmk_routing over = sorted;
    over.pairs = ids.ids;
    REFUSED(run_route_sort(f.bench.queue, &ids, TOKENS, EXPERTS, &over), FMK_EINVAL, "overlap");
    ids.top_k = 0;
    REFUSED(run_route_sort(f.bench.queue, &ids, TOKENS, EXPERTS, &sorted), FMK_EINVAL, "ids.top_k 0");
    stop(&f);
}

/* out[token] = sum over the slots that are served; 0 where none is. */
static void test_reduce(void **state) {
    (void)state;
    for (int s = 0; s < SPECS; s++)
        for (int generous = 0; generous < 2; generous++) {
            struct fixture f;
            start(&f, s, 0);
            struct matrix in = random_matrix(FMK_BF16, TOKENS * TOP_K, K, K, &f.rng);
            struct matrix out = matrix(FMK_F32, TOKENS, N, N);
            struct matrix delta = random_matrix(FMK_F32, TOKENS, N, N, &f.rng);
            fmk_routing routing = {.struct_size = sizeof routing,
                                   .kind = FMK_ROUTE_IDS,
                                   .top_k = TOP_K,
                                   .in_per_pair = 1,
                                   .ids = buffer(f.ids, sizeof f.ids),
                                   .pair_weights = buffer(f.weights, sizeof f.weights)};
            fmk_linear_args args = args_of(&in, &out, TOKENS, &routing);
            args.flags |= FMK_LINEAR_REDUCE_TOP_K;
            if (generous) {
                args.addend = buffer_of(&delta);
                args.addend_type = FMK_F32;
            }
            OK(call(&f.bench, f.weight, &args, generous));
            for (int64_t t = 0; t < TOKENS; t++) {
                double want[N] = {0}, one[N], norm = 0;
                for (int64_t p = t * TOP_K; p < (t + 1) * TOP_K; p++)
                    if (served(f.ids[p])) {
                        expect_row(&f.part, 1, f.ids[p], &in, p, one);
                        for (int c = 0; c < N; c++)
                            want[c] += one[c] * (double)f.weights[p];
                    }
                for (int c = 0; c < N; c++) {
                    want[c] += generous ? at(&delta, t, c) : 0;
                    norm += fabs(want[c]);
                }
                if (norm > 0)
                    assert_row(&out, t, want, "top-k sum");
                else
                    for (int c = 0; c < N; c++)
                        assert_true(at(&out, t, c) == 0);
            }
            free_matrix(&in);
            free_matrix(&out);
            free_matrix(&delta);
            stop(&f);
        }
}

/* Rows that lie grouped already; fewer than m. */
static void test_sorted_rows(void **state) {
    (void)state;
    for (int s = 0; s < SPECS; s++)
        for (int generous = 0; generous < 2; generous++) {
            struct fixture f;
            start(&f, s, 0);
            const int32_t offsets[EXPERTS + 1] = {0, 4, 4, 5, 17, 20};
            struct matrix in = random_matrix(FMK_F32, TOKENS, K, K, &f.rng);
            struct matrix out = matrix(FMK_F32, TOKENS, N, N);
            fmk_routing routing = {.struct_size = sizeof routing,
                                   .kind = FMK_ROUTE_SORTED,
                                   .offsets = buffer(offsets, sizeof offsets),
                                   .pair_weights = buffer(f.weights, sizeof f.weights)};
            fmk_linear_args args = args_of(&in, &out, TOKENS, &routing);
            OK(call(&f.bench, f.weight, &args, generous));
            for (int e = 0; e < EXPERTS; e++)
                for (int r = offsets[e]; r < offsets[e + 1]; r++) {
                    double want[N];
                    expect_row(&f.part, 1, e, &in, r, want);
                    for (int c = 0; c < N; c++)
                        want[c] *= (double)f.weights[r];
                    assert_row(&out, r, want, "sorted row");
                }
            for (int r = offsets[EXPERTS]; r < TOKENS; r++)
                assert_row_untouched(&out, r);
            free_matrix(&in);
            free_matrix(&out);
            stop(&f);
        }
}

static void test_batch_and_one(void **state) {
    (void)state;
    for (int s = 0; s < SPECS; s++) {
        struct fixture f;
        start(&f, s, 0);
        enum { M = 3 };
        struct matrix in = random_matrix(FMK_F32, EXPERTS * M, K, K, &f.rng);
        struct matrix out = matrix(FMK_F32, EXPERTS * M, N, N);
        fmk_routing routing = {.struct_size = sizeof routing,
                               .kind = FMK_ROUTE_BATCH,
                               .expert_in_stride = M * K,
                               .expert_out_stride = M * N};
        fmk_linear_args args = args_of(&in, &out, M, &routing);
        OK(call(&f.bench, f.weight, &args, s));
        for (int r = 0; r < EXPERTS * M; r++) {
            double want[N];
            expect_row(&f.part, 1, r / M, &in, r, want);
            assert_row(&out, r, want, "batch");
        }
        fmk_routing one = {.struct_size = sizeof one, .kind = FMK_ROUTE_NONE, .expert = 3};
        args = args_of(&in, &out, EXPERTS * M, &one);
        OK(call(&f.bench, f.weight, &args, true));
        for (int r = 0; r < EXPERTS * M; r++) {
            double want[N];
            expect_row(&f.part, 1, 3, &in, r, want);
            assert_row(&out, r, want, "one expert");
        }
        free_matrix(&in);
        free_matrix(&out);
        stop(&f);
    }
}

/* More experts and pairs than one block of a GPU's threads takes at once, in a workspace that holds nothing
 * of a call before: ids, and the same as offsets. */
static void test_many_experts(void **state) {
    (void)state;
    enum { MANY = 700, ROWS = 16, COLUMNS = 32, M = 650, SLOTS = 2 };
    const struct ref_spec spec = {
        .format = FMK_FORMAT_DENSE, .n = ROWS, .k = COLUMNS, .experts = MANY, .dtype = FMK_F16};
    struct ref_rng rng = ref_rng_start("routing/many");
    struct bench b = open_bench(2);
    struct ref_weight part;
    ref_make(&part, &spec, &rng);
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    static int32_t ids[M * SLOTS], offsets[MANY + 1], order[M * SLOTS];
    for (int i = 0; i < M * SLOTS; i++) /* some experts with many tokens, most with few or none */
        ids[i] = (int32_t)ref_below(&rng, ref_below(&rng, 4) ? MANY : 9);
    struct matrix in = random_matrix(FMK_F32, M, COLUMNS, COLUMNS, &rng);
    struct matrix out = matrix(FMK_F32, M * SLOTS, ROWS, ROWS);
    fmk_routing routing = {
        .struct_size = sizeof routing, .kind = FMK_ROUTE_IDS, .top_k = SLOTS, .ids = buffer(ids, sizeof ids)};
    fmk_routing sorted = {.struct_size = sizeof sorted,
                          .offsets = buffer(offsets, sizeof offsets),
                          .pairs = buffer(order, sizeof order)};
    OK(run_route_sort(b.queue, &routing, M, MANY, &sorted));
    for (int form = 0; form < 2; form++) {
        if (form) {
            routing.kind = FMK_ROUTE_SORTED;
            routing.ids = (fmk_buffer){0};
            routing.offsets = sorted.offsets;
            routing.pairs = sorted.pairs;
        }
        fmk_linear_args args = args_of(&in, &out, M, &routing);
        memset(out.data, POISON, out.size);
        OK(call(&b, weight, &args, true));
        for (int64_t p = 0; p < M * SLOTS; p++) {
            double want[ROWS];
            expect_row(&part, 1, ids[p], &in, p / SLOTS, want);
            assert_row(&out, p, want, form ? "sorted by the library" : "ids");
        }
    }
    free_matrix(&in);
    free_matrix(&out);
    fmk_weight_destroy(weight, b.queue);
    ref_free(&part);
    close_bench(&b);
}

static void test_refusals(void **state) {
    (void)state;
    struct fixture f;
    start(&f, 0, 0);
    struct matrix in = random_matrix(FMK_F32, TOKENS * TOP_K, K, K, &f.rng);
    struct matrix out = matrix(FMK_F32, TOKENS * TOP_K, N, N);
    int32_t offsets[EXPERTS + 1] = {0, 1, 2, 3, 4, 5}, order[TOKENS * TOP_K] = {0, 1, 2, 3, 4};
    fmk_routing routing = {.struct_size = sizeof routing,
                           .kind = FMK_ROUTE_SORTED,
                           .top_k = TOP_K,
                           .offsets = buffer(offsets, sizeof offsets),
                           .pairs = buffer(order, sizeof order)};
    fmk_linear_args args = args_of(&in, &out, TOKENS, &routing);
    OK(call(&f.bench, f.weight, &args, true));
    memset(out.data, POISON, out.size);
    if (!on_gpu()) { /* there the host never sees the numbers */
        order[2] = TOKENS * TOP_K;
        REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.pairs[2] is 69");
        order[2] = -1;
        REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.pairs[2] is -1");
        order[2] = 2;
        order[4] = 1; /* and more of them than the least workspace has room for */
        REFUSED(call(&f.bench, f.weight, &args, false), FMK_EINVAL,
                "routing.pairs[4] is 1, which comes a second");
        order[4] = 4;
        offsets[3] = 1;
        REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.offsets[3] is 1");
        offsets[3] = 3;
        offsets[0] = 1;
        REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.offsets[0] is 1");
        offsets[0] = 0;
    }
    routing.pairs.offset = 2;
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.pairs is at address");
    routing.pairs.offset = 0;
    args.out = buffer((char *)offsets - out.size + 4, out.size);
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "out overlaps routing.offsets");
    args.out = buffer_of(&out);
    routing.top_k = 0;
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.top_k 0");
    routing.top_k = TOP_K;
    routing.kind = 9;
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.kind 9");
    routing.kind = FMK_ROUTE_BATCH;
    routing.expert_out_stride = 3 * out.stride - 1;
    args.m = 3;
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.expert_out_stride 215");
    args.m = TOKENS;
    routing.kind = FMK_ROUTE_NONE;
    routing.expert = EXPERTS;
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing.expert 5");
    args.routing = NULL;
    REFUSED(call(&f.bench, f.weight, &args, true), FMK_EINVAL, "routing is NULL");
    for (int r = 0; r < TOKENS * TOP_K; r++)
        assert_row_untouched(&out, r);
    free_matrix(&in);
    free_matrix(&out);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),         cmocka_unit_test(test_sort),
        cmocka_unit_test(test_reduce),        cmocka_unit_test(test_sorted_rows),
        cmocka_unit_test(test_batch_and_one), cmocka_unit_test(test_many_experts),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
