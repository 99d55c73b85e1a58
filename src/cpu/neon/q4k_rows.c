/* Q4_K rows as in the file times float activations, NEON. */
#include "f32_rows.h"
#include "../../formats/k_quants.h"

/* 16 codes of one sub-block. d * scale * code is exact, so fusing changes nothing. */
FMK_INLINE void decode_codes(uint8x16_t codes, float scale, float min, float *out) {
    floats8 half[2] = {floats_of_u8(vget_low_u8(codes)), floats_of_u8(vget_high_u8(codes))};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1q_f32(out + 4 * i, vfmaq_n_f32(vdupq_n_f32(-min), half[i / 2].v[i % 2], scale));
}

static void decode(const uint8_t *block, float out[FMK_SUPER_BLOCK]) {
    uint8_t scale[8], min[8];
    fmk_q4k_scales(block + FMK_Q4K_SCALES, scale, min);
    float d = fmk_load_f16(block + FMK_Q4K_D), dmin = fmk_load_f16(block + FMK_Q4K_DMIN);
    for (int i = 0; i < 8; i++) {
        uint8x16_t both = vld1q_u8(block + FMK_Q4K_NIBBLES + 16 * i);
        float *to = out + 64 * (i / 2) + 16 * (i % 2);
        int s = i / 2 * 2;
        decode_codes(vandq_u8(both, vdupq_n_u8(15)), d * scale[s], dmin * min[s], to);
        decode_codes(vshrq_n_u8(both, 4), d * scale[s + 1], dmin * min[s + 1], to + 32);
    }
}

void fmk_q4k_rows_neon(const struct fmk_tile *tile) {
    multiply_decoded(tile, FMK_Q4K_BLOCK, decode);
}
