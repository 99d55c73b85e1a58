/* Many tokens times Q6_K. */
#version 450
#extension GL_GOOGLE_include_directive : require
#ifdef COOPMAT
#extension GL_KHR_shader_subgroup_basic : require
#include "coopmat.glsl"
#endif
#include "gemm_tile.glsl"
#include "q6k.glsl"

/* 16 weights of a scale. */
struct Raw {
    uint low[4], high[4];
    float scale;
};

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of(unit);
    uint64_t block = row_at(data, first + row_of(unit)) + uint64_t(k / 256) * Q6K_BLOCK;
    uint part = k % 256 / 128;
    Raw raw;
    raw.low = load_even(block + 64 * part + k % 64);
    raw.high = load_even(block + 128 + 32 * part + k % 32);
    raw.scale = q6k_d(block) * q6k_scale(block, k % 256 / 16);
    return raw;
}

void unpack(Raw raw, uint k, uint unit) {
    const uint row = row_of(unit), at = k_of(unit), run = (k + at) % 128 / 32;
    [[unroll]] for (uint i = 0; i < 4; i++)
        put_weights(row, at + 4 * i, q6k_codes(raw.low[i], raw.high[i], run) * raw.scale);
}

float bound_of(uint64_t data, uint row, uint part, uint parts) {
    float bound = 0.0;
    for (uint block = part; block < args.k / 256; block += parts)
        bound = max(bound, 128.0 * 32.0 * abs(q6k_d(row_at(data, row) + uint64_t(block) * Q6K_BLOCK)));
    return bound;
}

#ifdef COOPMAT
#include "gemm_coopmat.glsl"
#else
#include "gemm.glsl"
#endif
