/* Products with many tokens on the ordinary units, in floats. An invocation has eight rows and TAKE tokens of the
 * tile, in quads that lie apart so that neighbours read neighbouring quads. Each sum is made in the order of k.
 * While a slab is multiplied the next is on its way to registers. */

const uint SLAB = 32;
const uint TAKE = ROWS * TOKENS / THREADS / 8; /* 4 or 8 */
const uint UNITS = ROWS * SLAB / 16 / THREADS, QUADS = TOKENS * SLAB / 4 / THREADS; /* of an invocation */

shared vec4 tile_weights[SLAB][ROWS / 4], tile_tokens[SLAB][TOKENS / 4];

uint64_t from_row[QUADS];
vec4 activations[QUADS];
Raw raw[UNITS];
vec4 sum[2 * TAKE]; /* of four rows each */

void put_weights(uint row, uint k, vec4 w) {
    [[unroll]] for (uint i = 0; i < 4; i++)
        tile_weights[k + i][row / 4][row % 4] = w[i];
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
        activations[i] = k + quad_k(i) < args.k ? load_quad(from_row[i], IN_TYPE, k + quad_k(i)) : vec4(0.0);
}

void put_slab(uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        unpack(raw[i], k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < QUADS; i++)
        [[unroll]] for (uint b = 0; b < 4; b++)
            tile_tokens[quad_k(i) + b][token_of(i) / 4][token_of(i) % 4] = activations[i][b];
}

void multiply_slab(uint row_quad, uint token_quad) {
    [[dont_unroll]] for (uint from = 0; from < SLAB; from += 4)
        [[unroll]] for (uint k = from; k < from + 4; k++) {
            vec4 low = tile_weights[k][row_quad], high = tile_weights[k][row_quad + ROWS / 8];
            [[unroll]] for (uint q = 0; q < TAKE / 4; q++) {
                vec4 x = tile_tokens[k][token_quad + q * (TOKENS / TAKE)];
                [[unroll]] for (uint i = 0; i < 4; i++) {
                    sum[2 * (4 * q + i)] = fma(low, vec4(x[i]), sum[2 * (4 * q + i)]);
                    sum[2 * (4 * q + i) + 1] = fma(high, vec4(x[i]), sum[2 * (4 * q + i) + 1]);
                }
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
            if (k + SLAB < args.k)
                fetch_slab(data, first, k + SLAB);
            multiply_slab(row_quad, token_quad);
        }
        [[unroll]] for (uint i = 0; i < TAKE; i++) {
            uint token = 4 * (token_quad + i / 4 * (TOKENS / TAKE)) + i % 4;
            if (token >= tokens.count)
                continue;
            uint64_t to = out_row(tokens.first + token);
            [[unroll]] for (uint r = 0; r < 8; r++) {
                uint row = first + 4 * (row_quad + r / 4 * (ROWS / 8)) + r % 4;
                if (row < args.n)
                    finish(tokens.expert, row, to, sum[2 * i + r / 4][r % 4], 0.0);
            }
        }
    }
}
