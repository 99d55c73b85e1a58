/* q4_k.x8: Q4_K with eight rows interleaved and the 6-bit scales unpacked (x8.h). */
#include "x8.h"
#include "layouts.h"
#include "../../formats/k_quants.h"

static int64_t panel_bytes(int64_t k) {
    return k / FMK_SUPER_BLOCK * FMK_Q4K_X8_BLOCK; /* fits: k came from rows of 144 bytes a block */
}

static bool shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    *index = false;
    if (source->k > INT64_MAX / FMK_Q4K_X8_BLOCK)
        return false;
    packed->k_packed = source->k;
    packed->dtype = 0;
    packed->chunks = 0;
    return fmk_x8_sizes(source->n, source->experts, panel_bytes(source->k), packed);
}

static bool valid(const struct fmk_packed *packed) {
    return packed->k > 0 && packed->k <= INT64_MAX / FMK_Q4K_X8_BLOCK && packed->k % FMK_SUPER_BLOCK == 0 &&
           packed->k_packed == packed->k && fmk_x8_valid(packed, panel_bytes(packed->k));
}

/* Sub-blocks 2c and 2c+1 are the low and high nibbles of the 32 bytes at `in`; four codes at a time. */
static void pack_two_chunks(const uint8_t *in, int64_t r, uint8_t *chunk) {
    for (int v = 0; v < 4; v++) {
        uint32_t first = fmk_load_u32(in + 4 * v), second = fmk_load_u32(in + 16 + 4 * v);
        fmk_store_u32(chunk + 32 * v + 4 * r, (first & 0x0f0f0f0f) | (second & 0x0f0f0f0f) << 4);
        fmk_store_u32(chunk + FMK_X8_CHUNK + 32 * v + 4 * r,
                      (first >> 4 & 0x0f0f0f0f) | (second & 0xf0f0f0f0));
    }
}

static void pack_block(const uint8_t *in, int64_t r, uint8_t *out) {
    uint8_t scale[8], min[8];
    fmk_q4k_scales(in + FMK_Q4K_SCALES, scale, min);
    memcpy(out + 2 * r, in + FMK_Q4K_D, 2);
    memcpy(out + FMK_Q4K_X8_MINIMA + 2 * r, in + FMK_Q4K_DMIN, 2);
    for (int j = 0; j < 8; j++) {
        out[FMK_Q4K_X8_SCALES + 8 * j + r] = scale[j];
        out[FMK_Q4K_X8_MINS + 8 * j + r] = min[j];
    }
    for (int c = 0; c < 4; c++)
        pack_two_chunks(in + FMK_Q4K_NIBBLES + 32 * c, r, out + FMK_Q4K_X8_NIBBLES + 2 * c * FMK_X8_CHUNK);
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    (void)k_index;
    int64_t blocks = packed->k / FMK_SUPER_BLOCK;
    for (int64_t first = row; first < row + rows; first += 8) {
        int64_t present = fmk_min(8, row + rows - first);
        const uint8_t *in[8];
        for (int64_t r = 0; r < present; r++)
            in[r] = fmk_source_row(source, expert, first + r);
        uint8_t *out = dst + (uint64_t)(first / 8) * packed->stride;
        for (int64_t b = 0; b < blocks; b++, out += FMK_Q4K_X8_BLOCK) {
            if (present < 8)
                memset(out, 0, FMK_Q4K_X8_BLOCK);
            for (int64_t r = 0; r < present; r++)
                pack_block(in[r] + b * FMK_Q4K_BLOCK, r, out);
        }
    }
}

static void decode(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out) {
    const uint8_t *block =
        data + (uint64_t)(row / 8) * packed->stride + (uint64_t)(k / FMK_SUPER_BLOCK) * FMK_Q4K_X8_BLOCK;
    int64_t r = row % 8;
    float d = fmk_load_f16(block + 2 * r), dmin = fmk_load_f16(block + FMK_Q4K_X8_MINIMA + 2 * r);
    for (int64_t i = 0; i < count; i++) {
        int64_t j = i / 32;
        float scale = d * block[FMK_Q4K_X8_SCALES + 8 * j + r];
        float min = dmin * block[FMK_Q4K_X8_MINS + 8 * j + r];
        out[i] = fmk_q4k_weight(scale, min,
                                fmk_x8_nibble(block + FMK_Q4K_X8_NIBBLES + j * FMK_X8_CHUNK, r, i % 32));
    }
}

const struct fmk_layout fmk_layout_q4k_x8 = {
    .id = FMK_LAYOUT_Q4_K_X8,
    .name = "q4_k.x8",
    .backends = 1u << FMK_BACKEND_CPU,
    .family = FMK_FAMILY_Q4_K,
    .panel_rows = 8,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};
