/* Rows of f32, f16 or bf16 times float activations, AVX-512: dot products of one row by up to four tokens, or
 * of four rows by up to two.
 *
 * An output is two times sixteen lanes of partial sums, each in two levels: the products of 1024 k, then
 * these sums, in the order of k. By the reckoning of ../avx2/f32_x8.h that is an error of u * sqrt(32/6)
 * = 1.4e-7 in a block and u * sqrt(28/6) = 1.3e-7 over the 28 blocks of k = 28672. */
#include "../tile.h"

#include "../../abi.h"

#include <immintrin.h>
#include <string.h>

enum {
    MAX_T = 4,
    MAX_R = 4,
    CHAINS = 2, /* a multiplication takes four cycles, and two start in each */
    BLOCK = 1024,
    FETCH_AHEAD = 8192 /* bytes from what is used to what is asked for, of all rows together: whole blocks */
};

typedef __m512 sums[MAX_T][MAX_R][CHAINS];

/* Sixteen weights of any dense type. */
FMK_INLINE __m512 widen(const uint8_t *w, const fmk_dtype dtype) {
    if (dtype == FMK_F32)
        return _mm512_loadu_ps((const float *)w);
    __m256i halves = _mm256_loadu_si256((const __m256i *)w);
    if (dtype == FMK_F16)
        return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

FMK_INLINE void clear(sums sum, const int T, const int R) {
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            sum[t][r][0] = sum[t][r][1] = _mm512_setzero_ps();
}

/* Chain c += products of 16 k. */
FMK_INLINE void multiply_16(const uint8_t *w, uint64_t stride, const fmk_dtype dtype, const float *x,
                            int64_t x_stride, const int T, const int R, const int c, sums sum) {
    __m512 row[MAX_R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
        row[r] = widen(w + (uint64_t)r * stride, dtype);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        __m512 a = _mm512_loadu_ps(x + t * x_stride);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            sum[t][r][c] = _mm512_fmadd_ps(row[r], a, sum[t][r][c]);
    }
}

/* sum += products of `count` k; meanwhile asks for as many bytes of R rows from `next` on. Past the end of a
 * row nothing is read; activations are padded with zeros to 32. */
FMK_INLINE void multiply_block(const uint8_t *w, const uint8_t *next, uint64_t stride, const fmk_dtype dtype,
                               const float *x, int64_t x_stride, int64_t count, const int T, const int R,
                               sums sum) {
    const int size = dtype == FMK_F32 ? 4 : 2;
    int64_t k = 0;
    for (; k + 32 <= count; k += 32) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 2
            for (int i = 0; i < 32 * size; i += 64)
                _mm_prefetch((const char *)next + (uint64_t)r * stride + k * size + i, _MM_HINT_T0);
        multiply_16(w + k * size, stride, dtype, x + k, x_stride, T, R, 0, sum);
        multiply_16(w + (k + 16) * size, stride, dtype, x + k + 16, x_stride, T, R, 1, sum);
    }
    if (k < count) {
        uint8_t rest[MAX_R][128] = {0};
        for (int r = 0; r < R; r++)
            memcpy(rest[r], w + (uint64_t)r * stride + k * size, (size_t)((count - k) * size));
        multiply_16(rest[0], sizeof rest[0], dtype, x + k, x_stride, T, R, 0, sum);
        multiply_16(rest[0] + 16 * size, sizeof rest[0], dtype, x + k + 16, x_stride, T, R, 1, sum);
    }
}

/* R rows from `row` on of the tile times tokens token .. token+T-1, over all of K. */
FMK_INLINE void multiply(const struct fmk_tile *tile, const fmk_dtype dtype, int32_t row, int32_t token,
                         const int T, const int R) {
    const struct fmk_packed *part = tile->part;
    const uint8_t *w = tile->data + (uint64_t)(tile->row + row) * part->stride;
    const float *x = tile->acts->f32 + (tile->token + token) * tile->acts->k;
    const int64_t size = dtype == FMK_F32 ? 4 : 2, ahead = FETCH_AHEAD / R;
    sums total, sum;
    clear(total, T, R);
    for (int64_t k = 0; k < part->k; k += BLOCK) {
        const uint8_t *block = w + k * size, *next = block + ahead;
        if (k * size + ahead >= part->k * size) /* these rows have been asked for: R rows further down */
            next += (R - 1) * part->stride;
        clear(sum, T, R);
        multiply_block(block, next, part->stride, dtype, x + k, tile->acts->k, fmk_min(BLOCK, part->k - k), T,
                       R, sum);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
#pragma GCC unroll 2
                for (int c = 0; c < CHAINS; c++)
                    total[t][r][c] = _mm512_add_ps(total[t][r][c], sum[t][r][c]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            tile->out[(token + t) * FMK_TILE_N + row + r] =
                _mm512_reduce_add_ps(_mm512_add_ps(total[t][r][0], total[t][r][1]));
}

/* Rows row .. row+R-1: more than one so that activations are loaded for all of them. */
FMK_INLINE void multiply_rows(const struct fmk_tile *tile, const fmk_dtype dtype, int32_t row, const int R) {
    int32_t t = 0;
    for (; t + 4 <= tile->tokens; t += 4)
        multiply(tile, dtype, row, t, 4, R);
    for (; t + 2 <= tile->tokens; t += 2)
        multiply(tile, dtype, row, t, 2, R);
    for (int32_t r = row; r < row + R && t < tile->tokens; r++)
        multiply(tile, dtype, r, t, 1, 1);
}

FMK_INLINE void multiply_tile(const struct fmk_tile *tile, const fmk_dtype dtype) {
    int32_t row = 0;
    if (tile->tokens == 1 && tile->streams >= 4)
        for (; row + 4 <= tile->rows; row += 4)
            multiply(tile, dtype, row, 0, 1, 4);
    for (; row + 2 <= tile->rows; row += 2)
        multiply_rows(tile, dtype, row, 2);
    if (row < tile->rows)
        multiply_rows(tile, dtype, row, 1);
}

void fmk_dense_avx512(const struct fmk_tile *tile) {
    switch (tile->part->dtype) {
    case FMK_F16:
        multiply_tile(tile, FMK_F16);
        return;
    case FMK_BF16:
        multiply_tile(tile, FMK_BF16);
        return;
    default:
        multiply_tile(tile, FMK_F32);
    }
}
