/* Scales and zero points of int4.x16, for its AVX-512 kernels. */
#ifndef FMK_CPU_INT4_X16_AVX512_H
#define FMK_CPU_INT4_X16_AVX512_H

#include "../layouts/int4_runs.h"

#include <immintrin.h>

static inline __m512 int4_scales(const uint8_t *header, fmk_dtype dtype) {
    if (dtype == FMK_F32)
        return _mm512_loadu_ps((const float *)header);
    __m256i halves = _mm256_loadu_si256((const __m256i *)header);
    return dtype == FMK_F16 ? _mm512_cvtph_ps(halves)
                            : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

static inline __m512 int4_zeros(const uint8_t *header, fmk_dtype dtype) {
    const __m128i *zeros = (const __m128i *)(header + (dtype == FMK_F32 ? 64 : 32));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(zeros)));
}

#endif
