/* What the int8 kernels of K-quants in the file's own order share. A row and each of its tokens keep eight
 * lanes of partial sums, which are added up at the end of K. */
#ifndef FMK_CPU_INT8_ROWS_AVX2_H
#define FMK_CPU_INT8_ROWS_AVX2_H

#include "../tile.h"

#include <immintrin.h>
#include <string.h>

/* Activations of a token, from k = 0 on. */
struct token_acts {
    const int8_t *q;
    const int16_t (*ratio)[2];
    const float *step, *sum16, *sum32;
};

FMK_INLINE struct token_acts token_at(const struct fmk_acts *acts, int64_t token) {
    int64_t k = acts->k;
    return (struct token_acts){acts->q + token * k, (const int16_t(*)[2])acts->ratio + token * (k / 32),
                               acts->step + token * (k / FMK_K_BLOCK), acts->sum16 + token * (k / 16),
                               acts->sum32 + token * (k / 32)};
}

FMK_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

FMK_INLINE float load_half(const uint8_t *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return _cvtsh_ss(half);
}

/* sum += scales * (ratios of the activations * products): chunk c of 32 k, codes below 64. */
FMK_INLINE __m256 add_chunk(__m256i codes, __m256 scales, const struct token_acts *acts, int64_t c,
                            __m256 sum) {
    __m256i pairs = _mm256_maddubs_epi16(codes, load(acts->q + 32 * c));
    int32_t ratios;
    memcpy(&ratios, acts->ratio[c], sizeof ratios);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi32(ratios))), scales,
                           sum);
}

FMK_INLINE float sum_lanes(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

enum { MAX_T = 4 };

/* Super-block b of one row with T tokens: total[t] += its eight lanes. */
typedef void multiply_block(const uint8_t *block, const struct token_acts *acts, int64_t b, const int T,
                            __m256 *total);

FMK_INLINE void multiply_row(const struct fmk_tile *tile, multiply_block *multiply, int64_t block_bytes,
                             int32_t row, int32_t token, const int T) {
    enum { FETCH_AHEAD = 4096 }; /* bytes between what is used and what is fetched; rows follow one another */
    const uint8_t *w = tile->data + (uint64_t)(tile->row + row) * tile->part->stride;
    struct token_acts acts[MAX_T];
    __m256 total[MAX_T];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        acts[t] = token_at(tile->acts, tile->token + token + t);
        total[t] = _mm256_setzero_ps();
    }
    for (int64_t b = 0, blocks = tile->part->k / FMK_K_BLOCK; b < blocks; b++, w += block_bytes) {
        for (int64_t i = 0; i < block_bytes; i += 64)
            _mm_prefetch((const char *)w + FETCH_AHEAD + i, _MM_HINT_T0);
        multiply(w, acts, b, T, total);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        tile->out[(token + t) * FMK_TILE_N + row] = sum_lanes(total[t]);
}

/* Tokens share an unpacked row, four at a time. */
FMK_INLINE void multiply_tile(const struct fmk_tile *tile, multiply_block *multiply, int64_t block_bytes) {
    int32_t t = 0;
    for (; t + 4 <= tile->tokens; t += 4)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_row(tile, multiply, block_bytes, r, t, 4);
    for (; t + 2 <= tile->tokens; t += 2)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_row(tile, multiply, block_bytes, r, t, 2);
    if (t < tile->tokens)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_row(tile, multiply, block_bytes, r, t, 1);
}

#endif
