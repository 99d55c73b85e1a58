/* Products with many tokens by cooperative matrices: activations and weights are f16, sums are floats. A subgroup has
 * LANES rows of weights of the tile and as many tokens as are then left for it. While a slab is multiplied the next is
 * on its way to registers. */

layout(constant_id = FMK_VK_SPEC_LANES) const uint SUBGROUP_ROWS = 32;
layout(constant_id = FMK_VK_SPEC_SUBGROUP) const uint SUBGROUP = 32;

const uint PITCH = SLAB / 8 + 1; /* 16 bytes each, of a row in the tile: one more, for the banks */
const uint SUBGROUPS_ALONG_ROWS = ROWS / SUBGROUP_ROWS;
const uint SUBGROUP_TOKENS = TOKENS * SUBGROUP * SUBGROUPS_ALONG_ROWS / THREADS;
const uint ALONG_ROWS = SUBGROUP_ROWS / 16, SUMS = SUBGROUP_TOKENS / 16 * ALONG_ROWS; /* matrices */
const uint UNITS = ROWS * SLAB / UNIT / THREADS, EIGHTS = TOKENS * SLAB / 8 / THREADS; /* of an invocation */

/* Rows of weights, then of activations; in the end results, in one go or two. */
const uint TILE_TOKENS = ROWS * PITCH, TILE = (ROWS + TOKENS) * PITCH;
shared uvec4 tile[TILE];
const uint PASSES = ROWS * TOKENS / 4 > TILE ? 2 : 1, PASS = SUMS / PASSES; /* matrices of a subgroup */

uint64_t from_row[EIGHTS];
uvec4 activations[EIGHTS];
Raw raw[UNITS];

const uint TARGET = 11;
const float LIMIT = 32768.0;
#include "gemm_factor.glsl"

void put_halves(uint row, uint k, uvec2 halves) {
    uint at = row * PITCH + k / 8;
    if (k % 8 == 0)
        tile[at].xy = halves;
    else
        tile[at].zw = halves;
}

/* Neighbouring invocations have neighbouring k. */
uint token_of(uint eight) {
    return (gl_LocalInvocationIndex + eight * THREADS) / (SLAB / 8);
}
uint eight_of(uint eight) {
    return (gl_LocalInvocationIndex + eight * THREADS) % (SLAB / 8);
}

void fetch_slab(uint64_t data, uint first, uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        raw[i] = fetch(data, first, k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        activations[i] = load_16(from_row[i] + 2 * (k + 8 * eight_of(i)));
}

void put_slab(uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        unpack(raw[i], k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        tile[TILE_TOKENS + token_of(i) * PITCH + eight_of(i)] = activations[i];
}

/* Matrices pass * PASS .. of each subgroup, which are in the tile: so no code is made for each. */
void finish_pass(Tokens tokens, uint first, uint pass) {
    [[dont_unroll]] for (uint at = gl_LocalInvocationIndex; at < THREADS / SUBGROUP * PASS * 256; at += THREADS) {
        const uint subgroup = at / 256 / PASS, i = at / 256 % PASS + pass * PASS;
        const uint row = first + subgroup % SUBGROUPS_ALONG_ROWS * SUBGROUP_ROWS + i % ALONG_ROWS * 16 + at % 16;
        const uint token =
            subgroup / SUBGROUPS_ALONG_ROWS * SUBGROUP_TOKENS + i / ALONG_ROWS * 16 + at % 256 / 16;
        if (token < tokens.count && row < args.n)
            finish(tokens.expert, row, out_row(tokens.first + token),
                   uintBitsToFloat(tile[at / 4][at % 4]) / factor * token_factor(tokens.first + token), 0.0);
    }
}

void main() {
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    if (tokens.count == 0)
        return;
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        from_row[i] = args.from + in_row(tokens.first + min(token_of(i), tokens.count - 1)) * args.in_stride * 2;
    const uint64_t data = args.data + 2 * uint64_t(args.expert_stride) * tokens.expert;
    const uint row = gl_SubgroupID % SUBGROUPS_ALONG_ROWS * SUBGROUP_ROWS;
    const uint token = gl_SubgroupID / SUBGROUPS_ALONG_ROWS * SUBGROUP_TOKENS;
    MATRIX_SUM sum[SUMS];
    for (uint block = gl_WorkGroupID.x; block < (args.n + ROWS - 1) / ROWS; block += gl_NumWorkGroups.x) {
        const uint first = block * ROWS;
        [[unroll]] for (uint i = 0; i < SUMS; i++)
            sum[i] = MATRIX_SUM(0.0);
        forget_bound();
        fetch_slab(data, first, 0);
        for (uint k = 0; k < args.k; k += SLAB) {
            if (k % BOUND_K == 0)
                [[unroll]] for (uint i = 0; i < UNITS; i++)
                    raise_bound(bound_of(raw[i]), k == 0);
            barrier();
            const float change = k % BOUND_K == 0 ? take_bound(k == 0) : 1.0;
            if (change != 1.0)
                [[unroll]] for (uint i = 0; i < SUMS; i++)
                    sum[i] = sum[i] * change;
            put_slab(k);
            barrier();
            fetch_slab(data, first, k + SLAB < args.k ? k + SLAB : k);
            [[unroll]] for (uint step = 0; step < SLAB / 16; step++) {
                MATRIX_B b[ALONG_ROWS];
                [[unroll]] for (uint j = 0; j < ALONG_ROWS; j++)
                    LOAD_B(b[j], tile, (row + 16 * j) * PITCH + 2 * step, PITCH);
                [[unroll]] for (uint i = 0; i < SUMS; i += ALONG_ROWS) {
                    MATRIX_A a;
                    LOAD_A(a, tile, TILE_TOKENS + (token + i / ALONG_ROWS * 16) * PITCH + 2 * step, PITCH);
                    [[unroll]] for (uint j = 0; j < ALONG_ROWS; j++)
                        sum[i + j] = MULTIPLY_ADD(a, b[j], sum[i + j]);
                }
            }
        }
        [[unroll]] for (uint pass = 0; pass < PASSES; pass++) {
            barrier();
            [[unroll]] for (uint i = 0; i < PASS; i++)
                STORE_SUM(sum[pass * PASS + i], tile, (gl_SubgroupID * PASS + i) * 64, 4);
            barrier();
            finish_pass(tokens, first, pass);
        }
    }
}
