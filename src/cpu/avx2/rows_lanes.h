/* What the int8 kernels of K-quants in the file's own order share, as avx512/rows_vnni.h has them: lane l of
 * two registers belongs to run fmk_lane_run(l) of 16 k, lanes 0..7 in the first. vpmaddubsw adds up pairs of
 * products in 16 bits; where the codes are below 16 the four quads of a run do so without overflow (8 * 15 *
 * 127 = 15240), where they are below 64 two quads do (4 * 63 * 127 = 32004). vpmaddwd by ones makes 32-bit
 * sums of them, and total += float(sums) * (scales of the weights * scales of the activations) - offsets *
 * activations' sums A row and a token keep sixteen lanes of sums, added to in the order of k, which are added
 * up at its end. */
#ifndef FMK_CPU_ROWS_LANES_AVX2_H
#define FMK_CPU_ROWS_LANES_AVX2_H

#include "../tile.h"

#include "../../abi.h"

#include <immintrin.h>
#include <string.h>

enum { MAX_T = 4, QUADS = 4, FETCH_AHEAD = 8192 };

/* A super-block of a row, by lanes. */
struct row_block {
    __m256i code[QUADS][2];
    __m256 scale[2], offset[2]; /* no offset where the codes are centred */
};

typedef void unpack_block(const uint8_t *block, struct row_block *w);

FMK_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Word i of 128-bit half h of row[j] to word j of the same half of row[i]. */
FMK_INLINE void transpose_words(__m256i row[4]) {
    __m256i a = _mm256_unpacklo_epi32(row[0], row[1]), b = _mm256_unpackhi_epi32(row[0], row[1]);
    __m256i c = _mm256_unpacklo_epi32(row[2], row[3]), d = _mm256_unpackhi_epi32(row[2], row[3]);
    row[0] = _mm256_unpacklo_epi64(a, c);
    row[1] = _mm256_unpackhi_epi64(a, c);
    row[2] = _mm256_unpacklo_epi64(b, d);
    row[3] = _mm256_unpackhi_epi64(b, d);
}

FMK_INLINE __m256i pairs(const struct row_block *w, const struct fmk_acts_lanes *x, int quad, int i) {
    return _mm256_maddubs_epi16(w->code[quad][i], load(x->q[quad][8 * i]));
}

/* centred: codes are below 64, and 32 too large, which the sums start from. Else they are below 16. */
FMK_INLINE __m256i sum_runs(const struct row_block *w, const struct fmk_acts_lanes *x, const bool centred,
                            int i) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i first = _mm256_add_epi16(pairs(w, x, 0, i), pairs(w, x, 1, i));
    __m256i second = _mm256_add_epi16(pairs(w, x, 2, i), pairs(w, x, 3, i));
    if (!centred)
        return _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
    __m256i sum = _mm256_add_epi32(load(&x->start[8 * i]), _mm256_madd_epi16(first, ones));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(second, ones));
}

FMK_INLINE void multiply_block(const struct row_block *w, const struct fmk_acts_lanes *x, const bool centred,
                               __m256 total[2]) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256 scale = _mm256_mul_ps(w->scale[i], _mm256_loadu_ps(&x->scale[8 * i]));
        total[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum_runs(w, x, centred, i)), scale, total[i]);
        if (!centred)
            total[i] = _mm256_fnmadd_ps(w->offset[i], _mm256_loadu_ps(&x->sum[8 * i]), total[i]);
    }
}

FMK_INLINE float sum_lanes(__m256 a, __m256 b) {
    __m256 both = _mm256_add_ps(a, b);
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* One row and T tokens, over all of K. Meanwhile what follows in memory is asked for. */
FMK_INLINE void multiply_row(const struct fmk_tile *tile, unpack_block *unpack, const bool centred,
                             const int64_t block_bytes, int32_t row, int32_t token, const int T) {
    const int64_t blocks = tile->part->k / FMK_K_BLOCK;
    const uint8_t *w = tile->data + (uint64_t)(tile->row + row) * tile->part->stride;
    const struct fmk_acts_lanes *x = tile->acts->lanes + (tile->token + token) * blocks;
    __m256 total[MAX_T][2];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        total[t][0] = total[t][1] = _mm256_setzero_ps();
    for (int64_t b = 0; b < blocks; b++, w += block_bytes, x++) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < block_bytes; i += 64)
            _mm_prefetch((const char *)w + FETCH_AHEAD + i, _MM_HINT_T0);
        struct row_block block;
        unpack(w, &block);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            multiply_block(&block, x + t * blocks, centred, total[t]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        tile->out[(token + t) * FMK_TILE_N + row] = sum_lanes(total[t][0], total[t][1]);
}

/* Tokens share an unpacked row, four at a time. */
FMK_INLINE void multiply_tile(const struct fmk_tile *tile, unpack_block *unpack, const bool centred,
                              const int64_t block_bytes) {
    int32_t t = 0;
    for (; t + 4 <= tile->tokens; t += 4)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_row(tile, unpack, centred, block_bytes, r, t, 4);
    for (; t + 2 <= tile->tokens; t += 2)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_row(tile, unpack, centred, block_bytes, r, t, 2);
    if (t < tile->tokens)
        for (int32_t r = 0; r < tile->rows; r++)
            multiply_row(tile, unpack, centred, block_bytes, r, t, 1);
}

#endif
