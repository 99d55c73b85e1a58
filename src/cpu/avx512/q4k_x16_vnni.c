/* q4_k.x16 times int8 activations, AVX-512 VNNI. */
#include "vnni_x16.h"

/* A chunk's codes times chunk c of a token, before the weights' scale. */
FMK_INLINE __m512 multiply_chunk(const __m512i codes[8], const struct fmk_acts_block *x, int c) {
    __m512 sum[2];
    sum_halves(codes, x, c, sum);
    return _mm512_fmadd_ps(sum[1], _mm512_set1_ps(x->scale[2 * c + 1]),
                           _mm512_mul_ps(sum[0], _mm512_set1_ps(x->scale[2 * c])));
}

FMK_INLINE void multiply(const struct step *step, const int T) {
    const uint8_t *block = step->panel + step->k / FMK_K_BLOCK * FMK_Q4K_X16_BLOCK;
    __m512 total[MAX_T], offset[MAX_T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
        total[t] = offset[t] = _mm512_setzero_ps();
    for (int c = 0; c < 8; c++) {
        const uint8_t *nibbles = block + FMK_Q4K_X16_NIBBLES + c * FMK_X16_CHUNK;
        fetch(block + step->ahead + c * (FMK_Q4K_X16_BLOCK / 8), FMK_Q4K_X16_BLOCK / 8 / 64 + 1);
        __m512 scale = widen_u8(block + FMK_Q4K_X16_SCALES + 16 * c);
        __m512 min = widen_u8(block + FMK_Q4K_X16_MINS + 16 * c);
        __m512i codes[8];
        unpack_nibbles(nibbles, codes);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const struct fmk_acts_block *x = step->x + t * step->tokens;
            total[t] = _mm512_fmadd_ps(multiply_chunk(codes, x, c), scale, total[t]);
            offset[t] = _mm512_fmadd_ps(min, _mm512_set1_ps(x->sum[c]), offset[t]);
        }
    }
    __m512 d = widen_f16(block), dmin = widen_f16(block + FMK_Q4K_X16_MINIMA);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        float *place = step->out + t * FMK_TILE_N;
        __m512 sum = _mm512_fnmadd_ps(dmin, offset[t], _mm512_loadu_ps(place));
        _mm512_storeu_ps(place, _mm512_fmadd_ps(d, total[t], sum));
    }
}

void fmk_q4k_x16_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply);
}
