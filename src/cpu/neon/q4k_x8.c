/* q4_k.x8 times float activations, NEON. */
#include "f32_x8.h"
#include "numbers.h"

/* d * scale * code - dmin * min: the first product has 11 + 6 + 4 bits and so is exact, fused or not. */
FMK_INLINE void decode_half(uint8x16_t half, float32x4_t scale, float32x4_t min, float (*out)[8]) {
    uint32x4_t code[4];
    widen_half(half, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1q_f32(out[i], vfmaq_f32(vnegq_f32(min), scale, vcvtq_f32_u32(code[i])));
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    (void)part;
    (void)count; /* K is whole super-blocks */
    const uint8_t *block = data + k / FMK_K_BLOCK * FMK_Q4K_X8_BLOCK;
    floats8 d = floats_of_f16(block), dmin = floats_of_f16(block + FMK_Q4K_X8_MINIMA);
    for (int c = 0; c < 8; c++) {
        floats8 scale = multiply8(d, floats_of_u8(vld1_u8(block + FMK_Q4K_X8_SCALES + 8 * c)));
        floats8 min = multiply8(dmin, floats_of_u8(vld1_u8(block + FMK_Q4K_X8_MINS + 8 * c)));
        const uint8_t *nibbles = block + FMK_Q4K_X8_NIBBLES + c * FMK_X8_CHUNK;
        for (int v = 0; v < 4; v++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                uint8x16_t both = vld1q_u8(nibbles + 32 * v + 16 * h);
                float(*out)[8] = (float(*)[8])(panel->w[32 * c + 4 * v] + 4 * h);
                decode_half(vandq_u8(both, vdupq_n_u8(15)), scale.v[h], min.v[h], out);
                decode_half(vshrq_n_u8(both, 4), scale.v[h], min.v[h], out + 16);
            }
    }
}

void fmk_q4k_x8_neon(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
