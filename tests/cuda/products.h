/* For tests of the INT4 kernels themselves, with every tile: products of many kinds, what they should give,
 * and the arguments that src/cuda/linear.c would make of them. */
#ifndef FMK_TESTS_PRODUCTS_H
#define FMK_TESTS_PRODUCTS_H

#include "calls.h"

#include "abi.h"
#include "cuda/device.h"
#include "cuda/modules.h"
#include "../../kernels/args.h"
#include "weight.h"

#include <stdio.h>

enum { MOST_PARTS = 2 };

struct problem {
    const char *name;
    struct ref_spec part[MOST_PARTS];
    int32_t num_parts;
    int64_t m, first_row, m_dev; /* m_dev 0: none */
    bool glu;
    fmk_dtype out_type; /* 0: as `in` */
};

static const struct problem problems[] = {
    {.name = "whole tiles", .part = {{.n = 512, .k = 512, .group_size = 128}}, .num_parts = 1, .m = 128},
    {.name = "zero points, bias",
     .part = {{.n = 712, .k = 1160, .group_size = 128, .zeros = REF_ZEROS_RANDOM, .bias = FMK_F16}},
     .num_parts = 1,
     .m = 135},
    {.name = "one tile of tokens",
     .part = {{.n = 456, .k = 1216, .group_size = 64}, {.n = 72, .k = 1216, .group_size = 128}},
     .num_parts = 2,
     .m = 13},
    {.name = "two parts, groups of 32 and 64",
     .part = {{.n = 96, .k = 640, .group_size = 32, .zeros = REF_ZEROS_RANDOM},
              {.n = 280, .k = 640, .group_size = 64, .dtype = FMK_BF16}},
     .num_parts = 2,
     .m = 300,
     .first_row = 171},
    {.name = "odd rows, m of the device",
     .part = {{.n = 333, .k = 384, .group_size = 128, .bias = FMK_F16}},
     .num_parts = 1,
     .m = 70,
     .m_dev = 37,
     .out_type = FMK_F32},
    {.name = "gate and up",
     .part = {{.n = 328, .k = 256, .group_size = 128}, {.n = 328, .k = 256, .group_size = 128}},
     .num_parts = 2,
     .m = 67,
     .glu = true},
    {.name = "gate and up of different ranges",
     .part = {{.n = 72, .k = 256, .group_size = 128},
              {.n = 72, .k = 256, .group_size = 128, .extremes = true}},
     .num_parts = 2,
     .m = 40,
     .glu = true,
     .out_type = FMK_F32},
    {.name = "experts",
     .part = {{.n = 136, .k = 256, .group_size = 64, .experts = 3, .zeros = REF_ZEROS_RANDOM}},
     .num_parts = 1,
     .m = 33},
    {.name = "many tokens",
     .part = {{.n = 264, .k = 640, .group_size = 128, .bias = FMK_F16},
              {.n = 120, .k = 640, .group_size = 128, .zeros = REF_ZEROS_RANDOM}},
     .num_parts = 2,
     .m = 530},
    {.name = "units that come round", /* to the warps of int4_once, in each of a block's strips */
     .part = {{.n = 392, .k = 2048, .group_size = 128}},
     .num_parts = 1,
     .m = 11},
    {.name = "extreme scales",
     .part = {{.n = 64, .k = 256, .group_size = 128, .zeros = REF_ZEROS_RANDOM, .extremes = true}},
     .num_parts = 1,
     .m = 32,
     .out_type = FMK_F32},
};

/* Of one problem: numbers, and where they lie on the device. */
struct subject {
    const struct problem *problem;
    struct ref_weight part[MOST_PARTS];
    fmk_weight *weight;
    int64_t n, k, experts, columns; /* of all parts; of the output */
    struct matrix in;               /* [experts * m] */
    double *want;                   /* [experts * m][columns] */
    uint64_t in_there, out_there, m_there;
};

static inline int64_t rows_of(const struct subject *s) {
    return s->experts * s->problem->m;
}

static inline double product(const struct subject *s, int64_t row, int p, int64_t n) {
    int64_t expert = row / s->problem->m;
    double sum = s->part[p].bias ? ref_bias(&s->part[p], expert, n) : 0;
    for (int64_t k = 0; k < s->k; k++)
        sum += at(&s->in, row, k) * ref_value(&s->part[p], expert, n, k);
    return sum;
}

static inline void make_subject(struct subject *s, struct bench *b, const struct problem *problem,
                                fmk_dtype type, struct ref_rng *rng) {
    *s = (struct subject){.problem = problem, .k = problem->part[0].k, .experts = problem->part[0].experts};
    if (!s->experts)
        s->experts = 1;
    for (int p = 0; p < problem->num_parts; p++) {
        struct ref_spec spec = problem->part[p];
        spec.format = FMK_FORMAT_GPTQ_V2;
        ref_make(&s->part[p], &spec, rng);
        s->n += spec.n;
    }
    s->weight = make_weight(b, s->part, problem->num_parts, problem->glu ? FMK_WEIGHT_GLU : 0);
    s->columns = problem->glu ? s->n / 2 : s->n;
    s->in = random_matrix(type, rows_of(s), s->k, s->k + 8, rng);
    s->want = malloc((size_t)(rows_of(s) * s->columns) * sizeof *s->want);
    assert_non_null(s->want);
    for (int64_t row = 0; row < rows_of(s); row++) {
        double *want = s->want + row * s->columns;
        for (int p = 0; p < (problem->glu ? 1 : problem->num_parts); p++)
            for (int64_t n = 0; n < problem->part[p].n; n++) {
                *want = product(s, row, p, n);
                if (problem->glu)
                    *want *= product(s, row, 1, n) / (1 + exp(-*want));
                want++;
            }
    }
    s->in_there = gpu_alloc(s->in.size);
    gpu_write(s->in_there, s->in.data, s->in.size);
    s->m_there = gpu_alloc(4);
    int32_t m = (int32_t)problem->m_dev;
    gpu_write(s->m_there, &m, 4);
}

static inline void free_subject(struct subject *s, struct bench *b) {
    for (int p = 0; p < s->problem->num_parts; p++)
        ref_free(&s->part[p]);
    fmk_weight_destroy(s->weight, b->queue);
    free_matrix(&s->in);
    free(s->want);
    gpu_free(s->in_there);
    gpu_free(s->m_there);
}

/* What src/cuda/linear.c would make of it. */
static inline struct fmk_linear_kernel_args args_of(const struct subject *s, const struct matrix *out,
                                                    uint64_t there) {
    const struct problem *problem = s->problem;
    const struct fmk_packed *parts = s->weight->projection.parts;
    struct fmk_linear_kernel_args args = {0}, *l = &args;
    l->num_parts = problem->num_parts;
    l->glu = problem->glu;
    l->k = (int32_t)s->k;
    l->k_packed = (int32_t)parts[0].k_packed;
    l->in = (const void *)(uintptr_t)s->in_there;
    l->in_stride = s->in.stride;
    l->in_type = s->in.type;
    l->m = (int32_t)problem->m;
    l->first_row = (int32_t)problem->first_row;
    l->m_dev = problem->m_dev ? (const int32_t *)(uintptr_t)s->m_there : NULL;
    l->expert_in_stride = problem->m * s->in.stride;
    l->expert_out_stride = problem->m * out->stride;
    l->epilogue.out = (void *)(uintptr_t)there;
    l->epilogue.out_stride = out->stride;
    l->epilogue.out_type = out->type;
    l->epilogue.act = problem->glu ? FMK_ACT_SILU_MUL : 0;
    l->epilogue.up_column = (int32_t)(s->n / 2);
    int32_t column = 0;
    for (int32_t p = 0; p < problem->num_parts; p++) {
        l->part[p] = (struct fmk_linear_part){.data = parts[p].data,
                                              .bias = parts[p].bias,
                                              .expert_stride = parts[p].expert_stride,
                                              .stride = parts[p].stride,
                                              .n = (int32_t)parts[p].n,
                                              .column = column,
                                              .dtype = parts[p].dtype,
                                              .chunks = parts[p].chunks,
                                              .has_zeros = parts[p].has_zeros};
        column += l->part[p].n;
    }
    return args;
}

/* Enqueues the product. */
typedef void launch_function(const struct subject *s, struct bench *b,
                             const struct fmk_linear_kernel_args *args, const void *how);

static inline void run_product(const struct subject *s, struct bench *b, launch_function *launch,
                               const void *how, struct matrix *out, uint64_t there) {
    struct fmk_linear_kernel_args args = args_of(s, out, there);
    CUcontext before;
    OK(fmk_cuda_enter(b->ctx, &before));
    launch(s, b, &args, how);
    fmk_cuda_leave(b->ctx, before);
    gpu_wait(test_stream());
    gpu_read(out->data, there, out->size);
}

/* Rows that are not asked for stay as they are; where `twice`, bits are the same the second time. */
static inline void check_product(const struct subject *s, struct bench *b, launch_function *launch,
                                 const void *how, const char *name, bool twice) {
    static const uint8_t poison = 0x5a;
    const struct problem *problem = s->problem;
    fmk_dtype out_type = problem->out_type ? problem->out_type : s->in.type;
    struct matrix out = matrix(out_type, rows_of(s), s->columns, fmk_round_up(s->columns, 8) + 8);
    memset(out.data, poison, out.size);
    uint64_t there = gpu_alloc(out.size);
    gpu_write(there, out.data, out.size);
    run_product(s, b, launch, how, &out, there);
    if (twice) {
        uint8_t *first = malloc(out.size);
        assert_non_null(first);
        memcpy(first, out.data, out.size);
        run_product(s, b, launch, how, &out, there);
        assert_memory_equal(first, out.data, out.size);
        free(first);
    }
    gpu_free(there);
    int64_t m = problem->m_dev ? problem->m_dev : problem->m;
    double bound = bound_of(0, s->in.type, out_type, rows_of(s), s->k), error = 0, norm = 0, largest = 0;
    for (int64_t i = 0; i < rows_of(s) * s->columns; i++)
        largest = fmax(largest, fabs(s->want[i]));
    for (int64_t row = 0; row < rows_of(s); row++)
        for (int64_t column = 0; column < s->columns; column++) {
            double want = s->want[row * s->columns + column], got = at(&out, row, column);
            if (row % problem->m < problem->first_row || row % problem->m >= m) {
                const uint8_t *bytes = out.data + (row * out.stride + column) * ref_size(out_type);
                assert_int_equal(bytes[0], poison);
                continue;
            }
            if (!(fabs(got - want) <= 0.05 * largest))
                fail_msg("%s, %s, type %d: row %lld column %lld: want %g got %g", problem->name, name,
                         s->in.type, (long long)row, (long long)column, want, got);
            error += (got - want) * (got - want);
            norm += want * want;
        }
    /* Both factors of a gated output err. */
    if (sqrt(error / norm) > (problem->glu ? 2 : 1) * bound)
        fail_msg("%s, %s, type %d: relative L2 %g, bound %g", problem->name, name, s->in.type,
                 sqrt(error / norm), bound);
    assert_gaps_untouched(&out);
    free_matrix(&out);
}

/* A kernel's test of all problems. */
typedef void subject_test(const struct subject *s, struct bench *b, size_t number);

static inline void test_problems(struct bench *b, fmk_dtype type, struct ref_rng *rng,
                                 enum fmk_cuda_module module, subject_test *test) {
    CUcontext before;
    OK(fmk_cuda_enter(b->ctx, &before));
    OK(fmk_cuda_load(b->ctx, module));
    fmk_cuda_leave(b->ctx, before);
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
        struct subject s;
        make_subject(&s, b, &problems[i], type, rng);
        test(&s, b, i);
        free_subject(&s, b);
    }
}

#endif
