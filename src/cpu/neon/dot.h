/* Float dot products along k, eight k at a time, shared by the kernels of row layouts.
 *
 * An output is the sum of blocks of 256 k; a block's sum is eight lanes of 32 terms, added as a tree: the
 * error of avx2/dot.h. */
#ifndef FMK_CPU_NEON_DOT_H
#define FMK_CPU_NEON_DOT_H

#include "../tile.h"
#include "numbers.h"

enum { MAX_T = 4, MAX_R = 4 };

/* Eight weights of any dense type. */
FMK_INLINE floats8 load_weights(const uint8_t *w, const fmk_dtype dtype) {
    return dtype == FMK_F32 ? floats_of_f32(w) : dtype == FMK_F16 ? floats_of_f16(w) : floats_of_bf16(w);
}

FMK_INLINE void add_products(const floats8 row[MAX_R], const float *x, int64_t x_stride, const int T,
                             const int R, floats8 sum[MAX_T][MAX_R]) {
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        float32x4_t a = vld1q_f32(x + t * x_stride), b = vld1q_f32(x + t * x_stride + 4);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sum[t][r].v[0] = vfmaq_f32(sum[t][r].v[0], row[r].v[0], a);
            sum[t][r].v[1] = vfmaq_f32(sum[t][r].v[1], row[r].v[1], b);
        }
    }
}

/* out[t][r] += dot of R rows (`stride` bytes apart) with T tokens (x_stride floats apart) over `count` <= 256
 * k. Past the end of a row nothing is read; activations are padded with zeros. */
FMK_INLINE void multiply_rows(const uint8_t *w, uint64_t stride, const fmk_dtype dtype, const float *x,
                              int64_t x_stride, int64_t count, const int T, const int R, float *out) {
    const int size = dtype == FMK_F32 ? 4 : 2;
    floats8 sum[MAX_T][MAX_R], row[MAX_R];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            sum[t][r].v[0] = sum[t][r].v[1] = vdupq_n_f32(0);
    int64_t k = 0;
    for (; k + 8 <= count; k += 8) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            row[r] = load_weights(w + r * stride + k * size, dtype);
        add_products(row, x + k, x_stride, T, R, sum);
    }
    if (k < count) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            uint8_t rest[32] = {0};
            memcpy(rest, w + r * stride + k * size, (size_t)((count - k) * size));
            row[r] = load_weights(rest, dtype);
        }
        add_products(row, x + k, x_stride, T, R, sum);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            out[t * FMK_TILE_N + r] += vaddvq_f32(vaddq_f32(sum[t][r].v[0], sum[t][r].v[1]));
}

#endif
