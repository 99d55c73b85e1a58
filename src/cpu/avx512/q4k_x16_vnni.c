/* q4_k.x16 times int8 activations, AVX-512 VNNI. */
#include "vnni_x16.h"

FMK_INLINE void multiply(const struct fmk_packed *part, const uint8_t *panel, int64_t k,
                         const struct fmk_acts_block *x, int64_t tokens, const int T, float *out) {
    (void)part;
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q4K_X16_BLOCK;
    __m512 total[MAX_T], offset[MAX_T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
        total[t] = offset[t] = _mm512_setzero_ps();
    fetch(block + FMK_Q4K_X16_BLOCK, FMK_Q4K_X16_NIBBLES / 64);
    for (int c = 0; c < 8; c++) {
        const uint8_t *nibbles = block + FMK_Q4K_X16_NIBBLES + c * FMK_X16_CHUNK;
        fetch(nibbles + FMK_Q4K_X16_BLOCK, FMK_X16_CHUNK / 64);
        __m512 scale = widen_u8(block + FMK_Q4K_X16_SCALES + 16 * c);
        __m512 min = widen_u8(block + FMK_Q4K_X16_MINS + 16 * c);
        __m512i codes[8];
        unpack_nibbles(nibbles, codes);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const struct fmk_acts_block *y = x + t * tokens;
            total[t] = _mm512_fmadd_ps(sum_chunk(codes, y, c), scale, total[t]);
            offset[t] = _mm512_fmadd_ps(min, _mm512_set1_ps(y->sum[c]), offset[t]);
        }
    }
    __m512 d = widen_f16(block), dmin = widen_f16(block + FMK_Q4K_X16_MINIMA);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        float *place = out + t * FMK_TILE_N;
        __m512 sum = _mm512_fnmadd_ps(dmin, offset[t], _mm512_loadu_ps(place));
        _mm512_storeu_ps(place, _mm512_fmadd_ps(d, total[t], sum));
    }
}

void fmk_q4k_x16_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply);
}
