/* q6_k.x8 times float activations, NEON. */
#include "f32_x8.h"
#include "numbers.h"
#include "q6k_x8.h"

FMK_INLINE void decode_codes(uint8x16_t codes, float32x4_t scale, float (*out)[8]) {
    uint32x4_t code[4];
    widen_half(codes, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        int32x4_t q = vsubq_s32(vreinterpretq_s32_u32(code[i]), vdupq_n_s32(32));
        vst1q_f32(out[i], vmulq_f32(scale, vcvtq_f32_s32(q)));
    }
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    (void)part;
    (void)count; /* K is whole super-blocks */
    const uint8_t *block = data + k / FMK_K_BLOCK * FMK_Q6K_X8_BLOCK;
    floats8 d = floats_of_f16(block);
    for (int c = 0; c < 8; c++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            int8x8_t bytes = vreinterpret_s8_u8(vld1_u8(block + FMK_Q6K_X8_SCALES + 16 * c + 8 * h));
            floats8 scale = multiply8(d, floats_of_s8(bytes));
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
#pragma GCC unroll 2
                for (int g = 0; g < 2; g++)
                    decode_codes(q6k_x8_codes(block, c, h, j, g), scale.v[g],
                                 (float(*)[8])(panel->w[32 * c + 16 * h + 4 * j] + 4 * g));
        }
}

void fmk_q6k_x8_neon(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
