/* Products with many tokens on the ordinary units, in floats. An invocation has eight rows and TAKE tokens of the
 * tile, in quads that lie apart so that neighbours read neighbouring quads. Each sum is made in the order of k.
 * While a slab is multiplied the next is on its way to registers. */

layout(constant_id = FMK_VK_SPEC_IN_TYPE) const uint IN_TYPE = FMK_VK_F32;

const uint TAKE = ROWS * TOKENS / THREADS / 8; /* 4 or 8 */
const uint UNITS = ROWS * SLAB / UNIT / THREADS, QUADS = TOKENS * SLAB / 4 / THREADS; /* of an invocation */

/* [k][row / 4] of weights, [k][token / 4] of activations; in the end results. */
const uint TILE_TOKENS = SLAB * ROWS / 4;
shared vec4 tile[TILE_TOKENS + SLAB * TOKENS / 4];

uint64_t from_row[QUADS];
vec4 activations[QUADS];
Raw raw[UNITS];
vec4 sum[2 * TAKE]; /* of four rows each */

void put_weights(uint row, uint k, vec4 w) {
    [[unroll]] for (uint i = 0; i < 4; i++)
        tile[(k + i) * (ROWS / 4) + row / 4][row % 4] = w[i];
}

/* Neighbouring invocations have neighbouring tokens. */
uint token_of(uint quad) {
    return (gl_LocalInvocationIndex + quad * THREADS) % TOKENS;
}
uint quad_k(uint quad) {
    return (gl_LocalInvocationIndex + quad * THREADS) / TOKENS * 4;
}

void fetch_slab(uint64_t data, uint first, uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        raw[i] = fetch(data, first, k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < QUADS; i++)
        activations[i] = load_quad(from_row[i], IN_TYPE, min(k + quad_k(i), args.k - 4));
}

void put_slab(uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        unpack(raw[i], k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < QUADS; i++)
        [[unroll]] for (uint b = 0; b < 4; b++)
            tile[TILE_TOKENS + (quad_k(i) + b) * (TOKENS / 4) + token_of(i) / 4][token_of(i) % 4] =
                k + quad_k(i) < args.k ? activations[i][b] : 0.0;
}

void multiply_slab(uint row_quad, uint token_quad) {
    [[dont_unroll]] for (uint from = 0; from < SLAB; from += 4)
        [[unroll]] for (uint k = from; k < from + 4; k++) {
            vec4 low = tile[k * (ROWS / 4) + row_quad], high = tile[k * (ROWS / 4) + row_quad + ROWS / 8];
            [[unroll]] for (uint q = 0; q < TAKE / 4; q++) {
                vec4 x = tile[TILE_TOKENS + k * (TOKENS / 4) + token_quad + q * (TOKENS / TAKE)];
                [[unroll]] for (uint i = 0; i < 4; i++) {
                    sum[2 * (4 * q + i)] = fma(low, vec4(x[i]), sum[2 * (4 * q + i)]);
                    sum[2 * (4 * q + i) + 1] = fma(high, vec4(x[i]), sum[2 * (4 * q + i) + 1]);
                }
            }
        }
}

/* Results go by way of the tile, four tokens of each invocation at a time, so that no code is made for each sum. */
void finish_tile(Tokens tokens, uint first, uint row_quad, uint token_quad) {
    const uint many = 4 * TOKENS / TAKE;
    [[unroll]] for (uint q = 0; q < TAKE / 4; q++) {
        barrier();
        [[unroll]] for (uint i = 0; i < 4; i++) {
            tile[(4 * token_quad + i) * (ROWS / 4) + row_quad] = sum[2 * (4 * q + i)];
            tile[(4 * token_quad + i) * (ROWS / 4) + row_quad + ROWS / 8] = sum[2 * (4 * q + i) + 1];
        }
        barrier();
        [[dont_unroll]] for (uint at = gl_LocalInvocationIndex; at < ROWS * many; at += THREADS) {
            const uint row = first + at % ROWS, token = q * many + at / ROWS;
            if (row < args.n && token < tokens.count)
                finish(tokens.expert, row, out_row(tokens.first + token), tile[at / 4][at % 4], 0.0);
        }
    }
}

void main() {
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    if (tokens.count == 0)
        return;
    [[unroll]] for (uint i = 0; i < QUADS; i++)
        from_row[i] = args.from + in_row(tokens.first + min(token_of(i), tokens.count - 1)) * args.in_stride *
                                      number_size(IN_TYPE);
    const uint64_t data = args.data + 2 * uint64_t(args.expert_stride) * tokens.expert;
    const uint row_quad = gl_LocalInvocationIndex % (ROWS / 8), token_quad = gl_LocalInvocationIndex / (ROWS / 8);
    for (uint block = gl_WorkGroupID.x; block < (args.n + ROWS - 1) / ROWS; block += gl_NumWorkGroups.x) {
        const uint first = block * ROWS;
        [[unroll]] for (uint i = 0; i < 2 * TAKE; i++)
            sum[i] = vec4(0.0);
        fetch_slab(data, first, 0);
        for (uint k = 0; k < args.k; k += SLAB) {
            barrier();
            put_slab(k);
            barrier();
            fetch_slab(data, first, k + SLAB < args.k ? k + SLAB : k);
            multiply_slab(row_quad, token_quad);
        }
        finish_tile(tokens, first, row_quad, token_quad);
    }
}
