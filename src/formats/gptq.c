/* GPTQ, 4 bits, as AutoGPTQ and GPTQModel write it: eight k in a word of qweight [k/8][n], eight columns in a
 * word of qzeros [groups][n/8], the lowest nibble first. The stored zero point is the real one (v2) or one
 * less (v1); which it is cannot be had from the declared format alone, because there are writers that
 * declare v1 and store v2. */
#include "format.h"

#include "../abi.h"
#include "../error.h"

static bool bytes(const struct fmk_source *source, int64_t *out) {
    return fmk_mul(source->part.k / 8, source->part.n, out) && fmk_mul(*out, 4, out);
}

static int64_t zero_words(const struct fmk_source *source) {
    return (source->part.n + 7) / 8;
}

static int32_t stored_zero(const struct fmk_source *source, int64_t expert, int64_t column, int64_t group) {
    const uint8_t *words = fmk_tensor_data(&source->part.qzeros, expert);
    uint32_t word = fmk_load_u32(words + 4 * (group * zero_words(source) + column / 8));
    return (int32_t)(word >> 4 * (column % 8) & 15);
}

/* The first zero point that differs from the very first one; false when all are equal. */
static bool find_other_zero(const struct fmk_source *source, int64_t *expert, int64_t *group,
                            int64_t *column) {
    int32_t first = stored_zero(source, 0, 0, 0);
    uint32_t all_equal = 0x11111111u * (uint32_t)first;
    int64_t words = zero_words(source);
    for (*expert = 0; *expert < source->experts; ++*expert) {
        const uint8_t *data = fmk_tensor_data(&source->part.qzeros, *expert);
        for (*group = 0; *group < source->groups; ++*group)
            for (int64_t w = 0; w < words; w++) {
                uint32_t different = fmk_load_u32(data + 4 * (*group * words + w)) ^ all_equal;
                if (8 * w + 8 > source->part.n) /* columns past n mean nothing */
                    different &= 0xffffffffu >> 4 * (8 * w + 8 - source->part.n);
                if (different) {
                    *column = 8 * w + __builtin_ctz(different) / 4;
                    return true;
                }
            }
    }
    return false;
}

static fmk_status read_zeros(struct fmk_source *source) {
    const fmk_part *part = &source->part;
    if (!part->qzeros.data.handle) {
        if (part->symmetric < 0)
            return fmk_fail(FMK_EINVAL, "qzeros is absent, which means symmetric, but symmetric is -1: give "
                                        "qzeros, or symmetric 0 or 1");
        source->symmetric = true;
        return FMK_OK;
    }
    int64_t expert, group, column;
    bool mixed = find_other_zero(source, &expert, &group, &column);
    int32_t first = stored_zero(source, 0, 0, 0);
    if (!mixed && (first == 7 || first == 8))
        source->zero_detected = first == 7 ? 1 : 2;
    if (!part->zero_point && part->symmetric > 0 && !source->zero_detected) {
        if (mixed && (first == 7 || first == 8))
            return fmk_fail(FMK_EFORMAT,
                            "qzeros[%lld][%lld] of expert %lld stores %d where the others store %d, but "
                            "symmetric is 1: accepted are all 7 or all 8, or zero_point 1 or 2",
                            (long long)group, (long long)column, (long long)expert,
                            stored_zero(source, expert, column, group), first);
        return fmk_fail(FMK_EFORMAT,
                        "qzeros[0][0] stores %d, but symmetric is 1: accepted are all 7 or all 8, or "
                        "zero_point 1 or 2",
                        first);
    }
    if (!part->zero_point && part->symmetric >= 0 && source->zero_detected)
        source->zero_used = source->zero_detected;
    source->symmetric = source->zero_detected && source->zero_detected == source->zero_used;
    return FMK_OK;
}

static fmk_status read_groups(struct fmk_source *source) {
    const fmk_part *part = &source->part;
    if (!part->g_idx.data.handle)
        return FMK_OK;
    for (int64_t e = 0; e < source->experts; e++) {
        const uint8_t *g_idx = fmk_tensor_data(&part->g_idx, e);
        for (int64_t k = 0; k < part->k; k++) {
            int32_t group = fmk_load_i32(g_idx + 4 * k);
            if (group < -source->groups || group >= source->groups)
                return fmk_fail(FMK_EFORMAT, "g_idx[%lld] %d of expert %lld: accepted are %lld to %lld",
                                (long long)k, group, (long long)e, (long long)-source->groups,
                                (long long)source->groups - 1);
            if (group < 0)
                group += (int32_t)source->groups;
            if (k >= part->k_begin && k < part->k_end && group != k / part->group_size)
                source->act_order = true;
        }
    }
    return FMK_OK;
}

static fmk_status read_data(struct fmk_source *source) {
    fmk_status status = read_zeros(source);
    return status ? status : read_groups(source);
}

static void codes(const struct fmk_source *source, int64_t expert, const int64_t *column, int32_t rows,
                  const int32_t *k, int64_t count, uint8_t *out) {
    const uint8_t *qweight = fmk_tensor_data(&source->part.qweight, expert);
    bool run = rows == 8;
    for (int32_t r = 1; r < rows; r++)
        run &= column[r] == column[0] + r;
    uint32_t words[8] = {0}; /* of the columns, eight k each */
    int64_t loaded = -1;
    for (int64_t i = 0; i < count; i++, out += 8) {
        if (k[i] < 0) {
            memset(out, 0, 8);
            continue;
        }
        if (loaded != k[i] / 8) {
            loaded = k[i] / 8;
            const uint8_t *row = qweight + 4 * loaded * source->part.n;
            if (run)
                memcpy(words, row + 4 * column[0], sizeof words);
            else
                for (int32_t r = 0; r < rows; r++)
                    words[r] = fmk_load_u32(row + 4 * column[r]);
        }
        int shift = 4 * (k[i] % 8);
        for (int r = 0; r < 8; r++)
            out[r] = (uint8_t)(words[r] >> shift & 15);
    }
}

static int64_t scale_column(const struct fmk_source *source, int64_t column) {
    (void)source;
    return column;
}

/* v1: (stored + 1) mod 16, each nibble on its own. docs/formats.md tells what writers make of a zero point of
 * 0. */
static uint8_t zero(const struct fmk_source *source, int64_t expert, int64_t column, int64_t group) {
    if (!source->part.qzeros.data.handle)
        return 8;
    return (uint8_t)((stored_zero(source, expert, column, group) + (source->zero_used == 1)) & 15);
}

const struct fmk_format_ops fmk_gptq_ops = {
    .name = "GPTQ",
    .family = FMK_FAMILY_INT4,
    .qweight_dtype = FMK_I32,
    .bias_dtype = FMK_F16,
    .scales = true,
    .zeros = true,
    .k_multiple = 8,
    .k_cut = 1,
    .n_multiple = 1,
    .unit = "a word of qweight",
    .shape = "i32 [k/8][n]",
    .bytes = bytes,
    .read = read_data,
    .codes = codes,
    .scale_column = scale_column,
    .zero = zero,
};
