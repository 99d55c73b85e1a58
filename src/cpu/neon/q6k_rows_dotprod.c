/* Q6_K rows as in the file times int8 activations, NEON with dot products. */
#include "int8_rows.h"
#include "q6k_rows.h"

FMK_INLINE struct block_scales scales_of(const uint8_t *block) {
    int8x16_t scales = vld1q_s8((const int8_t *)block + FMK_Q6K_SCALES);
    float d = fmk_load_f16(block + FMK_Q6K_D);
    floats8 first = scale8(floats_of_s8(vget_low_s8(scales)), d);
    floats8 second = scale8(floats_of_s8(vget_high_s8(scales)), d);
    return (struct block_scales){.scale = {first.v[0], first.v[1], second.v[0], second.v[1]}};
}

FMK_INLINE int8x16_t codes_of(const uint8_t *block, const int g) {
    uint8x16_t codes = q6k_codes(block, g / 8, g % 8 / 2, g % 2);
    return vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(32));
}

void fmk_q6k_rows_dotprod(const struct fmk_tile *tile) {
    multiply_rows(tile, scales_of, codes_of, false, FMK_Q6K_BLOCK);
}
