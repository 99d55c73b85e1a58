/* A tile of a product with many tokens: ROWS rows of weights, TOKENS tokens, SLAB k at a time. Weights come in units
 * of UNIT, which a family (gemm_FAMILY.comp) fetches to registers and takes apart to the tile. With slabs of 64 k a
 * unit may be of 32: 16 weights, and the 16 that are 32 k further on. */
#include "linear.glsl"

#if defined(FEW) || defined(COOPMAT) || defined(HALF)
const uint SLAB = 64;
#else
const uint SLAB = 32;
#endif

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 256;
layout(constant_id = FMK_VK_SPEC_ROWS) const uint ROWS = 128;
layout(constant_id = FMK_VK_SPEC_TOKENS) const uint TOKENS = 128;

/* What weights are multiplied by on their way to the tile: a power of two. */
#if defined(FEW) || defined(COOPMAT) || defined(HALF)
float factor;
#else
const float factor = 1.0;
#endif

/* Puts weights k .. k+3 of a row of the tile in their place; as halves these are k 0 2, 1 3, as a word's nibbles come
 * in pairs, and activations likewise. */
#if defined(FEW) || defined(COOPMAT) || defined(HALF)
void put_halves(uint row, uint k, uvec2 halves);
void put_weights(uint row, uint k, vec4 w) {
    put_halves(row, k, uvec2(packHalf2x16(w.xz), packHalf2x16(w.yw)));
}

/* The low, or high, nibbles of bytes 0 and 2: the bits or-ed to them count as 1024, or 64, and are taken off. */
f16vec2 nibble_pair(uint word, bool high) {
    return high ? unpackFloat2x16(word & 0x00f000f0 | 0x54005400) - f16vec2(64.0)
                : unpackFloat2x16(word & 0x000f000f | 0x64006400) - f16vec2(1024.0);
}
#else
void put_weights(uint row, uint k, vec4 w);
#endif

/* Where a unit of a single row, of `size` weights, is in the tile. Neighbouring invocations have neighbouring rows, so
 * that what they put lies in different banks; but where a subgroup is alone with its slab they have neighbouring k, so
 * that it reads whole lines. */
#if defined(FEW)
uint row_of(uint unit, uint size) {
    return unit / (SLAB / size);
}
uint k_of(uint unit, uint size) {
    return unit % (SLAB / size) * 16;
}
#else
uint row_of(uint unit, uint size) {
    return unit % ROWS;
}
uint k_of(uint unit, uint size) {
    return unit / ROWS * 16;
}
#endif

/* The first byte of a row; past the last it is that one again, and nobody takes the result. */
uint64_t row_at(uint64_t data, uint row) {
    return data + uint64_t(min(row, args.n - 1)) * args.stride;
}
