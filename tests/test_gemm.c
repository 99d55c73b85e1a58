/* Every gemm row of the kernel table, on every layout that it serves, against sums in double of weights
 * decoded by reference.c; those for AMX, where there is none, on tests/amx/tiles.h.
 *
 * A kernel is held to the activations as they were rounded. Then f32 and i16 are exact but for float
 * roundings: at most 300 + k/32 of u = 2^-24 each, as in test_kernels.c. Sums in tiles are made one k after
 * the other, so 300 + k. bf16 rounds weights too: by at most 2^-9, or, where they are enlarged by two thirds
 * of 2^-8 and cut by up to 2^-7, by two thirds of 2^-7; beside 2^-13 of the scale, a fifteenth of the
 * magnitude before codes cancel against minima, 2^-16 of that. A sum of two bf16 is within 2^-18, and the
 * product of the second ones, which is left out, within 2^-18: 2^-17. int8 rounds weights by at most half of
 * a step, a 127th of what the largest of 256 may be, beside a 16th of a step for scales of 8.8 bits; the
 * largest of some random codes is at least three quarters of what it may be. */
#include "device.h"
#include "packed_weight.h"

#include "cpu/features.h"
#include "cpu/gemm/gemm.h"
#include "plan/kernels.h"

#include <stdio.h>

#if defined(__x86_64__)
/* src/cpu/amx on tests/amx/tiles.h */
extern const struct fmk_gemm fmk_emulated_amx_bf16, fmk_emulated_amx_bf16x2, fmk_emulated_amx_int8;
#endif

enum {
    MOST = 197,   /* tokens: more than most kernels take at once, and no multiple of anything */
    BEFORE = 3,   /* rows in front of them, */
    CAPACITY = 7, /* and others behind */
    CANARIES = 64,
    CANARY = 0x5a
};

static int skipped;

/* ---- kernels ---- */

struct subject {
    const char *name;
    enum fmk_acts_form form;
    int32_t layout;              /* 0 = any */
    const struct fmk_gemm *gemm; /* NULL: this machine cannot run it */
    fmk_quantize_row *fill;
    /* Of the tolerance: what weights are rounded by, each, or all by a share of the largest of 256; roundings
     * of a sum = 300 + k * */
    double relative, roundings;
    bool of_largest;
};

static bool has(uint32_t features) {
    return !(features & ~fmk_cpu_features(getenv("FERRUMK_TEST_DISABLE")));
}

static struct subject subject_of(const struct fmk_kernel *kernel) {
    struct subject s = {kernel->name, kernel->acts, kernel->layout, kernel->gemm, NULL, 0, 1.0 / 32, false};
    bool runs = has(kernel->needs);
    switch (kernel->acts) {
    case FMK_ACTS_GEMM_F32:
        s.fill = fmk_gemm_fill_f32;
        break;
    case FMK_ACTS_GEMM_I16:
        s.fill = fmk_gemm_fill_i16_portable;
        break;
#if defined(__x86_64__)
    case FMK_ACTS_GEMM_BF16:
        s.fill = fmk_gemm_fill_bf16;
        s.relative = 0x1p-7 * 2 / 3 + 0x1p-16;
        s.roundings = 1;
        break;
    case FMK_ACTS_GEMM_BF16X2:
        s.fill = fmk_gemm_fill_bf16x2;
        s.relative = 0x1p-17;
        s.roundings = 1;
        break;
    case FMK_ACTS_GEMM_INT8:
        s.fill = fmk_gemm_fill_int8;
        s.relative = (1.0 / 2 + 1.0 / 16) / 127 * 4 / 3;
        s.of_largest = true;
        break;
#endif
    default:
        fail_msg("%s: no activations of form %d", kernel->name, kernel->acts);
    }
#if defined(__x86_64__)
    const uint32_t amx = FMK_CPU_AMX_BF16 | FMK_CPU_AMX_INT8;
    if (!runs && kernel->needs & amx && has(kernel->needs & ~amx)) {
        s.gemm = s.form == FMK_ACTS_GEMM_BF16     ? &fmk_emulated_amx_bf16
                 : s.form == FMK_ACTS_GEMM_BF16X2 ? &fmk_emulated_amx_bf16x2
                                                  : &fmk_emulated_amx_int8;
        runs = true;
    }
#endif
    if (!runs) {
        print_message("skipped: %s, not with this machine's features\n", kernel->name);
        skipped++;
        s.gemm = NULL;
    }
    return s;
}

/* ---- activations ---- */

struct activations {
    struct fmk_acts acts;
    int64_t k;
    float *f32;   /* [MOST][k] */
    double *used; /* [MOST][k]: what the kernel is given */
};

static double value_at(const struct activations *a, enum fmk_acts_form form, int64_t row, int64_t k) {
    static const int place[4] = {0, 2, 1, 3};
    const struct fmk_gemm_acts *acts = &a->acts.gemm;
    int64_t block = k / FMK_K_BLOCK * acts->capacity + BEFORE + row,
            at = block * FMK_K_BLOCK + k % FMK_K_BLOCK;
    int64_t tile = (k / 32 * acts->capacity + BEFORE + row) * 32 + k % 32;
    switch (form) {
    case FMK_ACTS_GEMM_F32:
        return acts->f32[at];
    case FMK_ACTS_GEMM_I16:
        return acts->i16[at - at % 4 + place[at % 4]] * (double)acts->step[block];
    case FMK_ACTS_GEMM_BF16:
        return ref_bf16(acts->bf16[0][tile]);
    case FMK_ACTS_GEMM_INT8:
        return acts->i8[(k / 64 * acts->capacity + BEFORE + row) * 64 + k % 64] * (double)acts->step[block];
    default:
        return ref_bf16(acts->bf16[0][tile]) + ref_bf16(acts->bf16[1][tile]);
    }
}

static void fill_row(const struct subject *s, struct activations *a, int64_t row) {
    for (int64_t k = 0; k < a->k; k += FMK_K_BLOCK)
        s->fill(a->f32 + row * a->k + k, fmk_min(FMK_K_BLOCK, a->k - k), &a->acts, BEFORE + row, k);
}

/* What is not filled in is NaN, or the largest integers. */
static void *poisoned(uint64_t bytes) {
    return memset(allocate(bytes), 0x7f, bytes);
}

static void make_activations(struct activations *a, const struct subject *s, const struct packed_weight *w,
                             struct ref_rng *rng) {
    int64_t k = a->k = fmk_round_up(w->packed.k_packed, 32), capacity = BEFORE + MOST + CAPACITY;
    uint64_t blocks = (uint64_t)(capacity * ((k + FMK_K_BLOCK - 1) / FMK_K_BLOCK));
    a->acts = (struct fmk_acts){
        .k = k,
        .gemm = {.capacity = capacity,
                 .f32 = poisoned(blocks * FMK_K_BLOCK * 4),
                 .i16 = poisoned(blocks * FMK_K_BLOCK * 2),
                 .step = poisoned(blocks * 4),
                 .sum32 = poisoned(blocks * 32),
                 .bf16 = {poisoned(blocks * FMK_K_BLOCK * 2), poisoned(blocks * FMK_K_BLOCK * 2)},
                 .i8 = poisoned(blocks * FMK_K_BLOCK)}};
    a->f32 = allocate((uint64_t)(MOST * k) * 4);
    a->used = allocate((uint64_t)(MOST * k) * 8);
    for (int64_t i = 0; i < MOST * k; i++)
        a->f32[i] = i % k < w->packed.k_packed && k_at(w, 0, i % k) >= 0 ? (float)ref_normal(rng) : 0;
    for (int64_t row = 0; row < MOST; row++)
        fill_row(s, a, row);
    for (int64_t i = 0; i < MOST * k; i++)
        a->used[i] = value_at(a, s->form, i / k, i % k);
}

static void free_activations(struct activations *a) {
    free(a->acts.gemm.f32);
    free(a->acts.gemm.i16);
    free(a->acts.gemm.step);
    free(a->acts.gemm.sum32);
    free(a->acts.gemm.bf16[0]);
    free(a->acts.gemm.bf16[1]);
    free(a->acts.gemm.i8);
    free(a->f32);
    free(a->used);
}

/* ---- the law of shapes ---- */

static void check_canaries(const struct subject *s, const void *memory, size_t size, const char *what) {
    for (size_t i = 0; i < CANARIES; i++)
        if (((const uint8_t *)memory)[size + i] != CANARY)
            fail_msg("%s: wrote past its %s", s->name, what);
}

/* Sums of `tokens` tokens and up to 256 rows, in groups of 64. */
enum { GROUPS = 4 };

static float *allocate_sums(int32_t tokens) {
    return allocate((uint64_t)(GROUPS * tokens * FMK_TILE_N) * sizeof(float) + CANARIES);
}

static float sum_at(const float *out, int32_t tokens, int32_t token, int32_t row) {
    return out[(row / FMK_TILE_N * tokens + token) * FMK_TILE_N + row % FMK_TILE_N];
}

static void run(const struct subject *s, const struct packed_weight *w, const struct activations *a,
                int64_t row, int32_t rows, int64_t token, int32_t tokens, float *out) {
    size_t groups = (size_t)(rows + FMK_TILE_N - 1) / FMK_TILE_N, sheet_bytes = (size_t)s->gemm->sheet_bytes;
    size_t size = groups * (size_t)tokens * FMK_TILE_N * sizeof(float);
    uint8_t *sheet = allocate(sheet_bytes + CANARIES);
    memset(sheet, 0xff, sheet_bytes); /* NaN: what is not decoded shows */
    memset(sheet + sheet_bytes, CANARY, CANARIES);
    memset(out, 0xff, size);
    memset((uint8_t *)out + size, CANARY, CANARIES);
    struct fmk_gemm_job job = {
        .part = &w->packed,
        .data = w->packed.data,
        .acts = &a->acts.gemm,
        .row = row,
        .rows = rows,
        .token = BEFORE + token,
        .tokens = tokens,
        .sheet = sheet,
        .out = out,
        .group = tokens * FMK_TILE_N,
    };
    s->gemm->run(&job);
    check_canaries(s, out, size, "tokens");
    check_canaries(s, sheet, sheet_bytes, "sheet");
    free(sheet);
}

/* Of every 256 the largest, for each of them. */
static void widen(double *magnitudes, int64_t k) {
    for (int64_t i = 0; i < k; i += FMK_K_BLOCK) {
        int64_t end = fmk_min(k, i + FMK_K_BLOCK);
        double largest = 0;
        for (int64_t j = i; j < end; j++)
            largest = fmax(largest, magnitudes[j]);
        for (int64_t j = i; j < end; j++)
            magnitudes[j] = largest;
    }
}

static void compare(const struct subject *s, const struct packed_weight *w, const struct activations *a,
                    int64_t row, int32_t rows, const float *out) {
    int64_t k = w->packed.k_packed;
    double *weight = allocate((uint64_t)k * 16), *magnitudes = weight + k;
    for (int32_t r = 0; r < rows; r++) {
        decode_row(w, row + r, weight, magnitudes);
        if (s->of_largest)
            widen(magnitudes, k);
        for (int32_t t = 0; t < MOST; t++) {
            double want = 0, terms = 0;
            for (int64_t i = 0; i < k; i++) {
                want += weight[i] * a->used[t * a->k + i];
                terms += magnitudes[i] * fabs(a->used[t * a->k + i]);
            }
            double bound = ((300 + (double)k * s->roundings) * 0x1p-24 + s->relative) * terms + 1e-30;
            float got = sum_at(out, MOST, t, r);
            if (!(fabs(got - want) <= bound))
                fail_msg("%s on %s, n %lld k %lld: (m %d, n %lld) is %.9g, want %.9g within %.2g", s->name,
                         w->packed.layout->name, (long long)w->packed.n, (long long)w->packed.k, t,
                         (long long)(row + r), got, want, bound);
        }
    }
    free(weight);
}

/* Rows from + 0 .. rows-1 of all tokens' sums, which are in `all`, cut otherwise. */
static void check_cut(const struct subject *s, const struct packed_weight *w, const struct activations *a,
                      int64_t row, int32_t from, int32_t rows, int32_t token, int32_t tokens,
                      const float *all) {
    float *out = allocate_sums(tokens);
    run(s, w, a, row + from, rows, token, tokens, out);
    for (int32_t t = 0; t < tokens; t++)
        for (int32_t r = 0; r < rows; r++) {
            float got = sum_at(out, tokens, t, r), want = sum_at(all, MOST, token + t, from + r);
            if (memcmp(&got, &want, sizeof got))
                fail_msg("%s on %s, n %lld k %lld: (m %d, n %lld) is %.9g among %d tokens and %d rows, %.9g "
                         "among %d",
                         s->name, w->packed.layout->name, (long long)w->packed.n, (long long)w->packed.k,
                         token + t, (long long)(row + from + r), got, tokens, rows, want, MOST);
        }
    free(out);
}

/* All tokens and a sheet of rows, checked against the sums in double; then other cuts of tokens and of rows,
 * whose bits must be the same. */
static void check_shape(const struct subject *s, const struct packed_weight *w, const struct activations *a) {
    static const int32_t ms[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 48, 64, 100, 129, 192};
    float *all = allocate_sums(MOST);
    for (int64_t row = 0; row < w->packed.n; row += s->gemm->rows) {
        int32_t n = (int32_t)fmk_min(s->gemm->rows, w->packed.n - row);
        run(s, w, a, row, n, 0, MOST, all);
        compare(s, w, a, row, n, all);
        for (int32_t i = 0; i < (int32_t)(sizeof ms / sizeof ms[0]); i++) {
            int32_t m = ms[i], from = i * FMK_STRIP % (int32_t)fmk_round_up(n, FMK_STRIP), rows = n - from;
            check_cut(s, w, a, row, from, rows - i % 3 * 5 > 0 ? rows - i % 3 * 5 : rows,
                      i % 3 * (MOST - m) / 2, m, all);
        }
    }
    free(all);
}

/* A NaN in one token's activations reaches all of its outputs and no other token's. */
static void check_nan(const struct subject *s, const struct packed_weight *w, struct activations *a,
                      struct ref_rng *rng) {
    enum { TOKENS = 37, BAD = 21 };
    float *out = allocate_sums(TOKENS);
    int32_t n = (int32_t)fmk_min(FMK_TILE_N, w->packed.n);
    int64_t at;
    do
        at = ref_below(rng, w->packed.k_packed);
    while (k_at(w, 0, at) < 0);
    a->f32[BAD * a->k + at] = NAN;
    fill_row(s, a, BAD);
    run(s, w, a, 0, n, 0, TOKENS, out);
    for (int t = 0; t < TOKENS; t++)
        for (int32_t r = 0; r < n; r++)
            if (!isnan(out[t * FMK_TILE_N + r]) != (t != BAD))
                fail_msg("%s: (m %d, n %d) is %g, and only token %d had a NaN", s->name, t, r,
                         out[t * FMK_TILE_N + r], BAD);
    free(out);
}

static void check(const struct subject *s, const struct fmk_layout *layout, const struct ref_spec *spec,
                  struct ref_rng *rng) {
    struct packed_weight w;
    struct activations a;
    pack_weight(&w, spec, layout, rng);
    make_activations(&a, s, &w, rng);
    check_shape(s, &w, &a);
    check_nan(s, &w, &a, rng);
    free_activations(&a);
    free_weight(&w);
}

/* ---- the shapes ---- */

static const struct ref_spec dense_specs[] = {
    {.n = 1, .k = 1},
    {.n = 3, .k = 7, .dtype = FMK_BF16},
    {.n = 9, .k = 31, .dtype = FMK_F32},
    {.n = 66, .k = 33, .misalign = 2},
    {.n = 299, .k = 96},
    {.n = 64, .k = 255, .dtype = FMK_BF16, .misalign = 2},
    {.n = 17, .k = 256, .extremes = true},
    {.n = 63, .k = 257, .dtype = FMK_F32},
    {.n = 33, .k = 511, .dtype = FMK_BF16},
    {.n = 7, .k = 1000, .extremes = true, .misalign = 2},
    {.n = 48, .k = 779, .dtype = FMK_F32},
    {.n = 40, .k = 4711}, /* more than a sheet of AMX */
};
static const struct ref_spec k_quant_specs[] = {
    {.n = 1, .k = 256},
    {.n = 17, .k = 512, .extremes = true, .misalign = 2},
    {.n = 63, .k = 256, .misalign = 2},
    {.n = 72, .k = 1280, .extremes = true},
    {.n = 273, .k = 256},
    {.n = 40, .k = 4608},
};
static const struct ref_spec int4_specs[] = {
    {.n = 8, .k = 32, .group_size = 32},
    {.n = 72, .k = 640, .group_size = 128, .dtype = FMK_BF16, .zeros = REF_ZEROS_ALL_7},
    {.n = 24, .k = 1024, .group_size = -1, .dtype = FMK_F32, .zeros = REF_ZEROS_RANDOM},
    {.n = 40, .k = 200, .group_size = 64, .zeros = REF_ZEROS_RANDOM},
    {.n = 16, .k = 304, .group_size = 48, .zeros = REF_ZEROS_RANDOM, .extremes = true},
    {.n = 56, .k = 768, .group_size = 96, .zeros = REF_ZEROS_RANDOM},
    {.n = 24, .k = 384, .group_size = 64, .zeros = REF_ZEROS_RANDOM, .groups = REF_GROUPS_SHUFFLED},
    {.n = 64, .k = 512, .group_size = 32, .zeros = REF_ZEROS_RANDOM, .groups = REF_GROUPS_UNEQUAL},
    {.n = 40, .k = 4448, .group_size = 32, .zeros = REF_ZEROS_RANDOM},
};

static void check_family(const struct subject *s, const struct fmk_layout *layout, struct ref_rng *rng) {
    const struct ref_spec *specs = layout->family == FMK_FAMILY_DENSE  ? dense_specs
                                   : layout->family == FMK_FAMILY_INT4 ? int4_specs
                                                                       : k_quant_specs;
    size_t count = layout->family == FMK_FAMILY_DENSE  ? sizeof dense_specs / sizeof *specs
                   : layout->family == FMK_FAMILY_INT4 ? sizeof int4_specs / sizeof *specs
                                                       : sizeof k_quant_specs / sizeof *specs;
    for (size_t i = 0; i < count; i += quick() ? 3 : 1) {
        struct ref_spec spec = specs[i];
        spec.format = layout->family == FMK_FAMILY_DENSE  ? FMK_FORMAT_DENSE
                      : layout->family == FMK_FAMILY_INT4 ? FMK_FORMAT_GPTQ_V2
                      : layout->family == FMK_FAMILY_Q4_K ? FMK_FORMAT_Q4_K
                                                          : FMK_FORMAT_Q6_K;
        check(s, layout, &spec, rng);
    }
}

/* Whether the table would choose the row for a layout, m and flags being what it likes. */
static bool serves(const struct fmk_kernel *kernel, const struct fmk_layout *layout) {
    struct fmk_packed part = {.layout = layout, .n = 64, .k = 256, .k_packed = 256, .dtype = FMK_BF16};
    struct fmk_query query = {.backend = FMK_BACKEND_CPU,
                              .features = UINT32_MAX,
                              .flags = FMK_LINEAR_FAST_REDUCE,
                              .part = &part,
                              .m = 512,
                              .depth = 512,
                              .in_type = FMK_BF16};
    char why[128];
    return layout->pack && !fmk_kernel_objects(kernel, &query, why, sizeof why);
}

static void test_gemm(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("gemm");
    int layouts = 0;
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        const struct fmk_kernel *kernel = fmk_kernel_row(i);
        struct subject s;
        if (!kernel->gemm || !(s = subject_of(kernel)).gemm)
            continue;
        for (int32_t id = 1; fmk_layout_by_id(id); id++)
            if (serves(kernel, fmk_layout_by_id(id))) {
                check_family(&s, fmk_layout_by_id(id), &rng);
                layouts++;
            }
    }
    print_message("%d pairs of kernel and layout; %d kernels skipped\n", layouts, skipped);
}

/* ---- which of them serves a call ---- */

#if defined(__x86_64__)
static const char *chosen(enum fmk_layout_id id, uint32_t flags, int64_t m) {
    struct fmk_packed part = {
        .layout = fmk_layout_by_id(id), .n = 64, .k = 256, .k_packed = 256, .dtype = FMK_F16};
    struct fmk_query query = {.backend = FMK_BACKEND_CPU,
                              .features = UINT32_MAX,
                              .part = &part,
                              .flags = flags,
                              .m = m,
                              .depth = m,
                              .in_type = FMK_F32};
    return fmk_kernel_choose(&query)->name;
}

/* Less exact sums are made where they are asked for, and nothing else is. */
static void test_choice(void **state) {
    (void)state;
    const uint32_t fast = FMK_LINEAR_FAST_REDUCE;
    const enum fmk_layout_id q4k = FMK_LAYOUT_Q4_K_X16, dense = FMK_LAYOUT_DENSE_ROWS;
    assert_string_equal(chosen(q4k, 0, 16), "cpu.gemm.amx.bf16");
    assert_string_equal(chosen(q4k, fast, 64), "cpu.gemm.amx.int8");
    assert_string_equal(chosen(q4k, fast, 63), "cpu.gemm.amx.bf16");
    assert_string_equal(chosen(q4k, fast, 15), "cpu.q4_k.x16.vnni");
    assert_string_equal(chosen(q4k, fast | FMK_LINEAR_EXACT, 64), "cpu.gemm.avx512.f32");
    assert_string_equal(chosen(q4k, fast | FMK_LINEAR_BATCH_INVARIANT, 64), "cpu.q4_k.x16.vnni");
    assert_string_equal(chosen(q4k, fast | FMK_LINEAR_REFERENCE, 64), "cpu.reference");
    assert_string_equal(chosen(dense, 0, 16), "cpu.gemm.amx.bf16x2");
    assert_string_equal(chosen(dense, fast, 16), "cpu.gemm.amx.bf16");
    assert_string_equal(chosen(dense, fast | FMK_LINEAR_EXACT, 64), "cpu.gemm.avx512.f32");
}
#endif

/* ---- accuracy: relative L2 over N(0, 1) activations, against sums in double ----
 * Rounding to 2047ths of the largest of 256 errs by 4.3e-4, to 127ths by 6.9e-3, on two sides by 1e-2; to
 * bf16 by 1.7e-3 on each side, 2.4e-3 together. */

static double relative_error(const struct subject *s, const struct fmk_layout *layout,
                             const struct ref_spec *spec, struct ref_rng *rng) {
    struct packed_weight w;
    struct activations a;
    pack_weight(&w, spec, layout, rng);
    make_activations(&a, s, &w, rng);
    float *out = allocate_sums(MOST);
    double *weight = allocate((uint64_t)w.packed.k_packed * sizeof *weight), error = 0, all = 0;
    run(s, &w, &a, 0, (int32_t)w.packed.n, 0, MOST, out);
    for (int64_t r = 0; r < w.packed.n; r++) {
        decode_row(&w, r, weight, NULL);
        for (int64_t t = 0; t < MOST; t++) {
            double want = 0;
            for (int64_t i = 0; i < w.packed.k_packed; i++)
                want += weight[i] * a.f32[t * a.k + i];
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
    struct ref_rng rng = ref_rng_start("gemm/accuracy");
    static const struct ref_spec specs[] = {
        [FMK_FAMILY_DENSE] = {.format = FMK_FORMAT_DENSE, .n = 16, .k = 8192},
        [FMK_FAMILY_INT4] = {.format = FMK_FORMAT_GPTQ_V2, .n = 16, .k = 8192, .group_size = 128},
        [FMK_FAMILY_Q4_K] = {.format = FMK_FORMAT_Q4_K, .n = 16, .k = 8192},
        [FMK_FAMILY_Q6_K] = {.format = FMK_FORMAT_Q6_K, .n = 16, .k = 8192},
    };
    static const double bounds[] = {[FMK_ACTS_GEMM_F32] = 1e-6,
                                    [FMK_ACTS_GEMM_I16] = 5e-4,
                                    [FMK_ACTS_GEMM_BF16] = 3e-3,
                                    [FMK_ACTS_GEMM_BF16X2] = 2e-5,
                                    [FMK_ACTS_GEMM_INT8] = 1.1e-2};
    for (int32_t i = 0; fmk_kernel_row(i); i++) {
        const struct fmk_kernel *kernel = fmk_kernel_row(i);
        struct subject s;
        if (!kernel->gemm || !(s = subject_of(kernel)).gemm)
            continue;
        for (int32_t id = 1; fmk_layout_by_id(id); id++) {
            const struct fmk_layout *layout = fmk_layout_by_id(id);
            if (!serves(kernel, layout))
                continue;
            double error = relative_error(&s, layout, &specs[layout->family], &rng);
            print_message("%-20s %-12s k 8192: %.2e\n", s.name, layout->name, error);
            if (!(error <= bounds[s.form]))
                fail_msg("%s on %s: relative L2 %.3g is above %.3g", s.name, layout->name, error,
                         bounds[s.form]);
        }
    }
}

/* ---- quantizing activations ---- */

static struct fmk_acts allocate_i16(int64_t k) {
    uint64_t blocks = (uint64_t)((k + FMK_K_BLOCK - 1) / FMK_K_BLOCK);
    return (struct fmk_acts){.k = k,
                             .gemm = {.capacity = 1,
                                      .i16 = poisoned(blocks * FMK_K_BLOCK * 2),
                                      .step = poisoned(blocks * 4),
                                      .sum32 = poisoned(blocks * 32)}};
}

static void free_i16(struct fmk_acts *acts) {
    free(acts->gemm.i16);
    free(acts->gemm.step);
    free(acts->gemm.sum32);
}

/* Up to 256 values, which share a step. */
static void check_256(const float *x, int64_t count, const struct fmk_gemm_acts *acts, int64_t b) {
    static const int place[4] = {0, 2, 1, 3};
    const int16_t *code = acts->i16 + b * FMK_K_BLOCK;
    float step = acts->step[b];
    double largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = isfinite(x[i]) ? fmax(largest, fabs(x[i])) : INFINITY;
    if (isinf(largest))
        assert_true(isnan(step));
    else
        assert_true(fabs(step * (double)FMK_I16_MOST - largest) <= largest * 0x1p-23 ||
                    (largest < 0x1p-106 && step == 0));
    for (int64_t c = 0; c < count / 32; c++) {
        int32_t sum = 0;
        for (int64_t i = 32 * c; i < 32 * c + 32; i++) {
            int16_t q = code[i - i % 4 + place[i % 4]];
            sum += q;
            assert_in_range(q + FMK_I16_MOST, 0, 2 * FMK_I16_MOST);
            if (!isinf(largest)) /* half a step, and the rounding of a few operations */
                assert_true(fabs(x[i] - q * (double)step) <= (0.5 + 2047 * 4 * 0x1p-24) * step + 0x1p-106);
        }
        float want = step * (float)sum;
        assert_true(isinf(largest) ? isnan(acts->sum32[8 * b + c]) : acts->sum32[8 * b + c] == want);
    }
}

#if defined(__x86_64__)
/* The same of int8: codes of 64 k lie together, and zeros follow the last one. */
static void check_256_int8(const float *x, int64_t count, const struct fmk_gemm_acts *acts, int64_t b) {
    const int8_t *code = acts->i8 + b * FMK_K_BLOCK;
    float step = acts->step[b];
    double largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = isfinite(x[i]) ? fmax(largest, fabs(x[i])) : INFINITY;
    assert_true(isinf(largest)
                    ? isnan(step)
                    : fabs(step * 127.0 - largest) <= largest * 0x1p-23 || (largest < 0x1p-106 && step == 0));
    for (int64_t i = 0; i < fmk_round_up(count, 64) && !isinf(largest); i++) {
        double want = i < count ? x[i] : 0;
        assert_in_range(code[i] + 127, 0, 254);
        assert_true(fabs(want - code[i] * (double)step) <= (0.5 + 127 * 4 * 0x1p-24) * step + 0x1p-106);
    }
}
#endif

/* Rows of 4000: the last block has 160 values. From 2^-128 to 2^126, and within 256 from 1 to 2^-16. */
static void test_fill(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("gemm/fill");
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
    x[1536 + 77] = FMK_I16_MOST;
    struct fmk_acts acts = allocate_i16(K);
    for (int64_t k = 0; k < K; k += FMK_K_BLOCK) {
        int64_t count = fmk_min(FMK_K_BLOCK, K - k);
        fmk_gemm_fill_i16_portable(x + k, count, &acts, 0, k);
        check_256(x + k, count, &acts.gemm, k / FMK_K_BLOCK);
    }
#if defined(__x86_64__)
    if (has(FMK_CPU_AVX2)) {
        struct fmk_acts wide = allocate_i16(K);
        for (int64_t k = 0; k < K; k += FMK_K_BLOCK)
            fmk_gemm_fill_i16_avx2(x + k, fmk_min(FMK_K_BLOCK, K - k), &wide, 0, k);
        uint64_t blocks = (K + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
        assert_memory_equal(acts.gemm.i16, wide.gemm.i16, blocks * FMK_K_BLOCK * 2);
        assert_memory_equal(acts.gemm.step, wide.gemm.step, blocks * 4);
        assert_memory_equal(acts.gemm.sum32, wide.gemm.sum32, blocks * 32);
        free_i16(&wide);
    } else {
        print_message("skipped: fill_i16_avx2, this machine has no avx2\n");
    }
    if (has(FMK_CPU_AVX512_BF16)) {
        acts.gemm.i8 = poisoned((K + 255) / 256 * 256);
        for (int64_t k = 0; k < K; k += FMK_K_BLOCK) {
            int64_t count = fmk_min(FMK_K_BLOCK, K - k);
            fmk_gemm_fill_int8(x + k, count, &acts, 0, k);
            check_256_int8(x + k, count, &acts.gemm, k / FMK_K_BLOCK);
        }
        free(acts.gemm.i8);
    } else {
        print_message("skipped: fill_int8, this machine has no avx512_bf16\n");
    }
#endif
    free_i16(&acts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_gemm),
#if defined(__x86_64__)
        cmocka_unit_test(test_choice),
#endif
        cmocka_unit_test(test_accuracy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
