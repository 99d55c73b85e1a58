/* Every CPU row of the kernel table, on every layout it serves, against sums in double of weights decoded by
 * reference.c; and the layouts themselves.
 *
 * An int8 kernel is held to the activations as they were quantized: what it computes is then exact but for
 * float roundings, and one tolerance serves all. Each output is a sum of terms that pass through at most 300
 * + k/32 roundings (a block's 256, the blocks', conversions and scales), so it may be off by that many times
 * u = 2^-24 of the sum of the terms' magnitudes, before cancellation of codes against zero points and minima.
 */
#include "device.h"
#include "packed_weight.h"

#include "abi.h"
#include "cpu/activations.h"
#include "cpu/features.h"
#include "cpu/layouts/layouts.h"
#include "plan/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = FMK_TILE_M, CANARIES = 64, CANARY = 0x5a };

static int skipped;

/* ---- activations ---- */

struct activations {
    struct fmk_acts acts;
    float *f32;
    double *used; /* what the kernel was given: q * scale, or f32 itself */
};

static int64_t num_steps(int64_t k) {
    return (k + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
}

static struct fmk_acts allocate_q8(int64_t rows, int64_t k) {
    uint64_t chunks = (uint64_t)(rows * (k / 32));
    return (struct fmk_acts){
        .k = k,
        .blocks = allocate((uint64_t)(rows * num_steps(k)) * sizeof(struct fmk_acts_block)),
        .lanes = allocate((uint64_t)(rows * num_steps(k)) * sizeof(struct fmk_acts_lanes)),
        .q = allocate(chunks * 32),
        .step = allocate((uint64_t)(rows * num_steps(k)) * 4),
        .ratio = allocate(chunks * 4),
        .sum16 = allocate(chunks * 8),
        .sum32 = allocate(chunks * 4)};
}

static const struct fmk_acts_block *block_at(const struct fmk_acts *acts, int64_t row, int64_t k) {
    return &acts->blocks[row * num_steps(acts->k) + k / FMK_K_BLOCK];
}

/* The scale of position k of a row. */
static double scale_at(const struct fmk_acts *acts, int64_t row, int64_t k) {
    return (double)acts->step[row * num_steps(acts->k) + k / FMK_K_BLOCK] *
           acts->ratio[(row * acts->k + k) / 32][k % 4 / 2];
}

/* What a row of this form holds at position k. */
static double value_at(const struct fmk_acts *acts, enum fmk_acts_form form, int64_t row, int64_t k) {
    if (form == FMK_ACTS_F32)
        return acts->f32[row * acts->k + k];
    if (form == FMK_ACTS_Q8)
        return acts->q[row * acts->k + k] * scale_at(acts, row, k);
    if (form == FMK_ACTS_Q8_LANES) {
        const struct fmk_acts_lanes *lanes = &acts->lanes[row * num_steps(acts->k) + k / FMK_K_BLOCK];
        int64_t run = k % FMK_K_BLOCK / 16, lane = run / 4 + run % 4 * 4;
        return lanes->q[k % 16 / 4][lane][k % 4] * (double)lanes->scale[lane];
    }
    const struct fmk_acts_block *block = block_at(acts, row, k);
    return block->q[k % FMK_K_BLOCK] * (double)block->scale[k % FMK_K_BLOCK / 16];
}

static fmk_quantize_row *const portable[] = {[FMK_ACTS_Q8] = fmk_quantize_row_portable,
                                             [FMK_ACTS_Q8_BLOCKS] = fmk_quantize_blocks_portable,
                                             [FMK_ACTS_Q8_LANES] = fmk_quantize_lanes_portable};

static void free_q8(struct fmk_acts *acts) {
    free(acts->blocks);
    free(acts->lanes);
    free(acts->q);
    free(acts->step);
    free(acts->ratio);
    free(acts->sum16);
    free(acts->sum32);
}

/* N(0, 1), and with `outliers` 50 times that in one channel of a hundred. */
static void make_activations(struct activations *a, const struct packed_weight *w, enum fmk_acts_form form,
                             bool outliers, struct ref_rng *rng) {
    int64_t k = fmk_round_up(w->packed.k_packed, 32);
    a->f32 = allocate((uint64_t)(MOST * k) * 4);
    a->used = allocate((uint64_t)(MOST * k) * 8);
    a->acts = allocate_q8(MOST, k);
    for (int64_t i = 0; i < MOST * k; i++)
        a->f32[i] = i % k < w->packed.k_packed && k_at(w, 0, i % k) >= 0 ? (float)ref_normal(rng) : 0;
    for (int64_t i = 0; outliers && i < k; i++)
        for (int64_t t = 0; i % 100 == 41 && t < MOST; t++)
            a->f32[t * k + i] *= 50;
    a->acts.f32 = a->f32;
    for (int64_t t = 0; t < MOST && form != FMK_ACTS_F32; t++)
        portable[form](a->f32 + t * k, k, &a->acts, t, 0);
    for (int64_t i = 0; i < MOST * k; i++)
        a->used[i] = value_at(&a->acts, form, i / k, i % k);
    if (form == FMK_ACTS_F32) {
        free_q8(&a->acts);
        a->acts = (struct fmk_acts){.k = k, .f32 = a->f32};
    }
}

static void free_activations(struct activations *a) {
    free(a->f32);
    free(a->used);
    free_q8(&a->acts);
}

/* ---- the law of shapes ---- */

static void run_tile(const struct fmk_kernel *kernel, const struct packed_weight *w,
                     const struct activations *a, int64_t row, int64_t token, int32_t tokens, float *out) {
    int32_t rows = (int32_t)fmk_min(FMK_TILE_N, w->packed.n - row);
    size_t size = (size_t)tokens * FMK_TILE_N * sizeof(float);
    memset(out, 0xff, size); /* NaN: what is not written shows */
    memset((uint8_t *)out + size, CANARY, CANARIES);
    int32_t streams = 1 + tokens % 2 * 3; /* of no consequence */
    struct fmk_tile tile = {&w->packed, w->packed.data, &a->acts, row, rows, token, tokens, out, streams};
    kernel->tile(&tile);
    for (int i = 0; i < CANARIES; i++)
        if (((uint8_t *)out)[size + (size_t)i] != CANARY)
            fail_msg("%s: wrote past %d tokens", kernel->name, tokens);
}

/* Tokens that a kernel is given. */
static int32_t most(void) {
    return quick() ? 16 : MOST;
}

static void compare(const struct fmk_kernel *kernel, const struct packed_weight *w,
                    const struct activations *a, int64_t row, const float *out) {
    int64_t n = fmk_min(FMK_TILE_N, w->packed.n - row), k = w->packed.k_packed;
    double *weight = allocate((uint64_t)k * 16), *magnitudes = weight + k;
    for (int64_t r = 0; r < n; r++) {
        decode_row(w, row + r, weight, magnitudes);
        for (int64_t t = 0; t < most(); t++) {
            double want = 0, terms = 0;
            for (int64_t i = 0; i < k; i++) {
                double x = a->used[t * a->acts.k + i];
                want += weight[i] * x;
                terms += magnitudes[i] * fabs(x);
            }
            double bound = (300 + (double)k / 32) * 0x1p-24 * terms + 1e-30;
            float got = out[t * FMK_TILE_N + r];
            if (!(fabs(got - want) <= bound))
                fail_msg("%s on %s, n %lld k %lld: (m %lld, n %lld) is %.9g, want %.9g within %.2g",
                         kernel->name, w->packed.layout->name, (long long)w->packed.n, (long long)w->packed.k,
                         (long long)t, (long long)(row + r), got, want, bound);
        }
    }
    free(weight);
}

/* 1..33 and 64; in a hurry, 1..5, 8, 15 and 16. */
static int32_t next_m(int32_t m) {
    if (quick())
        return m < 5 ? m + 1 : m == 5 ? 8 : m == 8 ? 15 : m + 1;
    return m == 33 ? MOST : m + 1;
}

/* One token and one tile of rows at a time, checked against the sums in double; then every m, whose bits must
 * be the same wherever the tokens are cut. */
static void check_shape(const struct fmk_kernel *kernel, const struct packed_weight *w,
                        const struct activations *a) {
    enum { ROW = FMK_TILE_N };
    float *single = allocate(MOST * ROW * sizeof(float) + CANARIES);
    float *out = allocate(MOST * ROW * sizeof(float) + CANARIES);
    for (int64_t row = 0; row < w->packed.n; row += ROW) {
        int64_t n = fmk_min(ROW, w->packed.n - row);
        for (int32_t t = 0; t < most(); t++)
            run_tile(kernel, w, a, row, t, 1, single + t * ROW);
        compare(kernel, w, a, row, single);
        for (int32_t m = 1; m <= most(); m = next_m(m))
            for (int32_t first = 0; first + m <= most(); first += fmk_max(1, most() - m)) {
                run_tile(kernel, w, a, row, first, m, out);
                for (int32_t t = 0; t < m; t++)
                    if (memcmp(out + t * ROW, single + (first + t) * ROW, (size_t)n * sizeof(float)))
                        fail_msg("%s on %s, n %lld k %lld: token %d differs between m %d and 1", kernel->name,
                                 w->packed.layout->name, (long long)w->packed.n, (long long)w->packed.k,
                                 first + t, m);
            }
    }
    free(single);
    free(out);
}

/* A tile of whole panels in the middle of a taller one has the same bits. */
static void check_rows(const struct fmk_kernel *kernel, const struct packed_weight *w,
                       const struct activations *a) {
    float *whole = allocate(MOST * FMK_TILE_N * sizeof(float) + CANARIES);
    float *part = allocate(MOST * FMK_TILE_N * sizeof(float) + CANARIES);
    int32_t n = (int32_t)fmk_min(FMK_TILE_N, w->packed.n);
    run_tile(kernel, w, a, 0, 0, 5, whole);
    for (int32_t row = 0; row < n; row += fmk_max(8, w->packed.layout->panel_rows))
        for (int32_t rows = 1; rows <= n - row; rows += 5) {
            struct fmk_tile tile = {&w->packed, w->packed.data, &a->acts, row, rows, 0, 5, part, 1};
            kernel->tile(&tile);
            for (int t = 0; t < 5; t++)
                if (memcmp(part + t * FMK_TILE_N, whole + t * FMK_TILE_N + row, (size_t)rows * sizeof(float)))
                    fail_msg("%s: rows %d..%d differ from the whole tile's", kernel->name, row,
                             row + rows - 1);
        }
    free(whole);
    free(part);
}

/* A NaN in one token's activations reaches all of its outputs and no other token's. */
static void check_nan(const struct fmk_kernel *kernel, const struct packed_weight *w, struct activations *a,
                      struct ref_rng *rng) {
    enum { TOKENS = 9, BAD = 4 };
    float *out = allocate(TOKENS * FMK_TILE_N * sizeof(float) + CANARIES);
    int64_t k = a->acts.k, at;
    do
        at = ref_below(rng, w->packed.k_packed);
    while (k_at(w, 0, at) < 0);
    a->f32[BAD * k + at] = NAN;
    if (kernel->acts != FMK_ACTS_F32)
        portable[kernel->acts](a->f32 + BAD * k, k, &a->acts, BAD, 0);
    run_tile(kernel, w, a, 0, 0, TOKENS, out);
    for (int t = 0; t < TOKENS; t++)
        for (int64_t r = 0; r < fmk_min(FMK_TILE_N, w->packed.n); r++)
            if (!isnan(out[t * FMK_TILE_N + r]) != (t != BAD))
                fail_msg("%s: (m %d, n %lld) is %g, and only token %d had a NaN", kernel->name, t,
                         (long long)r, out[t * FMK_TILE_N + r], BAD);
    free(out);
}

static void check(const struct fmk_kernel *kernel, const struct fmk_layout *layout, struct ref_spec spec,
                  struct ref_rng *rng) {
    struct packed_weight w;
    struct activations a;
    pack_weight(&w, &spec, layout, rng);
    make_activations(&a, &w, kernel->acts, false, rng);
    check_shape(kernel, &w, &a);
    check_rows(kernel, &w, &a);
    check_nan(kernel, &w, &a, rng);
    free_activations(&a);
    free_weight(&w);
}

/* ---- the shapes ---- */

static void check_dense(const struct fmk_kernel *kernel, const struct fmk_layout *layout,
                        struct ref_rng *rng) {
    static const int64_t shapes[][2] = {{1, 1},    {3, 7},    {8, 8},    {9, 31},  {66, 33},
                                        {64, 255}, {65, 256}, {63, 257}, {4, 511}, {7, 1000}};
    static const fmk_dtype types[] = {FMK_F32, FMK_F16, FMK_BF16};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int t = 0; t < 3; t++)
            check(kernel, layout,
                  (struct ref_spec){.format = FMK_FORMAT_DENSE,
                                    .n = shapes[i][0],
                                    .k = shapes[i][1],
                                    .dtype = types[t],
                                    .extremes = types[t] == FMK_F16 && i % 2,
                                    .misalign = i % 3 ? 2 : 0},
                  rng);
}

static void check_k_quants(const struct fmk_kernel *kernel, const struct fmk_layout *layout,
                           fmk_format format, struct ref_rng *rng) {
    static const int64_t shapes[][2] = {{1, 256},  {7, 256},  {8, 512},  {9, 256},
                                        {25, 768}, {63, 256}, {72, 1280}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check(kernel, layout,
              (struct ref_spec){.format = format,
                                .n = shapes[i][0],
                                .k = shapes[i][1],
                                .extremes = i % 2,
                                .misalign = i % 3 ? 2 : 0},
              rng);
}

static void check_int4(const struct fmk_kernel *kernel, const struct fmk_layout *layout,
                       struct ref_rng *rng) {
    static const struct ref_spec specs[] = {
        {.n = 8, .k = 32, .group_size = 32},
        {.n = 16, .k = 256, .group_size = 128, .zeros = REF_ZEROS_RANDOM},
        {.n = 72, .k = 640, .group_size = 128, .dtype = FMK_BF16, .zeros = REF_ZEROS_ALL_7},
        {.n = 24, .k = 1024, .group_size = -1, .dtype = FMK_F32, .zeros = REF_ZEROS_RANDOM},
        {.n = 8, .k = 200, .group_size = -1, .zeros = REF_ZEROS_RANDOM, .extremes = true},
        {.n = 40, .k = 200, .group_size = 64, .zeros = REF_ZEROS_RANDOM},
        {.n = 16, .k = 64, .group_size = 8, .zeros = REF_ZEROS_RANDOM},
        {.n = 16, .k = 304, .group_size = 48, .zeros = REF_ZEROS_RANDOM, .extremes = true},
        {.n = 24, .k = 1120, .group_size = 1024, .zeros = REF_ZEROS_RANDOM},
        {.n = 16, .k = 512, .group_size = 128, .groups = REF_GROUPS_RUNS},
        {.n = 24, .k = 384, .group_size = 64, .zeros = REF_ZEROS_RANDOM, .groups = REF_GROUPS_SHUFFLED},
        {.n = 16, .k = 328, .group_size = 128, .dtype = FMK_F32, .groups = REF_GROUPS_NEGATIVE},
        {.n = 72, .k = 512, .group_size = 32, .zeros = REF_ZEROS_RANDOM, .groups = REF_GROUPS_UNEQUAL},
        {.n = 8, .k = 96, .group_size = 96, .experts = 1, .groups = REF_GROUPS_SHUFFLED},
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct ref_spec spec = specs[i];
        spec.format = FMK_FORMAT_GPTQ_V2;
        check(kernel, layout, spec, rng);
    }
}

static void check_family(const struct fmk_kernel *kernel, const struct fmk_layout *layout,
                         struct ref_rng *rng) {
    switch (layout->family) {
    case FMK_FAMILY_DENSE:
        check_dense(kernel, layout, rng);
        return;
    case FMK_FAMILY_INT4:
        check_int4(kernel, layout, rng);
        return;
    case FMK_FAMILY_Q4_K:
        check_k_quants(kernel, layout, FMK_FORMAT_Q4_K, rng);
        return;
    case FMK_FAMILY_Q6_K:
        check_k_quants(kernel, layout, FMK_FORMAT_Q6_K, rng);
        return;
    }
}

static bool present(const struct fmk_kernel *kernel) {
    if (kernel->backend != FMK_BACKEND_CPU)
        return false;
    if (quick() && !kernel->layout) /* plain C of any machine, on every layout: for the runs that have time */
        return false;
    if (!(kernel->needs & ~fmk_cpu_features(NULL)))
        return true;
    char missing[64];
    fmk_cpu_feature_names(kernel->needs & ~fmk_cpu_features(NULL), missing, sizeof missing);
    print_message("skipped: %s, this machine has no %s\n", kernel->name, missing);
    skipped++;
    return false;
}

/* Another backend's layouts are packed and read on its device: tests/cuda/test_cuda_rows.c walks CUDA's. */
static bool serves(const struct fmk_kernel *kernel, const struct fmk_layout *layout) {
    return kernel->tile && layout->pack && (!kernel->layout || kernel->layout == (int32_t)layout->id);
}

static void test_kernels(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels");
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        const struct fmk_kernel *kernel = fmk_kernel_row(i);
        if (!kernel->tile || !present(kernel))
            continue;
        for (int32_t id = 1; fmk_layout_by_id(id); id++)
            if (serves(kernel, fmk_layout_by_id(id)))
                check_family(kernel, fmk_layout_by_id(id), &rng);
    }
    print_message("%d kernels skipped\n", skipped);
}

/* ---- accuracy: relative L2 over N(0, 1) activations, against sums in double ----
 * Rounding to 1/127 of the largest of 16 errs by 4.7e-3; 1024 outputs tell it to 3 in 100. With outliers, 15
 * runs of 16 in a hundred hold one, 50 z, and err by up to half of 1/127 of it: sqrt(0.15 * 2500 / 12) / 127
 * of results that have grown to sqrt(0.99 + 0.01 * 2500), 8.6e-3. */

static double relative_error(const struct fmk_kernel *kernel, const struct fmk_layout *layout,
                             const struct ref_spec *spec, bool outliers, struct ref_rng *rng) {
    struct packed_weight w;
    struct activations a;
    pack_weight(&w, spec, layout, rng);
    make_activations(&a, &w, kernel->acts, outliers, rng);
    float *out = allocate(MOST * FMK_TILE_N * sizeof(float) + CANARIES);
    double *weight = allocate((uint64_t)w.packed.k_packed * sizeof *weight), error = 0, all = 0;
    run_tile(kernel, &w, &a, 0, 0, MOST, out);
    for (int64_t r = 0; r < w.packed.n; r++) {
        decode_row(&w, r, weight, NULL);
        for (int64_t t = 0; t < MOST; t++) {
            double want = 0;
            for (int64_t i = 0; i < w.packed.k_packed; i++)
                want += weight[i] * a.f32[t * a.acts.k + i];
            double off = out[t * FMK_TILE_N + r] - want;
            error += off * off;
            all += want * want;
        }
    }
    free(weight);
    free(out);
    free_activations(&a);
    free_weight(&w);
    return sqrt(error / all);
}

static void test_accuracy(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels/accuracy");
    static const struct ref_spec specs[] = {
        [FMK_FAMILY_DENSE] = {.format = FMK_FORMAT_DENSE, .n = 16, .k = 28672, .dtype = FMK_BF16},
        [FMK_FAMILY_INT4] = {.format = FMK_FORMAT_GPTQ_V2, .n = 16, .k = 28672, .group_size = 128},
        [FMK_FAMILY_Q4_K] = {.format = FMK_FORMAT_Q4_K, .n = 16, .k = 28672},
        [FMK_FAMILY_Q6_K] = {.format = FMK_FORMAT_Q6_K, .n = 16, .k = 28672},
    };
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        const struct fmk_kernel *kernel = fmk_kernel_row(i);
        if (!kernel->tile || !present(kernel))
            continue;
        for (int32_t id = 1; fmk_layout_by_id(id); id++) {
            const struct fmk_layout *layout = fmk_layout_by_id(id);
            if (!serves(kernel, layout))
                continue;
            struct ref_spec spec = specs[layout->family];
            spec.k = quick() ? 4096 : spec.k;
            for (int outliers = 0; outliers < 2; outliers++) {
                spec.k = outliers ? 4096 : spec.k;
                double error = relative_error(kernel, layout, &spec, outliers, &rng);
                double bound = kernel->acts == FMK_ACTS_F32 ? 1e-6 : outliers ? 1.1e-2 : 6e-3;
                print_message("%-24s %-12s k %-5lld%s: %.2e\n", kernel->name, layout->name, (long long)spec.k,
                              outliers ? " with outliers" : "", error);
                if (!(error <= bound))
                    fail_msg("%s on %s: relative L2 %.3g is above %.3g", kernel->name, layout->name, error,
                             bound);
            }
        }
    }
}

/* ---- layouts ---- */

/* Dequantizing is bit-exact: float of the published formula, which reference.c has in double. Its one
 * rounding agrees where the products are exact in float, which holds for these formats but for the last
 * subtraction. */
static void check_decode(const struct fmk_layout *layout, struct ref_spec spec, struct ref_rng *rng) {
    struct packed_weight w;
    pack_weight(&w, &spec, layout, rng);
    float got[256];
    for (int64_t e = 0; e < w.packed.experts; e++)
        for (int64_t row = 0; row < w.packed.n; row++)
            for (int64_t k = 0; k < w.packed.k_packed; k += 256) {
                int64_t count = fmk_min(256, w.packed.k_packed - k);
                layout->decode(&w.packed, w.bytes + (uint64_t)e * w.packed.expert_stride, row, k, count, got);
                for (int64_t i = 0; i < count; i++) {
                    int64_t at = k_at(&w, e, k + i);
                    if (at >= 0 && (double)got[i] != (double)(float)ref_value(&w.ref, e, row, at))
                        fail_msg("%s: expert %lld, (n %lld, k %lld) is %.9g, want %.9g", layout->name,
                                 (long long)e, (long long)row, (long long)at, got[i],
                                 ref_value(&w.ref, e, row, at));
                }
            }
    if (w.k_index) /* each k once in each expert */
        for (int64_t e = 0; e < w.packed.experts; e++) {
            int64_t seen = 0, sum = 0;
            for (int64_t i = 0; i < w.packed.k_packed; i++) {
                int64_t at = k_at(&w, e, i);
                assert_true(at >= -1 && at < w.packed.k);
                seen += at >= 0;
                sum += at >= 0 ? at : 0;
            }
            assert_int_equal(seen, w.packed.k);
            assert_int_equal(sum, w.packed.k * (w.packed.k - 1) / 2);
        }
    free_weight(&w);
}

static void test_decode(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels/decode");
    for (int32_t id = 1; fmk_layout_by_id(id); id++) {
        const struct fmk_layout *layout = fmk_layout_by_id(id);
        if (!layout->pack)
            continue;
        for (int experts = 0; experts <= 3; experts += 3)
            for (int64_t n = 1; n <= 17; n += 8) {
                if (layout->family == FMK_FAMILY_DENSE)
                    check_decode(
                        layout,
                        (struct ref_spec){.format = FMK_FORMAT_DENSE, .n = n, .k = 300, .experts = experts},
                        &rng);
                else if (layout->family == FMK_FAMILY_INT4)
                    for (int groups = REF_GROUPS_NONE; groups <= REF_GROUPS_UNEQUAL; groups++)
                        for (int32_t size = 8; size <= 128; size *= 2)
                            check_decode(layout,
                                         (struct ref_spec){.format = FMK_FORMAT_GPTQ,
                                                           .n = fmk_round_up(n, 8),
                                                           .k = 328,
                                                           .group_size = size,
                                                           .experts = experts,
                                                           .zeros = REF_ZEROS_RANDOM,
                                                           .groups = (enum ref_groups)groups},
                                         &rng);
                else
                    check_decode(layout,
                                 (struct ref_spec){.format = layout->family == FMK_FAMILY_Q4_K
                                                                 ? FMK_FORMAT_Q4_K
                                                                 : FMK_FORMAT_Q6_K,
                                                   .n = n,
                                                   .k = 768,
                                                   .experts = experts,
                                                   .extremes = experts},
                                 &rng);
            }
    }
}

/* Numbers that shape could not have made. */
static void test_valid(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels/valid");
    for (int32_t id = FMK_LAYOUT_Q4_K_X8; fmk_layout_by_id(id); id++) {
        const struct fmk_layout *layout = fmk_layout_by_id(id);
        if (!layout->pack)
            continue;
        struct packed_weight w;
        fmk_format format = layout->family == FMK_FAMILY_INT4   ? FMK_FORMAT_GPTQ
                            : layout->family == FMK_FAMILY_Q4_K ? FMK_FORMAT_Q4_K
                                                                : FMK_FORMAT_Q6_K;
        pack_weight(&w,
                    &(struct ref_spec){.format = format,
                                       .n = 24,
                                       .k = 512,
                                       .experts = 2,
                                       .group_size = format == FMK_FORMAT_GPTQ ? 128 : 0},
                    layout, &rng);
        const struct fmk_packed good = w.packed;
        struct fmk_packed bad[] = {good, good, good, good, good, good, good, good, good, good, good};
        int i = 0;
        bad[i++].n = 0;
        bad[i++].n = INT64_MAX;
        bad[i++].n = 33;
        bad[i++].k = 0;
        bad[i++].k = INT64_MAX - 255;
        bad[i++].k_packed = 768;
        bad[i++].k_packed = 511;
        bad[i++].experts = 0;
        bad[i++].stride -= 32;
        bad[i++].expert_stride += 32;
        bad[i++].bytes -= 1;
        assert_true(layout->valid(&good));
        for (int j = 0; j < i; j++)
            if (layout->valid(&bad[j]))
                fail_msg("%s: numbers %d were accepted", layout->name, j);
        if (layout->family == FMK_FAMILY_INT4) {
            struct fmk_packed worse[] = {good, good, good, good};
            worse[0].chunks = 0;
            worse[1].chunks = -1;
            worse[2].chunks = INT32_MAX;
            worse[3].dtype = FMK_I32;
            for (int j = 0; j < 4; j++)
                if (layout->valid(&worse[j]))
                    fail_msg("%s: numbers %d of int4 were accepted", layout->name, j);
        }
        free_weight(&w);
    }
}

/* ---- quantizing activations ---- */

/* What rounding may do to a value: half a scale, and the rounding of a few operations. What is too small for
 * a scale is zero. */
static void check_rounding(float x, int8_t q, double scale, double least) {
    assert_in_range(q + 127, 0, 254);
    assert_true(fabs(x - q * scale) <= (0.5 + 127 * 8 * 0x1p-24) * scale + least);
}

/* 32 values and their sums. */
static void check_32(const float *x, const struct fmk_acts *acts, int64_t k) {
    float step = acts->step[k / FMK_K_BLOCK];
    double amax[2] = {0, 0}, sum[2] = {0, 0};
    for (int i = 0; i < 32; i++) {
        int8_t q = acts->q[k + i];
        amax[i % 4 / 2] = fmax(amax[i % 4 / 2], fabs(x[i]));
        sum[i / 16] += q * acts->ratio[k / 32][i % 4 / 2];
        check_rounding(x[i], q, scale_at(acts, 0, k + i), 0x1p-106);
    }
    for (int g = 0; g < 2; g++) { /* the least multiple of the step that the largest fits, or the next */
        int16_t ratio = acts->ratio[k / 32][g];
        assert_true(ratio >= 1 && ratio <= FMK_RATIO_MAX);
        assert_true((double)step * ratio <= amax[g] / 127 * (1 + 8 * 0x1p-24) + step);
        assert_true(acts->sum16[k / 16 + g] == step * (float)sum[g]);
    }
    assert_true(acts->sum32[k / 32] == step * (float)(sum[0] + sum[1]));
}

/* Up to 256 values, which share a step. */
static void check_256(const float *x, int64_t count, const struct fmk_acts *acts, int64_t k) {
    float step = acts->step[k / FMK_K_BLOCK];
    double all = 0;
    for (int64_t i = 0; i < count; i++)
        all = isfinite(x[i]) ? fmax(all, fabs(x[i])) : INFINITY;
    if (isinf(all)) {
        assert_true(isnan(step));
        for (int64_t i = k / 16; i < (k + count) / 16; i++)
            assert_true(isnan(acts->sum16[i]) && isnan(acts->sum32[i / 2]));
        return;
    }
    assert_true(fabs(step * 127.0 * FMK_RATIO_MAX - all) <= all * 4 * 0x1p-24 ||
                (all < 0x1p-106 && step == 0));
    for (int64_t i = 0; i < count; i += 32)
        check_32(x + i, acts, k + i);
}

/* 16 values of a block, which share a scale; answers their sum. */
static float check_16(const float *x, const struct fmk_acts_block *block, int64_t at) {
    double amax = 0, sum = 0;
    float scale = block->scale[at / 16];
    for (int i = 0; i < 16; i++) {
        amax = isfinite(x[i]) ? fmax(amax, fabs(x[i])) : INFINITY;
        sum += block->q[at + i];
    }
    assert_true(block->start[at / 16] == -32 * sum);
    if (isinf(amax)) {
        assert_true(isnan(scale) && sum == 0);
        return scale;
    }
    assert_true(fabs(scale * 127.0 - amax) <= amax * 0x1p-24 || (amax < 0x1p-100 && scale == 0));
    for (int i = 0; i < 16; i++)
        check_rounding(x[i], block->q[at + i], scale, 0x1p-100);
    return scale * (float)sum;
}

static void check_block(const float *x, int64_t count, const struct fmk_acts_block *block) {
    for (int64_t i = 0; i < count; i += 32) {
        float want = check_16(x + i, block, i) + check_16(x + i + 16, block, i + 16),
              got = block->sum[i / 32];
        assert_true(got == want || (isnan(got) && isnan(want)));
    }
}

static void check_same(const struct fmk_acts *a, const struct fmk_acts *b) {
    size_t chunks = (size_t)(a->k / 32);
    assert_memory_equal(a->q, b->q, chunks * 32);
    assert_memory_equal(a->step, b->step, (size_t)num_steps(a->k) * 4);
    assert_memory_equal(a->ratio, b->ratio, chunks * 4);
    assert_memory_equal(a->sum16, b->sum16, chunks * 8);
    assert_memory_equal(a->sum32, b->sum32, chunks * 4);
}

static void check_same_blocks(const struct fmk_acts *a, const struct fmk_acts *b) {
    for (int64_t k = 0; k < a->k; k += FMK_K_BLOCK) {
        const struct fmk_acts_block *p = block_at(a, 0, k), *q = block_at(b, 0, k);
        size_t count = (size_t)fmk_min(FMK_K_BLOCK, a->k - k);
        assert_memory_equal(p->q, q->q, count);
        assert_memory_equal(p->scale, q->scale, count / 4);
        assert_memory_equal(p->start, q->start, count / 4);
        assert_memory_equal(p->sum, q->sum, count / 8);
    }
}

/* Lanes have what blocks have, whichever quantizer made them. */
static void check_lanes(const float *x, struct fmk_acts *blocks, struct fmk_acts *fast) {
    enum { COUNT = 15 * FMK_K_BLOCK };
    blocks->k = fast->k = COUNT;
    fmk_quantize_blocks_portable(x, COUNT, blocks, 0, 0);
    fmk_quantize_lanes_portable(x, COUNT, blocks, 0, 0);
    fmk_quantize_row_best(FMK_ACTS_Q8_LANES, fmk_cpu_features(NULL))(x, COUNT, fast, 0, 0);
    assert_memory_equal(blocks->lanes, fast->lanes, 15 * sizeof(struct fmk_acts_lanes));
    for (int64_t k = 0; k < COUNT; k++) {
        const struct fmk_acts_block *block = block_at(blocks, 0, k);
        const struct fmk_acts_lanes *lanes = &blocks->lanes[k / FMK_K_BLOCK];
        int64_t run = k % FMK_K_BLOCK / 16, lane = run / 4 + run % 4 * 4;
        assert_int_equal(lanes->q[k % 16 / 4][lane][k % 4], block->q[k % FMK_K_BLOCK]);
        assert_memory_equal(&lanes->scale[lane], &block->scale[run], 4);
        assert_int_equal(lanes->start[lane], block->start[run]);
        float sum = block->scale[run] * (float)(block->start[run] / -32);
        assert_true(lanes->sum[lane] == sum || (isnan(sum) && isnan(lanes->sum[lane])));
    }
}

/* Rows of 4000: the last step has 160 values. From 2^-128 to 2^126, and within 256 from 1 to 2^-16. */
static void test_quantize_row(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels/quantize_row");
    enum { K = 4000 };
    static float x[K];
    for (int64_t i = 0; i < K; i++)
        x[i] = (float)(ref_normal(&rng) * exp2((double)(i / 256) * 16 - 128 - (double)(i % 256 / 16)));
    memset(x + 1024, 0, 272 * sizeof *x);
    x[256 + 33] = INFINITY;
    x[512 + 65] = -INFINITY;
    x[768 + 97] = NAN;
    for (int i = 0; i < 256; i++) /* ties: to even */
        x[1536 + i] = (float)(i % 16) - 7.5f;
    for (int i = 0; i < 256; i += 16)
        x[1536 + i] = 127;
    struct fmk_acts acts = allocate_q8(1, K), fast = allocate_q8(1, K);
    for (enum fmk_acts_form form = FMK_ACTS_Q8; form <= FMK_ACTS_Q8_BLOCKS; form++) {
        portable[form](x, K, &acts, 0, 0);
        for (int64_t k = 0; k < K; k += FMK_K_BLOCK)
            if (form == FMK_ACTS_Q8)
                check_256(x + k, fmk_min(FMK_K_BLOCK, K - k), &acts, k);
            else
                check_block(x + k, fmk_min(FMK_K_BLOCK, K - k), block_at(&acts, 0, k));
        fmk_quantize_row *best = fmk_quantize_row_best(form, fmk_cpu_features(NULL));
        if (best == portable[form])
            print_message("skipped: this machine has no other quantizer of form %d\n", form);
        best(x, K / 512 * 512, &fast, 0, 0);
        best(x + K / 512 * 512, K % 512, &fast, 0, K / 512 * 512);
        if (form == FMK_ACTS_Q8)
            check_same(&acts, &fast);
        else
            check_same_blocks(&acts, &fast);
    }
    check_lanes(x, &acts, &fast);
    free_q8(&fast);
    free_q8(&acts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_row), cmocka_unit_test(test_decode),   cmocka_unit_test(test_valid),
        cmocka_unit_test(test_kernels),      cmocka_unit_test(test_accuracy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
