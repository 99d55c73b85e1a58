/* The codes of q6_k.x8, sixteen at a time, for its NEON kernels. */
#ifndef FMK_CPU_NEON_Q6K_X8_H
#define FMK_CPU_NEON_Q6K_X8_H

#include "../tile.h"
#include "../layouts/x8.h"

#include <arm_neon.h>

/* Codes 0..63 of rows 4g..4g+3, quad j (0..3) of half h (0..1) of chunk c. */
FMK_INLINE uint8x16_t q6k_x8_codes(const uint8_t *block, int c, const int h, const int j, const int g) {
    uint8x16_t low = vld1q_u8(block + FMK_Q6K_X8_LOW + c * FMK_X8_CHUNK + 32 * j + 16 * g);
    uint8x16_t high = vld1q_u8(block + FMK_Q6K_X8_HIGH + 64 * c + 32 * h + 16 * g);
    low = h ? vshrq_n_u8(low, 4) : vandq_u8(low, vdupq_n_u8(15));
    high = j == 0 ? vshlq_n_u8(high, 4) : j == 1 ? vshlq_n_u8(high, 2) : j == 3 ? vshrq_n_u8(high, 2) : high;
    return vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)));
}

#endif
