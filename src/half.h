/* f16 and bf16 to and from float, bit for bit as the hardware does: round to nearest even, subnormals kept,
 * a NaN stays a (quiet) NaN. Portable; the SIMD kernels use their ISA's own instructions. */
#ifndef FMK_HALF_H
#define FMK_HALF_H

#include <stdint.h>
#include <string.h>

static inline float fmk_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t fmk_bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float fmk_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x0f800000u) /* infinity or NaN: exponent all ones; quiet the NaN */
        return fmk_float_of_bits(sign | 0x70000000u | rest | (rest > 0x0f800000u ? 0x00400000u : 0));
    /* The f16 exponent bias is 15, float's 127: multiply by 2^112, which also normalizes subnormals. */
    float magnitude = fmk_float_of_bits(rest) * 0x1p112f;
    return fmk_float_of_bits(sign | fmk_bits_of_float(magnitude));
}

static inline uint16_t fmk_f32_to_f16(float value) {
    uint32_t bits = fmk_bits_of_float(value), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | ((rest >> 13) & 0x03ff));
    if (rest >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the subnormal, rounded, in the low bits */
        float shifted = fmk_float_of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (fmk_bits_of_float(shifted) - 0x3f000000u));
    }
    uint32_t rounded = rest + 0xfffu + ((rest >> 13) & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

static inline float fmk_bf16_to_f32(uint16_t h) {
    return fmk_float_of_bits((uint32_t)h << 16);
}

static inline uint16_t fmk_f32_to_bf16(float value) {
    uint32_t bits = fmk_bits_of_float(value);
    if ((bits & 0x7fffffff) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x0040);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

#endif
