/* Many tokens times Q6_K. */
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
#include "q6k.glsl"

const uint UNIT = SLAB > 32 ? 32 : 16, BOUND_K = 1, SIDES = UNIT / 16;

/* 16 weights of a scale, or of two. */
struct Raw {
    uint low[SIDES][4], high[4];
    float scale[SIDES];
};

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of(unit, UNIT);
    uint64_t block = row_at(data, first + row_of(unit, UNIT)) + uint64_t(k / 256) * Q6K_BLOCK;
    uint part = k % 256 / 128;
    Raw raw;
    raw.high = load_even(block + 128 + 32 * part + k % 32);
    float d = q6k_d(block);
    [[unroll]] for (uint side = 0; side < SIDES; side++) {
        raw.low[side] = load_even(block + 64 * part + (k + 32 * side) % 64);
        raw.scale[side] = d * q6k_scale(block, (k + 32 * side) % 256 / 16);
    }
    return raw;
}

void unpack(Raw raw, uint k, uint unit) {
    const uint row = row_of(unit, UNIT), at = k_of(unit, UNIT);
    [[unroll]] for (uint side = 0; side < SIDES; side++)
        [[unroll]] for (uint i = 0; i < 4; i++)
            put_weights(row, at + 32 * side + 4 * i,
                        q6k_codes(raw.low[side][i], raw.high[i], (k + at + 32 * side) % 128 / 32) *
                            (raw.scale[side] * factor));
}

float bound_of(Raw raw) {
    return 32.0 * max(abs(raw.scale[0]), abs(raw.scale[SIDES - 1]));
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
