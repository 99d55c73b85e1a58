/* quantize_row.c with AVX2: the same operations on eight values at a time. */
#include "tile.h"

#include <immintrin.h>
#include <string.h>

static int32_t largest_lane(__m256i v) {
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

static int32_t sum_bytes(__m128i q) {
    __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), q);
    __m128i quads = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
    quads = _mm_add_epi32(quads, _mm_shuffle_epi32(quads, 0x4e));
    quads = _mm_add_epi32(quads, _mm_shuffle_epi32(quads, 0xb1));
    return _mm_cvtsi128_si32(quads);
}

static __m256i to_int(__m256 x, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
}

/* Packs work within 128-bit lanes: the permutation puts the dwords back in order. */
static __m256i narrow(__m256i a, __m256i b, __m256i c, __m256i d) {
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

void fmk_quantize_row_avx2(const float *x, int64_t k, int8_t *q, float *scale, float *sum32, float *sum16) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int64_t c = 0; c < k / 32; c++, x += 32, q += 32) {
        __m256 v[4];
        __m256i bits[4];
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            bits[i] = _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude);
        }
        int32_t largest = largest_lane(
            _mm256_max_epi32(_mm256_max_epi32(bits[0], bits[1]), _mm256_max_epi32(bits[2], bits[3])));
        if (largest >= 0x7f800000) {
            const int32_t nan = 0x7fc00000;
            memset(q, 0, 32);
            memcpy(&scale[c], &nan, sizeof nan);
            sum32[c] = sum16[2 * c] = sum16[2 * c + 1] = scale[c];
            continue;
        }
        float amax;
        memcpy(&amax, &largest, sizeof amax);
        if (amax < 127 * 0x1p-126f)
            amax = 0;
        float step = amax / 127, inverse = amax > 0 ? 127 / amax : 0;
        __m256 factor = _mm256_set1_ps(inverse);
        __m256i codes =
            narrow(to_int(v[0], factor), to_int(v[1], factor), to_int(v[2], factor), to_int(v[3], factor));
        _mm256_storeu_si256((__m256i *)q, codes);
        int32_t first = sum_bytes(_mm256_castsi256_si128(codes));
        int32_t second = sum_bytes(_mm256_extracti128_si256(codes, 1));
        scale[c] = step;
        sum16[2 * c] = step * (float)first;
        sum16[2 * c + 1] = step * (float)second;
        sum32[c] = step * (float)(first + second);
    }
}
