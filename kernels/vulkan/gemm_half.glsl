/* Products with many tokens in f16 on the ordinary units, two k at a time: those of a slab are summed in f16, and these
 * sums in floats. Activations are below 2^6, weights below 2^4, so that a sum of half a slab's products is below 2^15.
 * An invocation has eight rows and TAKE tokens of the tile, in quads that lie apart so that neighbours read
 * neighbouring quads. While a slab is multiplied the next is on its way to registers. */

const uint TAKE = ROWS * TOKENS / THREADS / 8; /* 4 or 8 */
const uint UNITS = ROWS * SLAB / UNIT / THREADS, EIGHTS = TOKENS * SLAB / 8 / THREADS; /* of an invocation */

/* Pairs of k, 0 and 2 or 1 and 3 of every four: [k / 2][row / 4] of weights, [k / 2][token / 4] of activations; in the
 * end results. */
const uint TILE_TOKENS = SLAB / 2 * ROWS / 4;
shared uvec4 tile[TILE_TOKENS + SLAB / 2 * TOKENS / 4];

uint64_t from_row[EIGHTS];
uvec4 activations[EIGHTS];
Raw raw[UNITS];
float sum[8 * TAKE]; /* [token][row] */

const uint TARGET = 1;
const float LIMIT = 16.0;
#include "gemm_factor.glsl"

void put_halves(uint row, uint k, uvec2 halves) {
    tile[k / 2 * (ROWS / 4) + row / 4][row % 4] = halves.x;
    tile[(k / 2 + 1) * (ROWS / 4) + row / 4][row % 4] = halves.y;
}

/* Neighbouring invocations have neighbouring tokens. */
uint token_of(uint eight) {
    return (gl_LocalInvocationIndex + eight * THREADS) % TOKENS;
}
uint eight_k(uint eight) {
    return (gl_LocalInvocationIndex + eight * THREADS) / TOKENS * 8;
}

void fetch_slab(uint64_t data, uint first, uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        raw[i] = fetch(data, first, k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        activations[i] = load_16(from_row[i] + 2 * (k + eight_k(i)));
}

void put_slab(uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        unpack(raw[i], k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        [[unroll]] for (uint b = 0; b < 4; b++)
            tile[TILE_TOKENS + (eight_k(i) / 2 + b) * (TOKENS / 4) + token_of(i) / 4][token_of(i) % 4] =
                activations[i][b];
}

void multiply_slab(uint row_quad, uint token_quad) {
    f16vec2 part[8 * TAKE];
    [[unroll]] for (uint i = 0; i < 8 * TAKE; i++)
        part[i] = f16vec2(0.0);
    [[dont_unroll]] for (uint from = 0; from < SLAB / 2; from += 16)
        [[unroll]] for (uint pair = from; pair < from + 16; pair++) {
            const uint at_weights = pair * (ROWS / 4) + row_quad;
            uvec4 w[2] = uvec4[2](tile[at_weights], tile[at_weights + ROWS / 8]);
            [[unroll]] for (uint q = 0; q < TAKE / 4; q++) {
                uvec4 x = tile[TILE_TOKENS + pair * (TOKENS / 4) + token_quad + q * (TOKENS / TAKE)];
                [[unroll]] for (uint i = 0; i < 4; i++)
                    [[unroll]] for (uint r = 0; r < 8; r++) {
                        const uint at = (4 * q + i) * 8 + r;
                        part[at] = fma(unpackFloat2x16(w[r / 4][r % 4]), unpackFloat2x16(x[i]), part[at]);
                    }
            }
        }
    [[unroll]] for (uint i = 0; i < 8 * TAKE; i++)
        sum[i] += float(part[i].x) + float(part[i].y);
}

/* Results go by way of the tile, four tokens of each invocation at a time, so that no code is made for each sum. */
void finish_tile(Tokens tokens, uint first, uint row_quad, uint token_quad) {
    const uint many = 4 * TOKENS / TAKE;
    [[unroll]] for (uint q = 0; q < TAKE / 4; q++) {
        barrier();
        [[unroll]] for (uint i = 0; i < 4; i++)
            [[unroll]] for (uint side = 0; side < 2; side++) {
                const uint at = (4 * q + i) * 8 + 4 * side;
                tile[(4 * token_quad + i) * (ROWS / 4) + row_quad + side * (ROWS / 8)] =
                    floatBitsToUint(vec4(sum[at], sum[at + 1], sum[at + 2], sum[at + 3]));
            }
        barrier();
        [[dont_unroll]] for (uint at = gl_LocalInvocationIndex; at < ROWS * many; at += THREADS) {
            const uint row = first + at % ROWS, token = q * many + at / ROWS;
            if (row < args.n && token < tokens.count)
                finish(tokens.expert, row, out_row(tokens.first + token),
                       uintBitsToFloat(tile[at / 4][at % 4]) / factor * token_factor(tokens.first + token), 0.0);
        }
    }
}

void main() {
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    if (tokens.count == 0)
        return;
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        from_row[i] =
            args.from + in_row(tokens.first + min(token_of(i), tokens.count - 1)) * args.in_stride * 2;
    const uint64_t data = args.data + 2 * uint64_t(args.expert_stride) * tokens.expert;
    const uint row_quad = gl_LocalInvocationIndex % (ROWS / 8), token_quad = gl_LocalInvocationIndex / (ROWS / 8);
    for (uint block = gl_WorkGroupID.x; block < (args.n + ROWS - 1) / ROWS; block += gl_NumWorkGroups.x) {
        const uint first = block * ROWS;
        [[unroll]] for (uint i = 0; i < 8 * TAKE; i++)
            sum[i] = 0.0;
        forget_bound();
        fetch_slab(data, first, 0);
        for (uint k = 0; k < args.k; k += SLAB) {
            if (k % BOUND_K == 0)
                [[unroll]] for (uint i = 0; i < UNITS; i++)
                    raise_bound(bound_of(raw[i]), k == 0);
            barrier();
            const float change = k % BOUND_K == 0 ? take_bound(k == 0) : 1.0;
            if (change != 1.0)
                [[unroll]] for (uint i = 0; i < 8 * TAKE; i++)
                    sum[i] *= change;
            put_slab(k);
            barrier();
            fetch_slab(data, first, k + SLAB < args.k ? k + SLAB : k);
            multiply_slab(row_quad, token_quad);
        }
        finish_tile(tokens, first, row_quad, token_quad);
    }
}
