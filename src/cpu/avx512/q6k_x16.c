/* q6_k.x16 times float activations, AVX-512. */
#include "f32_x16.h"

FMK_INLINE void decode_quad(__m512i quad, __m512 scale, float out[4][16]) {
    __m512i code[4];
    widen_quad(quad, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i q = _mm512_sub_epi32(code[i], _mm512_set1_epi32(32));
        _mm512_store_ps(out[i], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(q)));
    }
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    (void)part;
    (void)count; /* K is whole super-blocks */
    const uint8_t *block = data + k / FMK_K_BLOCK * FMK_Q6K_X16_BLOCK;
    __m512 d = widen_f16(block);
    for (int c = 0; c < 8; c++) {
        __m512i quads[8];
        unpack_six_bits(block + fmk_q6k_panel_low(16, c), block + fmk_q6k_panel_high(16, c), quads);
        for (int h = 0; h < 2; h++) {
            __m512 scale = _mm512_mul_ps(d, widen_i8(block + FMK_Q6K_X16_SCALES + 16 * (2 * c + h)));
            for (int q = 4 * h; q < 4 * h + 4; q++)
                decode_quad(quads[q], scale, panel->w + 32 * c + 4 * q);
        }
    }
}

void fmk_q6k_x16_avx512(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
