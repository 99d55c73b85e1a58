/* int4.x16 times float activations, AVX-512. */
#include "f32_x16.h"
#include "int4_x16.h"

/* code - zero is exact in float, as it is in integers. */
FMK_INLINE void decode_quad(__m512i quad, __m512 scale, __m512 zero, float out[4][16]) {
    __m512i code[4];
    widen_quad(quad, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        _mm512_store_ps(out[i], _mm512_mul_ps(scale, _mm512_sub_ps(_mm512_cvtepi32_ps(code[i]), zero)));
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    int64_t first = k / 32, end = (k + count) / 32;
    for (int64_t c = first; c < end;) {
        struct int4_run at = int4_run_at(part, c, end, end - c);
        __m512 scale = int4_scales(data + at.header, part->dtype);
        __m512 zero = int4_zeros(data + at.header, part->dtype);
        for (int i = 0; i < at.chunks; i++, c++) {
            __m512i quads[8];
            unpack_nibbles(data + at.nibbles + i * FMK_X16_CHUNK, quads);
            for (int q = 0; q < 8; q++)
                decode_quad(quads[q], scale, zero, panel->w + 32 * (c - first) + 4 * q);
        }
    }
}

void fmk_int4_x16_avx512(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
