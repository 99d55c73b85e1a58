/* Q4_K rows as in the file times float activations, AVX2. */
#include "f32_rows.h"
#include "../../formats/k_quants.h"

/* 32 codes of one sub-block. d * scale * code is exact, so fusing changes nothing. */
FMK_INLINE void decode_codes(__m256i codes, float scale, float min, float out[32]) {
    __m128i half[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m256 first = widen_codes(half[h]), second = widen_codes(_mm_srli_si128(half[h], 8));
        _mm256_store_ps(out + 16 * h, _mm256_fmsub_ps(_mm256_set1_ps(scale), first, _mm256_set1_ps(min)));
        _mm256_store_ps(out + 16 * h + 8,
                        _mm256_fmsub_ps(_mm256_set1_ps(scale), second, _mm256_set1_ps(min)));
    }
}

static void decode(const uint8_t *block, float out[FMK_SUPER_BLOCK]) {
    const __m256i low = _mm256_set1_epi8(15);
    uint8_t scale[8], min[8];
    fmk_q4k_scales(block + FMK_Q4K_SCALES, scale, min);
    float d = fmk_load_f16(block + FMK_Q4K_D), dmin = fmk_load_f16(block + FMK_Q4K_DMIN);
    for (int i = 0; i < 4; i++) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(block + FMK_Q4K_NIBBLES + 32 * i));
        decode_codes(_mm256_and_si256(both, low), d * scale[2 * i], dmin * min[2 * i], out + 64 * i);
        decode_codes(_mm256_and_si256(_mm256_srli_epi16(both, 4), low), d * scale[2 * i + 1],
                     dmin * min[2 * i + 1], out + 64 * i + 32);
    }
}

void fmk_q4k_rows_avx2(const struct fmk_tile *tile) {
    multiply_decoded(tile, FMK_Q4K_BLOCK, decode);
}
