/* Scales and zero points of int4.x8, for its NEON kernels. */
#ifndef FMK_CPU_NEON_INT4_X8_H
#define FMK_CPU_NEON_INT4_X8_H

#include "../layouts/int4_runs.h"
#include "numbers.h"

static inline floats8 int4_scales(const uint8_t *header, fmk_dtype dtype) {
    return dtype == FMK_F32   ? floats_of_f32(header)
           : dtype == FMK_F16 ? floats_of_f16(header)
                              : floats_of_bf16(header);
}

static inline floats8 int4_zeros(const uint8_t *header, fmk_dtype dtype) {
    return floats_of_u8(vld1_u8(header + (dtype == FMK_F32 ? 32 : 16)));
}

#endif
