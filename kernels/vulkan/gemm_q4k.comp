/* Many tokens times Q4_K. */
#version 450
#extension GL_GOOGLE_include_directive : require
#ifdef COOPMAT
#extension GL_KHR_shader_subgroup_basic : require
#include "coopmat.glsl"
#endif
#include "gemm_tile.glsl"
#include "q4k.glsl"

/* Half a sub-block. */
struct Raw {
    uvec4 header, nibbles;
};

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of(unit);
    uint64_t block = row_at(data, first + row_of(unit)) + uint64_t(k / 256) * Q4K_BLOCK;
    return Raw(load_words(block, VECTORS != 0),
               load_words(block + 16 + k % 256 / 64 * 32 + k % 32, VECTORS != 0));
}

void unpack(Raw raw, uint k, uint unit) {
    const uint row = row_of(unit), at = k_of(unit);
    k += at;
    vec2 scales[2];
    find_scales(raw.header, k % 256 / 64, scales);
    vec2 scale = k % 64 < 32 ? scales[0] : scales[1];
    uint shift = k % 64 < 32 ? 0 : 4;
    [[unroll]] for (uint i = 0; i < 4; i++)
        put_weights(row, at + 4 * i,
                    fma(nibbles_of(raw.nibbles[i] >> shift, false, 0.0), vec4(scale.x), vec4(-scale.y)));
}

float bound_of(uint64_t data, uint row, uint part, uint parts) {
    float bound = 0.0;
    for (uint block = part; block < args.k / 256; block += parts) {
        vec2 d = abs(split_halves(load_4(row_at(data, row) + uint64_t(block) * Q4K_BLOCK)));
        bound = max(bound, 63.0 * 15.0 * d.x + 63.0 * d.y);
    }
    return bound;
}

#ifdef COOPMAT
#include "gemm_coopmat.glsl"
#else
#include "gemm.glsl"
#endif
