/* What the int8 kernels of K-quants in the file's own order share. vpdpbusd adds up four consecutive
 * products: the 64 codes of a register make sixteen sums, four of each 16 k, which share a scale of weights
 * and activations. These scales are multiplied sixteen at a time, once a super-block, and spread over the
 * sums by a permutation: total += float(sums) * spread(scale of the weights * scale of the activations) A row
 * and a token keep sixteen lanes of partial sums, added to in the order of k, which are added up at its end.
 */
#ifndef FMK_CPU_ROWS_VNNI_H
#define FMK_CPU_ROWS_VNNI_H

#include "../tile.h"

#include <immintrin.h>

/* Rows and tokens at once: codes of two rows, activations of a token and eight totals fit 32 registers. */
enum { MAX_T = 4, MAX_R = 4, QUARTERS = 4 };

/* A super-block of a row. Which 16 k lie in which quarter of which register is the format's own business. */
struct row_block {
    __m512i code[QUARTERS];
    __m512 scale;  /* of each 16 k */
    __m512 offset; /* as the format's `add_offset` wants it */
};

struct row_format {
    int64_t block_bytes;
    void (*unpack)(const uint8_t *block, struct row_block *w);
    /* A token's activations in the places of the codes. */
    void (*arrange)(const int8_t *q, __m512i x[QUARTERS]);
    /* For each lane of register i, the 16 k that it sums up. */
    int32_t runs[QUARTERS][4];
    /* What codes are too large by. `scale`: of weights times activations. */
    __m512 (*add_offset)(const struct row_block *w, const struct fmk_acts_block *x, __m512 scale,
                         __m512 total);
};

FMK_INLINE __m512i spread_of(const int32_t run[4]) {
    return _mm512_set_epi32(run[3], run[3], run[3], run[3], run[2], run[2], run[2], run[2], run[1], run[1],
                            run[1], run[1], run[0], run[0], run[0], run[0]);
}

FMK_INLINE __m512 multiply_block(const struct row_format *format, const struct row_block *w,
                                 const __m512i x[QUARTERS], const struct fmk_acts_block *y, __m512 total) {
    __m512 scale = _mm512_mul_ps(w->scale, _mm512_loadu_ps(y->scale));
#pragma GCC unroll 4
    for (int i = 0; i < QUARTERS; i++) {
        __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w->code[i], x[i]);
        __m512 spread = _mm512_permutexvar_ps(spread_of(format->runs[i]), scale);
        total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), spread, total);
    }
    return format->add_offset(w, y, scale, total);
}

/* R rows from `row` on of the tile times tokens token .. token+T-1, over all of K. Meanwhile the R rows after
 * them are asked for: K-quants' rows are few KB, and follow one another in memory. */
FMK_INLINE void multiply_rows(const struct row_format *format, const struct fmk_tile *tile, int32_t row,
                              int32_t token, const int T, const int R) {
    const int64_t blocks = tile->part->k / FMK_K_BLOCK;
    const uint64_t stride = tile->part->stride;
    const uint8_t *w = tile->data + (uint64_t)(tile->row + row) * stride;
    const struct fmk_acts_block *x = tile->acts->blocks + (tile->token + token) * blocks;
    __m512 total[MAX_T][MAX_R];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            total[t][r] = _mm512_setzero_ps();
    for (int64_t b = 0; b < blocks; b++, w += format->block_bytes, x++) {
        struct row_block block[MAX_R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            for (int64_t i = 0; i < format->block_bytes; i += 64)
                _mm_prefetch((const char *)w + (uint64_t)(R + r) * stride + i, _MM_HINT_T0);
            format->unpack(w + (uint64_t)r * stride, &block[r]);
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m512i q[QUARTERS];
            format->arrange(x[t * blocks].q, q);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                total[t][r] = multiply_block(format, &block[r], q, &x[t * blocks], total[t][r]);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            tile->out[(token + t) * FMK_TILE_N + row + r] = _mm512_reduce_add_ps(total[t][r]);
}

FMK_INLINE void multiply_tokens(const struct row_format *format, const struct fmk_tile *tile, int32_t row,
                                const int R) {
    int32_t t = 0;
    for (; t + 4 <= tile->tokens; t += 4)
        multiply_rows(format, tile, row, t, 4, R);
    for (; t + 2 <= tile->tokens; t += 2)
        multiply_rows(format, tile, row, t, 2, R);
    if (t < tile->tokens)
        multiply_rows(format, tile, row, t, 1, R);
}

FMK_INLINE void multiply_tile(const struct row_format *format, const struct fmk_tile *tile) {
    int32_t row = 0;
    for (; row + 2 <= tile->rows; row += 2)
        multiply_tokens(format, tile, row, 2);
    if (row < tile->rows)
        multiply_tokens(format, tile, row, 1);
}

#endif
