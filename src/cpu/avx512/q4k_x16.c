/* q4_k.x16 times float activations, AVX-512. */
#include "f32_x16.h"

/* d * scale * code - dmin * min: the first product has 11 + 6 + 4 bits and so is exact, fused or not. */
FMK_INLINE void decode_quad(__m512i quad, __m512 scale, __m512 min, float out[4][16]) {
    __m512i code[4];
    widen_quad(quad, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        _mm512_store_ps(out[i], _mm512_fmsub_ps(scale, _mm512_cvtepi32_ps(code[i]), min));
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    (void)part;
    (void)count; /* K is whole super-blocks */
    const uint8_t *block = data + k / FMK_K_BLOCK * FMK_Q4K_X16_BLOCK;
    __m512 d = widen_f16(block), dmin = widen_f16(block + FMK_Q4K_X16_MINIMA);
    for (int c = 0; c < 8; c++) {
        __m512 scale = _mm512_mul_ps(d, widen_u8(block + FMK_Q4K_X16_SCALES + 16 * c));
        __m512 min = _mm512_mul_ps(dmin, widen_u8(block + FMK_Q4K_X16_MINS + 16 * c));
        __m512i quads[8];
        unpack_nibbles(block + FMK_Q4K_X16_NIBBLES + c * FMK_X16_CHUNK, quads);
        for (int q = 0; q < 8; q++)
            decode_quad(quads[q], scale, min, panel->w + 32 * c + 4 * q);
    }
}

void fmk_q4k_x16_avx512(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
