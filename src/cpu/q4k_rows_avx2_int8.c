/* Q4_K rows as in the file times int8 activations, AVX2. */
#include "int8_rows_avx2.h"
#include "../formats/k_quants.h"

enum { MAX_R = 4, MAX_T = 4 };

/* One super-block of one row with T tokens: total[t] += its eight lanes. */
FMK_INLINE void multiply_block(const uint8_t *block, const struct token_acts *acts, const int T,
                               __m256 *total) {
    const __m256i low = _mm256_set1_epi8(15);
    uint8_t scale[8], min[8];
    fmk_q4k_scales(block + FMK_Q4K_SCALES, scale, min);
    int16_t wide[8];
    _mm_storeu_si128((__m128i *)wide, _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)scale)));
    __m256 mins = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)min)));
    mins = _mm256_mul_ps(mins, _mm256_set1_ps(fmk_load_f16(block + FMK_Q4K_DMIN)));
    __m256 d = _mm256_set1_ps(fmk_load_f16(block + FMK_Q4K_D)), sum[MAX_T];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        sum[t] = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i both = load(block + FMK_Q4K_NIBBLES + 32 * i);
        __m256i first = _mm256_and_si256(both, low),
                second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            sum[t] = add_chunk(first, _mm256_set1_epi16(wide[2 * i]), &acts[t], 2 * i, sum[t]);
            sum[t] = add_chunk(second, _mm256_set1_epi16(wide[2 * i + 1]), &acts[t], 2 * i + 1, sum[t]);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        total[t] = _mm256_fnmadd_ps(mins, _mm256_loadu_ps(acts[t].sum32), total[t]);
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
            multiply_block(w + r * stride + b * FMK_Q4K_BLOCK, acts, T, total[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            tile->out[(token + t) * FMK_TILE_N + row + r] = sum_lanes(total[r][t]);
}

void fmk_q4k_rows_avx2_int8(const struct fmk_tile *tile) {
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
