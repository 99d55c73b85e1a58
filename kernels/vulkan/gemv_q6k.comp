/* Few tokens times Q6_K, in the file's own blocks of 256 weights and 210 bytes: u8 low[128], u8 high[64],
 * i8 scales[16], f16 d. A block begins at any even address. */
#version 450
#ifdef SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "codes.glsl"

const uint STRIDE = 1, WIDTH = 1, BLOCK = 210;

/* Of half h of a block, l = 16 (u % 2) .. + 15: weights 128 h + l + 0, 32, 64, 96, of which each run has a scale.
 * Quads 4 i .. 4 i + 3 are those of word i of each. */
const uint QUADS = 16, RUNS = 4;
const bool MINIMA = false, TAIL = false;

struct Unit {
    uint low[4], low_32[4], high[4]; /* from l on; from l + 32 on; the high bits of all four runs */
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
uint quad_k(uint u, uint quad) {
    return u / 2 * 128 + u % 2 * 16 + quad % 4 * 32 + quad / 4 * 4;
}
vec2 scales_of(Unit unit, uint row, uint run) {
    return vec2(unit.scale[run], 0.0);
}
vec4 quad_of(Unit unit, uint row, uint quad) {
    const uint i = quad / 4, run = quad % 4;
    uint low = run % 2 == 0 ? unit.low[i] : unit.low_32[i];
    uint high = run < 2 ? unit.high[i] << 4 - 2 * run : unit.high[i] >> 2 * run - 4;
    return bytes_of((run < 2 ? low : low >> 4) & 0x0f0f0f0f | high & 0x30303030, 32.0);
}

/* 16 bytes at an even address: of aligned words, which lie in the block, halves are put together. */
uint[4] load_even(uint64_t at) {
    bool odd = (uint(at) & 2) != 0;
    uint64_t from = at - (odd ? 2 : 0);
    uint word[4], next = load_4(from);
    [[unroll]] for (uint i = 0; i < 4; i++) {
        uint here = next;
        next = load_4(from + 4 * i + 4);
        word[i] = odd ? here >> 16 | next << 16 : here;
    }
    return word;
}

float signed_byte(uint bytes, uint i) {
    return float(bitfieldExtract(int(bytes), int(8 * i), 8));
}

Unit load_unit(uint64_t row, uint u) {
    uint64_t block = row + uint64_t(u / 4) * BLOCK;
    uint half_at = u / 2 % 2, l = u % 2 * 16;
    Unit unit;
    unit.low = load_even(block + 64 * half_at + l);
    unit.low_32 = load_even(block + 64 * half_at + l + 32);
    unit.high = load_even(block + 128 + 32 * half_at + l);
    float d = split_halves(load_2(block + 208)).x;
    [[unroll]] for (uint run = 0; run < 4; run++)
        unit.scale[run] = d * signed_byte(load_1(block + 192 + 8 * half_at + u % 2 + 2 * run), 0);
    return unit;
}

#include "gemv.glsl"
