/* Activations to int8 with AVX2 (quantize_row.h), eight values at a time. */
#include "../quantize_row.h"

#include <immintrin.h>

static inline void largest_of(const float *x, uint32_t largest[2]) {
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(x + 8 * i));
        max = _mm256_max_epi32(max, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    largest[0] = (uint32_t)_mm_cvtsi128_si32(four);
    largest[1] = (uint32_t)_mm_extract_epi32(four, 2);
}

static inline __m256i round_8(const float *x, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

/* Packs work within 128-bit lanes: the permutation puts the dwords back in order. */
static inline __m256i narrow(__m256i a, __m256i b, __m256i c, __m256i d) {
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static inline void round_all(const float *x, const float inverse[2], const int16_t ratio[2], int8_t *q,
                             int32_t sum[2]) {
    __m256 factor = _mm256_setr_ps(inverse[0], inverse[0], inverse[1], inverse[1], inverse[0], inverse[0],
                                   inverse[1], inverse[1]);
    __m256i codes =
        narrow(round_8(x, factor), round_8(x + 8, factor), round_8(x + 16, factor), round_8(x + 24, factor));
    _mm256_storeu_si256((__m256i *)q, codes);
    int32_t pair;
    memcpy(&pair, ratio, sizeof pair);
    __m256i quads =
        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi32(pair));
    quads = _mm256_add_epi32(quads, _mm256_shuffle_epi32(quads, 0x4e));
    quads = _mm256_add_epi32(quads, _mm256_shuffle_epi32(quads, 0xb1));
    sum[0] = _mm256_cvtsi256_si32(quads);
    sum[1] = _mm256_extract_epi32(quads, 4);
}

void fmk_quantize_row_avx2(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                           int64_t k) {
    quantize_row(x, count, acts, row, k, largest_of, round_all);
}
