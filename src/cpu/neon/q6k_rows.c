/* Q6_K rows as in the file times float activations, NEON. */
#include "f32_rows.h"
#include "q6k_rows.h"

static void decode(const uint8_t *block, float out[FMK_SUPER_BLOCK]) {
    const int8_t *scale = (const int8_t *)block + FMK_Q6K_SCALES;
    float d = fmk_load_f16(block + FMK_Q6K_D);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) { /* 16 weights that share a scale */
        uint8x16_t codes = q6k_codes(block, g / 8, g % 8 / 2, g % 2);
        int8x16_t signed_codes = vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(32));
        floats8 first = scale8(floats_of_s8(vget_low_s8(signed_codes)), d * scale[g]);
        floats8 second = scale8(floats_of_s8(vget_high_s8(signed_codes)), d * scale[g]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            vst1q_f32(out + 16 * g + 4 * i, (i / 2 ? second : first).v[i % 2]);
    }
}

void fmk_q6k_rows_neon(const struct fmk_tile *tile) {
    multiply_decoded(tile, FMK_Q6K_BLOCK, decode);
}
