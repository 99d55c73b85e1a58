/* int4.x8 times float activations, NEON. */
#include "f32_x8.h"
#include "int4_x8.h"

FMK_INLINE void decode_half(uint8x16_t half, float32x4_t scale, float32x4_t zero, float (*out)[8]) {
    uint32x4_t code[4];
    widen_half(half, code);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) /* codes and zero points are small whole numbers: their difference is exact */
        vst1q_f32(out[i], vmulq_f32(scale, vsubq_f32(vcvtq_f32_u32(code[i]), zero)));
}

static void decode_block(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                         struct panel *panel) {
    int64_t first = k / 32, end = (k + count) / 32;
    for (int64_t c = first; c < end;) {
        struct int4_run at = int4_run_at(part, c, end, end - c);
        floats8 scale = int4_scales(data + at.header, part->dtype);
        floats8 zero = int4_zeros(data + at.header, part->dtype);
        for (int i = 0; i < 4 * at.chunks; i++)
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                uint8x16_t both = vld1q_u8(data + at.nibbles + 32 * i + 16 * h);
                int64_t quad = 32 * (c - first) + 32 * (i / 4) + 4 * (i % 4);
                float(*out)[8] = (float(*)[8])(panel->w[quad] + 4 * h);
                decode_half(vandq_u8(both, vdupq_n_u8(15)), scale.v[h], zero.v[h], out);
                decode_half(vshrq_n_u8(both, 4), scale.v[h], zero.v[h], out + 16);
            }
        c += at.chunks;
    }
}

void fmk_int4_x8_neon(const struct fmk_tile *tile) {
    multiply_tile(tile, decode_block);
}
