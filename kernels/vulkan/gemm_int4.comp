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
#endif
#if defined(FEW) || defined(COOPMAT) || defined(HALF)
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "gemm_tile.glsl"
#include "int4.glsl"

const uint UNIT = SLAB > 32 ? 32 : 16, BOUND_K = 1;

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
    const uint row = first + row_of_quad(unit), r = row % 8, chunk = min(k, args.k - 1) / 32, v = k % 16 / 4;
    Raw raw;
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

#if defined(FEW) || defined(COOPMAT) || defined(HALF)
void unpack(Raw raw, uint k, uint unit) {
    [[unroll]] for (uint i = 0; i < 4; i++) {
        const float scale = raw.scale[i] * factor, zero = float(raw.zeros >> 8 * i & 0xff);
        [[unroll]] for (uint side = 0; side < 2; side++) {
            const vec2 even = vec2(nibble_pair(raw.nibbles[i], side != 0)) - zero;
            const vec2 odd = vec2(nibble_pair(raw.nibbles[i] >> 8, side != 0)) - zero;
            put_halves(row_of_quad(unit) + i, k_of_quad(unit) + 16 * side,
                       uvec2(packHalf2x16(even * scale), packHalf2x16(odd * scale)));
        }
    }
}
#else
void unpack(Raw raw, uint k, uint unit) {
    const uint at = k_of_quad(unit), shift = (k + at) % 32 < 16 ? 0 : 4;
    [[unroll]] for (uint i = 0; i < 4; i++)
        put_weights(row_of_quad(unit) + i, at,
                    nibbles_of(raw.nibbles[i] >> shift, false, float(raw.zeros >> 8 * i & 0xff)) * raw.scale[i]);
}
#endif

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
