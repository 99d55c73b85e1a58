/* What the pack kernels make of every format, byte by byte: each weight stands where kernels/layout.h says,
 * padding weighs nothing, and the range holds. */
#include "abi.h"
#include "calls.h"
#include "t16.h"
#include "weight.h"

static const struct {
    const char *name;
    struct ref_spec spec;
    int64_t n_begin, n_end, k_begin, k_end;
    bool order;
} cases[] = {
    {.name = "gptq, groups of 128",
     .spec = {.format = FMK_FORMAT_GPTQ, .n = 64, .k = 512, .group_size = 128, .zeros = REF_ZEROS_ALL_7}},
    {.name = "gptq, groups of 64, n 37",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 37,
              .k = 320,
              .group_size = 64,
              .dtype = FMK_F32,
              .zeros = REF_ZEROS_RANDOM}},
    {.name = "gptq, groups of 32",
     .spec = {.format = FMK_FORMAT_GPTQ_V2,
              .n = 17,
              .k = 96,
              .group_size = 32,
              .dtype = FMK_BF16,
              .zeros = REF_ZEROS_RANDOM}},
    {.name = "gptq, groups of 48",
     .spec = {.format = FMK_FORMAT_GPTQ, .n = 24, .k = 240, .group_size = 48, .zeros = REF_ZEROS_RANDOM}},
    {.name = "gptq, groups of 8",
     .spec = {.format = FMK_FORMAT_GPTQ, .n = 8, .k = 64, .group_size = 8, .zeros = REF_ZEROS_RANDOM}},
    {.name = "gptq, groups of 100",
     .spec = {.format = FMK_FORMAT_GPTQ, .n = 16, .k = 200, .group_size = 100, .zeros = REF_ZEROS_RANDOM}},
    {.name = "gptq, one group",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 40,
              .k = 136,
              .group_size = -1,
              .zeros = REF_ZEROS_RANDOM,
              .bias = FMK_F16}},
    {.name = "gptq, act-order",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 48,
              .k = 256,
              .group_size = 64,
              .zeros = REF_ZEROS_RANDOM,
              .groups = REF_GROUPS_SHUFFLED}},
    {.name = "gptq, unequal groups",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 20,
              .k = 512,
              .group_size = 64,
              .experts = 3,
              .zeros = REF_ZEROS_RANDOM,
              .groups = REF_GROUPS_UNEQUAL}},
    {.name = "gptq, a shard inside of words",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 96,
              .k = 512,
              .group_size = 128,
              .zeros = REF_ZEROS_RANDOM,
              .misalign = 1},
     5,
     91,
     3,
     509,
     false},
    {.name = "gptq, a shard of whole groups, in another order",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 96,
              .k = 512,
              .group_size = 128,
              .experts = 2,
              .zeros = REF_ZEROS_RANDOM},
     16,
     90,
     128,
     384,
     true},
    {.name = "marlin", .spec = {.format = FMK_FORMAT_MARLIN, .n = 128, .k = 384, .group_size = 128}},
    {.name = "marlin, one group, a shard",
     .spec = {.format = FMK_FORMAT_MARLIN, .n = 192, .k = 256, .group_size = -1, .misalign = 2},
     30,
     170,
     48,
     240,
     false},
    {.name = "marlin, in another order",
     .spec = {.format = FMK_FORMAT_MARLIN, .n = 128, .k = 256, .group_size = 128, .experts = 2},
     10,
     100,
     16,
     256,
     true},
    {.name = "gptq, extremes",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 64,
              .k = 256,
              .group_size = 64,
              .zeros = REF_ZEROS_RANDOM,
              .extremes = true}},
    {.name = "gptq, extremes of f32",
     .spec = {.format = FMK_FORMAT_GPTQ,
              .n = 64,
              .k = 256,
              .group_size = 64,
              .dtype = FMK_F32,
              .zeros = REF_ZEROS_RANDOM,
              .extremes = true}},
    {.name = "q4_k", .spec = {.format = FMK_FORMAT_Q4_K, .n = 33, .k = 1280, .bias = FMK_F32}},
    {.name = "q4_k, a shard",
     .spec = {.format = FMK_FORMAT_Q4_K, .n = 70, .k = 1024, .experts = 2, .misalign = 1},
     7,
     68,
     256,
     768,
     false},
    {.name = "q4_k, in another order",
     .spec = {.format = FMK_FORMAT_Q4_K, .n = 40, .k = 512, .misalign = 2},
     3,
     40,
     256,
     512,
     true},
    {.name = "q6_k", .spec = {.format = FMK_FORMAT_Q6_K, .n = 33, .k = 1280}},
    {.name = "q6_k, a shard",
     .spec = {.format = FMK_FORMAT_Q6_K, .n = 70, .k = 1024, .experts = 2, .misalign = 1},
     7,
     68,
     256,
     768,
     false},
    {.name = "q6_k, in another order",
     .spec = {.format = FMK_FORMAT_Q6_K, .n = 40, .k = 512},
     3,
     40,
     256,
     512,
     true},
    {.name = "q4_k, extremes", .spec = {.format = FMK_FORMAT_Q4_K, .n = 32, .k = 512, .extremes = true}},
    {.name = "q6_k, extremes", .spec = {.format = FMK_FORMAT_Q6_K, .n = 32, .k = 512, .extremes = true}},
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* All bytes of a section, from the device. */
static void *section(const void *address, uint64_t bytes) {
    void *copy = malloc(bytes);
    assert_non_null(copy);
    gpu_read(copy, (uint64_t)(uintptr_t)address, bytes);
    return copy;
}

static double weight_at(const struct fmk_packed *p, const uint8_t *expert, int64_t row, int64_t position) {
    int64_t unit_k = p->layout->family == FMK_FAMILY_INT4 ? FMK_INT4_UNIT_K : FMK_Q4K_UNIT_K;
    int64_t panel_rows = p->layout->id == FMK_LAYOUT_INT4_T64 ? 64 : 16;
    const uint8_t *unit = expert + (uint64_t)(row / panel_rows) * p->stride +
                          (uint64_t)(position / unit_k) * (p->stride / (uint64_t)(p->k_packed / unit_k));
    int in = (int)(row % panel_rows);
    switch (p->layout->id) {
    case FMK_LAYOUT_INT4_T16:
        return t16_int4(unit, p->chunks, p->dtype, p->has_zeros, in, position % unit_k);
    case FMK_LAYOUT_INT4_T64:
        return t64_int4(unit, p->chunks, p->dtype, p->has_zeros, in, position % unit_k);
    case FMK_LAYOUT_Q4_K_T16:
        return t16_q4k(unit, in, position % unit_k);
    default:
        return t16_q6k(unit, in, position % unit_k);
    }
}

/* largest: of the weights. */
static void check_range(const struct fmk_packed *p, double largest, const char *name) {
    struct fmk_range *range = section(p->range, sizeof *range);
    if (isfinite(largest) && !((double)range->largest >= largest * (1 - 1e-6)))
        fail_msg("%s: range.largest %g, and there is a weight of %g", name, (double)range->largest, largest);
    assert_true((double)range->scale >= 1 && range->scale * range->inverse == 1);
    assert_true(range->zero == 0);
    int exponent;
    assert_true(frexpf(range->scale, &exponent) == 0.5f);
    if ((double)range->largest <= 65504)
        assert_true(range->scale == 1);
    else
        assert_true((double)range->largest * (double)range->inverse <= 32768 &&
                    (double)range->largest * (double)range->inverse > 16384);
    free(range);
}

static void check(const struct fmk_packed *p, const struct ref_weight *want, const char *name) {
    uint8_t *data = section(p->data, p->bytes), *seen = malloc((size_t)p->k);
    int64_t experts = p->experts, rows = fmk_round_up(p->n, p->layout->panel_rows);
    int32_t *index = p->k_index ? section(p->k_index, (uint64_t)(experts * p->k_packed) * 4) : NULL;
    double largest = 0;
    for (int64_t e = 0; e < experts; e++) {
        memset(seen, 0, (size_t)p->k);
        for (int64_t position = 0; position < p->k_packed; position++) {
            int64_t k = index ? index[e * p->k_packed + position] : position < p->k ? position : -1;
            assert_true(k >= -1 && k < p->k);
            if (k >= 0)
                assert_int_equal(seen[k]++, 0);
            for (int64_t row = 0; row < rows; row++) {
                double got = weight_at(p, data + (uint64_t)e * p->expert_stride, row, position);
                double value = k >= 0 && row < p->n ? ref_value(want, e, row, k) : 0;
                if (!(fabs(got - value) <= 1e-9 * fabs(value)) && isfinite(value))
                    fail_msg("%s: expert %lld, W[%lld][%lld] at %lld: want %g got %g", name, (long long)e,
                             (long long)row, (long long)k, (long long)position, value, got);
                largest = fmax(largest, fabs(value));
            }
        }
        for (int64_t k = 0; k < p->k; k++)
            assert_int_equal(seen[k], 1);
    }
    check_range(p, largest, name);
    free(data);
    free(seen);
    free(index);
}

static void pack_all(struct bench *b, struct ref_rng *rng) {
    for (int c = 0; c < CASES; c++) {
        struct ref_weight want;
        ref_make(&want, &cases[c].spec, rng);
        fmk_part *part = &want.part;
        part->n_begin = cases[c].n_begin;
        part->n_end = cases[c].n_end;
        part->k_begin = cases[c].k_begin;
        part->k_end = cases[c].k_end;
        if (cases[c].order) {
            int64_t rows = ref_rows(&want), experts = want.experts ? want.experts : 1;
            int32_t *order = malloc((size_t)(rows * experts) * sizeof *order);
            for (int64_t e = 0; e < experts; e++)
                ref_shuffle(rng, order + e * rows, rows);
            ref_set_order(&want, order, rows);
            free(order);
        }
        fmk_weight *weight = make_weight(b, &want, 1, FMK_WEIGHT_BORROW);
        assert_false(weight->borrowed);
        check(&weight->projection.parts[0], &want, cases[c].name);
        fmk_weight_destroy(weight, b->queue);
        ref_free(&want);
    }
}

static void test_pack(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("pack/cases");
    struct bench b = open_bench(2);
    pack_all(&b, &rng);
    close_bench(&b);
}

/* Slots so small that every part goes in many slices. */
static void test_slices(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("pack/slices");
    struct bench b;
    fmk_context_desc desc = context_desc(3);
    desc.staging_bytes = 1;
    OK(fmk_context_create(&b.ctx, &desc));
    OK(fmk_queue_create(&b.queue, b.ctx, test_stream()));
    struct ref_spec specs[] = {
        {.format = FMK_FORMAT_GPTQ, .n = 1000, .k = 2048, .group_size = 128, .zeros = REF_ZEROS_RANDOM},
        {.format = FMK_FORMAT_MARLIN, .n = 1024, .k = 1024, .group_size = 128},
        {.format = FMK_FORMAT_Q4_K, .n = 1000, .k = 2048},
        {.format = FMK_FORMAT_Q6_K, .n = 1000, .k = 2048},
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct ref_weight want;
        ref_make(&want, &specs[i], &rng);
        want.part.n_begin = 8;
        fmk_weight *weight = make_weight(&b, &want, 1, 0);
        check(&weight->projection.parts[0], &want, weight->projection.parts[0].layout->name);
        fmk_weight_destroy(weight, b.queue);
        ref_free(&want);
    }
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
