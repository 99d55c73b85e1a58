/* Activations to bf16, to sums of two, with AVX-512 BF16, or to int8. */
#include "../../abi.h"
#include "../../half.h"
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

/* The step is a 127th of the largest magnitude. */
void fmk_gemm_fill_int8(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row, int64_t k) {
    __m512i largest = _mm512_setzero_si512(); /* bits order as magnitudes do, and NaN is above infinity */
    for (int64_t i = 0; i < count; i += 16)
        largest = _mm512_max_epu32(largest,
                                   _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(INT32_MAX)));
    uint32_t bits = _mm512_reduce_max_epu32(largest);
    float most = fmk_float_of_bits(bits);
    bool finite = bits < 0x7f800000;
    /* Below 2^-106 the inverse would leave the range of normal numbers; such values count as zero. */
    float inverse = finite && most >= 0x1p-106f ? 127 / most : 0;
    acts->gemm.step[k / FMK_K_BLOCK * acts->gemm.capacity + row] = !finite ? fmk_float_of_bits(0x7fc00000)
                                                                   : inverse > 0 ? most / 127
                                                                                 : 0;
    for (int64_t i = 0; i < fmk_round_up(count, 64); i += 16) {
        __m512 values = i < count ? _mm512_loadu_ps(x + i) : _mm512_setzero_ps();
        __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(values, _mm512_set1_ps(inverse)));
        int8_t *out = acts->gemm.i8 + ((k + i) / 64 * acts->gemm.capacity + row) * 64 + (k + i) % 64;
        _mm_storeu_si128((__m128i *)out, _mm512_cvtsepi32_epi8(codes));
    }
}
