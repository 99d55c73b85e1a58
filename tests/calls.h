/* For tests of fmk_linear: random activations of any type, calls with every buffer fenced and poisoned, and
 * what they should give, in double. */
#ifndef FMK_TESTS_CALLS_H
#define FMK_TESTS_CALLS_H

#include "samples.h"

enum { FENCE = 64, POISON = 0x5a };

/* Memory of `size` bytes, filled with POISON, between two fences; align 256. */
static inline uint8_t *fenced(size_t size) {
    uint8_t *all = aligned_alloc(256, (size + 2 * 256 + 255) / 256 * 256);
    assert_non_null(all);
    memset(all, POISON, size + 2 * 256);
    return all + 256;
}

static inline void release(void *fenced_memory, size_t size) {
    uint8_t *memory = fenced_memory;
    for (int i = 1; i <= FENCE; i++)
        assert_int_equal(memory[-i], POISON);
    for (int i = 0; i < FENCE; i++)
        assert_int_equal(memory[size + (size_t)i], POISON);
    free(memory - 256);
}

/* rows x k numbers of `type` at distance `stride`, and their values. */
struct matrix {
    fmk_dtype type;
    int64_t rows, width, stride;
    size_t size;
    uint8_t *data;
};

static inline struct matrix matrix(fmk_dtype type, int64_t rows, int64_t width, int64_t stride) {
    struct matrix m = {type, rows, width, stride, (size_t)(((rows - 1) * stride + width) * ref_size(type)),
                       NULL};
    m.data = fenced(m.size);
    return m;
}

static inline struct matrix random_matrix(fmk_dtype type, int64_t rows, int64_t width, int64_t stride,
                                          struct ref_rng *rng) {
    struct matrix m = matrix(type, rows, width, stride);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c++)
            ref_store(type, m.data + (r * stride + c) * ref_size(type), ref_normal(rng));
    return m;
}

static inline double at(const struct matrix *m, int64_t row, int64_t column) {
    return ref_number(m->type, m->data + (row * m->stride + column) * ref_size(m->type));
}

static inline fmk_buffer buffer_of(const struct matrix *m) {
    return m->data ? buffer(m->data, m->size) : (fmk_buffer){0};
}

static inline void free_matrix(struct matrix *m) {
    if (m->data)
        release(m->data, m->size);
}

/* Columns past `width` of every row still hold poison. */
static inline void assert_gaps_untouched(const struct matrix *m) {
    size_t size = (size_t)ref_size(m->type);
    for (int64_t r = 0; r + 1 < m->rows; r++)
        for (size_t b = (size_t)(r * m->stride + m->width) * size; b < (size_t)((r + 1) * m->stride) * size;
             b++)
            assert_int_equal(m->data[b], POISON);
}

static inline void assert_row_untouched(const struct matrix *m, int64_t row) {
    size_t size = (size_t)ref_size(m->type);
    for (size_t b = 0; b < (size_t)m->width * size; b++)
        assert_int_equal(m->data[(size_t)(row * m->stride) * size + b], POISON);
}

/* in . W + bias of one row over the parts, [n]. */
static inline void expect_row(const struct ref_weight *parts, int num_parts, int64_t expert,
                              const struct matrix *in, int64_t row, double *out) {
    for (int p = 0; p < num_parts; p++) {
        int64_t n = ref_rows(&parts[p]), k = ref_columns(&parts[p]);
        for (int64_t j = 0; j < n; j++) {
            double sum = parts[p].bias ? ref_bias(&parts[p], expert, j) : 0;
            for (int64_t i = 0; i < k; i++)
                sum += at(in, row, i) * ref_value(&parts[p], expert, j, i);
            *out++ = sum;
        }
    }
}

static inline double act_of(const fmk_linear_args *a, double gate, double up) {
    double alpha = a->act_alpha ? (double)a->act_alpha : 1.702,
           limit = a->act_limit ? (double)a->act_limit : 7;
    switch (a->act) {
    case FMK_ACT_SILU_MUL:
        return gate / (1 + exp(-gate)) * up;
    case FMK_ACT_GELU_TANH_MUL:
        return 0.5 * gate *
               (1 + tanh(sqrt(2 / 3.14159265358979323846) * (gate + 0.044715 * gate * gate * gate))) * up;
    default:
        gate = gate > limit ? limit : gate;
        up = up > limit ? limit : up < -limit ? -limit : up;
        return gate / (1 + exp(-alpha * gate)) * (up + 1);
    }
}

/* The L2 norm of `count` numbers. */
static inline double norm_of(const double *numbers, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += numbers[i] * numbers[i];
    return sqrt(sum);
}

/* The L2 norm of out - want [rows][width]. */
static inline double error_norm(const struct matrix *out, const double *want) {
    double error = 0;
    for (int64_t r = 0; r < out->rows; r++)
        for (int64_t c = 0; c < out->width; c++) {
            double e = at(out, r, c) - want[r * out->width + c];
            error += e * e;
        }
    return sqrt(error);
}

/* The bound on a call's relative L2 with N(0,1) activations, on the CPU.
 *
 * Exact: 1e-6. Default: 16 activations are rounded to steps of their largest magnitude / 127, whose square
 * is 4.55 on average for 16 normal numbers. It itself is met, so the error is sqrt(15/16 * 4.55 / 12) / 127 =
 * 4.7e-3 of the result. All outputs of a row share its rounding, and weights can be nearly constant, so error
 * and result are sums of as few as D = m * k / 16 independent squares. The root of their quotient has a
 * standard deviation of about 1 / sqrt(D) and a long tail: six of them are allowed. Rounding the result to
 * its type adds at most half a unit in the last place of each element.
 *
 * With FAST_REDUCE, 256 share a step, and the square of the largest of so many is 9 on average: 6.8e-3. Of
 * weights it may be as much, or where codes are spread evenly and their scales far apart, more: 1e-2
 * together. */
static inline double cpu_bound(uint32_t flags, int64_t m, int64_t k, double rounding) {
    bool fast = flags & FMK_LINEAR_FAST_REDUCE;
    return (fast ? 1e-2 : 4.7e-3) * (1 + 6 * sqrt((fast ? 256 : 16) / (double)(m * k))) + rounding;
}

/* The same on a GPU, where activations keep their type and tensor cores add up in float.
 *
 * Rounding a number to a type of unit roundoff u errs by u / sqrt(3) * 0.72 of it: half a unit in the last
 * place, evenly spread, over the numbers of a binade. That is 2.0e-4 for f16 and 1.6e-3 for bf16. It happens
 * to the result, and in plans that hand weights to cuBLAS to each weight once, independently: together
 * sqrt(2) of it, 2.9e-4 and 2.3e-3. f32 in and out passes through neither: sums of float. On Vulkan
 * activations and weights may be rounded to f16, and up to 64 products be summed there, half of them in one
 * sum whose error is sqrt(32 / 2) * 2.0e-4; without fused multiplication each product errs once more, and in
 * all by 9.5e-4. As on the CPU, weights can be nearly constant, so that a result is a sum of as few as m * k
 * / 16 independent squares. */
static inline double gpu_bound(uint32_t flags, fmk_dtype in, fmk_dtype out, int64_t m, int64_t k) {
    double typical = in == FMK_BF16 || out == FMK_BF16 ? 2.5e-3
                     : in == FMK_F16 || out == FMK_F16 ? 3e-4
                                                       : 1e-5;
    if (test_backend() == FMK_BACKEND_VULKAN)
        typical = hypot(typical, flags & FMK_LINEAR_FAST_REDUCE ? 9.5e-4 : 3e-4);
    return typical * (1 + 6 * sqrt(16 / (double)(m * k)));
}

static inline double bound_of(uint32_t flags, fmk_dtype in, fmk_dtype out, int64_t m, int64_t k) {
    double rounding = out == FMK_F32 ? 0 : out == FMK_F16 ? 0x1p-11 : 0x1p-8;
    if (flags & (FMK_LINEAR_EXACT | FMK_LINEAR_REFERENCE))
        return 1e-6 + rounding;
    return on_gpu() ? gpu_bound(flags, in, out, m, k) : cpu_bound(flags, m, k, rounding);
}

/* That the error is at most `bound` of `norm`. */
static inline void assert_within(const struct matrix *out, const double *want, double norm, double bound,
                                 const char *what) {
    double error = error_norm(out, want) / norm;
    if (error <= bound)
        return;
    for (int64_t r = 0; r < out->rows; r++)
        for (int64_t c = 0; c < out->width; c++) {
            double w = want[r * out->width + c];
            if (fabs(at(out, r, c) - w) > 8 * bound * (fabs(w) + 1)) {
                print_error("%s: first bad (m %lld, n %lld): want %g got %g\n", what, (long long)r,
                            (long long)c, w, at(out, r, c));
                r = out->rows - 1;
                break;
            }
        }
    fail_msg("%s: relative L2 %g, bound %g", what, error, bound);
}

/* The same of what was wanted: for so many results that their norm is what it is on average. */
static inline void assert_close(const struct matrix *out, const double *want, double bound,
                                const char *what) {
    assert_within(out, want, norm_of(want, out->rows * out->width), bound, what);
}

/* A context of `threads` threads, a queue, and a weight of some parts. */
struct bench {
    fmk_context *ctx;
    fmk_queue *queue;
    bool shared;
};

/* On Vulkan the tests of a program share a context, where they ask nothing special of it: each would make the
 * same pipelines again. */
static inline struct bench bench_of(const fmk_context_desc *desc) {
    static fmk_context *shared;
    bool share = desc->backend == FMK_BACKEND_VULKAN && !desc->allocator.alloc && !desc->parallel_for &&
                 !desc->staging_bytes && !desc->log;
    struct bench b = {.ctx = share ? shared : NULL, .shared = share};
    if (!b.ctx)
        OK(fmk_context_create(&b.ctx, desc));
    if (share)
        shared = b.ctx;
    OK(fmk_queue_create(&b.queue, b.ctx, test_stream()));
    return b;
}

static inline struct bench open_bench(int32_t threads) {
    fmk_context_desc desc = context_desc(threads);
    return bench_of(&desc);
}

static inline void close_bench(struct bench *b) {
    fmk_queue_destroy(b->queue);
    if (!b->shared)
        fmk_context_destroy(b->ctx);
    free_borrowed_sources();
}

static inline fmk_weight_desc desc_of(fmk_part *parts, const struct ref_weight *from, int num_parts) {
    for (int i = 0; i < num_parts; i++)
        parts[i] = from[i].part;
    return (fmk_weight_desc){.struct_size = sizeof(fmk_weight_desc),
                             .parts = parts,
                             .num_parts = num_parts,
                             .num_experts = from[0].experts};
}

static inline fmk_weight *make_weight(struct bench *b, const struct ref_weight *parts, int num_parts,
                                      uint32_t flags) {
    fmk_part own[8];
    fmk_weight_desc desc = desc_of(own, parts, num_parts);
    desc.flags = flags;
    fmk_weight *weight;
    OK(run_create(&weight, b->queue, &desc));
    return weight;
}

/* A workspace. On a GPU it is an address alone: its twin is what is filled and fenced. */
static inline uint8_t *workspace_alloc(size_t size) {
    uint8_t *space = on_gpu() ? aligned_alloc(256, (size + 511) / 256 * 256) : fenced(size);
    assert_non_null(space);
    return space;
}

static inline void workspace_free(uint8_t *space, size_t size) {
    if (on_gpu())
        free(space);
    else
        release(space, size);
}

/* Prepares and runs the call in a fenced workspace of exactly `least` bytes, or `best`. */
static inline fmk_status call(struct bench *b, const fmk_weight *weight, fmk_linear_args *args,
                              bool generous) {
    uint64_t least, best;
    fmk_status status = fmk_workspace_size(weight, args, &least, &best);
    if (status)
        return status;
    assert_true(least <= best);
    size_t size = (size_t)(generous ? best : least);
    uint8_t *space = workspace_alloc(size);
    args->workspace = buffer(space, size);
    status = run_linear(b->queue, weight, args);
    workspace_free(space, size);
    return status;
}

#endif
