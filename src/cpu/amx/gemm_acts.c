/* Activations to bf16, or to sums of two, with AVX-512 BF16. */
#include "../gemm/gemm.h"

#include <immintrin.h>

/* Rounded to nearest even; the floats that bf16 are. */
static inline __m512 round_16(__m512 x, uint16_t *out) {
    __m256i half = (__m256i)_mm512_cvtneps_pbh(x);
    _mm256_storeu_si256((__m256i *)out, half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static int64_t place_of(const struct fmk_acts *acts, int64_t row, int64_t k) {
    return (k / FMK_K_BLOCK * acts->gemm.capacity + row) * FMK_K_BLOCK;
}

void fmk_gemm_fill_bf16(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row, int64_t k) {
    uint16_t *out = acts->gemm.bf16[0] + place_of(acts, row, k);
    for (int64_t i = 0; i < count; i += 16)
        round_16(_mm512_loadu_ps(x + i), out + i);
}

void fmk_gemm_fill_bf16x2(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                          int64_t k) {
    uint16_t *high = acts->gemm.bf16[0] + place_of(acts, row, k),
             *low = acts->gemm.bf16[1] + place_of(acts, row, k);
    for (int64_t i = 0; i < count; i += 16) {
        __m512 whole = _mm512_loadu_ps(x + i);
        round_16(_mm512_sub_ps(whole, round_16(whole, high + i)), low + i);
    }
}
