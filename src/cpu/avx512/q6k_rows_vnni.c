/* Q6_K rows as in the file times int8 activations, AVX-512 VNNI. A code stands for code - 32: the 32 is taken
 * off through the sums of the activations. */
#include "rows_vnni.h"

#include "../../formats/k_quants.h"

/* Half h's 64 low bytes hold weights 0..63 in their low and 64..127 in their high nibbles; of each 32 of them
 * two bits are in the same 32 high bytes. */
FMK_INLINE void unpack(const uint8_t *block, struct row_block *w) {
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
        w->code[2 * h] = _mm512_ternarylogic_epi32(_mm512_sllv_epi16(pairs, left), high, first, 0xea);
        w->code[2 * h + 1] = _mm512_ternarylogic_epi32(_mm512_srlv_epi16(pairs, right), high, second, 0xea);
    }
    uint16_t d;
    memcpy(&d, block + FMK_Q6K_D, sizeof d);
    __m128i scales = _mm_loadu_si128((const __m128i *)(block + FMK_Q6K_SCALES));
    w->scale = _mm512_mul_ps(_mm512_set1_ps(_cvtsh_ss(d)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)));
}

FMK_INLINE void arrange(const int8_t *q, __m512i x[QUARTERS]) {
#pragma GCC unroll 4
    for (int i = 0; i < QUARTERS; i++)
        x[i] = _mm512_loadu_si512(q + 64 * i);
}

FMK_INLINE __m512 add_start(const struct row_block *w, const struct fmk_acts_block *x, __m512 scale,
                            __m512 total) {
    (void)w;
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(x->start)), scale, total);
}

static const struct row_format format = {
    .block_bytes = FMK_Q6K_BLOCK,
    .unpack = unpack,
    .arrange = arrange,
    .runs = {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}},
    .add_offset = add_start,
};

void fmk_q6k_rows_vnni(const struct fmk_tile *tile) {
    multiply_tile(&format, tile);
}
