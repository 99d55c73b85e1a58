/* Q6_K rows as in the file times int8 activations, AVX-512 VNNI. A code stands for code - 32. */
#include "rows_vnni.h"

#include "../../formats/k_quants.h"

/* Register i has runs 4i .. 4i+3. Half h's 64 low bytes hold weights 0..63 in their low and 64..127 in their
 * high nibbles; of each 32 of them two bits are in the same 32 high bytes. */
FMK_INLINE void unpack_codes(const uint8_t *block, __m512i code[4]) {
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(2), _mm256_set1_epi16(4), 0);
    const __m512i right = _mm512_inserti64x4(_mm512_set1_epi16(2), _mm256_setzero_si256(), 0);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512i nibbles = _mm512_loadu_si512(block + 64 * h);
        __m512i pairs =
            _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(block + FMK_Q6K_HIGH + 32 * h)));
        __m512i first = _mm512_and_si512(nibbles, low);
        __m512i second = _mm512_and_si512(_mm512_srli_epi16(nibbles, 4), low);
        /* (pairs & high) | nibbles */
        code[2 * h] = _mm512_ternarylogic_epi32(_mm512_sllv_epi16(pairs, left), high, first, 0xea);
        code[2 * h + 1] = _mm512_ternarylogic_epi32(_mm512_srlv_epi16(pairs, right), high, second, 0xea);
    }
}

/* Quad j of run 4i + l to lane 4l + i of register j. */
FMK_INLINE void put_in_lanes(__m512i code[4]) {
    __m512i a = _mm512_unpacklo_epi32(code[0], code[1]), b = _mm512_unpackhi_epi32(code[0], code[1]);
    __m512i c = _mm512_unpacklo_epi32(code[2], code[3]), d = _mm512_unpackhi_epi32(code[2], code[3]);
    code[0] = _mm512_unpacklo_epi64(a, c);
    code[1] = _mm512_unpackhi_epi64(a, c);
    code[2] = _mm512_unpacklo_epi64(b, d);
    code[3] = _mm512_unpackhi_epi64(b, d);
}

FMK_INLINE void unpack(const uint8_t *block, struct row_block *w) {
    unpack_codes(block, w->code);
    put_in_lanes(w->code);
    uint16_t d;
    memcpy(&d, block + FMK_Q6K_D, sizeof d);
    __m128i scales = _mm_loadu_si128((const __m128i *)(block + FMK_Q6K_SCALES));
    scales = _mm_shuffle_epi8(scales, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    w->scale = _mm512_mul_ps(_mm512_set1_ps(_cvtsh_ss(d)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)));
}

void fmk_q6k_rows_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, unpack, true, FMK_Q6K_BLOCK);
}
