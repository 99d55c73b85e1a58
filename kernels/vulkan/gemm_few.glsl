/* Products with up to 16 tokens by cooperative matrices. A workgroup has ROWS rows of weights; its subgroups take
 * slabs of k in turn, each with a tile of its own, so that none waits for another before K is done; in the end their
 * sums are added up. Rows of activations are read from memory as they are multiplied, all TOKENS of them, for which
 * there is room. While a slab is multiplied the weights of the subgroup's next are on their way to registers. */

layout(constant_id = FMK_VK_SPEC_SUBGROUP) const uint SUBGROUP = 32;

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Halves { uvec4 v[]; };

const uint PITCH = SLAB / 8 + 1; /* 16 bytes each, of a row in the tile: one more, for the banks */
const uint SUBGROUPS = THREADS / SUBGROUP, STEPS = SLAB / 16;
const uint DOWN = ROWS / 16, ACROSS = TOKENS / 8; /* matrices */
const uint UNITS = ROWS * SLAB / UNIT / SUBGROUP; /* of an invocation */

shared uvec4 tile[SUBGROUPS * ROWS * PITCH]; /* of each subgroup; in the end results */

Raw raw[UNITS];

const uint TARGET = 11;
const float LIMIT = 32768.0;

void put_weights(uint row, uint k, vec4 w) {
    uvec2 halves = uvec2(packHalf2x16(w.xy), packHalf2x16(w.zw));
    uint at = (gl_SubgroupID * ROWS + row) * PITCH + k / 8;
    if (k % 8 == 0)
        tile[at].xy = halves;
    else
        tile[at].zw = halves;
}

void fetch_slab(uint64_t data, uint first, uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        raw[i] = fetch(data, first, k, gl_SubgroupInvocationID + i * SUBGROUP);
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
    Halves activations = Halves(args.from + uint64_t(tokens.first) * args.in_stride * 2);
    const uint stride = args.in_stride / 8, begin = gl_SubgroupID * SLAB;
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
            [[unroll]] for (uint i = 0; i < UNITS; i++)
                unpack(raw[i], k, gl_SubgroupInvocationID + i * SUBGROUP);
            if (k + SUBGROUPS * SLAB < args.k)
                fetch_slab(data, first, k + SUBGROUPS * SLAB);
            subgroupBarrier();
            [[unroll]] for (uint step = 0; step < STEPS; step++) {
                MATRIX_TOKENS x[ACROSS];
                [[unroll]] for (uint i = 0; i < ACROSS; i++)
                    LOAD_TOKENS(x[i], activations.v, 8 * i * stride + k / 8 + 2 * step, stride);
                [[unroll]] for (uint j = 0; j < DOWN; j++) {
                    MATRIX_WEIGHTS w;
                    LOAD_A(w, tile, (gl_SubgroupID * ROWS + 16 * j) * PITCH + 2 * step, PITCH);
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
