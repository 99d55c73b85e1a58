/* Chunks of q6_k.x8, for its int8 NEON kernels: codes of 0..63 for -32..31. */
#ifndef FMK_CPU_NEON_Q6K_QUADS_H
#define FMK_CPU_NEON_Q6K_QUADS_H

#include "int8_x8.h"
#include "q6k_x8.h"

/* d * scale has 11 + 7 bits: it is exact. */
FMK_INLINE struct quads q6k_quads(const struct fmk_packed *part, const uint8_t *panel, int64_t c,
                                  const int g) {
    (void)part;
    const uint8_t *block = panel + c / RUN_CHUNKS * FMK_Q6K_X8_BLOCK;
    int64_t j = c % RUN_CHUNKS;
    struct quads w;
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++)
            w.code[4 * h + q] = q6k_x8_codes(block, (int)j, h, q, g);
        const uint8_t *scales = block + FMK_Q6K_X8_SCALES + 16 * j + 8 * h;
        w.scale[h] =
            vmulq_f32(four_of_f16(block + 8 * g), floats_of_s8(vreinterpret_s8_u8(vld1_u8(scales))).v[g]);
    }
    return w;
}

#endif
