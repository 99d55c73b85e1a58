/* Many tokens times rows of f32, f16 or bf16. */
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

layout(constant_id = FMK_VK_SPEC_WEIGHT_TYPE) const uint WEIGHT_TYPE = FMK_VK_F16;

const uint UNIT = 16, BOUND_K = 1;

struct Raw {
    uvec4 words[4]; /* two for halves */
};

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of(unit, UNIT);
    const uint size = number_size(WEIGHT_TYPE);
    const uint64_t row = row_at(data, first + row_of(unit, UNIT));
    Raw raw;
    [[unroll]] for (uint i = 0; i < 4; i++) /* past the last it is that one again: activations are 0 there */
        raw.words[i] = i < size ? load_words(row + min(k * size + 16 * i, args.k * size - 16), VECTORS != 0) : uvec4(0);
    return raw;
}

vec4 quad_of(Raw raw, uint i) {
    if (WEIGHT_TYPE == FMK_VK_F32)
        return uintBitsToFloat(raw.words[i]);
    uvec4 words = raw.words[i / 2];
    return vec4(split_pair(i % 2 == 0 ? words.x : words.z, WEIGHT_TYPE),
                split_pair(i % 2 == 0 ? words.y : words.w, WEIGHT_TYPE));
}

void unpack(Raw raw, uint k, uint unit) {
    [[unroll]] for (uint i = 0; i < 4; i++)
        put_weights(row_of(unit, UNIT), k_of(unit, UNIT) + 4 * i, quad_of(raw, i) * factor);
}

float bound_of(Raw raw) {
    vec4 most = vec4(0.0);
    [[unroll]] for (uint i = 0; i < 4; i++)
        most = max(most, abs(quad_of(raw, i)));
    return max(max(most.x, most.y), max(most.z, most.w));
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
