/* Q4_K rows as in the file times int8 activations, AVX2. */
#include "int8_rows.h"
#include "../../formats/k_quants.h"

/* fmk_q4k_scales in registers: eight scales, then eight minima. (Through memory, an eight-byte load would
 * wait for two stores of four.) */
FMK_INLINE __m128i unpack_scales(const uint8_t s[12]) {
    uint32_t in[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++)
        memcpy(&in[i], s + 4 * i, 4);
    uint32_t scale = (in[2] & 0x0f0f0f0f) | (in[0] >> 6 & 0x03030303) << 4;
    uint32_t min = (in[2] >> 4 & 0x0f0f0f0f) | (in[1] >> 6 & 0x03030303) << 4;
    return _mm_setr_epi32((int32_t)(in[0] & 0x3f3f3f3f), (int32_t)scale, (int32_t)(in[1] & 0x3f3f3f3f),
                          (int32_t)min);
}

FMK_INLINE void multiply_super_block(const uint8_t *block, const struct token_acts *acts, int64_t b,
                                     const int T, __m256 *total) {
    const __m256i low = _mm256_set1_epi8(15);
    __m128i scales = unpack_scales(block + FMK_Q4K_SCALES);
    float wide[8];
    _mm256_storeu_ps(wide, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scales)));
    __m256 mins = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(scales, scales)));
    mins = _mm256_mul_ps(mins, _mm256_set1_ps(load_half(block + FMK_Q4K_DMIN)));
    __m256 d = _mm256_set1_ps(load_half(block + FMK_Q4K_D)), sum[MAX_T];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        sum[t] = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i both = load(block + FMK_Q4K_NIBBLES + 32 * i);
        __m256i first = _mm256_and_si256(both, low),
                second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            sum[t] = add_chunk(first, _mm256_set1_ps(wide[2 * i]), &acts[t], 8 * b + 2 * i, sum[t]);
            sum[t] = add_chunk(second, _mm256_set1_ps(wide[2 * i + 1]), &acts[t], 8 * b + 2 * i + 1, sum[t]);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        total[t] = _mm256_fnmadd_ps(mins, _mm256_loadu_ps(acts[t].sum32 + 8 * b), total[t]);
        total[t] = _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(acts[t].step[b])), sum[t], total[t]);
    }
}

void fmk_q4k_rows_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply_super_block, FMK_Q4K_BLOCK);
}
