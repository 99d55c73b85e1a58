/* Float dot products along k, eight k to a register, shared by the kernels of row layouts.
 *
 * An output is the sum of blocks of 256 k; a block's sum is eight lanes of 32 terms, added as a tree. By the
 * reckoning of f32_x8.h that is an error of u * sqrt(32/6) = 1.4e-7 in a block and 2.6e-7 over the 112
 * blocks of k = 28672. */
#ifndef FMK_CPU_DOT_AVX2_H
#define FMK_CPU_DOT_AVX2_H

#include "../tile.h"

#include <immintrin.h>
#include <string.h>

enum { MAX_T = 4, MAX_R = 4 };

/* Eight weights of any dense type. */
FMK_INLINE __m256 load_weights(const uint8_t *w, const fmk_dtype dtype) {
    if (dtype == FMK_F32)
        return _mm256_loadu_ps((const float *)w);
    __m128i halves = _mm_loadu_si128((const __m128i *)w);
    if (dtype == FMK_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

/* Each vector's eight lanes, summed in the same order whatever its place. */
FMK_INLINE __m128 sum_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

/* out[t][r] += dot of R rows (`stride` bytes apart) with T tokens (x_stride floats apart) over `count` <= 256
 * k. Past the end of a row nothing is read; activations are padded with zeros. */
FMK_INLINE void multiply_rows(const uint8_t *w, uint64_t stride, const fmk_dtype dtype, const float *x,
                              int64_t x_stride, int64_t count, const int T, const int R, float *out) {
    const int size = dtype == FMK_F32 ? 4 : 2;
    __m256 sum[MAX_T][MAX_R];
#pragma GCC unroll 4
    for (int t = 0; t < MAX_T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            sum[t][r] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 8 <= count; k += 8) {
        __m256 row[MAX_R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            row[r] = load_weights(w + r * stride + k * size, dtype);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256 a = _mm256_loadu_ps(x + t * x_stride + k);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                sum[t][r] = _mm256_fmadd_ps(row[r], a, sum[t][r]);
        }
    }
    if (k < count)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            _Alignas(32) uint8_t rest[32] = {0};
            memcpy(rest, w + r * stride + k * size, (size_t)((count - k) * size));
            __m256 row = load_weights(rest, dtype);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++)
                sum[t][r] = _mm256_fmadd_ps(row, _mm256_loadu_ps(x + t * x_stride + k), sum[t][r]);
        }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        float sums[4];
        _mm_storeu_ps(sums, sum_lanes(sum[0][r], sum[1][r], sum[2][r], sum[3][r]));
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            out[t * FMK_TILE_N + r] += sums[t];
    }
}

#endif
