/* Many tokens times rows of f32, f16 or bf16. */
#version 450
#extension GL_GOOGLE_include_directive : require
#ifdef COOPMAT
#extension GL_KHR_shader_subgroup_basic : require
#include "coopmat.glsl"
#endif
#include "gemm_tile.glsl"

layout(constant_id = FMK_VK_SPEC_WEIGHT_TYPE) const uint WEIGHT_TYPE = FMK_VK_F16;

struct Raw {
    uvec4 words[4]; /* two for halves */
};

Raw fetch(uint64_t data, uint first, uint k, uint unit) {
    k += k_of(unit);
    const uint size = number_size(WEIGHT_TYPE);
    uint64_t at = row_at(data, first + row_of(unit)) + uint64_t(k) * size;
    Raw raw;
    [[unroll]] for (uint i = 0; i < 4; i++)
        raw.words[i] = i < size && k + 16 * i / size < args.k ? load_words(at + 16 * i, VECTORS != 0) : uvec4(0);
    return raw;
}

void unpack(Raw raw, uint k, uint unit) {
    [[unroll]] for (uint i = 0; i < 4; i++) {
        vec4 w;
        if (WEIGHT_TYPE == FMK_VK_F32) {
            w = uintBitsToFloat(raw.words[i]);
        } else {
            uvec4 words = raw.words[i / 2];
            w = vec4(split_pair(i % 2 == 0 ? words.x : words.z, WEIGHT_TYPE),
                     split_pair(i % 2 == 0 ? words.y : words.w, WEIGHT_TYPE));
        }
        put_weights(row_of(unit), k_of(unit) + 4 * i, w);
    }
}

float bound_of(uint64_t data, uint row, uint part, uint parts) {
    if (WEIGHT_TYPE == FMK_VK_F16)
        return 16384.0; /* they are as good as they are */
    float bound = 0.0;
    for (uint k = 4 * part; k < args.k; k += 4 * parts) {
        vec4 w = abs(load_quad(row_at(data, row), WEIGHT_TYPE, k));
        bound = max(bound, max(max(w.x, w.y), max(w.z, w.w)));
    }
    return bound;
}

#ifdef COOPMAT
#include "gemm_coopmat.glsl"
#else
#include "gemm.glsl"
#endif
