/* q6_k.x8 times float activations, AVX2. */
#include "f32_x8.h"

FMK_INLINE __m256 widen_scales(const uint8_t *bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

FMK_INLINE void decode_quad(__m256i quad, __m256 scale, float out[4][8]) {
    __m256i code[4];
    widen_quad(quad, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i q = _mm256_sub_epi32(code[i], _mm256_set1_epi32(32));
        _mm256_store_ps(out[i], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(q)));
    }
}

/* Half h of chunk c: four quads that share a scale. */
FMK_INLINE void decode_half(const uint8_t *block, int c, const int h, __m256 scale, float out[16][8]) {
    __m256i high = _mm256_loadu_si256((const __m256i *)(block + FMK_Q6K_X8_HIGH + 64 * c + 32 * h));
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i low =
            _mm256_loadu_si256((const __m256i *)(block + FMK_Q6K_X8_LOW + c * FMK_X8_CHUNK + 32 * j));
        __m256i top = j < 2 ? _mm256_slli_epi16(high, 4 - 2 * j) : _mm256_srli_epi16(high, 2 * j - 4);
        low = _mm256_and_si256(h ? _mm256_srli_epi16(low, 4) : low, _mm256_set1_epi8(15));
        decode_quad(_mm256_or_si256(low, _mm256_and_si256(top, _mm256_set1_epi8(0x30))), scale, out + 4 * j);
    }
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    (void)part;
    (void)count; /* K is whole super-blocks */
    const uint8_t *block = data + k / FMK_K_BLOCK * FMK_Q6K_X8_BLOCK;
    __m256 d = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)block));
    for (int c = 0; c < 8; c++) {
        const uint8_t *scales = block + FMK_Q6K_X8_SCALES + 16 * c;
        decode_half(block, c, 0, _mm256_mul_ps(d, widen_scales(scales)), panel->w + 32 * c);
        decode_half(block, c, 1, _mm256_mul_ps(d, widen_scales(scales + 8)), panel->w + 32 * c + 16);
    }
}

void fmk_q6k_x8_avx2(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
