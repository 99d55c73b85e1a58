/* Chunks of q4_k.x8, for its int8 NEON kernels. */
#ifndef FMK_CPU_NEON_Q4K_QUADS_H
#define FMK_CPU_NEON_Q4K_QUADS_H

#include "int8_x8.h"

/* d * scale has 11 + 6 bits: it is exact. */
FMK_INLINE struct quads q4k_quads(const struct fmk_packed *part, const uint8_t *panel, int64_t c,
                                  const int g) {
    (void)part;
    const uint8_t *block = panel + c / RUN_CHUNKS * FMK_Q4K_X8_BLOCK;
    int64_t j = c % RUN_CHUNKS;
    struct quads w;
    unpack_nibbles(block + FMK_Q4K_X8_NIBBLES + j * FMK_X8_CHUNK, g, w.code);
    float32x4_t d = four_of_f16(block + 8 * g), dmin = four_of_f16(block + FMK_Q4K_X8_MINIMA + 8 * g);
    w.scale[0] = w.scale[1] = vmulq_f32(d, floats_of_u8(vld1_u8(block + FMK_Q4K_X8_SCALES + 8 * j)).v[g]);
    w.offset = vmulq_f32(dmin, floats_of_u8(vld1_u8(block + FMK_Q4K_X8_MINS + 8 * j)).v[g]);
    return w;
}

#endif
