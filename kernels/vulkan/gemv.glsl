/* Products with few tokens, bound by the bytes of the weights. Included behind what a family says about itself:
 *
 *     STRIDE   neighbouring invocations of a team that have rows of their own, before K goes on
 *     WIDTH    rows of a unit
 *     QUADS    of a unit: the weights, four neighbours in k at a time, that an invocation takes from a row at once
 *     RUNS     runs of quads of a unit that share a scale; 0: weights have none
 *     MINIMA   whether a run has a minimum too; run i of unit u is then k 32 (RUNS u + i) ..
 *     UNIT_K   k's of a unit, or where units are interleaved their share
 *     units()                        of a row
 *     row_of(first, own)             the team's row with which the invocation's own begins, by its number
 *     row_address(data, row)
 *     struct Raw, load_raw(row address, number)      its bytes
 *     struct Unit, open_unit(raw, number)
 *     quad_of(unit, row, quad)       of the unit's rows; codes, or weights
 *     place_of(quad)                 where a quad of activations lies in shared memory
 *     staged_at(number, quad)        the place of that which belongs to the unit's quad: what neighbouring invocations
 *                                    read lies in different banks
 *     run_of(quad)
 *     scales_of(unit, row, run)      scale and minimum
 *
 * LANES * STRIDE invocations are a team, LANES share a row and take its units in turn. Each has OWN rows, so that
 * activations, once loaded, serve them all; the bytes of the next units are on their way while these are multiplied.
 * Activations are brought to shared memory, STAGE k at a time, zeros behind the last. A unit is taken apart once for
 * all tokens. In the end, halves of what an invocation has are swapped with others until each has sums of its own. */

layout(local_size_x_id = FMK_VK_SPEC_THREADS) in;
layout(constant_id = FMK_VK_SPEC_THREADS) const uint THREADS = 128;
layout(constant_id = FMK_VK_SPEC_ROWS) const uint ROWS = 16;
layout(constant_id = FMK_VK_SPEC_TOKENS) const uint TOKENS = 1;
layout(constant_id = FMK_VK_SPEC_LANES) const uint LANES = 32;
layout(constant_id = FMK_VK_SPEC_SCALED) const uint SCALED = 0;
layout(constant_id = FMK_VK_SPEC_SUBGROUP) const uint SUBGROUP = 0;
layout(constant_id = FMK_VK_SPEC_STAGE) const uint STAGE = 1024;

const uint OWN = ROWS * LANES / THREADS;
const uint SUMS = OWN * TOKENS;
const uint LEFT = SUMS < LANES ? 1 : SUMS / LANES; /* when lanes are added up */

/* Where the invocation is. */
uint invocation, lane, sub, team;
/* First byte of each token's row of `from`. */
uint64_t from_row[TOKENS];

const uint PITCH = STAGE / 4 + STAGE / 64; /* whatever the places are */
shared vec4 staged[TOKENS * PITCH];
shared float run_sums[MINIMA ? TOKENS * STAGE / 32 : 1]; /* of 32 neighbours each */
uint staged_k = ~0u;                                      /* of which k on they are there */
Raw raw[OWN / WIDTH]; /* the next units */
Unit unit[OWN / WIDTH];
uint64_t row_at[OWN / WIDTH]; /* first byte of each unit's row */
/* Of own row i / TOKENS and token i % TOKENS; in the end see add_lanes. */
float sum[SUMS];

void find_place() {
#ifdef SUBGROUPS
    invocation = SUBGROUP != 0 ? gl_SubgroupID * SUBGROUP + gl_SubgroupInvocationID : gl_LocalInvocationIndex;
#else
    invocation = gl_LocalInvocationIndex;
#endif
    sub = invocation % STRIDE;
    lane = invocation / STRIDE % LANES;
    team = invocation / (STRIDE * LANES);
}

/* ---- sums over the lanes ---- */

shared float exchanged[THREADS];

/* The value of the invocation whose number differs in bit `mask`. */
float exchange(float value, uint mask) {
#ifdef SUBGROUPS
    if (mask < SUBGROUP)
        return subgroupShuffleXor(value, mask);
#endif
    barrier();
    exchanged[invocation] = value;
    barrier();
    return exchanged[invocation ^ mask];
}

/* Of the sums the upper half goes where bit 0 of `lane` is set, of what is left the upper
 * half where bit 1 is, and so on; all lanes' are added up. What is left is kept in front. The sum of two does not
 * depend on their order, so that each sum's bits are what they would be without the others. */
void add_lanes() {
    [[unroll]] for (uint step = 0; 1u << step < LANES; step++) {
        bool upper = (lane >> step & 1) != 0;
        const uint rest = SUMS >> step + 1;
        if (rest == 0) {
            sum[0] += exchange(sum[0], STRIDE << step);
        } else {
            [[unroll]] for (uint i = 0; i < rest; i++) {
                float kept = upper ? sum[i + rest] : sum[i], given = upper ? sum[i] : sum[i + rest];
                sum[i] = kept + exchange(given, STRIDE << step);
            }
        }
    }
}

/* Of which sum the first that is kept is, and whether no other lane has it. */
uint kept_sum(out bool mine) {
    uint first = 0;
    mine = true;
    [[unroll]] for (uint step = 0; 1u << step < LANES; step++)
        if ((lane >> step & 1) != 0) {
            first += SUMS >> step + 1;
            if (SUMS >> step + 1 == 0)
                mine = false;
        }
    return first;
}

/* ---- activations ---- */

void stage_numbers(uint from, uint type) {
    const uint quads = min(STAGE, (args.k - from + 127) / 128 * 128) / 4;
    [[unroll]] for (uint token = 0; token < TOKENS; token++)
        for (uint quad = gl_LocalInvocationIndex; quad < quads; quad += THREADS) {
            const uint k = from + 4 * quad;
            staged[token * PITCH + place_of(quad)] =
                k < args.k ? load_quad(from_row[token], type, k) : vec4(0.0);
        }
}

void stage(uint from) {
    if (staged_k == from)
        return;
    staged_k = from;
    const uint type = FMK_VK_IN_TYPE(args.types);
    barrier();
    if (type == FMK_VK_F32)
        stage_numbers(from, FMK_VK_F32);
    else
        stage_numbers(from, type);
    barrier();
    if (!MINIMA || SCALED != 0)
        return;
    for (uint i = gl_LocalInvocationIndex; i < TOKENS * STAGE / 32; i += THREADS) {
        vec4 sum = vec4(0.0);
        [[unroll]] for (uint quad = 0; quad < 8; quad++)
            sum += staged[i / (STAGE / 32) * PITCH + place_of(i % (STAGE / 32) * 8 + quad)];
        run_sums[i] = (sum.x + sum.y) + (sum.z + sum.w);
    }
    barrier();
}

vec4 load_activations(uint token, uint u, uint quad) {
    return staged[token * PITCH + staged_at(u, quad)];
}

/* ---- products ---- */

float add_products(vec4 w, vec4 x, float sum) {
    return fma(w.w, x.w, fma(w.z, x.z, fma(w.y, x.y, fma(w.x, x.x, sum))));
}

/* Weights are made for all tokens. u: of the units whose activations are staged. */
void multiply_weights(uint u) {
    [[unroll]] for (uint quad = 0; quad < QUADS; quad++) {
        vec4 w[OWN];
        [[unroll]] for (uint row = 0; row < OWN; row++) {
            w[row] = quad_of(unit[row / WIDTH], row % WIDTH, quad);
            if (RUNS > 0) {
                vec2 scale = scales_of(unit[row / WIDTH], row % WIDTH, run_of(quad));
                w[row] = MINIMA ? fma(w[row], vec4(scale.x), vec4(-scale.y)) : w[row] * scale.x;
            }
        }
        [[unroll]] for (uint token = 0; token < TOKENS; token++) {
            vec4 x = load_activations(token, u, quad);
            [[unroll]] for (uint row = 0; row < OWN; row++)
                sum[row * TOKENS + token] = add_products(w[row], x, sum[row * TOKENS + token]);
        }
    }
}

/* Sums of codes times activations, a run each, are scaled. */
void multiply_codes(uint u) {
    const uint runs = max(RUNS, 1);
    float product[SUMS * runs];
    [[unroll]] for (uint i = 0; i < SUMS * runs; i++)
        product[i] = 0.0;
    [[unroll]] for (uint quad = 0; quad < QUADS; quad++) {
        vec4 code[OWN];
        [[unroll]] for (uint row = 0; row < OWN; row++)
            code[row] = quad_of(unit[row / WIDTH], row % WIDTH, quad);
        [[unroll]] for (uint token = 0; token < TOKENS; token++) {
            vec4 x = load_activations(token, u, quad);
            const uint at = token * runs + run_of(quad);
            [[unroll]] for (uint row = 0; row < OWN; row++)
                product[row * TOKENS * runs + at] =
                    add_products(code[row], x, product[row * TOKENS * runs + at]);
        }
    }
    [[unroll]] for (uint row = 0; row < OWN; row++)
        [[unroll]] for (uint run = 0; run < runs; run++) {
            vec2 scale = scales_of(unit[row / WIDTH], row % WIDTH, run);
            [[unroll]] for (uint token = 0; token < TOKENS; token++) {
                const uint at = token * runs + run;
                float part = fma(scale.x, product[row * TOKENS * runs + at], sum[row * TOKENS + token]);
                if (MINIMA)
                    part = fma(-scale.y, run_sums[token * (STAGE / 32) + u * runs + run], part);
                sum[row * TOKENS + token] = part;
            }
        }
}

void load_units(uint u) {
    [[unroll]] for (uint i = 0; i < OWN / WIDTH; i++)
        raw[i] = load_raw(row_at[i], u);
}

/* The sums of the team's rows from `first` on. */
void multiply(uint64_t data, uint first) {
    [[unroll]] for (uint i = 0; i < SUMS; i++)
        sum[i] = 0.0;
    [[unroll]] for (uint i = 0; i < OWN / WIDTH; i++)
        row_at[i] = row_address(data, min(row_of(first, i * WIDTH), args.n - 1));
    /* Weights are on their way while activations are staged. Which lane has a unit does not depend on STAGE. */
    const uint end = units(), slab = STAGE / UNIT_K;
    uint u = lane;
    load_units(min(u, end - 1));
    for (uint from = 0; from < end; from += slab) {
        const uint stop = min(end, from + slab);
        stage(from * UNIT_K);
        for (; u < stop; u += LANES) {
            [[unroll]] for (uint i = 0; i < OWN / WIDTH; i++)
                unit[i] = open_unit(raw[i], u);
            load_units(min(u + LANES, end - 1));
            if (RUNS == 0 || SCALED != 0)
                multiply_weights(u - from);
            else
                multiply_codes(u - from);
        }
    }
    add_lanes();
}

void main() {
    find_place();
    Tokens tokens = find_tokens(gl_WorkGroupID.y, TOKENS);
    if (tokens.count == 0)
        return;
    [[unroll]] for (uint token = 0; token < TOKENS; token++)
        from_row[token] = args.from + in_row(tokens.first + min(token, tokens.count - 1)) * args.in_stride *
                                          number_size(FMK_VK_IN_TYPE(args.types));
    const uint64_t expert = 2 * uint64_t(args.expert_stride) * tokens.expert;
    bool mine;
    const uint kept = kept_sum(mine);
    for (uint block = gl_WorkGroupID.x; block < (args.n + ROWS - 1) / ROWS; block += gl_NumWorkGroups.x) {
        const uint first = block * ROWS + team * OWN * STRIDE;
        float gate[LEFT];
        [[dont_unroll]] for (uint side = 0; side <= GLU; side++) {
            if (side != 0)
                [[unroll]] for (uint i = 0; i < LEFT; i++)
                    gate[i] = sum[i];
            multiply((side == 0 ? args.data : args.up) + expert, first);
        }
        [[unroll]] for (uint i = 0; i < LEFT; i++) {
            uint row = row_of(first, (kept + i) / TOKENS), token = (kept + i) % TOKENS;
            if (mine && row < args.n && token < tokens.count)
                finish(tokens.expert, row, out_row(tokens.first + token), GLU != 0 ? gate[i] : sum[i], sum[i]);
        }
    }
}
