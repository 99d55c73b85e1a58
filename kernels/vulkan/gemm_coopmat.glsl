/* Products with many tokens by cooperative matrices: activations and weights are rounded to f16, sums are floats. A
 * tile's weights are multiplied by a power of two that brings the largest below 2^15, for which the family has
 *     bound_of(data, row, part, parts)    no weight of this part of the row is larger in magnitude
 * A subgroup has LANES rows of weights of the tile and as many tokens as are then left for it. While a slab is
 * multiplied the next is on its way to registers. */

layout(constant_id = FMK_VK_SPEC_LANES) const uint SUBGROUP_ROWS = 32;
layout(constant_id = FMK_VK_SPEC_SUBGROUP) const uint SUBGROUP = 32;

const uint SLAB = 64;
const uint PITCH = SLAB / 8 + 1; /* 16 bytes each, of a row in the tile: one more, for the banks */
const uint SUBGROUPS_ALONG_ROWS = ROWS / SUBGROUP_ROWS;
const uint SUBGROUP_TOKENS = TOKENS * SUBGROUP * SUBGROUPS_ALONG_ROWS / THREADS;
const uint ALONG_ROWS = SUBGROUP_ROWS / 16, SUMS = SUBGROUP_TOKENS / 16 * ALONG_ROWS; /* matrices */
const uint UNITS = ROWS * SLAB / 16 / THREADS, EIGHTS = TOKENS * SLAB / 8 / THREADS; /* of an invocation */

shared uvec4 tile_weights[ROWS * PITCH], tile_tokens[TOKENS * PITCH];
shared float results[THREADS / SUBGROUP * 256]; /* a matrix of each subgroup */

uint64_t from_row[EIGHTS];
uvec4 activations[EIGHTS];
Raw raw[UNITS];

float factor; /* of the tile's weights */

/* Sets it, for the rows from `first` on. */
void find_factor(uint64_t data, uint first) {
    const uint me = gl_LocalInvocationIndex, parts = max(THREADS / ROWS, 1);
    float bound = 0.0;
    for (uint row = me % ROWS; row < ROWS; row += THREADS)
        bound = max(bound, bound_of(data, first + row, me / ROWS, parts));
    barrier(); /* the last tile's results are taken */
    results[me] = bound;
    [[dont_unroll]] for (uint half_way = THREADS / 2; half_way > 0; half_way /= 2) {
        barrier();
        if (me < half_way)
            results[me] = max(results[me], results[me + half_way]);
    }
    barrier();
    /* 2^14 over the power of two in the bound, both within what floats have. */
    uint exponent = clamp(floatBitsToUint(results[0]) >> 23, 27, 227);
    factor = uintBitsToFloat(127 + 14 + 127 - exponent << 23);
}

void put_weights(uint row, uint k, vec4 w) {
    w *= factor;
    uvec2 halves = uvec2(packHalf2x16(w.xy), packHalf2x16(w.zw));
    uint at = row * PITCH + k / 8;
    if (k % 8 == 0)
        tile_weights[at].xy = halves;
    else
        tile_weights[at].zw = halves;
}

/* Neighbouring invocations have neighbouring k. */
uint token_of(uint eight) {
    return (gl_LocalInvocationIndex + eight * THREADS) / (SLAB / 8);
}
uint eight_of(uint eight) {
    return (gl_LocalInvocationIndex + eight * THREADS) % (SLAB / 8);
}

uvec4 load_halves(uint64_t row, uint k) {
    if (k >= args.k)
        return uvec4(0);
    if (IN_TYPE == FMK_VK_F16)
        return load_16(row + 2 * uint64_t(k));
    vec4 low = load_quad(row, IN_TYPE, k), high = load_quad(row, IN_TYPE, k + 4);
    return uvec4(packHalf2x16(low.xy), packHalf2x16(low.zw), packHalf2x16(high.xy), packHalf2x16(high.zw));
}

void fetch_slab(uint64_t data, uint first, uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        raw[i] = fetch(data, first, k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        activations[i] = load_halves(from_row[i], k + 8 * eight_of(i));
}

void put_slab(uint k) {
    [[unroll]] for (uint i = 0; i < UNITS; i++)
        unpack(raw[i], k, gl_LocalInvocationIndex + i * THREADS);
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        tile_tokens[token_of(i) * PITCH + eight_of(i)] = activations[i];
}

void main() {
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    if (tokens.count == 0)
        return;
    [[unroll]] for (uint i = 0; i < EIGHTS; i++)
        from_row[i] = args.from + in_row(tokens.first + min(token_of(i), tokens.count - 1)) * args.in_stride *
                                      number_size(IN_TYPE);
    const uint64_t data = args.data + 2 * uint64_t(args.expert_stride) * tokens.expert;
    const uint row = gl_SubgroupID % SUBGROUPS_ALONG_ROWS * SUBGROUP_ROWS;
    const uint token = gl_SubgroupID / SUBGROUPS_ALONG_ROWS * SUBGROUP_TOKENS;
    const uint result = gl_SubgroupID * 256;
    MATRIX_SUM sum[SUMS];
    for (uint block = gl_WorkGroupID.x; block < (args.n + ROWS - 1) / ROWS; block += gl_NumWorkGroups.x) {
        const uint first = block * ROWS;
        [[unroll]] for (uint i = 0; i < SUMS; i++)
            sum[i] = MATRIX_SUM(0.0);
        find_factor(data, first);
        fetch_slab(data, first, 0);
        for (uint k = 0; k < args.k; k += SLAB) {
            barrier();
            put_slab(k);
            barrier();
            if (k + SLAB < args.k)
                fetch_slab(data, first, k + SLAB);
            [[unroll]] for (uint step = 0; step < SLAB / 16; step++) {
                MATRIX_B b[ALONG_ROWS];
                [[unroll]] for (uint j = 0; j < ALONG_ROWS; j++)
                    LOAD_B(b[j], tile_weights, (row + 16 * j) * PITCH + 2 * step, PITCH);
                [[unroll]] for (uint i = 0; i < SUMS; i += ALONG_ROWS) {
                    MATRIX_A a;
                    LOAD_A(a, tile_tokens, (token + i / ALONG_ROWS * 16) * PITCH + 2 * step, PITCH);
                    [[unroll]] for (uint j = 0; j < ALONG_ROWS; j++)
                        sum[i + j] = MULTIPLY_ADD(a, b[j], sum[i + j]);
                }
            }
        }
        [[unroll]] for (uint i = 0; i < SUMS; i++) {
            barrier();
            STORE_SUM(sum[i], results, result, 16);
            barrier();
            for (uint e = gl_SubgroupInvocationID; e < 256; e += SUBGROUP) {
                uint t = token + i / ALONG_ROWS * 16 + e / 16;
                uint r = first + row + i % ALONG_ROWS * 16 + e % 16;
                if (t < tokens.count && r < args.n)
                    finish(tokens.expert, r, out_row(tokens.first + t), results[result + e] / factor, 0.0);
            }
        }
    }
}
