/* Products with up to 16 tokens by cooperative matrices. A workgroup has ROWS rows of weights; its subgroups take
 * slabs of k in turn, each with a tile of its own, so that none waits for another before K is done; in the end their
 * sums are added up. Rows of activations are read from memory as they are multiplied, all TOKENS of them, for which
 * there is room. While a slab is multiplied the weights of the subgroup's next are on their way to registers. */

layout(constant_id = FMK_VK_SPEC_SUBGROUP) const uint SUBGROUP = 32;

const uint PITCH = SLAB / 8 + 1; /* 16 bytes each, of a row in the tile: one more, for the banks */
const uint SUBGROUPS = THREADS / SUBGROUP, STEPS = SLAB / 16;
const uint DOWN = ROWS / 16, ACROSS = TOKENS / 8; /* matrices */
const uint UNITS = ROWS * SLAB / UNIT / SUBGROUP, EIGHTS = TOKENS * SLAB / 8 / SUBGROUP; /* of an invocation */

/* Of each subgroup: rows of weights, in the end results; then of activations. A matrix that is loaded from memory takes
 * a load for each number. */
const uint TILE_TOKENS = ROWS * PITCH, TILE = TILE_TOKENS + TOKENS * PITCH;
shared uvec4 tile[SUBGROUPS * TILE];

Raw raw[UNITS];
uvec4 activations[EIGHTS];
uint64_t from_row[EIGHTS];

const uint TARGET = 11;
const float LIMIT = 32768.0;

void put_halves(uint row, uint k, uvec2 halves) {
    uint at = gl_SubgroupID * TILE + row * PITCH + k / 8;
    if (k % 8 == 0)
        tile[at].xy = halves;
    else
        tile[at].zw = halves;
}

/* Neighbouring invocations have neighbouring k. */
uint token_of(uint eight) {
    return (gl_SubgroupInvocationID + eight * SUBGROUP) / (SLAB / 8);
}
uint eight_of(uint eight) {
    return (gl_SubgroupInvocationID + eight * SUBGROUP) % (SLAB / 8);
}

void fetch_slab(uint64_t data, uint first, uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        raw[i] = fetch(data, first, k, gl_SubgroupInvocationID + i * SUBGROUP);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        activations[i] = load_16(from_row[i] + 2 * (k + 8 * eight_of(i)));
}

void put_slab(uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        unpack(raw[i], k, gl_SubgroupInvocationID + i * SUBGROUP);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        tile[gl_SubgroupID * TILE + TILE_TOKENS + token_of(i) * PITCH + eight_of(i)] = activations[i];
}

/* Sets `factor`, a power of two that brings the subgroup's weights into the range of f16, by those of its first slab;
 * lowers it for one with larger weights. What sums are to be multiplied by. */
float choose_factor(bool first) {
    float bound = 0.0;
    [[unroll]] for (uint i = 0; i < UNITS; i++) {
        float one = bound_of(raw[i]);
        bound = max(bound, one <= 3.4028234e38 ? one : 0.0);
    }
    if (!first && !subgroupAny(bound * factor >= LIMIT))
        return 1.0;
    [[unroll]] for (uint mask = 1; mask < SUBGROUP; mask *= 2)
        bound = max(bound, subgroupShuffleXor(bound, mask));
    const float last = factor;
    factor = uintBitsToFloat(127 + TARGET + 127 - clamp(floatBitsToUint(bound) >> 23, 27, 227) << 23);
    return first ? 1.0 : factor / last;
}

void main() {
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    if (tokens.count == 0)
        return;
    const uint64_t data = args.data + 2 * uint64_t(args.expert_stride) * tokens.expert;
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        from_row[i] = args.from + uint64_t(tokens.first + token_of(i)) * args.in_stride * 2;
    const uint begin = gl_SubgroupID * SLAB;
    MATRIX_FEW sum[DOWN * ACROSS];
    for (uint block = gl_WorkGroupID.x; block < (args.n + ROWS - 1) / ROWS; block += gl_NumWorkGroups.x) {
        const uint first = block * ROWS;
        [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++)
            sum[i] = MATRIX_FEW(0.0);
        factor = 1.0;
        if (begin < args.k)
            fetch_slab(data, first, begin);
        barrier(); /* the last block's results are taken */
        for (uint k = begin; k < args.k; k += SUBGROUPS * SLAB) {
            const float change = choose_factor(k == begin);
            if (change != 1.0)
                [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++)
                    sum[i] = sum[i] * change;
            subgroupBarrier();
            put_slab(k);
            fetch_slab(data, first, k + SUBGROUPS * SLAB < args.k ? k + SUBGROUPS * SLAB : k);
            subgroupBarrier();
            [[unroll]] for (uint step = 0; step < STEPS; step++) {
                MATRIX_TOKENS x[ACROSS];
                [[unroll]] for (uint i = 0; i < ACROSS; i++)
                    LOAD_TOKENS(x[i], tile, gl_SubgroupID * TILE + TILE_TOKENS + 8 * i * PITCH + 2 * step, PITCH);
                [[unroll]] for (uint j = 0; j < DOWN; j++) {
                    MATRIX_WEIGHTS w;
                    LOAD_A(w, tile, gl_SubgroupID * TILE + 16 * j * PITCH + 2 * step, PITCH);
                    [[unroll]] for (uint i = 0; i < ACROSS; i++)
                        sum[j * ACROSS + i] = MULTIPLY_ADD(w, x[i], sum[j * ACROSS + i]);
                }
            }
        }
        barrier();
        [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++) {
            sum[i] = sum[i] * (1.0 / factor);
            STORE_SUM(sum[i], tile, (gl_SubgroupID * DOWN * ACROSS + i) * 32, 2);
        }
        barrier();
        [[dont_unroll]] for (uint at = gl_LocalInvocationIndex; at < ROWS * TOKENS; at += THREADS) {
            const uint row = at % ROWS, token = at / ROWS;
            if (first + row >= args.n || token >= tokens.count)
                continue;
            const uint from = ((row / 16 * ACROSS + token / 8) * 16 + row % 16) * 2 + token % 8 / 4;
            float total = 0.0;
            for (uint s = 0; s < SUBGROUPS; s++)
                total += uintBitsToFloat(tile[s * DOWN * ACROSS * 32 + from][token % 4]);
            const float back = load_float(
                args.from + (uint64_t(tokens.first + token + 1) * args.in_stride - 8) * 2, 0);
            finish(tokens.expert, first + row, out_row(tokens.first + token), total * back, 0.0);
        }
    }
}
