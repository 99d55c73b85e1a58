/* Q6_K rows as in the file times int8 activations, AVX2. A code stands for code - 32: the 32 is taken off
 * through the sums of the activations. */
#include "int8_rows_avx2.h"
#include "q6k_rows_avx2.h"

enum { MAX_R = 4, MAX_T = 4 };

/* One super-block of one row with T tokens: total[t] += its eight lanes. */
FMK_INLINE void multiply_block(const uint8_t *block, const struct token_acts *acts, const int T,
                               __m256 *total) {
    __m128i scales = _mm_loadu_si128((const __m128i *)(block + FMK_Q6K_SCALES));
    __m256 d = _mm256_set1_ps(fmk_load_f16(block + FMK_Q6K_D)), middle = _mm256_mul_ps(d, _mm256_set1_ps(32));
    __m256 offset[2], sum[MAX_T];
    offset[0] = _mm256_mul_ps(middle, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)));
    offset[1] = _mm256_mul_ps(middle, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(scales, 8))));
    int16_t wide[16];
    _mm256_storeu_si256((__m256i *)wide, _mm256_cvtepi8_epi16(scales));
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        sum[t] = _mm256_setzero_ps();
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        __m256i codes = q6k_codes(block, c / 4, c % 4);
        __m256i pair = _mm256_set_m128i(_mm_set1_epi16(wide[2 * c + 1]), _mm_set1_epi16(wide[2 * c]));
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            sum[t] = add_chunk(codes, pair, &acts[t], c, sum[t]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        total[t] = _mm256_fnmadd_ps(offset[0], _mm256_loadu_ps(acts[t].sum16), total[t]);
        total[t] = _mm256_fnmadd_ps(offset[1], _mm256_loadu_ps(acts[t].sum16 + 8), total[t]);
        total[t] = _mm256_fmadd_ps(d, sum[t], total[t]);
    }
}

FMK_INLINE void multiply_rows(const struct fmk_tile *tile, int32_t row, int32_t token, const int R,
                              const int T) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *w = tile->data + (uint64_t)(tile->row + row) * stride;
    __m256 total[MAX_R][MAX_T];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            total[r][t] = _mm256_setzero_ps();
    for (int64_t b = 0; b < tile->part->k / FMK_SUPER_BLOCK; b++) {
        struct token_acts acts[MAX_T];
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            acts[t] = token_at(tile->acts, tile->token + token + t, b);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            multiply_block(w + r * stride + b * FMK_Q6K_BLOCK, acts, T, total[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            tile->out[(token + t) * FMK_TILE_N + row + r] = sum_lanes(total[r][t]);
}

void fmk_q6k_rows_avx2_int8(const struct fmk_tile *tile) {
    int32_t t = 0;
    for (; t + 4 <= tile->tokens; t += 4)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_rows(tile, r, t, 1, 4);
    for (; t < tile->tokens; t++) {
        int32_t r = 0;
        for (; r + 4 <= tile->rows; r += 4)
            multiply_rows(tile, r, t, 4, 1);
        for (; r < tile->rows; r++)
            multiply_rows(tile, r, t, 1, 1);
    }
}
