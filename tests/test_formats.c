/* Parts of every format, read through the accessors that packers use and through the layouts that keep a
 * file's rows, against the decoders of reference.c; and every way in which a part can contradict itself. */
#include "error.h"
#include "formats/source.h"
#include "half.h"
#include "plan/layout_rows.h"
#include "reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ref_rng rng;

static void expect(bool right, const struct ref_weight *weight, int64_t expert, int64_t row, int64_t k,
                   double want, double got) {
    if (!right)
        fail_msg("%s n %lld k %lld group_size %d: expert %lld row %lld k %lld: want %.17g, got %.17g",
                 fmk_format_name(weight->part.format), (long long)weight->part.n, (long long)weight->part.k,
                 weight->part.group_size, (long long)expert, (long long)row, (long long)k, want, got);
}

static void check_int4(const struct ref_weight *weight, const struct fmk_source *source) {
    fmk_dtype type = source->part.scales.dtype;
    int32_t *k_index = malloc((size_t)(source->k + 2) * sizeof *k_index);
    uint8_t *codes = malloc((size_t)(source->k + 2) * 8);
    k_index[0] = k_index[source->k + 1] = -1;
    for (int64_t k = 0; k < source->k; k++)
        k_index[k + 1] = (int32_t)k;
    for (int64_t e = 0; e < source->experts; e++)
        for (int64_t row = 0; row < source->n; row += 8) {
            int32_t rows = source->n - row < 8 ? (int32_t)(source->n - row) : 8;
            fmk_int4_codes(source, e, row, rows, k_index, source->k + 2, codes);
            for (int r = 0; r < 8; r++) {
                assert_int_equal(codes[r], 0);
                assert_int_equal(codes[8 * (source->k + 1) + r], 0);
            }
            for (int64_t k = 0; k < source->k; k++) {
                uint32_t scale[8];
                uint8_t zero[8];
                int64_t group = fmk_int4_group(source, e, k);
                fmk_int4_scale_bits(source, e, row, rows, group, scale);
                fmk_int4_zeros(source, e, row, rows, group, zero);
                for (int r = 0; r < 8; r++) {
                    int code = codes[8 * (k + 1) + r];
                    if (r >= rows) {
                        assert_int_equal(code, 0);
                        continue;
                    }
                    double want = ref_value(weight, e, row + r, k);
                    double got = ref_number(type, &scale[r]) * (code - zero[r]);
                    expect(got == want, weight, e, row + r, k, want, got);
                }
            }
        }
    free(codes);
    free(k_index);
}

static void check_decoded(const struct ref_weight *weight, const struct fmk_packed *packed,
                          const uint8_t *data, int64_t expert) {
    float out[256];
    for (int64_t row = 0; row < packed->n; row++)
        for (int64_t k = 0; k < packed->k; k += 256) {
            int64_t count = packed->k - k < 256 ? packed->k - k : 256;
            packed->layout->decode(packed, data, row, k, count, out);
            for (int64_t i = 0; i < count; i++) {
                float want = (float)ref_value(weight, expert, row, k + i);
                expect(fmk_bits_of_float(want) == fmk_bits_of_float(out[i]) || want == out[i], weight, expert,
                       row, k + i, (double)want, (double)out[i]);
            }
        }
}

static void check_rows(const struct ref_weight *weight, const struct fmk_source *source) {
    const struct fmk_layout *layout = source->family == FMK_FAMILY_DENSE  ? &fmk_layout_dense_rows
                                      : source->family == FMK_FAMILY_Q4_K ? &fmk_layout_q4k_rows
                                                                          : &fmk_layout_q6k_rows;
    struct fmk_packed packed = {.layout = layout, .n = source->n, .k = source->k, .experts = source->experts};
    bool index = true;
    assert_true(layout->shape(source, &packed, &index));
    assert_false(index);
    assert_true(layout->valid(&packed));
    uint8_t *bytes = malloc(packed.bytes);
    for (int64_t e = 0; e < source->experts; e++) {
        uint8_t *data = bytes + (uint64_t)e * packed.expert_stride;
        int64_t half = source->n / 2;
        layout->pack(source, &packed, NULL, e, half, source->n - half, data);
        layout->pack(source, &packed, NULL, e, 0, half, data);
        check_decoded(weight, &packed, data, e);
    }
    free(bytes);
    struct fmk_packed broken = packed;
    broken.stride++;
    assert_false(layout->valid(&broken));
    broken = packed;
    broken.n = 0;
    assert_false(layout->valid(&broken));
    broken = packed;
    broken.bytes--;
    assert_false(layout->valid(&broken));
    broken = packed;
    broken.dtype = FMK_I32;
    assert_false(layout->valid(&broken));
    if (weight->part.n_order.data.handle)
        return;
    /* Borrowed: rows as far apart as in the file. */
    packed.stride = source->n > 1 ? (uint64_t)(fmk_source_row(source, 0, 1) - fmk_source_row(source, 0, 0))
                                  : packed.stride;
    for (int64_t e = 0; e < source->experts; e++)
        check_decoded(weight, &packed, fmk_source_row(source, e, 0), e);
}

static struct fmk_source check_weight(const struct ref_weight *weight) {
    struct fmk_source source, shapes;
    if (fmk_source_init(&source, &weight->part, weight->experts, true))
        fail_msg("%s", fmk_last_error());
    if (fmk_source_init(&shapes, &weight->part, weight->experts, false))
        fail_msg("%s", fmk_last_error());
    assert_int_equal(source.n, ref_rows(weight));
    assert_int_equal(source.k, ref_columns(weight));
    assert_int_equal(shapes.n, source.n);
    assert_int_equal(shapes.family, source.family);
    if (source.family == FMK_FAMILY_INT4)
        check_int4(weight, &source);
    else
        check_rows(weight, &source);
    return source;
}

/* The whole, shards of it, and the same in another order of rows. `k_cut` is where K may be cut. */
static void check_spec(const struct ref_spec *spec, int64_t k_cut) {
    struct ref_weight weight;
    ref_make(&weight, spec, &rng);
    check_weight(&weight);
    if (spec->n > 2) {
        weight.part.n_begin = 1;
        weight.part.n_end = spec->n - 1;
        check_weight(&weight);
    }
    if (k_cut < spec->k) {
        weight.part.k_begin = k_cut;
        check_weight(&weight);
        weight.part.k_begin = 0;
        weight.part.k_end = k_cut;
        check_weight(&weight);
    }
    int64_t rows = ref_rows(&weight), experts = spec->experts ? spec->experts : 1;
    int32_t *order = malloc((size_t)(experts * rows) * sizeof *order);
    for (int64_t e = 0; e < experts; e++)
        ref_shuffle(&rng, order + e * rows, rows);
    ref_set_order(&weight, order, rows);
    free(order);
    check_weight(&weight);
    ref_free(&weight);
}

static void test_dense(void **state) {
    (void)state;
    static const fmk_dtype types[] = {FMK_F32, FMK_F16, FMK_BF16};
    static const int64_t shapes[][2] = {{1, 1}, {3, 7}, {9, 256}, {5, 300}};
    for (size_t t = 0; t < 3; t++)
        for (size_t s = 0; s < 4; s++)
            for (int32_t experts = 0; experts < 3; experts += 2)
                for (int32_t odd = 0; odd < 2; odd++)
                    check_spec(&(struct ref_spec){.format = FMK_FORMAT_DENSE,
                                                  .n = shapes[s][0],
                                                  .k = shapes[s][1],
                                                  .dtype = types[t],
                                                  .experts = experts,
                                                  .extremes = odd,
                                                  .misalign = odd},
                               5);
}

static void test_k_quants(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 256}, {3, 512}, {9, 768}};
    for (fmk_format format = FMK_FORMAT_Q4_K; format <= FMK_FORMAT_Q6_K; format++)
        for (size_t s = 0; s < 3; s++)
            for (int32_t experts = 0; experts < 3; experts += 2)
                for (int32_t odd = 0; odd < 2; odd++)
                    check_spec(&(struct ref_spec){.format = format,
                                                  .n = shapes[s][0],
                                                  .k = shapes[s][1],
                                                  .experts = experts,
                                                  .extremes = odd,
                                                  .misalign = odd},
                               256);
}

static void test_gptq(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 8}, {8, 64}, {13, 96}, {24, 200}};
    static const int32_t sizes[] = {-1, 8, 32, 48, 128};
    static const fmk_dtype types[] = {FMK_F16, FMK_BF16, FMK_F32};
    int turn = 0;
    for (fmk_format format = FMK_FORMAT_GPTQ; format <= FMK_FORMAT_GPTQ_V2; format++)
        for (size_t s = 0; s < 4; s++)
            for (size_t g = 0; g < 5; g++)
                for (enum ref_groups groups = 0; groups <= REF_GROUPS_UNEQUAL; groups++)
                    for (enum ref_zeros zeros = 0; zeros <= REF_ZEROS_RANDOM; zeros++, turn++)
                        check_spec(&(struct ref_spec){.format = format,
                                                      .n = shapes[s][0],
                                                      .k = shapes[s][1],
                                                      .group_size = sizes[g],
                                                      .dtype = types[turn % 3],
                                                      .experts = turn % 4 == 0 ? 3 : 0,
                                                      .extremes = turn % 5 == 0,
                                                      .misalign = turn % 7 == 0,
                                                      .groups = groups,
                                                      .zeros = zeros},
                                   shapes[s][1] / 2 + turn % 3);
}

static void test_marlin(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{64, 16}, {128, 128}, {192, 272}};
    static const int32_t sizes[] = {-1, 16, 64, 128, 4096};
    int turn = 0;
    for (size_t s = 0; s < 3; s++)
        for (size_t g = 0; g < 5; g++, turn++)
            check_spec(&(struct ref_spec){.format = FMK_FORMAT_MARLIN,
                                          .n = shapes[s][0],
                                          .k = shapes[s][1],
                                          .group_size = sizes[g],
                                          .dtype = turn % 2 ? FMK_F16 : FMK_BF16,
                                          .experts = turn % 3 == 0 ? 2 : 0,
                                          .misalign = turn % 2},
                       16);
}

/* ---- zero points and groups ---- */

static struct ref_spec gptq_spec(fmk_format format, enum ref_zeros zeros) {
    return (struct ref_spec){.format = format, .n = 11, .k = 64, .group_size = 16, .zeros = zeros};
}

static void test_zero_points(void **state) {
    (void)state;
    static const struct {
        fmk_format format;
        enum ref_zeros zeros;
        int32_t symmetric, zero_point;                  /* told */
        int32_t declared, detected, used, is_symmetric; /* found; used 0: refused */
    } cases[] = {
        {FMK_FORMAT_GPTQ, REF_ZEROS_ALL_7, 1, 0, 1, 1, 1, 1},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ALL_8, 1, 0, 1, 2, 2, 1},
        {FMK_FORMAT_GPTQ_V2, REF_ZEROS_ALL_7, 1, 0, 2, 1, 1, 1},
        {FMK_FORMAT_GPTQ_V2, REF_ZEROS_ALL_8, 1, 0, 2, 2, 2, 1},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ALL_8, 0, 0, 1, 2, 2, 1},
        {FMK_FORMAT_GPTQ_V2, REF_ZEROS_ALL_7, 0, 0, 2, 1, 1, 1},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ALL_8, -1, 0, 1, 2, 1, 0},
        {FMK_FORMAT_GPTQ_V2, REF_ZEROS_ALL_7, -1, 0, 2, 1, 2, 0},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ALL_8, 1, 1, 1, 2, 1, 0},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ALL_7, 1, 2, 1, 1, 2, 0},
        {FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM, 1, 0, 1, 0, 0, 0},
        {FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM, 1, 2, 1, 0, 2, 0},
        {FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM, 0, 0, 1, 0, 1, 0},
        {FMK_FORMAT_GPTQ_V2, REF_ZEROS_RANDOM, -1, 0, 2, 0, 2, 0},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ABSENT, 1, 0, 1, 0, 1, 1},
        {FMK_FORMAT_GPTQ_V2, REF_ZEROS_ABSENT, 0, 0, 2, 0, 2, 1},
        {FMK_FORMAT_GPTQ, REF_ZEROS_ABSENT, -1, 0, 1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ref_weight weight;
        struct ref_spec spec = gptq_spec(cases[i].format, cases[i].zeros);
        ref_make(&weight, &spec, &rng);
        weight.part.symmetric = cases[i].symmetric;
        weight.part.zero_point = cases[i].zero_point;
        struct fmk_source source;
        fmk_status status = fmk_source_init(&source, &weight.part, 0, true);
        if (!cases[i].used) {
            assert_int_not_equal(status, FMK_OK);
        } else {
            assert_int_equal(status, FMK_OK);
            assert_int_equal(source.zero_declared, cases[i].declared);
            assert_int_equal(source.zero_detected, cases[i].detected);
            assert_int_equal(source.zero_used, cases[i].used);
            assert_int_equal(source.symmetric, cases[i].is_symmetric);
            ref_decode(&weight.part, 0, cases[i].used, weight.values);
            check_weight(&weight);
        }
        ref_free(&weight);
    }
}

/* A stored 15 is read as a zero point of 0 in v1, and changes no other column. */
static void test_zero_point_wraps(void **state) {
    (void)state;
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
    ref_make(&weight, &spec, &rng);
    memset((void *)(uintptr_t)weight.part.qzeros.data.handle, 0xff, weight.part.qzeros.data.size);
    struct fmk_source source;
    assert_int_equal(fmk_source_init(&source, &weight.part, 0, true), FMK_OK);
    uint8_t zero[8];
    fmk_int4_zeros(&source, 0, 0, 8, 0, zero);
    assert_int_equal(zero[0], 0);
    assert_int_equal(zero[7], 0);
    ref_free(&weight);
}

static void test_act_order(void **state) {
    (void)state;
    static const struct {
        enum ref_groups groups;
        int32_t group_size;
        bool act_order;
    } cases[] = {{REF_GROUPS_NONE, 16, false},    {REF_GROUPS_RUNS, 16, false},
                 {REF_GROUPS_SHUFFLED, 16, true}, {REF_GROUPS_NEGATIVE, 16, true},
                 {REF_GROUPS_UNEQUAL, 16, true},  {REF_GROUPS_SHUFFLED, -1, false},
                 {REF_GROUPS_NEGATIVE, 64, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ref_weight weight;
        struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
        spec.groups = cases[i].groups;
        spec.group_size = cases[i].group_size;
        ref_make(&weight, &spec, &rng);
        assert_int_equal(check_weight(&weight).act_order, cases[i].act_order);
        ref_free(&weight);
    }
    /* Only the shard's own k count. */
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
    spec.groups = REF_GROUPS_RUNS;
    ref_make(&weight, &spec, &rng);
    ((int32_t *)weight.memory[3])[5] = 3;
    ref_decode(&weight.part, 0, 1, weight.values);
    assert_true(check_weight(&weight).act_order);
    weight.part.k_begin = 16;
    assert_false(check_weight(&weight).act_order);
    ref_free(&weight);
}

/* ---- refusals ---- */

static void refuse_with(const fmk_part *part, int32_t experts, bool read_data, fmk_status status,
                        const char *sentence) {
    struct fmk_source source;
    fmk_status got = fmk_source_init(&source, part, experts, read_data);
    if (got != status || strncmp(fmk_last_error(), sentence, strlen(sentence)))
        fail_msg("want %s \"%s\", got %s \"%s\"", fmk_status_name(status), sentence, fmk_status_name(got),
                 fmk_last_error());
}

/* Refused with data and without. */
static void refuse(const fmk_part *part, fmk_status status, const char *sentence) {
    refuse_with(part, 0, true, status, sentence);
    refuse_with(part, 0, false, status, sentence);
}

static void test_refuses_formats(void **state) {
    (void)state;
    struct ref_weight weight;
    ref_make(&weight, &(struct ref_spec){.format = FMK_FORMAT_Q4_K, .n = 4, .k = 512}, &rng);
    fmk_part part = weight.part;
    part.format = FMK_FORMAT_AWQ;
    refuse(&part, FMK_EUNSUPPORTED, "format AWQ is not supported");
    part.format = FMK_FORMAT_PACKED;
    refuse(&part, FMK_EINVAL, "format PACKED");
    part.format = 0;
    refuse(&part, FMK_EINVAL, "format 0 is unknown");
    part.format = -3;
    refuse(&part, FMK_EINVAL, "format -3 is unknown");
    assert_string_equal(fmk_format_name(FMK_FORMAT_GPTQ_V2), "GPTQ_V2");
    assert_string_equal(fmk_format_name(99), "unknown format");
    assert_string_equal(fmk_dtype_name(FMK_BF16), "BF16");
    assert_string_equal(fmk_dtype_name(-1), "unknown type");
    assert_int_equal(fmk_dtype_size(0), 0);
    assert_int_equal(fmk_dtype_size(FMK_F32), 4);
    ref_free(&weight);
}

static void test_refuses_extents(void **state) {
    (void)state;
    struct ref_weight weight;
    ref_make(&weight, &(struct ref_spec){.format = FMK_FORMAT_Q4_K, .n = 4, .k = 512}, &rng);
    static const struct {
        int64_t n, k, n_begin, n_end, k_begin, k_end;
        const char *sentence;
    } cases[] = {
        {0, 512, 0, 0, 0, 0, "n 0: accepted are 1 to 2147483647"},
        {-4, 512, 0, 0, 0, 0, "n -4: "},
        {1LL << 60, 512, 0, 0, 0, 0, "n 1152921504606846976: "},
        {4, 0, 0, 0, 0, 0, "k 0: accepted are 1 to 2147483647"},
        {4, 1LL << 60, 0, 0, 0, 0, "k 1152921504606846976: "},
        {4, 100, 0, 0, 0, 0, "k 100 is not a multiple of 256, the super-block of Q4_K"},
        {4, 512, -1, 0, 0, 0, "n_begin -1: accepted are 0 to 3"},
        {4, 512, 4, 0, 0, 0, "n_begin 4: accepted are 0 to 3"},
        {4, 512, 2, 2, 0, 0, "n_begin 2: accepted are 0 to 1"},
        {4, 512, 0, 5, 0, 0, "n_end 5: accepted are 1 to n 4"},
        {4, 512, 0, -1, 0, 0, "n_end -1: "},
        {4, 512, 0, 0, -256, 0, "k_begin -256: "},
        {4, 512, 0, 0, 512, 0, "k_begin 512: accepted are 0 to 511"},
        {4, 512, 0, 0, 128, 0, "k_begin 128 cuts the super-block of Q4_K: accepted are multiples of 256"},
        {4, 512, 0, 0, 0, 300, "k_end 300 cuts the super-block of Q4_K: accepted are multiples of 256"},
        {4, 512, 0, 0, 0, 768, "k_end 768: accepted are 1 to k 512"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fmk_part part = weight.part;
        part.n = cases[i].n, part.k = cases[i].k;
        part.n_begin = cases[i].n_begin, part.n_end = cases[i].n_end;
        part.k_begin = cases[i].k_begin, part.k_end = cases[i].k_end;
        refuse(&part, FMK_EINVAL, cases[i].sentence);
    }
    fmk_part part = {
        .format = FMK_FORMAT_DENSE, .n = INT32_MAX, .k = INT32_MAX, .qweight = {.dtype = FMK_F32}};
    refuse(&part, FMK_EINVAL,
           "n 2147483647 and k 2147483647: the bytes of qweight are more than memory can hold");
    part = (fmk_part){.format = FMK_FORMAT_GPTQ, .n = 8, .k = 12, .group_size = -1};
    refuse(&part, FMK_EINVAL, "k 12 is not a multiple of 8, a word of qweight");
    part = (fmk_part){.format = FMK_FORMAT_MARLIN, .n = 96, .k = 16, .group_size = -1};
    refuse(&part, FMK_EINVAL, "n 96 is not a multiple of 64, the columns of a tile of B");
    part = (fmk_part){.format = FMK_FORMAT_MARLIN, .n = 64, .k = 32, .k_begin = 8, .group_size = -1};
    refuse(&part, FMK_EINVAL, "k_begin 8 cuts a tile of B: accepted are multiples of 16");
    ref_free(&weight);
}

static void test_refuses_numbers(void **state) {
    (void)state;
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
    ref_make(&weight, &spec, &rng);
    static const int32_t sizes[] = {0, 7, -2, INT32_MIN};
    static const char *const sentences[] = {"group_size 0: accepted are -1 (one group) or 8 and more",
                                            "group_size 7: accepted are -1",
                                            "group_size -2: ", "group_size -2147483648: "};
    for (int i = 0; i < 4; i++) {
        fmk_part part = weight.part;
        part.group_size = sizes[i];
        refuse(&part, FMK_EINVAL, sentences[i]);
        part = (fmk_part){.format = FMK_FORMAT_MARLIN, .n = 64, .k = 32, .group_size = sizes[i]};
        refuse(&part, FMK_EINVAL, sentences[i]);
    }
    fmk_part part = weight.part;
    part.zero_point = 3;
    refuse(&part, FMK_EINVAL, "zero_point 3: accepted are 0");
    part = weight.part;
    part.symmetric = 2;
    refuse(&part, FMK_EINVAL, "symmetric 2: accepted are 1");
    part = weight.part;
    part.reserved = 1;
    refuse(&part, FMK_EINVAL, "reserved 1: accepted is 0");
    part = (fmk_part){.format = FMK_FORMAT_Q6_K, .n = 1, .k = 256, .group_size = 32};
    refuse(&part, FMK_EINVAL, "group_size 32: Q6_K has none, accepted is 0");
    part = weight.part;
    refuse_with(&part, -1, true, FMK_EINVAL, "num_experts -1: accepted are 0 (dense) and more");
    ref_free(&weight);
}

static void test_refuses_types(void **state) {
    (void)state;
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
    spec.groups = REF_GROUPS_RUNS;
    spec.bias = FMK_F32;
    ref_make(&weight, &spec, &rng);
    fmk_part part = weight.part;
    part.qweight.dtype = FMK_F16;
    refuse(&part, FMK_EINVAL, "qweight.dtype 1 (F16): accepted is I32");
    part = weight.part;
    part.scales.dtype = FMK_I32;
    refuse(&part, FMK_EINVAL, "scales.dtype 4 (I32): accepted are F16, BF16 and F32");
    part = weight.part;
    part.qzeros.dtype = FMK_U8;
    refuse(&part, FMK_EINVAL, "qzeros.dtype 5 (U8): accepted is I32");
    part = weight.part;
    part.g_idx.dtype = 77;
    refuse(&part, FMK_EINVAL, "g_idx.dtype 77 (unknown type): accepted is I32");
    part = weight.part;
    part.bias.dtype = FMK_U8;
    refuse(&part, FMK_EINVAL, "bias.dtype 5 (U8): accepted are F32, F16 and BF16");
    part = (fmk_part){.format = FMK_FORMAT_DENSE, .n = 4, .k = 4};
    refuse(&part, FMK_EINVAL, "qweight.dtype 0 (unknown type): accepted are F32, F16 and BF16");
    part = (fmk_part){.format = FMK_FORMAT_Q4_K, .n = 4, .k = 256, .qweight = {.dtype = FMK_F32}};
    refuse(&part, FMK_EINVAL, "qweight.dtype 3 (F32): accepted is U8");
    part = (fmk_part){
        .format = FMK_FORMAT_MARLIN, .n = 64, .k = 16, .group_size = -1, .scales = {.dtype = FMK_F32}};
    refuse_with(&part, 0, false, FMK_EINVAL, "scales.dtype 3 (F32): accepted are F16 and BF16");
    ref_free(&weight);
}

static void test_refuses_tensors(void **state) {
    (void)state;
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
    spec.groups = REF_GROUPS_RUNS;
    spec.bias = FMK_F32;
    ref_make(&weight, &spec, &rng);
    fmk_part part = weight.part;
    part.qweight.data = (fmk_buffer){0};
    refuse_with(&part, 0, true, FMK_EINVAL, "qweight.data.handle 0: the tensor i32 [k/8][n] is required");
    part = weight.part;
    part.scales.data = (fmk_buffer){0};
    refuse_with(&part, 0, true, FMK_EINVAL, "scales.data.handle 0: the tensor [groups][n] is required");
    const struct {
        size_t offset;
        const char *device, *memory, *size, *stride, *place;
    } tensors[] = {
        {offsetof(fmk_part, qweight), "qweight.memory DEVICE", "qweight.memory 9",
         "qweight.data.size 351 is less than the 352 bytes of i32 [k/8][n]",
         "qweight.expert_stride 8: without", "qweight.data.offset"},
        {offsetof(fmk_part, scales), "scales.memory DEVICE", "scales.memory 9",
         "scales.data.size 87 is less than the 88 bytes of [groups][n]", "scales.expert_stride 8: without",
         "scales.data.offset"},
        {offsetof(fmk_part, qzeros), "qzeros.memory DEVICE", "qzeros.memory 9",
         "qzeros.data.size 31 is less than the 32 bytes of i32 [groups][n/8]",
         "qzeros.expert_stride 8: without", "qzeros.data.offset"},
        {offsetof(fmk_part, g_idx), "g_idx.memory DEVICE", "g_idx.memory 9",
         "g_idx.data.size 255 is less than the 256 bytes of i32 [k]", "g_idx.expert_stride 8: without",
         "g_idx.data.offset"},
        {offsetof(fmk_part, bias), "bias.memory DEVICE", "bias.memory 9",
         "bias.data.size 43 is less than the 44 bytes of [n]", "bias.expert_stride 8: without",
         "bias.data.offset"},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        part = weight.part;
        fmk_tensor *tensor = (fmk_tensor *)((char *)&part + tensors[i].offset), good = *tensor;
        tensor->memory = FMK_MEM_DEVICE;
        refuse(&part, FMK_EUNSUPPORTED, tensors[i].device);
        tensor->memory = 9;
        refuse(&part, FMK_EINVAL, tensors[i].memory);
        *tensor = good;
        tensor->data.size--;
        refuse(&part, FMK_EINVAL, tensors[i].size);
        *tensor = good;
        tensor->expert_stride = 8;
        refuse(&part, FMK_EINVAL, tensors[i].stride);
        *tensor = good;
        tensor->data.offset = UINT64_MAX - 16;
        refuse(&part, FMK_EINVAL, tensors[i].place);
    }
    part = (fmk_part){.format = FMK_FORMAT_Q4_K, .n = 1, .k = 256, .scales = weight.part.scales};
    refuse_with(&part, 0, false, FMK_EINVAL, "scales is given, but Q4_K has none");
    part = (fmk_part){
        .format = FMK_FORMAT_MARLIN, .n = 64, .k = 16, .group_size = -1, .qzeros = weight.part.qzeros};
    refuse_with(&part, 0, false, FMK_EINVAL, "qzeros is given, but MARLIN has none");
    part = (fmk_part){.format = FMK_FORMAT_DENSE,
                      .n = 1,
                      .k = 1,
                      .qweight = {.dtype = FMK_F16},
                      .g_idx = weight.part.g_idx};
    refuse_with(&part, 0, false, FMK_EINVAL, "g_idx is given, but DENSE has none");
    ref_free(&weight);
}

static void test_refuses_experts(void **state) {
    (void)state;
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_RANDOM);
    spec.experts = 3;
    spec.groups = REF_GROUPS_RUNS;
    ref_make(&weight, &spec, &rng);
    fmk_part part = weight.part;
    part.qweight.expert_stride = 351;
    refuse_with(&part, 3, true, FMK_EINVAL,
                "qweight.expert_stride 351 is less than the 352 bytes of i32 [k/8][n]");
    part = weight.part;
    part.g_idx.expert_stride = 0;
    refuse_with(&part, 3, true, FMK_EINVAL, "g_idx.expert_stride 0 is less than the 256 bytes of i32 [k]");
    part = weight.part;
    part.scales.expert_stride = UINT64_MAX;
    refuse_with(&part, 3, true, FMK_EINVAL, "scales.expert_stride 18446744073709551615 times 3 experts");
    part.scales.expert_stride = INT64_MAX / 2 + 1;
    refuse_with(&part, 3, true, FMK_EINVAL, "scales.expert_stride 4611686018427387904 times 3 experts");
    part = weight.part;
    part.qweight.data.size -= 1;
    refuse_with(&part, 3, true, FMK_EINVAL, "qweight.data.size ");
    part = weight.part;
    refuse_with(&part, 4, true, FMK_EINVAL, "qweight.data.size ");
    ref_free(&weight);
}

static void test_refuses_data(void **state) {
    (void)state;
    struct ref_weight weight;
    struct ref_spec spec = gptq_spec(FMK_FORMAT_GPTQ, REF_ZEROS_ALL_7);
    spec.groups = REF_GROUPS_RUNS;
    ref_make(&weight, &spec, &rng);
    int32_t *g_idx = weight.memory[3];
    g_idx[5] = 4;
    refuse_with(&weight.part, 0, true, FMK_EFORMAT, "g_idx[5] 4 of expert 0: accepted are -4 to 3");
    g_idx[5] = -5;
    refuse_with(&weight.part, 0, true, FMK_EFORMAT, "g_idx[5] -5 of expert 0: accepted are -4 to 3");
    g_idx[5] = INT32_MIN;
    refuse_with(&weight.part, 0, true, FMK_EFORMAT, "g_idx[5] -2147483648 of expert 0: ");
    g_idx[5] = 0;
    weight.part.symmetric = 1;
    uint32_t *qzeros = weight.memory[2]; /* [4][2], columns 8 to 10 in the second word */
    qzeros[5] = 0x77777577;
    refuse_with(
        &weight.part, 0, true, FMK_EFORMAT,
        "qzeros[2][10] of expert 0 stores 5 where the others store 7, but symmetric is 1: accepted are all "
        "7 or all 8, or zero_point 1 or 2");
    qzeros[5] = 0x00000777; /* columns past n mean nothing */
    struct fmk_source source;
    assert_int_equal(fmk_source_init(&source, &weight.part, 0, true), FMK_OK);
    assert_int_equal(source.zero_detected, 1);
    memset(qzeros, 0x33, weight.part.qzeros.data.size);
    refuse_with(&weight.part, 0, true, FMK_EFORMAT, "qzeros[0][0] stores 3, but symmetric is 1: ");
    weight.part.qzeros.data.handle = 0;
    weight.part.symmetric = -1;
    refuse_with(&weight.part, 0, true, FMK_EINVAL,
                "qzeros is absent, which means symmetric, but symmetric is -1");
    weight.part.symmetric = 0;

    static const int32_t orders[][3] = {{0, 3, 1}, {0, -1, 1}, {2, 0, 2}};
    static const char *const sentences[] = {"n_order[1] 3: accepted are 0 to 2, the rows of the shard",
                                            "n_order[1] -1: accepted are 0 to 2",
                                            "n_order[2] 2 comes a second time: accepted is a permutation"};
    weight.part.n_begin = 4;
    weight.part.n_end = 7;
    for (int i = 0; i < 3; i++) {
        ref_set_order(&weight, orders[i], 3);
        refuse_with(&weight.part, 0, true, FMK_EINVAL, sentences[i]);
    }
    weight.part.n_order.data.size = 8;
    refuse(&weight.part, FMK_EINVAL,
           "n_order.data.size 8 is less than the 12 bytes of i32 [n_end - n_begin]");
    ref_free(&weight);
}

/* Shapes alone: no handle is needed, none is read. */
static void test_without_data(void **state) {
    (void)state;
    fmk_part part = {.format = FMK_FORMAT_GPTQ, .n = 100, .k = 4096, .group_size = 128};
    struct fmk_source source;
    assert_int_equal(fmk_source_init(&source, &part, 8, false), FMK_OK);
    assert_int_equal(source.groups, 32);
    assert_int_equal(source.part.scales.dtype, FMK_F16);
    part.qweight.data.handle = part.scales.data.handle = part.g_idx.data.handle = 16;
    assert_int_equal(fmk_source_init(&source, &part, 0, false), FMK_OK);
    assert_false(source.act_order);
}

/* ---- the table of layouts ---- */

static void test_layout_table(void **state) {
    (void)state;
    for (int32_t id = FMK_LAYOUT_DENSE_ROWS; id <= FMK_LAYOUT_INT4_T64; id++)
        assert_int_equal(fmk_layout_by_id(id)->id, id);
    assert_null(fmk_layout_by_id(0));
    assert_null(fmk_layout_by_id(-1));
    assert_null(fmk_layout_by_id(FMK_LAYOUT_INT4_T64 + 1));
    static const struct {
        fmk_backend backend;
        uint32_t features;
        bool borrow;
        enum fmk_layout_id want[4]; /* [family] */
    } choices[] = {
        {FMK_BACKEND_CPU,
         0,
         false,
         {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_X8, FMK_LAYOUT_Q4_K_X8, FMK_LAYOUT_Q6_K_X8}},
        {FMK_BACKEND_CPU,
         UINT32_MAX,
         false,
         {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_X16, FMK_LAYOUT_Q4_K_X16, FMK_LAYOUT_Q6_K_X16}},
        {FMK_BACKEND_CPU,
         0,
         true,
         {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_X8, FMK_LAYOUT_Q4_K_ROWS, FMK_LAYOUT_Q6_K_ROWS}},
        {FMK_BACKEND_CUDA,
         0,
         false,
         {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_T16, FMK_LAYOUT_Q4_K_T16, FMK_LAYOUT_Q6_K_T16}},
        {FMK_BACKEND_CUDA,
         UINT32_MAX,
         false,
         {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_T64, FMK_LAYOUT_Q4_K_T16, FMK_LAYOUT_Q6_K_T16}},
        {FMK_BACKEND_CUDA,
         0,
         true,
         {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_T16, FMK_LAYOUT_Q4_K_T16, FMK_LAYOUT_Q6_K_T16}},
    };
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        for (enum fmk_family family = FMK_FAMILY_DENSE; family <= FMK_FAMILY_Q6_K; family++) {
            struct fmk_source source = {.family = family, .part.scales.dtype = FMK_F16};
            assert_int_equal(
                fmk_layout_choose(choices[i].backend, choices[i].features, &source, choices[i].borrow)->id,
                choices[i].want[family]);
        }
    struct fmk_source floats = {.family = FMK_FAMILY_INT4, .part.scales.dtype = FMK_F32};
    assert_int_equal(fmk_layout_choose(FMK_BACKEND_CUDA, UINT32_MAX, &floats, false)->id,
                     FMK_LAYOUT_INT4_T16);
}

int main(void) {
    rng = ref_rng_start("test_formats");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_k_quants),
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_marlin),
        cmocka_unit_test(test_zero_points),
        cmocka_unit_test(test_zero_point_wraps),
        cmocka_unit_test(test_act_order),
        cmocka_unit_test(test_refuses_formats),
        cmocka_unit_test(test_refuses_extents),
        cmocka_unit_test(test_refuses_numbers),
        cmocka_unit_test(test_refuses_types),
        cmocka_unit_test(test_refuses_tensors),
        cmocka_unit_test(test_refuses_experts),
        cmocka_unit_test(test_refuses_data),
        cmocka_unit_test(test_without_data),
        cmocka_unit_test(test_layout_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
