/* Many tokens times Q4_K. */
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
#include "q4k.glsl"

const uint UNIT = SLAB > 32 ? 32 : 16, BOUND_K = 256;

/* Half a sub-block, or of two. */
struct Raw {
    uvec4 header, nibbles;
};

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of(unit, UNIT);
    uint64_t block = row_at(data, first + row_of(unit, UNIT)) + uint64_t(k / 256) * Q4K_BLOCK;
    return Raw(load_words(block, VECTORS != 0),
               load_words(block + 16 + k % 256 / 64 * 32 + k % 32, VECTORS != 0));
}

#if defined(FEW) || defined(COOPMAT) || defined(HALF)
void unpack(Raw raw, uint k, uint unit) {
    const uint row = row_of(unit, UNIT), at = k_of(unit, UNIT);
    vec2 scales[2];
    find_scales(raw.header, (k + at) % 256 / 64, scales);
    [[unroll]] for (uint side = 0; side < 2; side++) {
        const vec2 scale = scales[side] * factor;
        [[unroll]] for (uint i = 0; i < 4; i++) {
            const vec2 even = vec2(nibble_pair(raw.nibbles[i], side != 0));
            const vec2 odd = vec2(nibble_pair(raw.nibbles[i] >> 8, side != 0));
            put_halves(row, at + 32 * side + 4 * i,
                       uvec2(packHalf2x16(fma(even, vec2(scale.x), vec2(-scale.y))),
                             packHalf2x16(fma(odd, vec2(scale.x), vec2(-scale.y)))));
        }
    }
}
#else
void unpack(Raw raw, uint k, uint unit) {
    const uint row = row_of(unit, UNIT), at = k_of(unit, UNIT);
    k += at;
    vec2 scales[2];
    find_scales(raw.header, k % 256 / 64, scales);
    const vec2 scale = k % 64 < 32 ? scales[0] : scales[1];
    [[unroll]] for (uint i = 0; i < 4; i++)
        put_weights(row, at + 4 * i, fma(nibbles_of(raw.nibbles[i] >> (k % 64 < 32 ? 0 : 4), false, 0.0),
                                         vec4(scale.x), vec4(-scale.y)));
}
#endif

float bound_of(Raw raw) {
    vec2 d = abs(split_halves(raw.header.x));
    return 63.0 * 15.0 * d.x + 63.0 * d.y;
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
