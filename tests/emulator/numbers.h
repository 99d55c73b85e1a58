/* f16 and bf16 in software, to nearest even; NaNs become the one that the GPU makes. */
#ifndef FMK_EMULATOR_NUMBERS_H
#define FMK_EMULATOR_NUMBERS_H

#include <stdint.h>
#include <string.h>

namespace emulator {

inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float f16_number(uint16_t bits) {
    uint32_t magnitude = (bits & 0x7fffu) << 13;
    /* Exponents differ by 127 - 15 = 112; the product is exact, for subnormals too. */
    uint32_t scaled = bits_of(float_of(magnitude) * 0x1p112f);
    if (magnitude >= 0x0f800000) /* infinite, or a NaN */
        scaled |= 0x7f800000;
    return float_of(scaled | (bits & 0x8000u) << 16);
}

inline uint16_t f16_bits(float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return 0x7fff;
    if (magnitude >= 0x47800000) /* 2^16 */
        return static_cast<uint16_t>(sign | 0x7c00);
    /* Bits below the last that stays: 13 of a normal number, more of a subnormal. */
    uint32_t exponent = magnitude >> 23, drop = exponent >= 113 ? 13 : 126 - exponent;
    if (drop > 24)
        return static_cast<uint16_t>(sign);
    uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000, kept = mantissa >> drop;
    uint32_t rest = mantissa & ((1u << drop) - 1), half = 1u << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    /* A carry out of the mantissa goes into the exponent, as it should. */
    uint32_t base = exponent >= 113 ? (exponent - 113) << 10 : 0;
    return static_cast<uint16_t>(sign | (base + kept));
}

inline float bf16_number(uint16_t bits) {
    return float_of(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t bf16_bits(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

} // namespace emulator

#endif
