/* Activations to int16 with AVX2 (../gemm/i16_acts.h), eight values at a time. */
#include "../gemm/i16_acts.h"

#include <immintrin.h>

static inline uint32_t largest_of(const float *x, int64_t count) {
    __m256i max = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i += 8) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(x + i));
        max = _mm256_max_epi32(max, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(four);
}

static inline __m256i round_8(const float *x, float inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(inverse)));
}

static inline int32_t round_all(const float *x, float inverse, int16_t *code) {
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 16) {
        __m256i low = round_8(x + i, inverse), high = round_8(x + i + 8, inverse);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
        /* The pack works within 128 bits: quarters 0, 2, 1, 3. So are the values of each four to be. */
        __m256i codes = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        codes = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(codes, 0xd8), 0xd8);
        _mm256_storeu_si256((__m256i *)(code + i), codes);
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return _mm_cvtsi128_si32(four);
}

void fmk_gemm_fill_i16_avx2(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                            int64_t k) {
    i16_fill(x, count, &acts->gemm, row, k, largest_of, round_all);
}
