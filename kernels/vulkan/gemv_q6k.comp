/* Few tokens times Q6_K. */
#version 450
#ifdef SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "q6k.glsl"

const uint STRIDE = 1, WIDTH = 1;

/* Of half h of a block, l = 16 (u % 2) .. + 15: weights 128 h + l + 0, 32, 64, 96, of which each run has a scale.
 * Quads 4 i .. 4 i + 3 are those of word i of each. */
const uint QUADS = 16, RUNS = 4, UNIT_K = 64;
const bool MINIMA = false;

struct Raw {
    uint low[4], low_32[4], high[4]; /* from l on; from l + 32 on; the high bits of all four runs */
    uint d;
    int scale[4];
};
struct Unit {
    uint low[4], low_32[4], high[4];
    float scale[4];
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
    return quad % 4;
}
uint place_of(uint quad) {
    return quad + quad / 32;
}
uint staged_at(uint u, uint quad) {
    return 33 * (u / 2) + u % 2 * 4 + quad % 4 * 8 + quad / 4;
}
vec2 scales_of(Unit unit, uint row, uint run) {
    return vec2(unit.scale[run], 0.0);
}
vec4 quad_of(Unit unit, uint row, uint quad) {
    const uint i = quad / 4, run = quad % 4;
    return q6k_codes(run % 2 == 0 ? unit.low[i] : unit.low_32[i], unit.high[i], run);
}

Raw load_raw(uint64_t row, uint u) {
    uint64_t block = row + uint64_t(u / 4) * Q6K_BLOCK;
    uint half_at = u / 2 % 2, l = u % 2 * 16;
    Raw raw;
    raw.low = load_even(block + 64 * half_at + l);
    raw.low_32 = load_even(block + 64 * half_at + l + 32);
    raw.high = load_even(block + 128 + 32 * half_at + l);
    raw.d = load_2(block + 208);
    [[unroll]] for (uint run = 0; run < 4; run++)
        raw.scale[run] = int(load_1(block + 192 + 8 * half_at + u % 2 + 2 * run));
    return raw;
}
Unit open_unit(Raw raw, uint u) {
    Unit unit;
    unit.low = raw.low;
    unit.low_32 = raw.low_32;
    unit.high = raw.high;
    float d = split_halves(raw.d).x;
    [[unroll]] for (uint run = 0; run < 4; run++)
        unit.scale[run] = d * float(bitfieldExtract(raw.scale[run], 0, 8));
    return unit;
}

#include "gemv.glsl"
