/* Q4_K rows as in the file times int8 activations, AVX2. */
#include "rows_lanes.h"

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

/* Lanes 0..7 have sub-blocks 0, 2, 4, 6 and the same again, lanes 8..15 the others. */
FMK_INLINE void spread(__m128i bytes, __m256 factor, __m256 out[2]) {
    bytes = _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 0, 0, 0, 0, 0, 0, 0, 0));
    __m256 all = _mm256_mul_ps(factor, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
    out[0] = _mm256_permute2f128_ps(all, all, 0x00);
    out[1] = _mm256_permute2f128_ps(all, all, 0x11);
}

/* The low halves of 32 bytes number c are runs 4c and 4c + 1, which lanes c and c + 4 have; the high halves
 * are runs 4c + 2 and 4c + 3, of lanes c + 8 and c + 12. */
FMK_INLINE void unpack(const uint8_t *block, struct row_block *w) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i both[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++)
        both[c] = load(block + FMK_Q4K_NIBBLES + 32 * c);
    transpose_words(both);
#pragma GCC unroll 4
    for (int q = 0; q < QUADS; q++) {
        w->code[q][0] = _mm256_and_si256(both[q], low);
        w->code[q][1] = _mm256_and_si256(_mm256_srli_epi16(both[q], 4), low);
    }
    __m128i head = _mm_loadu_si128((const __m128i *)block), scales = unpack_scales(head);
    __m128 d = _mm_cvtph_ps(head);
    spread(scales, _mm256_broadcastss_ps(d), w->scale);
    spread(_mm_unpackhi_epi64(scales, scales), _mm256_broadcastss_ps(_mm_movehdup_ps(d)), w->offset);
}

void fmk_q4k_rows_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, unpack, false, FMK_Q4K_BLOCK);
}
