/* The codes of Q6_K rows, 32 at a time, for its AVX2 kernels. */
#ifndef FMK_CPU_Q6K_ROWS_AVX2_H
#define FMK_CPU_Q6K_ROWS_AVX2_H

#include "../../formats/k_quants.h"

#include <immintrin.h>

/* Codes 0..63 of weights 128h+32s .. +31 of a super-block: nibble s/2 of low bytes 64h+32(s%2).., and bits 2s
 * and 2s+1 of high bytes 32h.. */
static inline __attribute__((always_inline)) __m256i q6k_codes(const uint8_t *block, const int h,
                                                               const int s) {
    __m256i low = _mm256_loadu_si256((const __m256i *)(block + 64 * h + 32 * (s % 2)));
    __m256i high = _mm256_loadu_si256((const __m256i *)(block + FMK_Q6K_HIGH + 32 * h));
    low = s / 2 ? _mm256_srli_epi16(low, 4) : low;
    high = s < 2 ? _mm256_slli_epi16(high, 4 - 2 * s) : _mm256_srli_epi16(high, 2 * s - 4);
    return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)),
                           _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

#endif
