/* A tile of a product with many tokens: ROWS rows of weights, TOKENS tokens, SLAB k at a time. Weights come in units
 * of 16, which a family (gemm_FAMILY.comp) fetches to registers and takes apart to the tile. */
#include "linear.glsl"

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 256;
layout(constant_id = FMK_VK_SPEC_ROWS) const uint ROWS = 128;
layout(constant_id = FMK_VK_SPEC_TOKENS) const uint TOKENS = 128;

/* Puts weights k .. k+3 of a row of the tile in their place. */
void put_weights(uint row, uint k, vec4 w);

/* Where a unit of a single row is in the tile: neighbouring invocations have neighbouring rows, so that what they
 * put lies in different banks. */
uint row_of(uint unit) {
    return unit % ROWS;
}
uint k_of(uint unit) {
    return unit / ROWS * 16;
}

/* The first byte of a row; past the last it is that one again, and nobody takes the result. */
uint64_t row_at(uint64_t data, uint row) {
    return data + uint64_t(min(row, args.n - 1)) * args.stride;
}
