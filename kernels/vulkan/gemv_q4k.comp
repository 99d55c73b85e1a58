/* Few tokens times Q4_K. */
#version 450
#ifdef SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "q4k.glsl"

const uint STRIDE = 1, WIDTH = 1;

/* A quarter of a block: 32 bytes, whose low nibbles are one sub-block of 32 weights and whose high nibbles are the
 * next. Quads 2 i and 2 i + 1 are those of word i. */
const uint QUADS = 16, RUNS = 2, UNIT_K = 64;
const bool MINIMA = true;

struct Raw {
    uvec4 header, low, high;
};
struct Unit {
    uint nibbles[8];
    vec2 scale[2]; /* of both sub-blocks: scale, minimum */
};

uint units() {
    return args.k / 64;
}
uint row_of(uint first, uint own) {
    return first + own;
}
uint64_t row_address(uint64_t data, uint row) {
    return data + uint64_t(row) * args.stride;
}
uint run_of(uint quad) {
    return quad % 2;
}
uint place_of(uint quad) {
    return quad + quad / 16;
}
uint staged_at(uint u, uint quad) {
    return 17 * u + quad % 2 * 8 + quad / 2;
}
vec4 quad_of(Unit unit, uint row, uint quad) {
    return nibbles_of(unit.nibbles[quad / 2], quad % 2 != 0, 0.0);
}
vec2 scales_of(Unit unit, uint row, uint run) {
    return unit.scale[run];
}

Raw load_raw(uint64_t row, uint u) {
    uint64_t block = row + uint64_t(u / 4) * Q4K_BLOCK, nibbles = block + 16 + u % 4 * 32;
    return Raw(load_words(block, VECTORS != 0), load_words(nibbles, VECTORS != 0),
               load_words(nibbles + 16, VECTORS != 0));
}
Unit open_unit(Raw raw, uint u) {
    Unit unit;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        unit.nibbles[i] = raw.low[i];
        unit.nibbles[4 + i] = raw.high[i];
    }
    find_scales(raw.header, u % 4, unit.scale);
    return unit;
}

#include "gemv.glsl"
