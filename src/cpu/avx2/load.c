/* Rows of activations to floats, eight at a time: the bits of fmk_load_floats (../../floats.h). */
#include "../activations.h"

#include "../../floats.h"

#include <immintrin.h>

static inline __m256 load_8(const uint8_t *from, fmk_dtype type) {
    __m128i halves = _mm_loadu_si128((const __m128i *)from);
    if (type == FMK_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

void fmk_load_acts_avx2(const void *data, fmk_dtype type, int64_t first, int64_t count, float *out) {
    const uint8_t *from = (const uint8_t *)data + first * 2;
    int64_t i = 0;
    if (type == FMK_F16)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(out + i, load_8(from + 2 * i, FMK_F16));
    else if (type == FMK_BF16)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(out + i, load_8(from + 2 * i, FMK_BF16));
    fmk_load_floats(data, type, first + i, count - i, out + i);
}
