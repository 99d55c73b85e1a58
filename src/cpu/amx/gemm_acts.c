/* Activations to bf16, or to sums of two, with AVX-512 BF16. */
#include "../gemm/gemm.h"

#include <immintrin.h>

/* Rounded to nearest even; the floats that bf16 are. */
static inline __m512 round_16(__m512 x, uint16_t *out) {
    __m256i half = (__m256i)_mm512_cvtneps_pbh(x);
    _mm256_storeu_si256((__m256i *)out, half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Where k of a row is; the next 32 are so many further. */
static int64_t place_of(const struct fmk_acts *acts, int64_t row, int64_t k) {
    return (k / 32 * acts->gemm.capacity + row) * 32;
}

void fmk_gemm_fill_bf16(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row, int64_t k) {
    for (int64_t i = 0; i < count; i += 32) {
        uint16_t *out = acts->gemm.bf16[0] + place_of(acts, row, k + i);
        round_16(_mm512_loadu_ps(x + i), out);
        round_16(_mm512_loadu_ps(x + i + 16), out + 16);
    }
}

void fmk_gemm_fill_bf16x2(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                          int64_t k) {
    for (int64_t i = 0; i < count; i += 16) {
        int64_t at = place_of(acts, row, k + i) + i % 32;
        __m512 whole = _mm512_loadu_ps(x + i);
        __m512 high = round_16(whole, acts->gemm.bf16[0] + at);
        round_16(_mm512_sub_ps(whole, high), acts->gemm.bf16[1] + at);
    }
}
