/* q4_k.x8 times float activations, AVX2. */
#include "f32_x8.h"

FMK_INLINE __m256 load_f16x8(const uint8_t *halves) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

FMK_INLINE __m256 widen_bytes(const uint8_t *bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

/* d * scale * code - dmin * min: the first product has 11 + 6 + 4 bits and so is exact, fused or not. */
FMK_INLINE void decode_quad(__m256i quad, __m256 scale, __m256 min, float out[4][8]) {
    __m256i code[4];
    widen_quad(quad, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        _mm256_store_ps(out[i], _mm256_fmsub_ps(scale, _mm256_cvtepi32_ps(code[i]), min));
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    (void)part;
    (void)count; /* K is whole super-blocks */
    const __m256i low = _mm256_set1_epi8(15);
    const uint8_t *block = data + k / FMK_K_BLOCK * FMK_Q4K_X8_BLOCK;
    __m256 d = load_f16x8(block), dmin = load_f16x8(block + FMK_Q4K_X8_MINIMA);
    for (int c = 0; c < 8; c++) {
        __m256 scale = _mm256_mul_ps(d, widen_bytes(block + FMK_Q4K_X8_SCALES + 8 * c));
        __m256 min = _mm256_mul_ps(dmin, widen_bytes(block + FMK_Q4K_X8_MINS + 8 * c));
        const uint8_t *nibbles = block + FMK_Q4K_X8_NIBBLES + c * FMK_X8_CHUNK;
        for (int v = 0; v < 4; v++) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(nibbles + 32 * v));
            decode_quad(_mm256_and_si256(both, low), scale, min, panel->w + 32 * c + 4 * v);
            decode_quad(_mm256_and_si256(_mm256_srli_epi16(both, 4), low), scale, min,
                        panel->w + 32 * c + 16 + 4 * v);
        }
    }
}

void fmk_q4k_x8_avx2(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
