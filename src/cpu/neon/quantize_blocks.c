/* Activations to blocks of int8 with NEON (../quantize_blocks.c), 16 that share a scale at a time. */
#include "../tile.h"
#include "../../half.h"

#include <arm_neon.h>
#include <string.h>

/* 16 values to q; answers the sum of q. */
static int32_t quantize_16(const float *x, float *scale, int8_t *q) {
    float32x4_t value[4];
    uint32x4_t max = vdupq_n_u32(0);
    for (int i = 0; i < 4; i++) {
        value[i] = vld1q_f32(x + 4 * i);
        max = vmaxq_u32(max, vandq_u32(vreinterpretq_u32_f32(value[i]), vdupq_n_u32(0x7fffffff)));
    }
    uint32_t largest = vmaxvq_u32(max);
    float amax = fmk_float_of_bits(largest);
    if (largest >= 0x7f800000 || amax < 0x1p-100f) {
        *scale = largest >= 0x7f800000 ? fmk_float_of_bits(0x7fc00000) : 0;
        memset(q, 0, 16);
        return 0;
    }
    *scale = amax / 127;
    float inverse = 127 / amax;
    int16x4_t code[4];
    for (int i = 0; i < 4; i++)
        code[i] = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(value[i], inverse)));
    int16x8_t first = vcombine_s16(code[0], code[1]), second = vcombine_s16(code[2], code[3]);
    vst1q_s8(q, vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
    return vaddvq_s16(vaddq_s16(first, second));
}

void fmk_quantize_blocks_neon(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                              int64_t k) {
    struct fmk_acts_block *block =
        acts->blocks + row * ((acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) + k / FMK_K_BLOCK;
    for (int64_t i = 0; i < count; i += 32) {
        struct fmk_acts_block *b = block + i / FMK_K_BLOCK;
        int64_t at = i % FMK_K_BLOCK, h = at / 16;
        float part[2];
        for (int j = 0; j < 2; j++) {
            int32_t sum = quantize_16(x + i + 16 * j, &b->scale[h + j], b->q + at + 16 * j);
            b->start[h + j] = -32 * sum;
            part[j] = b->scale[h + j] * (float)sum;
        }
        b->sum[at / 32] = part[0] + part[1];
    }
}
