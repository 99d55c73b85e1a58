/* Many tokens times int4. */
#version 450
#extension GL_GOOGLE_include_directive : require
#ifdef COOPMAT
#extension GL_KHR_shader_subgroup_basic : require
#include "coopmat.glsl"
#endif
#include "gemm_tile.glsl"
#include "int4.glsl"

/* Four rows, four k: low or high nibbles of 16 bytes. */
struct Raw {
    uvec4 nibbles;
    vec4 scale;
    uint zeros;
};

uint row_of_quad(uint unit) {
    return unit % (ROWS / 4) * 4;
}
uint k_of_quad(uint unit) {
    return unit / (ROWS / 4) * 4;
}

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
    const uint shift = (k + k_of_quad(unit)) % 32 < 16 ? 0 : 4;
    [[unroll]] for (uint i = 0; i < 4; i++)
        put_weights(row_of_quad(unit) + i, k_of_quad(unit),
                    nibbles_of(raw.nibbles[i] >> shift, false, float(raw.zeros >> 8 * i & 0xff)) * raw.scale[i]);
}

float bound_of(uint64_t data, uint row, uint part, uint parts) {
    row = min(row, args.n - 1);
    float bound = 0.0;
    for (uint block = part; block * CHUNKS * 32 < args.k; block += parts)
        bound = max(bound, 16.0 * abs(load_number(data + uint64_t(row / 8) * args.stride +
                                                      uint64_t(block) * INT4_BLOCK,
                                                  WEIGHT_TYPE, row % 8)));
    return bound;
}

#ifdef COOPMAT
#include "gemm_coopmat.glsl"
#else
#include "gemm.glsl"
#endif
