/* Loads and stores at addresses of device memory, and numbers of 16 bits as floats, bit for bit the same on every
 * device: a device may flush subnormals and round as it likes in conversions of its own. */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int32 : require

#include "args.h"

layout(constant_id = FMK_VK_SPEC_NATIVE_HALF) const uint NATIVE_HALF = 0;

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer In16 { uvec4 v; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer In8 { uvec2 v; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer In4 { uint v; };
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer In2 { uint16_t v; };
layout(buffer_reference, std430, buffer_reference_align = 1) readonly buffer In1 { uint8_t v; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Mem4 { uint v; };
layout(buffer_reference, std430, buffer_reference_align = 2) writeonly buffer Out2 { uint16_t v; };

uvec4 load_16(uint64_t at) {
    return In16(at).v;
}
uvec2 load_8(uint64_t at) {
    return In8(at).v;
}
uint load_4(uint64_t at) {
    return In4(at).v;
}
uint load_2(uint64_t at) {
    return uint(In2(at).v);
}
uint load_1(uint64_t at) {
    return uint(In1(at).v);
}
void store_4(uint64_t at, uint value) {
    Mem4(at).v = value;
}
void store_2(uint64_t at, uint value) {
    Out2(at).v = uint16_t(value);
}

/* Element i of an array of 4-byte numbers. */
int load_int(uint64_t array, uint i) {
    return int(load_4(array + 4 * uint64_t(i)));
}
float load_float(uint64_t array, uint64_t i) {
    return uintBitsToFloat(load_4(array + 4 * i));
}

float half_to_float(uint bits) {
    uint sign = (bits & 0x8000) << 16, rest = (bits & 0x7fff) << 13;
    /* Subnormal: the mantissa under the exponent of 2^-14, less 2^-14. */
    uint small = floatBitsToUint(uintBitsToFloat(0x38800000 | rest) - uintBitsToFloat(0x38800000));
    /* Infinity or NaN: the exponent all ones; a NaN is made quiet. */
    uint large = 0x70000000 | rest | (rest > 0x0f800000 ? 0x00400000 : 0);
    return uintBitsToFloat(sign | (rest < 0x00800000 ? small : rest < 0x0f800000 ? rest + 0x38000000 : large));
}

/* Round to nearest even. */
uint float_to_half(float value) {
    uint bits = floatBitsToUint(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return sign | 0x7e00 | (rest >> 13 & 0x03ff);
    if (rest >= 0x477ff000) /* 65520 and more */
        return sign | 0x7c00;
    if (rest < 0x38800000) /* below 2^-14: adding 0.5 leaves the subnormal, rounded, in the low bits */
        return sign | (floatBitsToUint(uintBitsToFloat(rest) + 0.5) - 0x3f000000);
    return sign | (rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13;
}

uint float_to_bf16(float value) {
    uint bits = floatBitsToUint(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Two numbers of 16 bits; of these a finite half at least is exact. */
vec2 split_halves(uint pair) {
    if (NATIVE_HALF != 0)
        return unpackHalf2x16(pair);
    return vec2(half_to_float(pair & 0xffff), half_to_float(pair >> 16));
}
vec2 split_pair(uint pair, uint type) {
    if (type == FMK_VK_F16)
        return split_halves(pair);
    return vec2(uintBitsToFloat(pair << 16), uintBitsToFloat(pair & 0xffff0000));
}

uint number_size(uint type) {
    return type == FMK_VK_F32 ? 4 : 2;
}

/* Number i of an array, by its own address alone. */
float load_number(uint64_t array, uint type, uint64_t i) {
    if (type == FMK_VK_F32)
        return load_float(array, i);
    uint bits = load_2(array + 2 * i);
    return type == FMK_VK_F16 ? half_to_float(bits) : uintBitsToFloat(bits << 16);
}

void store_number(uint64_t array, uint type, uint64_t i, float value) {
    if (type == FMK_VK_F32)
        store_4(array + 4 * i, floatBitsToUint(value));
    else
        store_2(array + 2 * i, type == FMK_VK_F16 ? float_to_half(value) : float_to_bf16(value));
}

/* Numbers i .. i+3, i a multiple of 4, of an array aligned to four of them. */
vec4 load_quad(uint64_t array, uint type, uint64_t i) {
    if (type == FMK_VK_F32)
        return uintBitsToFloat(load_16(array + 4 * i));
    uvec2 pairs = load_8(array + 2 * i);
    return vec4(split_pair(pairs.x, type), split_pair(pairs.y, type));
}

/* 16 bytes at a multiple of 16, or of 4. */
uvec4 load_words(uint64_t at, bool vectors) {
    if (vectors)
        return load_16(at);
    return uvec4(load_4(at), load_4(at + 4), load_4(at + 8), load_4(at + 12));
}
