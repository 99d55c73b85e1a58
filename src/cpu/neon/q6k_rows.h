/* The codes of Q6_K rows, 16 at a time, for its NEON kernels. */
#ifndef FMK_CPU_NEON_Q6K_ROWS_H
#define FMK_CPU_NEON_Q6K_ROWS_H

#include "../tile.h"
#include "../../formats/k_quants.h"

#include <arm_neon.h>

/* Codes 0..63 of weights 128h+32s+16i .. +15 of a super-block: nibble s/2 of low bytes 64h+32(s%2)+16i.., and
 * bits 2s and 2s+1 of high bytes 32h+16i.. */
FMK_INLINE uint8x16_t q6k_codes(const uint8_t *block, const int h, const int s, const int i) {
    uint8x16_t low = vld1q_u8(block + 64 * h + 32 * (s % 2) + 16 * i);
    uint8x16_t high = vld1q_u8(block + FMK_Q6K_HIGH + 32 * h + 16 * i);
    low = s / 2 ? vshrq_n_u8(low, 4) : vandq_u8(low, vdupq_n_u8(15));
    high = s == 0 ? vshlq_n_u8(high, 4) : s == 1 ? vshlq_n_u8(high, 2) : s == 3 ? vshrq_n_u8(high, 2) : high;
    return vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)));
}

#endif
