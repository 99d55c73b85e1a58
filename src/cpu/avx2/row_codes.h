/* 32 codes of a K-quant's super-block in the file's order, and the integer scale of each in int16, for
 * ../gemm/i16_decode.h. */
#ifndef FMK_CPU_AVX2_ROW_CODES_H
#define FMK_CPU_AVX2_ROW_CODES_H

#include "q6k_rows.h"
#include "vectors.h"

/* Weights 32c .. 32c+31, c in 0..7. */
FMK_INLINE ints q4k_row_codes(const uint8_t *block, int c) {
    ints both = load_ints(block + FMK_Q4K_NIBBLES + 32 * (c / 2));
    return and(c % 2 ? _mm256_srli_epi16(both, 4) : both, _mm256_set1_epi8(15));
}

FMK_INLINE ints q4k_row_scales(const uint8_t scale[8], int c) {
    return all_16(scale[c]);
}

FMK_INLINE ints q6k_row_codes(const uint8_t *block, int c) {
    return q6k_codes(block, c / 4, c % 4);
}

/* One int8 for each 16 k: two, each to a half. */
FMK_INLINE ints q6k_row_scales(const uint8_t *scales, int c) {
    const int8_t *two = (const int8_t *)scales + 2 * c;
    return _mm256_set_m128i(_mm_set1_epi16(two[1]), _mm_set1_epi16(two[0]));
}

#endif
