/* q6_k.x16 times int8 activations, AVX-512 VNNI. Codes are 0..63 for -32..31: the 32 is taken off in
 * integers, by starting a row's sum of 16 k from -32 times the activations' sum. */
#include "vnni_x16.h"

FMK_INLINE void multiply(const struct step *step, const int T) {
    const uint8_t *block = step->panel + step->k / FMK_K_BLOCK * FMK_Q6K_X16_BLOCK;
    __m512 total[MAX_T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
        total[t] = _mm512_setzero_ps();
    for (int c = 0; c < 8; c++) {
        fetch(block + step->ahead + c * (FMK_Q6K_X16_BLOCK / 8), FMK_Q6K_X16_BLOCK / 8 / 64 + 1);
        __m512i codes[8];
        unpack_six_bits(block + fmk_q6k_panel_low(16, c), block + fmk_q6k_panel_high(16, c), codes);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512 scale = widen_i8(block + FMK_Q6K_X16_SCALES + 16 * (2 * c + h));
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const struct fmk_acts_block *x = step->x + t * step->tokens;
                __m512i sum = sum_16(broadcast(&x->start[2 * c + h]), codes + 4 * h, x->q + 32 * c + 16 * h);
                __m512 scaled = _mm512_mul_ps(scale, _mm512_set1_ps(x->scale[2 * c + h]));
                total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scaled, total[t]);
            }
        }
    }
    __m512 d = widen_f16(block);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        float *place = step->out + t * FMK_TILE_N;
        _mm512_storeu_ps(place, _mm512_fmadd_ps(d, total[t], _mm512_loadu_ps(place)));
    }
}

void fmk_q6k_x16_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply);
}
