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

/* Register 2i has the low and 2i + 1 the high nibbles of 64 bytes: sub-blocks 4i, 4i + 2, and 4i + 1, 4i + 3.
 */
FMK_INLINE void unpack(const uint8_t *block, struct row_block *w) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512i both = _mm512_loadu_si512(block + FMK_Q4K_NIBBLES + 64 * i);
        w->code[2 * i] = _mm512_and_si512(both, low);
        w->code[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
    __m128i head = _mm_loadu_si128((const __m128i *)block);
    __m256i halves = _mm256_permutexvar_epi16(
        _mm256_setr_epi16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), _mm256_castsi128_si256(head));
    __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(unpack_scales(head)));
    w->offset = _mm512_mul_ps(_mm512_cvtph_ps(halves), numbers); /* eight scales, then eight minima */
    w->scale =
        _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), w->offset);
}

FMK_INLINE void arrange(const int8_t *q, __m512i x[QUARTERS]) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512i first = _mm512_loadu_si512(q + 128 * i), second = _mm512_loadu_si512(q + 128 * i + 64);
        x[2 * i] = _mm512_shuffle_i64x2(first, second, 0x44);
        x[2 * i + 1] = _mm512_shuffle_i64x2(first, second, 0xee);
    }
}

/* Minima times the sums of 32 activations, which lanes 8 to 15 get. */
FMK_INLINE __m512 subtract_minima(const struct row_block *w, const struct fmk_acts_block *x, __m512 scale,
                                  __m512 total) {
    (void)scale;
    __m512 sums = _mm512_castsi512_ps(
        _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_loadu_si256((const __m256i *)x->sum), 1));
    return _mm512_fnmadd_ps(w->offset, sums, total);
}

static const struct row_format format = {
    .block_bytes = FMK_Q4K_BLOCK,
    .unpack = unpack,
    .arrange = arrange,
    .runs = {{0, 1, 4, 5}, {2, 3, 6, 7}, {8, 9, 12, 13}, {10, 11, 14, 15}},
    .add_offset = subtract_minima,
};

void fmk_q4k_rows_vnni(const struct fmk_tile *tile) {
    multiply_tile(&format, tile);
}
