/* Activations to blocks of int8 with AVX2 (../quantize_blocks.c), 16 that share a scale at a time. */
#include "../tile.h"
#include "../../half.h"

#include <immintrin.h>
#include <string.h>

/* The bits of the largest magnitude of 16: they order like the magnitudes, NaN above infinity. */
FMK_INLINE uint32_t largest_of(__m256 first, __m256 second) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i max = _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(first), magnitude),
                                   _mm256_and_si256(_mm256_castps_si256(second), magnitude));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* 16 values to q; answers the sum of q. */
FMK_INLINE int32_t quantize_16(const float *x, float *scale, int8_t *q) {
    __m256 first = _mm256_loadu_ps(x), second = _mm256_loadu_ps(x + 8);
    uint32_t largest = largest_of(first, second);
    float amax = fmk_float_of_bits(largest);
    if (largest >= 0x7f800000 || amax < 0x1p-100f) {
        *scale = largest >= 0x7f800000 ? fmk_float_of_bits(0x7fc00000) : 0;
        memset(q, 0, 16);
        return 0;
    }
    *scale = amax / 127;
    __m256 inverse = _mm256_set1_ps(127 / amax);
    __m256i codes = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(first, inverse)),
                                       _mm256_cvtps_epi32(_mm256_mul_ps(second, inverse)));
    codes = _mm256_permute4x64_epi64(codes, 0xd8); /* packs work within 128-bit halves */
    __m128i low = _mm256_castsi256_si128(codes), high = _mm256_extracti128_si256(codes, 1);
    _mm_storeu_si128((__m128i *)q, _mm_packs_epi16(low, high));
    __m128i sum = _mm_madd_epi16(_mm_add_epi16(low, high), _mm_set1_epi16(1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

void fmk_quantize_blocks_avx2(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                              int64_t k) {
    struct fmk_acts_block *block =
        acts->blocks + row * ((acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) + k / FMK_K_BLOCK;
    for (int64_t i = 0; i < count; i += 32) {
        struct fmk_acts_block *b = block + i / FMK_K_BLOCK;
        int64_t at = i % FMK_K_BLOCK, h = at / 16;
        float part[2];
        for (int j = 0; j < 2; j++) {
            int32_t sum = quantize_16(x + i + 16 * j, &b->scale[h + j], b->q + at + 16 * j);
            b->start[h + j] = -32 * sum;
            part[j] = b->scale[h + j] * (float)sum;
        }
        b->sum[at / 32] = part[0] + part[1];
    }
}
