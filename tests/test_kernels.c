/* Every row of the kernel table, on every layout it serves, against sums in double of weights decoded by
 * reference.c; and the layouts themselves.
 *
 * An int8 kernel is held to the activations as they were quantized: what it computes is then exact but for
 * float roundings, and one tolerance serves all. Each output is a sum of terms that pass through at most 300
 * + k/32 roundings (a block's 256, the blocks', conversions and scales), so it may be off by that many times
 * u = 2^-24 of the sum of the terms' magnitudes, before cancellation of codes against zero points and minima.
 */
#include "reference.h"

#include "abi.h"
#include "cpu/features.h"
#include "cpu/layouts.h"
#include "formats/k_quants.h"
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

/* ---- a packed weight ---- */

struct packed_weight {
    struct ref_weight ref;
    struct fmk_source source;
    struct fmk_packed packed;
    uint8_t *bytes;
    int32_t *k_index;
};

static void *allocate(uint64_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    assert_non_null(p);
    return p;
}

static void pack_weight(struct packed_weight *w, const struct ref_spec *spec, const struct fmk_layout *layout,
                        struct ref_rng *rng) {
    ref_make(&w->ref, spec, rng);
    assert_int_equal(fmk_source_init(&w->source, &w->ref.part, spec->experts, true), FMK_OK);
    struct fmk_packed *packed = &w->packed;
    *packed = (struct fmk_packed){
        .layout = layout, .n = w->source.n, .k = w->source.k, .experts = w->source.experts};
    bool index;
    assert_true(layout->shape(&w->source, packed, &index));
    assert_true(layout->valid(packed));
    w->bytes = allocate(packed->bytes);
    memset(w->bytes, 0xee, packed->bytes);
    w->k_index = NULL;
    if (index) {
        w->k_index = allocate((uint64_t)(packed->experts * packed->k_packed) * 4);
        for (int64_t e = 0; e < packed->experts; e++)
            layout->index(&w->source, packed, e, w->k_index + e * packed->k_packed);
    }
    for (int64_t e = 0; e < packed->experts; e++)
        for (int64_t row = 0; row < packed->n; row += 16) /* in pieces, as threads do */
            layout->pack(&w->source, packed, index ? w->k_index + e * packed->k_packed : NULL, e, row,
                         fmk_min(16, packed->n - row), w->bytes + (uint64_t)e * packed->expert_stride);
    packed->data = w->bytes;
    packed->k_index = w->k_index;
}

static void free_weight(struct packed_weight *w) {
    free(w->bytes);
    free(w->k_index);
    ref_free(&w->ref);
}

/* The k of a packed position, -1 for padding. */
static int64_t k_at(const struct packed_weight *w, int64_t expert, int64_t position) {
    if (w->k_index)
        return w->k_index[expert * w->packed.k_packed + position];
    return position < w->packed.k ? position : -1;
}

/* A weight's magnitude before codes cancel against zero points, minima or the middle code. */
static double magnitude(const struct packed_weight *w, int64_t row, int64_t k) {
    const struct fmk_source *source = &w->source;
    const uint8_t *bytes;
    uint8_t scale[8], min[8];
    uint32_t bits;
    switch (source->family) {
    case FMK_FAMILY_Q4_K:
        bytes = fmk_source_row(source, 0, row) + k / 256 * FMK_Q4K_BLOCK;
        fmk_q4k_scales(bytes + FMK_Q4K_SCALES, scale, min);
        return fabs(15.0 * fmk_load_f16(bytes + FMK_Q4K_D) * scale[k % 256 / 32]) +
               fabs((double)fmk_load_f16(bytes + FMK_Q4K_DMIN) * min[k % 256 / 32]);
    case FMK_FAMILY_Q6_K:
        bytes = fmk_source_row(source, 0, row) + k / 256 * FMK_Q6K_BLOCK;
        return fabs(96.0 * fmk_load_f16(bytes + FMK_Q6K_D) * (int8_t)bytes[FMK_Q6K_SCALES + k % 256 / 16]);
    case FMK_FAMILY_INT4:
        fmk_int4_scale_bits(source, 0, row, 1, fmk_int4_group(source, 0, k), &bits);
        return fabs(30 * ref_number(source->part.scales.dtype, &bits));
    default:
        return fabs(ref_value(&w->ref, 0, row, k));
    }
}

/* ---- activations ---- */

struct activations {
    struct fmk_acts acts;
    float *f32, *used; /* used: what the kernel was given, in double's place: q * scale, or f32 itself */
    int8_t *q;
    float *scale, *sum32, *sum16;
};

static void make_activations(struct activations *a, const struct packed_weight *w, enum fmk_acts_form form,
                             struct ref_rng *rng) {
    int64_t k = fmk_round_up(w->packed.k_packed, 32), chunks = k / 32;
    a->f32 = allocate((uint64_t)(MOST * k) * 4);
    a->used = allocate((uint64_t)(MOST * k) * 4);
    a->q = allocate((uint64_t)(MOST * k));
    a->scale = allocate((uint64_t)(MOST * chunks) * 4);
    a->sum32 = allocate((uint64_t)(MOST * chunks) * 4);
    a->sum16 = allocate((uint64_t)(MOST * chunks) * 8);
    for (int64_t i = 0; i < MOST * k; i++)
        a->f32[i] = i % k < w->packed.k_packed && k_at(w, 0, i % k) >= 0 ? (float)ref_normal(rng) : 0;
    for (int64_t t = 0; t < MOST; t++)
        fmk_quantize_row_portable(a->f32 + t * k, k, a->q + t * k, a->scale + t * chunks,
                                  a->sum32 + t * chunks, a->sum16 + 2 * t * chunks);
    for (int64_t i = 0; i < MOST * k; i++)
        a->used[i] = form == FMK_ACTS_F32 ? a->f32[i] : (float)a->q[i] * a->scale[i / 32];
    a->acts = (struct fmk_acts){.k = k};
    if (form == FMK_ACTS_F32) {
        a->acts.f32 = a->f32;
    } else {
        a->acts.q = a->q;
        a->acts.scale = a->scale;
        a->acts.sum32 = a->sum32;
        a->acts.sum16 = a->sum16;
    }
}

static void free_activations(struct activations *a) {
    free(a->f32);
    free(a->used);
    free(a->q);
    free(a->scale);
    free(a->sum32);
    free(a->sum16);
}

/* ---- the law of shapes ---- */

static void run_tile(const struct fmk_kernel *kernel, const struct packed_weight *w,
                     const struct activations *a, int64_t row, int64_t token, int32_t tokens, float *out) {
    int32_t rows = (int32_t)fmk_min(FMK_TILE_N, w->packed.n - row);
    size_t size = (size_t)tokens * FMK_TILE_N * sizeof(float);
    memset(out, 0xff, size); /* NaN: what is not written shows */
    memset((uint8_t *)out + size, CANARY, CANARIES);
    struct fmk_tile tile = {&w->packed, w->packed.data, &a->acts, row, rows, token, tokens, out};
    kernel->tile(&tile);
    for (int i = 0; i < CANARIES; i++)
        if (((uint8_t *)out)[size + (size_t)i] != CANARY)
            fail_msg("%s: wrote past %d tokens", kernel->name, tokens);
}

/* A row's weights, and their magnitudes unless that is NULL, in packed order; 0 in padding. */
static void decode_row(const struct packed_weight *w, int64_t row, double *weight, double *magnitudes) {
    for (int64_t i = 0; i < w->packed.k_packed; i++) {
        int64_t k = k_at(w, 0, i);
        weight[i] = k < 0 ? 0 : ref_value(&w->ref, 0, row, k);
        if (magnitudes)
            magnitudes[i] = k < 0 ? 0 : magnitude(w, row, k);
    }
}

static void compare(const struct fmk_kernel *kernel, const struct packed_weight *w,
                    const struct activations *a, int64_t row, const float *out) {
    int64_t n = fmk_min(FMK_TILE_N, w->packed.n - row), k = w->packed.k_packed;
    double *weight = allocate((uint64_t)k * 16), *magnitudes = weight + k;
    for (int64_t r = 0; r < n; r++) {
        decode_row(w, row + r, weight, magnitudes);
        for (int64_t t = 0; t < MOST; t++) {
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

/* One token and one tile of rows at a time, checked against the sums in double; then every m, whose bits must
 * be the same wherever the tokens are cut. */
static void check_shape(const struct fmk_kernel *kernel, const struct packed_weight *w,
                        const struct activations *a) {
    enum { ROW = FMK_TILE_N };
    float *single = allocate(MOST * ROW * sizeof(float) + CANARIES);
    float *out = allocate(MOST * ROW * sizeof(float) + CANARIES);
    for (int64_t row = 0; row < w->packed.n; row += ROW) {
        int64_t n = fmk_min(ROW, w->packed.n - row);
        for (int32_t t = 0; t < MOST; t++)
            run_tile(kernel, w, a, row, t, 1, single + t * ROW);
        compare(kernel, w, a, row, single);
        for (int32_t m = 1; m <= MOST; m = m == 33 ? 64 : m + 1)
            for (int32_t first = 0; first + m <= MOST; first += 64 - m ? 64 - m : 1) {
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
    for (int32_t row = 0; row < n; row += 8)
        for (int32_t rows = 1; rows <= n - row; rows += 5) {
            struct fmk_tile tile = {&w->packed, w->packed.data, &a->acts, row, rows, 0, 5, part};
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
    int64_t k = a->acts.k, chunks = k / 32, at;
    do
        at = ref_below(rng, w->packed.k_packed);
    while (k_at(w, 0, at) < 0);
    a->f32[BAD * k + at] = NAN;
    fmk_quantize_row_portable(a->f32 + BAD * k, k, a->q + BAD * k, a->scale + BAD * chunks,
                              a->sum32 + BAD * chunks, a->sum16 + 2 * BAD * chunks);
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
    make_activations(&a, &w, kernel->acts, rng);
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
    if (!(kernel->needs & ~fmk_cpu_features(NULL)))
        return true;
    char missing[64];
    fmk_cpu_feature_names(kernel->needs & ~fmk_cpu_features(NULL), missing, sizeof missing);
    print_message("skipped: %s, this machine has no %s\n", kernel->name, missing);
    skipped++;
    return false;
}

static void test_kernels(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels");
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        const struct fmk_kernel *kernel = fmk_kernel_row(i);
        if (!present(kernel))
            continue;
        for (int32_t id = 1; fmk_layout_by_id(id); id++)
            if (!kernel->layout || kernel->layout == id)
                check_family(kernel, fmk_layout_by_id(id), &rng);
    }
    print_message("%d kernels skipped\n", skipped);
}

/* ---- accuracy: relative L2 over N(0, 1) activations, against sums in double ----
 * Rounding to 1/127 of the largest of 32 errs by 5.4e-3; 1024 outputs tell it to 3 in 100. */

static double relative_error(const struct fmk_kernel *kernel, const struct fmk_layout *layout,
                             const struct ref_spec *spec, struct ref_rng *rng) {
    struct packed_weight w;
    struct activations a;
    pack_weight(&w, spec, layout, rng);
    make_activations(&a, &w, kernel->acts, rng);
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
        if (!present(kernel))
            continue;
        for (int32_t id = 1; fmk_layout_by_id(id); id++) {
            const struct fmk_layout *layout = fmk_layout_by_id(id);
            if (kernel->layout && kernel->layout != id)
                continue;
            double error = relative_error(kernel, layout, &specs[layout->family], &rng);
            double bound = kernel->acts == FMK_ACTS_Q8 ? 6e-3 : 1e-6;
            print_message("%-24s %-12s k 28672: %.2e\n", kernel->name, layout->name, error);
            if (!(error <= bound))
                fail_msg("%s on %s: relative L2 %.3g is above %.3g", kernel->name, layout->name, error,
                         bound);
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
    for (int32_t id = FMK_LAYOUT_Q4_K_X8; id <= FMK_LAYOUT_INT4_X8; id++) {
        const struct fmk_layout *layout = fmk_layout_by_id(id);
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
        bad[i++].n = 25;
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

static void check_quantized(const float *x, int64_t k, const int8_t *q, const float *scale,
                            const float *sum32, const float *sum16) {
    for (int64_t c = 0; c < k / 32; c++) {
        bool finite = true;
        double amax = 0, sums[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            finite = finite && isfinite(x[32 * c + i]);
            amax = fmax(amax, fabs(x[32 * c + i]));
            sums[i / 16] += q[32 * c + i];
            assert_in_range(q[32 * c + i] + 127, 0, 254);
        }
        if (!finite) {
            assert_true(isnan(scale[c]));
            continue;
        }
        assert_true(sum16[2 * c] == (float)(scale[c] * (float)sums[0]));
        assert_true(sum16[2 * c + 1] == (float)(scale[c] * (float)sums[1]));
        assert_true(sum32[c] == (float)(scale[c] * (float)(sums[0] + sums[1])));
        for (int i = 0; i < 32; i++) /* half a step, and the rounding of three operations */
            assert_true(fabs(x[32 * c + i] - (double)q[32 * c + i] * scale[c]) <=
                        amax * (0.5 / 127 + 4 * 0x1p-24) + 127 * 0x1p-126);
    }
}

static void test_quantize_row(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("kernels/quantize_row");
    enum { K = 4096, CHUNKS = K / 32 };
    static float x[K], scale[2][CHUNKS], sum32[2][CHUNKS], sum16[2][2 * CHUNKS];
    static int8_t q[2][K];
    for (int64_t i = 0; i < K; i++)
        x[i] = (float)(ref_normal(&rng) * exp2((double)(i / 32) * 2 - 128));
    memset(x, 0, 32 * sizeof *x);
    x[33] = INFINITY;
    x[65] = -INFINITY;
    x[97] = NAN;
    for (int i = 128; i < 160; i++) /* ties: to even */
        x[i] = (float)(i - 128) - 15.5f;
    x[128] = 127;
    fmk_quantize_row_portable(x, K, q[0], scale[0], sum32[0], sum16[0]);
    check_quantized(x, K, q[0], scale[0], sum32[0], sum16[0]);
    if (!(fmk_cpu_features(NULL) & FMK_CPU_AVX2)) {
        print_message("skipped: quantize_row_avx2, this machine has no avx2\n");
        return;
    }
#if defined(__x86_64__)
    fmk_quantize_row_avx2(x, K, q[1], scale[1], sum32[1], sum16[1]);
    assert_memory_equal(q[0], q[1], sizeof q[0]);
    assert_memory_equal(scale[0], scale[1], sizeof scale[0]);
    assert_memory_equal(sum32[0], sum32[1], sizeof sum32[0]);
    assert_memory_equal(sum16[0], sum16[1], sizeof sum16[0]);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_row), cmocka_unit_test(test_decode),   cmocka_unit_test(test_valid),
        cmocka_unit_test(test_kernels),      cmocka_unit_test(test_accuracy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
