/* What the int8 kernels of K-quants in the file's own order share: R rows by T tokens walk K together. Each
 * keeps eight lanes of partial sums, which are added up at the end of K. */
#ifndef FMK_CPU_INT8_ROWS_AVX2_H
#define FMK_CPU_INT8_ROWS_AVX2_H

#include "tile.h"

#include <immintrin.h>
#include <string.h>

#define FMK_INLINE static inline __attribute__((always_inline))

/* One super-block's activations of a token. */
struct token_acts {
    const int8_t *q;
    const float *scale, *sum32, *sum16;
};

FMK_INLINE struct token_acts token_at(const struct fmk_acts *acts, int64_t token, int64_t block) {
    return (struct token_acts){
        acts->q + token * acts->k + FMK_K_BLOCK * block, acts->scale + token * (acts->k / 32) + 8 * block,
        acts->sum32 + token * (acts->k / 32) + 8 * block, acts->sum16 + token * (acts->k / 16) + 16 * block};
}

FMK_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* sum += activation scale * (scales * products): 32 k, codes below 64. */
FMK_INLINE __m256 add_chunk(__m256i codes, __m256i scales, const struct token_acts *acts, int c, __m256 sum) {
    __m256i pairs = _mm256_maddubs_epi16(codes, load(acts->q + 32 * c));
    __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, scales));
    return _mm256_fmadd_ps(dot, _mm256_broadcast_ss(acts->scale + c), sum);
}

FMK_INLINE float sum_lanes(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

#endif
