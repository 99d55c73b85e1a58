/* Many tokens times int4. */
#version 450
#extension GL_GOOGLE_include_directive : require
#if defined(FEW)
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_vote : require
#endif
#if defined(FEW) || defined(COOPMAT)
#extension GL_KHR_shader_subgroup_basic : require
#include "coopmat.glsl"
#elif defined(HALF)
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "gemm_tile.glsl"
#include "int4.glsl"

const uint UNIT = SLAB > 32 ? 32 : 16;

/* Four rows, four k: low or high nibbles of 16 bytes, or both. */
struct Raw {
    uvec4 nibbles;
    vec4 scale;
    uint zeros;
};

/* As gemm_tile.glsl has it for rows: neighbours have neighbouring rows, or what is next in memory. */
#if defined(FEW)
uint row_of_quad(uint unit) {
    return unit / (SLAB / 4) * 8 + unit % 2 * 4;
}
uint k_of_quad(uint unit) {
    return unit / 8 % (SLAB / 32) * 32 + unit / 2 % 4 * 4;
}
#else
uint row_of_quad(uint unit) {
    return unit % (ROWS / 4) * 4;
}
uint k_of_quad(uint unit) {
    return unit / (ROWS / 4) / 4 * UNIT + unit / (ROWS / 4) % 4 * 4;
}
#endif

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of_quad(unit);
    const uint row = first + row_of_quad(unit), r = row % 8, chunk = k / 32, v = k % 16 / 4;
    Raw raw = Raw(uvec4(0), vec4(0.0), 0);
    if (k >= args.k)
        return raw;
    uint64_t block = data + uint64_t(min(row, args.n - 1) / 8) * args.stride +
                     uint64_t(chunk / CHUNKS) * INT4_BLOCK;
    uint64_t nibbles = block + INT4_HEADER + chunk % CHUNKS * INT4_CHUNK + 32 * v + 4 * r;
    raw.nibbles = uvec4(load_8(nibbles), load_8(nibbles + 8));
    if (WEIGHT_TYPE == FMK_VK_F32) {
        raw.scale = uintBitsToFloat(uvec4(load_8(block + 4 * r), load_8(block + 4 * r + 8)));
        raw.zeros = load_4(block + 32 + r);
    } else {
        uvec2 pairs = load_8(block + 2 * r);
        raw.scale = vec4(split_pair(pairs.x, WEIGHT_TYPE), split_pair(pairs.y, WEIGHT_TYPE));
        raw.zeros = load_4(block + 16 + r);
    }
    return raw;
}

void unpack(Raw raw, uint k, uint unit) {
    const uint at = k_of_quad(unit), shift = UNIT == 32 || (k + at) % 32 < 16 ? 0 : 4;
    [[unroll]] for (uint side = 0; side < UNIT / 16; side++)
        [[unroll]] for (uint i = 0; i < 4; i++)
            put_weights(row_of_quad(unit) + i, at + 16 * side,
                        nibbles_of(raw.nibbles[i] >> shift, side != 0, float(raw.zeros >> 8 * i & 0xff)) *
                            (raw.scale[i] * factor));
}

float bound_of(Raw raw) {
    vec4 scale = abs(raw.scale);
    return 16.0 * max(max(scale.x, scale.y), max(scale.z, scale.w));
}

#if defined(FEW)
#include "gemm_few.glsl"
#elif defined(COOPMAT)
#include "gemm_coopmat.glsl"
#elif defined(HALF)
#include "gemm_half.glsl"
#else
#include "gemm.glsl"
#endif
