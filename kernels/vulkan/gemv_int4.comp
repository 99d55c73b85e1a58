/* Few tokens times int4. */
#version 450
#ifdef SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "int4.glsl"

/* A unit is 8 bytes of each of up to four chunks of a block: two rows, 4 v .. + 3 and 4 v + 16 .. + 19 of each
 * chunk's k, where v = u % 4. Four invocations are the pairs of rows, four times these the v. */
const uint STRIDE = 4, WIDTH = 2;
const uint TAKE = CHUNKS % 4 == 0 ? 4 : CHUNKS % 2 == 0 ? 2 : 1;
const uint QUADS = 2 * TAKE, RUNS = 1, UNIT_K = 8 * TAKE;
const bool MINIMA = false;

uint pair_of_rows();

struct Raw {
    uvec2 nibbles[4]; /* TAKE, of both rows */
    uvec2 scale;      /* or one word of halves */
    uint zeros;
};
struct Unit {
    uvec2 nibbles[4];
    vec2 scale, zero; /* of each row */
};

uint units() {
    return (args.k / 32 + TAKE - 1) / TAKE * 4;
}
uint row_of(uint first, uint own) {
    return first + own / 2 * 8 + pair_of_rows() * 2 + own % 2;
}
/* The pair's first bytes of the panel: scales and zeros are found from there by twice and half of its offset. */
uint64_t row_address(uint64_t data, uint row) {
    return data + uint64_t(row / 8) * args.stride;
}
uint run_of(uint quad) {
    return 0;
}
uint place_of(uint quad) {
    return quad;
}
uint staged_at(uint u, uint quad) {
    return (u / 4 * TAKE + quad / 2) * 8 + quad % 2 * 4 + u % 4;
}
vec4 quad_of(Unit unit, uint row, uint quad) {
    return nibbles_of(unit.nibbles[quad / 2][row], quad % 2 != 0, unit.zero[row]);
}
vec2 scales_of(Unit unit, uint row, uint run) {
    return vec2(unit.scale[row], 0.0);
}

Raw load_raw(uint64_t panel, uint u) {
    const uint chunk = u / 4 * TAKE, last = args.k / 32 - 1;
    uint64_t block = panel + uint64_t(chunk / CHUNKS) * INT4_BLOCK;
    uint64_t codes = block + INT4_HEADER + u % 4 * 32 + pair_of_rows() * 8;
    Raw raw;
    [[unroll]] for (uint i = 0; i < TAKE; i++) /* past the last it is that one again: activations are 0 there */
        raw.nibbles[i] = load_8(codes + (min(chunk + i, last) - chunk / CHUNKS * CHUNKS) * INT4_CHUNK);
    if (WEIGHT_TYPE == FMK_VK_F32) {
        raw.scale = load_8(block + 8 * pair_of_rows());
        raw.zeros = load_2(block + 32 + 2 * pair_of_rows());
    } else {
        raw.scale = uvec2(load_4(block + 4 * pair_of_rows()), 0);
        raw.zeros = load_2(block + 16 + 2 * pair_of_rows());
    }
    return raw;
}
Unit open_unit(Raw raw, uint u) {
    Unit unit;
    unit.nibbles = raw.nibbles;
    unit.scale = WEIGHT_TYPE == FMK_VK_F32 ? uintBitsToFloat(raw.scale) : split_pair(raw.scale.x, WEIGHT_TYPE);
    unit.zero = vec2(code_at(raw.zeros, 0xff, 0, 0.0), code_at(raw.zeros, 0xff00, 8, 0.0));
    return unit;
}

#include "gemv.glsl"

uint pair_of_rows() {
    return sub;
}
