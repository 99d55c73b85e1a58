/* Q6_K rows as in the file times int8 activations, AVX2. A code stands for code - 32. */
#include "rows_lanes.h"
#include "q6k_rows.h"

/* Chunk c of 32 codes is runs 2c and 2c + 1: lanes c / 2 and c / 2 + 4, of the second register where c is
 * odd. */
FMK_INLINE void unpack(const uint8_t *block, struct row_block *w) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256i codes[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            codes[j] = q6k_codes(block, j / 2, j % 2 * 2 + i);
        transpose_words(codes);
#pragma GCC unroll 4
        for (int q = 0; q < QUADS; q++)
            w->code[q][i] = codes[q];
    }
    uint16_t d;
    memcpy(&d, block + FMK_Q6K_D, sizeof d);
    __m256 factor = _mm256_set1_ps(_cvtsh_ss(d));
    __m128i scales = _mm_loadu_si128((const __m128i *)(block + FMK_Q6K_SCALES));
    scales = _mm_shuffle_epi8(scales, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    w->scale[0] = _mm256_mul_ps(factor, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)));
    w->scale[1] =
        _mm256_mul_ps(factor, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(scales, scales))));
}

void fmk_q6k_rows_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, unpack, true, FMK_Q6K_BLOCK);
}
