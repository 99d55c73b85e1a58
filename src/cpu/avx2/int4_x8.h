/* Scales and zero points of int4.x8, for its AVX2 kernels. */
#ifndef FMK_CPU_INT4_X8_AVX2_H
#define FMK_CPU_INT4_X8_AVX2_H

#include "../layouts/int4_runs.h"

#include <immintrin.h>

static inline __m256 int4_scales(const uint8_t *header, fmk_dtype dtype) {
    if (dtype == FMK_F32)
        return _mm256_loadu_ps((const float *)header);
    __m128i halves = _mm_loadu_si128((const __m128i *)header);
    return dtype == FMK_F16 ? _mm256_cvtph_ps(halves)
                            : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static inline __m256i int4_zeros(const uint8_t *header, fmk_dtype dtype) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(header + (dtype == FMK_F32 ? 32 : 16))));
}

#endif
