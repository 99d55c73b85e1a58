/* The three layouts that keep a file's rows as they are: dense, Q4_K and Q6_K. They can be borrowed; packed,
 * they are the rows of a shard one behind the other. */
#include "../abi.h"
#include "../floats.h"
#include "../formats/k_quants.h"
#include "layout_rows.h"

/* Fills in the sizes that follow from `row_bytes` and the numbers already there; false on overflow. */
static bool set_sizes(struct fmk_packed *packed, int64_t n, int32_t experts, int64_t row_bytes) {
    int64_t expert_bytes, bytes;
    if (!fmk_mul(n, row_bytes, &expert_bytes) || !fmk_mul(experts, expert_bytes, &bytes))
        return false;
    packed->stride = (uint64_t)row_bytes;
    packed->expert_stride = (uint64_t)expert_bytes;
    packed->bytes = (uint64_t)bytes;
    return true;
}

/* Bytes of `k` weights of a row; 0 where k or dtype is not one of the family's. */
static int64_t row_bytes(enum fmk_family family, fmk_dtype dtype, int64_t k) {
    switch (family) {
    case FMK_FAMILY_DENSE:
        return dtype == FMK_F32 || dtype == FMK_F16 || dtype == FMK_BF16 ? k * fmk_dtype_size(dtype) : 0;
    case FMK_FAMILY_Q4_K:
        return k % FMK_SUPER_BLOCK || dtype != FMK_U8 ? 0 : k / FMK_SUPER_BLOCK * FMK_Q4K_BLOCK;
    case FMK_FAMILY_Q6_K:
        return k % FMK_SUPER_BLOCK || dtype != FMK_U8 ? 0 : k / FMK_SUPER_BLOCK * FMK_Q6K_BLOCK;
    default:
        return 0;
    }
}

static bool shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    packed->k_packed = source->k;
    packed->dtype = source->part.qweight.dtype;
    packed->chunks = 0;
    *index = false;
    return set_sizes(packed, source->n, source->experts, row_bytes(source->family, packed->dtype, source->k));
}

static bool valid(const struct fmk_packed *packed) {
    struct fmk_packed want = *packed;
    if (packed->n < 1 || packed->n > INT32_MAX || packed->k < 1 || packed->k > INT32_MAX ||
        packed->experts < 1)
        return false;
    int64_t row = row_bytes(packed->layout->family, packed->dtype, packed->k);
    return row && set_sizes(&want, packed->n, packed->experts, row) && packed->k_packed == packed->k &&
           packed->chunks == 0 && !packed->has_zeros && packed->stride == want.stride &&
           packed->expert_stride == want.expert_stride && packed->bytes == want.bytes;
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    (void)k_index;
    for (int64_t end = row + rows; row < end; row++)
        memcpy(dst + (uint64_t)row * packed->stride, fmk_source_row(source, expert, row), packed->stride);
}

static void decode_dense(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                         int64_t count, float *out) {
    fmk_load_floats(data + (uint64_t)row * packed->stride, packed->dtype, k, count, out);
}

static void decode_q4k(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                       int64_t count, float *out) {
    const uint8_t *block = data + (uint64_t)row * packed->stride + k / FMK_SUPER_BLOCK * FMK_Q4K_BLOCK;
    float d = fmk_load_f16(block + FMK_Q4K_D), dmin = fmk_load_f16(block + FMK_Q4K_DMIN);
    uint8_t scale[8], min[8], codes[FMK_SUPER_BLOCK];
    fmk_q4k_scales(block + FMK_Q4K_SCALES, scale, min);
    fmk_q4k_codes(block, codes);
    for (int64_t i = 0; i < count; i++)
        out[i] = fmk_q4k_weight(d * scale[i / 32], dmin * min[i / 32], codes[i]);
}

static void decode_q6k(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                       int64_t count, float *out) {
    const uint8_t *block = data + (uint64_t)row * packed->stride + k / FMK_SUPER_BLOCK * FMK_Q6K_BLOCK;
    const int8_t *scale = (const int8_t *)block + FMK_Q6K_SCALES;
    float d = fmk_load_f16(block + FMK_Q6K_D);
    uint8_t codes[FMK_SUPER_BLOCK];
    fmk_q6k_codes(block, codes);
    for (int64_t i = 0; i < count; i++)
        out[i] = fmk_q6k_weight(d * scale[i / 16], codes[i]);
}

const struct fmk_layout fmk_layout_dense_rows = {
    .id = FMK_LAYOUT_DENSE_ROWS,
    .name = "dense.rows",
    .backends = 1u << FMK_BACKEND_CPU | 1u << FMK_BACKEND_CUDA | 1u << FMK_BACKEND_VULKAN,
    .family = FMK_FAMILY_DENSE,
    .in_place = true,
    .panel_rows = 1,
    .k_multiple = 1,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode_dense,
};

const struct fmk_layout fmk_layout_q4k_rows = {
    .id = FMK_LAYOUT_Q4_K_ROWS,
    .name = "q4_k.rows",
    .backends = 1u << FMK_BACKEND_CPU | 1u << FMK_BACKEND_VULKAN,
    .family = FMK_FAMILY_Q4_K,
    .in_place = true,
    .panel_rows = 1,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode_q4k,
};

const struct fmk_layout fmk_layout_q6k_rows = {
    .id = FMK_LAYOUT_Q6_K_ROWS,
    .name = "q6_k.rows",
    .backends = 1u << FMK_BACKEND_CPU | 1u << FMK_BACKEND_VULKAN,
    .family = FMK_FAMILY_Q6_K,
    .in_place = true,
    .panel_rows = 1,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode_q6k,
};
