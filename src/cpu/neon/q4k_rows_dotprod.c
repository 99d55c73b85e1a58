/* Q4_K rows as in the file times int8 activations, NEON with dot products. */
#include "int8_rows.h"
#include "../../formats/k_quants.h"

FMK_INLINE struct block_scales scales_of(const uint8_t *block) {
    uint8_t scale[8], min[8];
    fmk_q4k_scales(block + FMK_Q4K_SCALES, scale, min);
    floats8 scales = scale8(floats_of_u8(vld1_u8(scale)), fmk_load_f16(block + FMK_Q4K_D));
    floats8 mins = scale8(floats_of_u8(vld1_u8(min)), fmk_load_f16(block + FMK_Q4K_DMIN));
    struct block_scales w;
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) { /* each serves two runs of 16 */
        w.scale[2 * i] = vzip1q_f32(scales.v[i], scales.v[i]);
        w.scale[2 * i + 1] = vzip2q_f32(scales.v[i], scales.v[i]);
        w.offset[i] = mins.v[i];
    }
    return w;
}

/* Of 32 bytes, the low halves are 32 codes, the high ones the 32 after them. */
FMK_INLINE int8x16_t codes_of(const uint8_t *block, const int g) {
    uint8x16_t both = vld1q_u8(block + FMK_Q4K_NIBBLES + 32 * (g / 4) + 16 * (g % 2));
    return vreinterpretq_s8_u8(g % 4 / 2 ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
}

void fmk_q4k_rows_dotprod(const struct fmk_tile *tile) {
    multiply_rows(tile, scales_of, codes_of, true, FMK_Q4K_BLOCK);
}
