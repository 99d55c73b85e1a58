/* int4.x8 times float activations, AVX2. */
#include "f32_x8.h"
#include "int4_x8.h"

FMK_INLINE void decode_quad(__m256i quad, __m256 scale, __m256i zero, float out[4][8]) {
    __m256i code[4];
    widen_quad(quad, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        _mm256_store_ps(out[i], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_sub_epi32(code[i], zero))));
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    const __m256i low = _mm256_set1_epi8(15);
    int64_t first = k / 32, end = (k + count) / 32;
    for (int64_t c = first; c < end;) {
        struct int4_run at = int4_run_at(part, c, end, end - c);
        __m256 scale = int4_scales(data + at.header, part->dtype);
        __m256i zero = int4_zeros(data + at.header, part->dtype);
        for (int i = 0; i < 4 * at.chunks; i++) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(data + at.nibbles + 32 * i));
            float(*out)[8] = panel->w + 32 * (c - first) + 32 * (i / 4) + 4 * (i % 4);
            decode_quad(_mm256_and_si256(both, low), scale, zero, out);
            decode_quad(_mm256_and_si256(_mm256_srli_epi16(both, 4), low), scale, zero, out + 16);
        }
        c += at.chunks;
    }
}

void fmk_int4_x8_avx2(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
