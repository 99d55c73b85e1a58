/* Few tokens times rows of f32, f16 or bf16. */
#version 450
#ifdef SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"

layout(constant_id = FMK_VK_SPEC_WEIGHT_TYPE) const uint WEIGHT_TYPE = FMK_VK_F16;

const uint STRIDE = 1, WIDTH = 1;
const uint QUADS = 2, RUNS = 0, UNIT_K = 8;
const bool MINIMA = false;

struct Unit {
    uvec4 words[2]; /* one for halves */
};
#define Raw Unit

uint units() {
    return args.k / 8;
}
uint row_of(uint first, uint own) {
    return first + own;
}
uint64_t row_address(uint64_t data, uint row) {
    return data + uint64_t(row) * args.stride;
}
uint run_of(uint quad) {
    return 0;
}
uint place_of(uint quad) {
    return quad / 16 * 16 + quad % 2 * 8 + quad / 2 % 8;
}
uint staged_at(uint u, uint quad) {
    return u / 8 * 16 + quad * 8 + u % 8;
}
vec2 scales_of(Unit unit, uint row, uint run) {
    return vec2(0.0);
}
vec4 quad_of(Unit unit, uint row, uint quad) {
    if (WEIGHT_TYPE == FMK_VK_F32)
        return uintBitsToFloat(unit.words[quad]);
    uvec2 pairs = quad == 0 ? unit.words[0].xy : unit.words[0].zw;
    return vec4(split_pair(pairs.x, WEIGHT_TYPE), split_pair(pairs.y, WEIGHT_TYPE));
}
Unit load_raw(uint64_t row, uint u) {
    uint64_t at = row + 8 * number_size(WEIGHT_TYPE) * uint64_t(u);
    Unit unit;
    unit.words[0] = load_words(at, VECTORS != 0);
    unit.words[1] = WEIGHT_TYPE == FMK_VK_F32 ? load_words(at + 16, VECTORS != 0) : uvec4(0);
    return unit;
}
Unit open_unit(Unit raw, uint u) {
    return raw;
}

#include "gemv.glsl"
