/* 64 codes of a K-quant's super-block in the file's order, and the integer scale of each in int16, for
 * ../gemm/i16_decode.h. */
#ifndef FMK_CPU_AVX512_ROW_CODES_H
#define FMK_CPU_AVX512_ROW_CODES_H

#include "../../formats/k_quants.h"
#include "vectors.h"

FMK_INLINE ints two_halves(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

FMK_INLINE __m256i load_32(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Weights 64c .. 64c+63, c in 0..3. */
FMK_INLINE ints q4k_row_codes(const uint8_t *block, int c) {
    __m256i both = load_32(block + FMK_Q4K_NIBBLES + 32 * c);
    return and(two_halves(both, _mm256_srli_epi16(both, 4)), _mm512_set1_epi8(15));
}

FMK_INLINE ints q4k_row_scales(const uint8_t scale[8], int c) {
    return two_halves(_mm256_set1_epi16(scale[2 * c]), _mm256_set1_epi16(scale[2 * c + 1]));
}

/* Half h = c / 2; c's first 64 weights are the low, the second the high nibbles. */
FMK_INLINE ints q6k_row_codes(const uint8_t *block, int c) {
    ints low = load_ints(block + 64 * (c / 2));
    __m256i high = load_32(block + FMK_Q6K_HIGH + 32 * (c / 2));
    low = c % 2 ? _mm512_srli_epi16(low, 4) : low;
    ints top = c % 2 ? two_halves(high, _mm256_srli_epi16(high, 2))
                     : two_halves(_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2));
    return or (and(low, _mm512_set1_epi8(15)), and(top, _mm512_set1_epi8(0x30)));
}

/* One int8 for each 16 k: four, each to a quarter. */
FMK_INLINE ints q6k_row_scales(const uint8_t *scales, int c) {
    int32_t four;
    memcpy(&four, scales + 4 * c, sizeof four);
    const ints spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    ints wide = _mm512_cvtepi8_epi32(_mm_cvtsi32_si128(four));
    wide = _mm512_permutexvar_epi32(spread, wide);
    return or (and(wide, all_32(0xffff)), shift_left(wide, 16));
}

#endif
