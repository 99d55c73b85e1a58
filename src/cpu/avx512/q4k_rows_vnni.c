/* Q4_K rows as in the file times int8 activations, AVX-512 VNNI. */
#include "rows_vnni.h"

#include "../../formats/k_quants.h"

/* fmk_q4k_scales in a register: from a block's first sixteen bytes, d, dmin and the packed scales, to eight
 * scales and eight minima. Words 0 and 2 are words 1 and 2 of the block; words 1 and 3 have their low bits
 * from word 3, their high ones from the same two. */
FMK_INLINE __m128i unpack_scales(__m128i head) {
    __m128i high = _mm_srlv_epi32(_mm_shuffle_epi32(head, 0xa5), _mm_setr_epi32(0, 2, 0, 2));
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, 0xff), _mm_setr_epi32(0, 0, 0, 4));
    high = _mm_and_si128(high, _mm_setr_epi32(0x3f3f3f3f, 0x30303030, 0x3f3f3f3f, 0x30303030));
    return _mm_or_si128(high, _mm_and_si128(low, _mm_setr_epi32(0, 0x0f0f0f0f, 0, 0x0f0f0f0f)));
}

/* Lane l is run 4 (l % 4) + l / 4 (fmk_lane_run), which is in the nibbles' 32 bytes number l % 4: lanes 0..7
 * have their low halves, 8..15 the high ones; of these, lanes 4..7 and 12..15 the last 16 bytes. So quad i of
 * a lane's run is word 8 (l % 4) + 4 (l / 4 % 2) + i of the 32 words. */
FMK_INLINE void unpack(const uint8_t *block, struct row_block *w) {
    const __m512i shift = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
    const __m512i word = _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 0, 8, 16, 24, 4, 12, 20, 28);
    __m512i first = _mm512_loadu_si512(block + FMK_Q4K_NIBBLES);
    __m512i second = _mm512_loadu_si512(block + FMK_Q4K_NIBBLES + 64);
#pragma GCC unroll 4
    for (int i = 0; i < QUADS; i++) {
        __m512i both = _mm512_permutex2var_epi32(first, _mm512_add_epi32(word, _mm512_set1_epi32(i)), second);
        w->code[i] = _mm512_and_si512(_mm512_srlv_epi32(both, shift), _mm512_set1_epi8(15));
    }
    __m128i head = _mm_loadu_si128((const __m128i *)block);
    __m256i halves = _mm256_permutexvar_epi16(
        _mm256_setr_epi16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), _mm256_castsi128_si256(head));
    __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(unpack_scales(head)));
    numbers = _mm512_mul_ps(_mm512_cvtph_ps(halves), numbers); /* eight scales, then eight minima */
    /* Of sub-block 2 (l % 4) + l / 8. */
    const __m512i sub = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7);
    w->scale = _mm512_permutexvar_ps(sub, numbers);
    w->offset = _mm512_permutexvar_ps(_mm512_add_epi32(sub, _mm512_set1_epi32(8)), numbers);
}

void fmk_q4k_rows_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, unpack, false, FMK_Q4K_BLOCK);
}
