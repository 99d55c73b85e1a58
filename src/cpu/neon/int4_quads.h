/* Chunks of int4.x8, for its int8 NEON kernels. */
#ifndef FMK_CPU_NEON_INT4_QUADS_H
#define FMK_CPU_NEON_INT4_QUADS_H

#include "int4_x8.h"
#include "int8_x8.h"

FMK_INLINE struct quads int4_quads(const struct fmk_packed *part, const uint8_t *panel, int64_t c,
                                   const int g) {
    struct int4_run at = int4_run_at(part, c, c + 1, 1);
    struct quads w;
    unpack_nibbles(panel + at.nibbles, g, w.code);
    w.scale[0] = w.scale[1] = int4_scales(panel + at.header, part->dtype).v[g];
    w.offset = vmulq_f32(w.scale[0], int4_zeros(panel + at.header, part->dtype).v[g]);
    return w;
}

#endif
