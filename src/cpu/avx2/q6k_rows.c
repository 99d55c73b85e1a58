/* Q6_K rows as in the file times float activations, AVX2. */
#include "f32_rows.h"
#include "q6k_rows.h"

FMK_INLINE void decode_half(__m128i codes, float scale, float out[16]) {
    const __m256 middle = _mm256_set1_ps(32), factor = _mm256_set1_ps(scale);
    _mm256_store_ps(out, _mm256_mul_ps(factor, _mm256_sub_ps(widen_codes(codes), middle)));
    codes = _mm_srli_si128(codes, 8);
    _mm256_store_ps(out + 8, _mm256_mul_ps(factor, _mm256_sub_ps(widen_codes(codes), middle)));
}

static void decode(const uint8_t *block, float out[FMK_SUPER_BLOCK]) {
    const int8_t *scale = (const int8_t *)block + FMK_Q6K_SCALES;
    float d = fmk_load_f16(block + FMK_Q6K_D);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++) {
            __m256i codes = q6k_codes(block, h, s);
            int c = 4 * h + s;
            decode_half(_mm256_castsi256_si128(codes), d * scale[2 * c], out + 32 * c);
            decode_half(_mm256_extracti128_si256(codes, 1), d * scale[2 * c + 1], out + 32 * c + 16);
        }
}

void fmk_q6k_rows_avx2(const struct fmk_tile *tile) {
    multiply_decoded(tile, FMK_Q6K_BLOCK, decode);
}
