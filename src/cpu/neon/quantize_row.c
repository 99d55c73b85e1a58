/* Activations to int8 with NEON (quantize_row.h), four values at a time. */
#include "../quantize_row.h"

#include <arm_neon.h>

static inline void largest_of(const float *x, uint32_t largest[2]) {
    uint32x4_t max = vdupq_n_u32(0);
    for (int i = 0; i < 8; i++) {
        uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + 4 * i));
        max = vmaxq_u32(max, vandq_u32(bits, vdupq_n_u32(0x7fffffff)));
    }
    vst1_u32(largest, vpmax_u32(vget_low_u32(max), vget_high_u32(max)));
}

static inline void round_all(const float *x, const float inverse[2], const int16_t ratio[2], int8_t *q,
                             int32_t sum[2]) {
    float32x4_t factor = {inverse[0], inverse[0], inverse[1], inverse[1]};
    int16x8_t ratios = {ratio[0], ratio[0], ratio[1], ratio[1], ratio[0], ratio[0], ratio[1], ratio[1]};
    for (int h = 0; h < 2; h++, x += 16) {
        int32x4_t code[4];
        for (int i = 0; i < 4; i++)
            code[i] = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 4 * i), factor));
        int16x8_t first = vcombine_s16(vmovn_s32(code[0]), vmovn_s32(code[1]));
        int16x8_t second = vcombine_s16(vmovn_s32(code[2]), vmovn_s32(code[3]));
        vst1q_s8(q + 16 * h, vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
        int16x8_t both = vaddq_s16(first, second); /* of one ratio in every lane */
        int32x4_t sums = vmull_s16(vget_low_s16(both), vget_low_s16(ratios));
        sum[h] = vaddvq_s32(vmlal_high_s16(sums, both, ratios));
    }
}

void fmk_quantize_row_neon(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                           int64_t k) {
    quantize_row(x, count, acts, row, k, largest_of, round_all);
}
