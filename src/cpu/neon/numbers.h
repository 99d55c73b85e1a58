/* Small numbers of the layouts to float, eight at a time. */
#ifndef FMK_CPU_NEON_NUMBERS_H
#define FMK_CPU_NEON_NUMBERS_H

#include <arm_neon.h>
#include <string.h>

/* Eight floats: rows 0..3 and 4..7 of a panel, or eight k of a row. */
typedef struct {
    float32x4_t v[2];
} floats8;

static inline floats8 floats_of_f16(const uint8_t *halves) {
    uint8x16_t bytes = vld1q_u8(halves);
    float16x8_t eight = vreinterpretq_f16_u8(bytes);
    return (floats8){{vcvt_f32_f16(vget_low_f16(eight)), vcvt_high_f32_f16(eight)}};
}

static inline float32x4_t four_of_f16(const uint8_t *halves) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves)));
}

static inline floats8 floats_of_bf16(const uint8_t *halves) {
    uint16x8_t eight = vreinterpretq_u16_u8(vld1q_u8(halves));
    return (floats8){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(eight), 16)),
                      vreinterpretq_f32_u32(vshll_high_n_u16(eight, 16))}};
}

static inline floats8 floats_of_f32(const uint8_t *floats) {
    return (floats8){{vreinterpretq_f32_u8(vld1q_u8(floats)), vreinterpretq_f32_u8(vld1q_u8(floats + 16))}};
}

static inline floats8 floats_of_u8(uint8x8_t bytes) {
    uint16x8_t wide = vmovl_u8(bytes);
    return (floats8){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), vcvtq_f32_u32(vmovl_high_u16(wide))}};
}

static inline floats8 floats_of_s8(int8x8_t bytes) {
    int16x8_t wide = vmovl_s8(bytes);
    return (floats8){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))}};
}

static inline floats8 multiply8(floats8 a, floats8 b) {
    return (floats8){{vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1])}};
}

static inline floats8 scale8(floats8 a, float b) {
    return (floats8){{vmulq_n_f32(a.v[0], b), vmulq_n_f32(a.v[1], b)}};
}

#endif
