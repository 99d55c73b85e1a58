/* Q6_K rows as in the file times int8 activations, AVX2. A code stands for code - 32: the 32 is taken off
 * through the sums of the activations. */
#include "int8_rows.h"
#include "q6k_rows.h"

FMK_INLINE void multiply_super_block(const uint8_t *block, const struct token_acts *acts, int64_t b,
                                     const int T, __m256 *total) {
    __m128i scales = _mm_loadu_si128((const __m128i *)(block + FMK_Q6K_SCALES));
    __m256 d = _mm256_set1_ps(load_half(block + FMK_Q6K_D)), middle = _mm256_mul_ps(d, _mm256_set1_ps(32));
    __m256 offset[2], sum[MAX_T];
    float wide[16];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m128i eight = i ? _mm_unpackhi_epi64(scales, scales) : scales;
        offset[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
        _mm256_storeu_ps(wide + 8 * i, offset[i]);
        offset[i] = _mm256_mul_ps(middle, offset[i]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        sum[t] = _mm256_setzero_ps();
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        __m256i codes = q6k_codes(block, c / 4, c % 4);
        __m256 pair = _mm256_set_m128(_mm_set1_ps(wide[2 * c + 1]), _mm_set1_ps(wide[2 * c]));
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            sum[t] = add_chunk(codes, pair, &acts[t], 8 * b + c, sum[t]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        total[t] = _mm256_fnmadd_ps(offset[0], _mm256_loadu_ps(acts[t].sum16 + 16 * b), total[t]);
        total[t] = _mm256_fnmadd_ps(offset[1], _mm256_loadu_ps(acts[t].sum16 + 16 * b + 8), total[t]);
        total[t] = _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(acts[t].step[b])), sum[t], total[t]);
    }
}

void fmk_q6k_rows_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply_super_block, FMK_Q6K_BLOCK);
}
