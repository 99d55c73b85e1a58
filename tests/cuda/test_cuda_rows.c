/* Every CUDA row of the kernel table that this device can run, through the public API: every m in 1..33 and
 * 64, 100, 512; n and k at the edges of tiles; every type of activations; weights whose scales are 0, the
 * smallest and the largest of f16. At the end the rows that no call chose are named, and are a failure. */
#include "calls.h"

#include "context.h"
#include "plan/kernels.h"

#include <stdio.h>

enum { MOST = 512, MOST_ROWS = 64 };

/* The largest m of this run. */
static int64_t most(void) {
    return quick() ? 100 : MOST;
}

static const fmk_dtype types[] = {FMK_F16, FMK_BF16, FMK_F32};

/* ---- what ran ---- */

static int64_t runs[MOST_ROWS];

static void count_rows(const fmk_weight *weight, const fmk_linear_args *args) {
    char text[8192];
    size_t needed;
    OK(fmk_explain(weight, args, text, sizeof text, &needed));
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        char chosen[64]; /* "part 0: ..., layout q4_k.t16: cuda.q4_k.mma" */
        assert_true(i < MOST_ROWS);
        snprintf(chosen, sizeof chosen, ": %s\n", fmk_kernel_row(i)->name);
        const char *first_line_end = strchr(text, '\n'), *found = strstr(text, chosen);
        runs[i] += found && found < first_line_end;
    }
}

/* ---- one weight ---- */

/* A weight and activations of MOST rows, as double, and their product. */
struct subject {
    struct ref_weight part;
    fmk_weight *weight;
    struct matrix in;
    double *want; /* [MOST][n] */
    double *size; /* [n]: of the row of weights */
    double norm;  /* of the products of one row of activations, on average over such rows */
};

static void multiply(struct subject *s, int64_t n, int64_t k) {
    double *x = malloc((size_t)k * sizeof *x);
    s->want = malloc((size_t)(MOST * n) * sizeof *s->want);
    s->size = calloc((size_t)n, sizeof *s->size);
    assert_true(x && s->want && s->size);
    double squares = 0;
    for (int64_t j = 0; j < n; j++) {
        double bias = s->part.bias ? ref_bias(&s->part, 0, j) : 0;
        s->size[j] = norm_of(s->part.values + j * k, k);
        squares += s->size[j] * s->size[j] + bias * bias;
    }
    s->norm = sqrt(squares);
    for (int64_t m = 0; m < most(); m++) {
        for (int64_t i = 0; i < k; i++)
            x[i] = at(&s->in, m, i);
        for (int64_t j = 0; j < n; j++) {
            double sum = s->part.bias ? ref_bias(&s->part, 0, j) : 0;
            for (int64_t i = 0; i < k; i++)
                sum += x[i] * s->part.values[j * k + i];
            s->want[m * n + j] = sum;
        }
    }
    free(x);
}

/* ---- one call ---- */

/* What the largest finite number of a type, and half a unit past it, is: from there on results are infinite.
 */
static double limit_of(fmk_dtype type) {
    return type == FMK_F16 ? 65520 : 0x1.ffp127;
}

/* Weights of very different rows: each row of the weight is held to its own size in the exact modes; in the
 * default mode to the largest, which sets the unit in which half precision holds the weights. Results past
 * the output's type are infinite, of either sign where the slack leaves it open; nothing is not a number. */
static void check_extremes(const struct subject *s, const struct matrix *out, bool exact, fmk_dtype in,
                           const char *what) {
    int64_t k = s->in.width;
    double largest = 0, unit = bound_of(exact ? FMK_LINEAR_EXACT : 0, in, out->type, 1, k);
    for (int64_t j = 0; j < out->width; j++)
        largest = s->size[j] > largest ? s->size[j] : largest;
    for (int64_t m = 0; m < out->rows; m++)
        for (int64_t j = 0; j < out->width; j++) {
            double want = s->want[m * out->width + j], got = at(out, m, j), limit = limit_of(out->type);
            double slack = unit * (8 * s->size[j] + fabs(want)) + (exact ? 0 : 0x1p-20 * largest) + 0x1p-24;
            bool past = fabs(want) + slack >= limit;
            if (past && isinf(got) && (got * want > 0 || fabs(want) <= slack))
                continue;
            if (!(fabs(got - want) <= slack) || (fabs(want) - slack > limit))
                fail_msg("%s, m %lld of %lld, n %lld: want %g +- %g got %g", what, (long long)m,
                         (long long)out->rows, (long long)j, want, slack, got);
        }
}

/* With N(0,1) activations a result's variance is the square of its row of weights. A few results may all be
 * nearly nothing, by cancellation that leaves the roundings of the sums where they were: errors are held to
 * what the results are on average, where that is more. */
static void check_call(struct bench *b, const struct subject *s, fmk_dtype out_type, int64_t m,
                       uint32_t flags, bool generous, const char *what) {
    int64_t n = s->part.part.n;
    struct matrix out = matrix(out_type, m, n, n + m % 3);
    fmk_linear_args args = {
        .struct_size = sizeof args,
        .flags = flags,
        .m = m,
        .in_type = s->in.type,
        .out_type = out_type,
        .in_stride = s->in.stride,
        .out_stride = out.stride,
        .in = buffer(s->in.data, (size_t)(((m - 1) * s->in.stride + s->in.width) * ref_size(s->in.type))),
        .out = buffer_of(&out)};
    bool exact = flags & (FMK_LINEAR_EXACT | FMK_LINEAR_REFERENCE);
    char name[128];
    snprintf(name, sizeof name, "%s, n %lld k %lld m %lld, types %d to %d, flags %u", what, (long long)n,
             (long long)s->in.width, (long long)m, s->in.type, out_type, flags);
    fmk_status status = call(b, s->weight, &args, generous);
    if (status)
        fail_msg("%s: %s: %s", name, fmk_status_name(status), fmk_last_error());
    count_rows(s->weight, &args);
    if (what[0] == '!')
        check_extremes(s, &out, exact, s->in.type, name);
    else
        assert_within(&out, s->want, fmax(norm_of(s->want, m * n), sqrt((double)m) * s->norm),
                      bound_of(flags, s->in.type, out_type, m, s->in.width), name);
    assert_gaps_untouched(&out);
    free_matrix(&out);
}

static void check_shape(struct bench *b, const struct ref_spec *spec, const char *what, struct ref_rng *rng) {
    static const uint32_t modes[] = {0, FMK_LINEAR_BATCH_INVARIANT, FMK_LINEAR_EXACT, FMK_LINEAR_REFERENCE};
    for (int t = 0; t < 3; t++) {
        struct subject s = {.in = random_matrix(types[t], MOST, spec->k, spec->k + 8 * (t % 2), rng)};
        ref_make(&s.part, spec, rng);
        s.weight = make_weight(b, &s.part, 1, 0);
        multiply(&s, spec->n, spec->k);
        int i = 0;
        for (int64_t m = 1; m <= MOST; i++) {
            bool rare = m % 8 > 1 && m < 64; /* REFERENCE and EXACT have no tiles of m */
            for (int mode = 0; mode < (rare ? 2 : 4); mode++)
                check_call(b, &s, types[(t + i + mode) % 3], m, modes[mode], (i + mode) % 4, what);
            m = quick()    ? (m == 1    ? 9
                              : m == 9  ? 33
                              : m == 33 ? 100
                                        : MOST + 1)
                : m == 33  ? 64
                : m == 64  ? 100
                : m == 100 ? MOST
                           : m + 1;
        }
        fmk_weight_destroy(s.weight, b->queue);
        free_matrix(&s.in);
        ref_free(&s.part);
        free(s.want);
        free(s.size);
    }
}

/* ---- the shapes ---- */

static void run_shapes(const char *name, const struct ref_spec *specs, int count) {
    struct ref_rng rng = ref_rng_start(name);
    struct bench b = open_bench(1);
    for (int i = 0; i < count; i++)
        if (!quick() || i % 5 == 1 || specs[i].extremes)
            check_shape(&b, &specs[i], specs[i].extremes ? "! extreme weights" : name, &rng);
    close_bench(&b);
}

static void test_dense(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 8},    {15, 64},  {16, 72}, {17, 248}, {31, 256},
                                        {33, 264}, {65, 520}, {9, 7},   {40, 129}, {128, 1024}};
    struct ref_spec specs[33];
    int count = 0;
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < 10; i++)
            specs[count++] = (struct ref_spec){.format = FMK_FORMAT_DENSE,
                                               .dtype = types[t],
                                               .n = shapes[i][0],
                                               .k = shapes[i][1],
                                               .bias = i % 2 ? types[i % 3] : 0};
        if (types[t] == FMK_F16)
            specs[count++] = (struct ref_spec){
                .format = FMK_FORMAT_DENSE, .dtype = types[t], .n = 33, .k = 256, .extremes = true};
    }
    run_shapes("dense", specs, count);
}

static void test_int4(void **state) {
    (void)state;
    static const struct ref_spec specs[] = {
        {.n = 8, .k = 32, .group_size = 32},
        {.n = 16, .k = 128, .group_size = 128, .zeros = REF_ZEROS_RANDOM},
        {.n = 24, .k = 256, .group_size = 64, .dtype = FMK_BF16, .bias = FMK_F16},
        {.n = 72, .k = 640, .group_size = 128, .zeros = REF_ZEROS_ALL_7},
        {.n = 40, .k = 200, .group_size = 64, .zeros = REF_ZEROS_RANDOM},
        {.n = 16, .k = 304, .group_size = 48, .zeros = REF_ZEROS_RANDOM},
        {.n = 32, .k = 1024, .group_size = -1, .dtype = FMK_F32, .zeros = REF_ZEROS_RANDOM},
        {.n = 64, .k = 384, .group_size = 64, .zeros = REF_ZEROS_RANDOM, .groups = REF_GROUPS_SHUFFLED},
        {.n = 8, .k = 512, .group_size = 32, .zeros = REF_ZEROS_RANDOM, .groups = REF_GROUPS_UNEQUAL},
        {.n = 16, .k = 64, .group_size = 8, .zeros = REF_ZEROS_RANDOM},
        {.n = 136, .k = 384, .group_size = 96, .dtype = FMK_BF16, .groups = REF_GROUPS_NEGATIVE},
        {.n = 48, .k = 256, .group_size = 128, .zeros = REF_ZEROS_RANDOM, .extremes = true},
    };
    struct ref_spec all[12];
    for (int i = 0; i < 12; i++) {
        all[i] = specs[i];
        all[i].format = FMK_FORMAT_GPTQ_V2;
    }
    run_shapes("int4", all, 12);
}

static void k_quants(const char *name, fmk_format format) {
    static const int64_t shapes[][2] = {{1, 256},  {15, 512},  {16, 768},   {17, 256},
                                        {33, 512}, {65, 1280}, {128, 2304}, {48, 512}};
    struct ref_spec specs[8];
    for (int i = 0; i < 8; i++)
        specs[i] = (struct ref_spec){.format = format,
                                     .n = shapes[i][0],
                                     .k = shapes[i][1],
                                     .extremes = i == 7,
                                     .misalign = i % 3 ? 2 : 0};
    run_shapes(name, specs, 8);
}

static void test_q4_k(void **state) {
    (void)state;
    k_quants("q4_k", FMK_FORMAT_Q4_K);
}

static void test_q6_k(void **state) {
    (void)state;
    k_quants("q6_k", FMK_FORMAT_Q6_K);
}

static void test_all_rows_ran(void **state) {
    (void)state;
    struct bench b = open_bench(1);
    int missing = 0, lacking = 0;
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        const struct fmk_kernel *row = fmk_kernel_row(i);
        if (row->backend != FMK_BACKEND_CUDA)
            continue;
        bool lacks = row->needs & ~b.ctx->features;
        print_message("%-24s %s%lld calls\n", row->name,
                      lacks ? "skipped, this device or run lacks a feature: " : "", (long long)runs[i]);
        lacking += lacks;
        missing += !lacks && !runs[i];
    }
    print_message("%d kernels skipped\n", lacking);
    assert_int_equal(missing, 0);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense), cmocka_unit_test(test_int4),         cmocka_unit_test(test_q4_k),
        cmocka_unit_test(test_q6_k),  cmocka_unit_test(test_all_rows_ran),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
