/* out = in . W^T on tensor cores, weights as the A operand of mma.m16n8k16: 16 weight rows by 8 tokens.
 *
 * A block computes 16 R weight rows by 8 NT tokens over all of K. Its warps take K's units in turn. Each warp
 * has a ring of its own in shared memory, which it keeps filled with the units to come; codes are copied by
 * the lane that will use them, so that no barrier is needed. At the end of a row block the warps' sums meet
 * in shared memory and are added up in the order of the warps. A block walks over several row blocks, and the
 * ring is filled across their borders.
 *
 * An output's sums are made in an order that depends on K and WARPS alone: neither on m nor on the token's
 * place.
 *
 * A family brings a struct W:
 *     UNIT_K, TILES        k of a unit, a multiple of 32; tiles in it, which are waited for one by one
 *     AHEAD, ACTS_AHEAD    units in a ring; blocks of activations in registers, where there is room for more
 *                          than two
 *     WHOLE_UNITS          every row has whole units of activations
 *     WIDE                 a lane's activations of 32 k: 8 neighbours, or twice 4 (kernels/layout.h)
 *     Slot                 a unit of 16 rows in the ring
 *     Place                what copies want to know of 16 rows, made by place(part, k, row, lane)
 *     unit_bytes(place)
 *     row_block(...)       where the lane's units of 16 rows begin
 *     copy(...)            starts the copies of one tile of a unit; where `shared`, also of what lanes read
 *                          of one another
 *     Part                 what sums want to know of a part, made by part(part)
 *     State<X, R, NT>      what lives as long as a unit: start(), then for each 32 k multiply() and finish()
 *     One<X, R>            the same for one token, and add_acts(): see FetchActs */
#ifndef FMK_KERNELS_LINEAR_MMA_CUH
#define FMK_KERNELS_LINEAR_MMA_CUH

#include "epilogue.cuh"

/* How codes of up to 6 bits become numbers that mma multiplies exactly. A pair's codes lie in the low bits,
 * or four bits higher, of the halves of a register. */
struct F16 {
    /* As f16 denormals they are codes times 2^-24 without any arithmetic; four bits higher, in the pairs of
     * row g + 8, times 2^-20. */
    using In = uint16_t;
    static constexpr int PLANES = 1;
    static constexpr bool COUNTED = false;
    static constexpr uint32_t ONES = 0x3c003c00, MINUS_32_CODES = 0x80208020, MINUS_32_CODES_8 = 0x82008200;
    static __device__ __forceinline__ constexpr int low_bit(int pair) {
        return pair % 2 * 4;
    }
    /* What sums of codes of rows g (0) and g + 8 (1) are to be multiplied by. */
    static __device__ __forceinline__ constexpr float code_unit(int row) {
        return row ? 1048576.0f : 16777216.0f;
    }
    static __device__ __forceinline__ uint32_t codes(uint32_t bits) {
        return bits;
    }
    static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
                                               const float c[4]) {
        mma_f16(d, a, b0, b1, c);
    }
};

struct Bf16 {
    /* 128 has a last place of 1: its low bits take a code, and subtracting 128 leaves the code. */
    using In = uint16_t;
    static constexpr int PLANES = 3;      /* wider activations come as a sum of bf16 matrices, */
    static constexpr bool COUNTED = true; /* as many as the call says */
    static constexpr uint32_t ONES = 0x3f803f80, MINUS_32_CODES = 0xc200c200, MINUS_32_CODES_8 = 0xc200c200;
    static __device__ __forceinline__ constexpr int low_bit(int) {
        return 0;
    }
    static __device__ __forceinline__ constexpr float code_unit(int) {
        return 1.0f;
    }
    static __device__ __forceinline__ uint32_t codes(uint32_t bits) {
        return sub_bf16x2(bits | 0x43004300, 0x43004300);
    }
    static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
                                               const float c[4]) {
        mma_bf16(d, a, b0, b1, c);
    }
};

/* Floats, split on the way into a sum of two f16 with 22 bits together, in a unit of their own for every unit
 * of K. */
struct F32 : F16 {
    using In = float;
    static constexpr int PLANES = 2;
};

/* A lane's activations of 32 k of one token: the B fragments of two steps. */
struct Acts {
    uint32_t b[4];
};

template <class X>
__device__ __forceinline__ void mma_add(float acc[4], const uint32_t a[4], const Acts &x, int step) {
    X::mma(acc, a, x.b[2 * step], x.b[2 * step + 1], acc);
}

template <class X>
__device__ __forceinline__ void mma_first(float acc[4], const uint32_t a[4], const Acts &x, int step) {
    const float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    X::mma(acc, a, x.b[2 * step], x.b[2 * step + 1], zero);
}

/* Adds up the activations of 32 k: every row of `sum` is the sum over k, per token. */
template <class X> __device__ __forceinline__ void sum_acts(float sum[4], const Acts &x, bool first) {
    const uint32_t ones[4] = {X::ONES, X::ONES, X::ONES, X::ONES};
    if (first)
        mma_first<X>(sum, ones, x, 0);
    else
        mma_add<X>(sum, ones, x, 0);
    mma_add<X>(sum, ones, x, 1);
}

/* The four pairs of nibbles of a word, each from its low bit on. */
template <class X> __device__ __forceinline__ void unpack_bits(uint32_t word, uint32_t bits[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        bits[i] = word >> (4 * i - X::low_bit(i)) & 0x000f000fu << X::low_bit(i);
}

/* A word of nibbles as the A fragment of one step. */
template <class X> __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) {
    unpack_bits<X>(word, a);
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = X::codes(a[i]);
}

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Which tokens a block computes, and of which expert. */
struct Tokens {
    int32_t expert, first, count;
};

/* Where a lane finds the activations of its tokens. */
template <class In, int NT> struct ActRows {
    const In *row[NT]; /* the lane's first of each token */
    int32_t k;         /* columns from the lane's first on; there is none from k on */
    int64_t plane_stride;
};

template <class In, bool WIDE, int NT, bool ONE>
__device__ __forceinline__ ActRows<In, NT> act_rows(const struct fmk_linear_kernel_args &args,
                                                    const Tokens &tokens, int lane) {
    ActRows<In, NT> rows;
    const In *in = (const In *)args.in + blockIdx.z * args.expert_in_stride;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        int token = ONE ? 0 : 8 * n + lane / 4;
        /* Columns without a token repeat the last: a column's sums are its own, and these are not stored. */
        int64_t row = tokens.first + min(token, tokens.count - 1);
        rows.row[n] =
            in + (args.in_rows ? args.in_rows[row] : row) * args.in_stride + (WIDE ? 8 : 4) * (lane % 4);
    }
    rows.k = args.k - (WIDE ? 8 : 4) * (lane % 4);
    if (ONE) { /* the lane's block of a unit */
        rows.row[0] += 32 * (lane / 4);
        rows.k -= 32 * (lane / 4);
    }
    rows.plane_stride = args.plane_stride;
    return rows;
}

/* The lane's activations of block b of a unit of 32 k each: `at` is where the lane's first of the unit lie,
 * `left` how many columns there are from these on. */
template <class W, int NT>
__device__ __forceinline__ void load_acts(const uint16_t *const (&at)[NT], int32_t left, int b,
                                          int64_t plane_offset, Acts acts[NT]) {
    bool there = W::WHOLE_UNITS || 32 * b < left;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const uint16_t *from = at[n] + plane_offset + 32 * b;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (there && W::WIDE)
            v = load_16(from);
        if (there && !W::WIDE) {
            uint2 low = load_8(from), high = load_8(from + 16);
            v = make_uint4(low.x, low.y, high.x, high.y);
        }
        acts[n] = Acts{{v.x, v.y, v.z, v.w}};
    }
}

/* Hands out the activations of a warp's units, block by block, and keeps them coming. */
template <class W, class X, int NT, bool ONE> struct FetchActs {
    static constexpr int BLOCKS = W::UNIT_K / 32, DEPTH = NT == 1 && !X::COUNTED ? W::ACTS_AHEAD : 2;
    Acts ahead[DEPTH][NT];              /* of the next blocks, in turn; with planes of the next */
    const uint16_t *now[NT], *next[NT]; /* of this unit and the next */
    int32_t left, left_next, planes;

    __device__ __forceinline__ void set_next(const ActRows<uint16_t, NT> &rows, int32_t unit) {
#pragma unroll
        for (int n = 0; n < NT; n++)
            next[n] = rows.row[n] + unit;
        left_next = rows.k - unit;
    }

    __device__ __forceinline__ void start(const ActRows<uint16_t, NT> &rows, int32_t first, int32_t count,
                                          int) {
        planes = X::COUNTED ? count : 1;
        set_next(rows, first);
#pragma unroll
        for (int b = 0; b < DEPTH; b++)
            if (b == 0 || planes == 1)
                load_acts<W, NT>(next, left_next, b, 0, ahead[b]);
    }

    __device__ __forceinline__ void enter(const ActRows<uint16_t, NT> &rows, int32_t, int32_t after) {
#pragma unroll
        for (int n = 0; n < NT; n++)
            now[n] = next[n];
        left = left_next;
        set_next(rows, after);
    }

    __device__ __forceinline__ void load(int b, int64_t plane_offset, Acts (&acts)[NT]) {
        if (b < BLOCKS)
            load_acts<W, NT>(now, left, b, plane_offset, acts);
        else
            load_acts<W, NT>(next, left_next, b - BLOCKS, plane_offset, acts);
    }

    __device__ __forceinline__ void take(const ActRows<uint16_t, NT> &rows, int b, int plane, Acts (&x)[NT]) {
#pragma unroll
        for (int n = 0; n < NT; n++)
            x[n] = ahead[b % DEPTH][n];
        if (plane + 1 < planes)
            load(b, (plane + 1) * rows.plane_stride, ahead[b % DEPTH]);
        else if (planes > 1)
            load(b + 1, 0, ahead[(b + 1) % DEPTH]);
        else
            load(b + DEPTH, 0, ahead[b % DEPTH]);
    }

    __device__ __forceinline__ float unit_of_acts() const {
        return 1.0f;
    }
};

/* Whose turn it is: for block b, 1 in the lanes whose column it is, else 0. Multiplying by it is a selection
 * that leaves the integer pipe, which unpacks codes, alone. */
template <int BLOCKS> struct Turns {
    uint32_t is[BLOCKS];

    __device__ __forceinline__ void start(int32_t column) {
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
            is[b] = not_before_here(column == b);
    }
    __device__ __forceinline__ void take(int b, const Acts &from, Acts &x) const {
#pragma unroll
        for (int i = 0; i < 4; i++)
            x.b[i] = from.b[i] * is[b];
    }
};

/* One token: the eight columns of B are the unit's blocks of 32 k. A lane loads the block of its column, and
 * has zeros in the others' turns. */
template <class W, class X> struct FetchActs<W, X, 1, true> {
    static constexpr int BLOCKS = W::UNIT_K / 32;
    Acts now[X::PLANES], ahead[X::PLANES];
    Turns<BLOCKS> turns;
    int32_t planes, column;

    __device__ __forceinline__ void load(const ActRows<uint16_t, 1> &rows, int32_t unit) {
#pragma unroll
        for (int plane = 0; plane < X::PLANES; plane++)
            if (plane < planes && column < BLOCKS) {
                const uint16_t *const at[1] = {rows.row[0] + unit};
                load_acts<W, 1>(at, rows.k - unit, 0, plane * rows.plane_stride, &ahead[plane]);
            }
    }

    __device__ __forceinline__ void start(const ActRows<uint16_t, 1> &rows, int32_t first, int32_t count,
                                          int lane) {
        planes = count;
        column = lane / 4;
        turns.start(column);
#pragma unroll
        for (int plane = 0; plane < X::PLANES; plane++)
            ahead[plane] = Acts{{0, 0, 0, 0}}; /* columns without a block stay so */
        load(rows, first);
    }

    __device__ __forceinline__ void enter(const ActRows<uint16_t, 1> &rows, int32_t, int32_t next) {
#pragma unroll
        for (int plane = 0; plane < X::PLANES; plane++)
            now[plane] = ahead[plane];
        load(rows, next);
    }

    __device__ __forceinline__ void take(const ActRows<uint16_t, 1> &, int b, int plane, Acts (&x)[1]) {
        turns.take(b, now[plane], x[0]);
    }

    __device__ __forceinline__ float unit_of_acts() const {
        return 1.0f;
    }
};

/* The largest magnitude of the warp's values. */
__device__ __forceinline__ float largest_of_warp(float value) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, distance));
    return value;
}

/* The same for floats. */
template <class W> struct FetchActs<W, F32, 1, true> {
    static constexpr int BLOCKS = W::UNIT_K / 32;
    Acts now[F32::PLANES];
    Turns<BLOCKS> turns;
    float4 ahead[2];
    float factor; /* now's sum times it are the activations */
    int32_t column;

    __device__ __forceinline__ void load(const ActRows<float, 1> &rows, int32_t unit) {
        ahead[0] = ahead[1] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (column < BLOCKS && unit < rows.k) {
            ahead[0] = load_4_floats(rows.row[0] + unit);
            ahead[1] = load_4_floats(rows.row[0] + unit + (W::WIDE ? 4 : 16));
        }
    }

    __device__ __forceinline__ void start(const ActRows<float, 1> &rows, int32_t first, int32_t, int lane) {
        column = lane / 4;
        turns.start(column);
        load(rows, first);
    }

    /* A power of two brings the largest near f16's own, whose range is enough for what lies 22 bits below. */
    __device__ __forceinline__ void enter(const ActRows<float, 1> &rows, int32_t, int32_t next) {
        const float x[8] = {ahead[0].x, ahead[0].y, ahead[0].z, ahead[0].w,
                            ahead[1].x, ahead[1].y, ahead[1].z, ahead[1].w};
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        int32_t exponent = min(268 - (int32_t)(f32_to_bits(largest_of_warp(largest)) >> 23), 253);
        float inverse = bits_to_f32((uint32_t)exponent << 23);
        factor = bits_to_f32((uint32_t)(254 - exponent) << 23);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float a = x[2 * i] * inverse, b = x[2 * i + 1] * inverse;
            now[0].b[i] = f32_to_f16x2(a, b);
            a -= f16_to_f32((uint16_t)now[0].b[i]);
            b -= f16_to_f32((uint16_t)(now[0].b[i] >> 16));
            now[1].b[i] = f32_to_f16x2(a, b);
        }
        load(rows, next);
    }

    __device__ __forceinline__ void take(const ActRows<float, 1> &, int b, int plane, Acts (&x)[1]) {
        turns.take(b, now[plane], x[0]);
    }

    __device__ __forceinline__ float unit_of_acts() const {
        return factor;
    }
};

/* ---- row blocks ---- */

struct RowBlock {
    int32_t part, row; /* first row in the part */
};

__device__ __forceinline__ int32_t blocks_of(const struct fmk_linear_part &part, int32_t rows) {
    return (part.n + rows - 1) / rows;
}

__device__ __forceinline__ int32_t count_blocks(const struct fmk_linear_kernel_args &args, int32_t rows) {
    int32_t total = 0;
    for (int32_t p = 0; p < (args.glu ? 1 : args.num_parts); p++)
        total += blocks_of(args.part[p], rows);
    return total;
}

__device__ __forceinline__ RowBlock find_block(const struct fmk_linear_kernel_args &args, int32_t rows,
                                               int32_t block) {
    int32_t p = 0;
    while (!args.glu && p < args.num_parts - 1 && block >= blocks_of(args.part[p], rows))
        block -= blocks_of(args.part[p++], rows);
    return RowBlock{p, block * rows};
}

/* ---- the walk of one warp over its units ---- */

/* Position in the sequence of units that a warp takes: its turn in each row block of the thread block. */
template <class W, int R> struct Cursor {
    const uint8_t *from[R]; /* the lane's first byte of the unit */
    typename W::Place place[R];
    int32_t block, unit; /* row block; unit along K */
    int32_t blocks, units, expert, warp;
    bool more; /* there is a unit here */
};

template <class W, int R>
__device__ __forceinline__ void enter_block(const struct fmk_linear_kernel_args &args, Cursor<W, R> &cursor,
                                            int lane) {
    RowBlock at = find_block(args, args.glu ? 16 : 16 * R, cursor.block);
    cursor.unit = cursor.warp;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const struct fmk_linear_part &part = args.part[args.glu ? r : at.part];
        int32_t row = args.glu ? at.row : min(at.row + 16 * r, (part.n - 1) / 16 * 16);
        cursor.place[r] = W::place(part, args.k, row, lane);
        const uint8_t *data = (const uint8_t *)part.data + (uint64_t)cursor.expert * part.expert_stride;
        cursor.from[r] =
            W::row_block(part, data, row, lane) + (int64_t)cursor.warp * W::unit_bytes(cursor.place[r]);
    }
}

template <class W, int R, int WARPS>
__device__ __forceinline__ void next_unit(const struct fmk_linear_kernel_args &args, Cursor<W, R> &cursor,
                                          int lane) {
    if (!cursor.more)
        return;
    cursor.unit += WARPS;
    if (cursor.unit < cursor.units) {
#pragma unroll
        for (int r = 0; r < R; r++)
            cursor.from[r] += WARPS * W::unit_bytes(cursor.place[r]);
        return;
    }
    cursor.block += gridDim.x;
    cursor.more = cursor.block < cursor.blocks;
    if (cursor.more)
        enter_block<W, R>(args, cursor, lane);
}

/* Starts the copies of a tile, and ends the group: without more units an empty one, so that the groups count
 * the tiles. */
template <class W, int R>
__device__ __forceinline__ void copy_tile(const Cursor<W, R> &cursor, int tile, bool shared, int lane,
                                          typename W::Slot (&slot)[R]) {
    if (cursor.more) {
#pragma unroll
        for (int r = 0; r < R; r++)
            W::copy(cursor.place[r], cursor.from[r], cursor.unit, tile, shared, lane, slot[r]);
    }
    end_copies();
}

/* ---- sums of the warps ---- */

/* Of up to eight tokens. Two: the next may arrive while these are added up. */
template <int R, int WARPS, bool ONE> struct Sums {
    static constexpr int TOKENS = ONE ? 1 : 8, PITCH = 16 * R + 4;
    float value[2][WARPS][TOKENS][PITCH];
};

/* A lane's sums of eight tokens; of ONE the columns are shares of one token's. */
template <int R, int NT, int WARPS, bool ONE>
__device__ __forceinline__ void put_sums(float (*to)[Sums<R, WARPS, ONE>::PITCH], const float total[R][NT][4],
                                         int n, int lane) {
    int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float first = total[r][n][2 * i], second = total[r][n][2 * i + 1];
            int row = 16 * r + g + 8 * i;
            if (ONE) {
                first += second;
                first += __shfl_xor_sync(0xffffffff, first, 1);
                first += __shfl_xor_sync(0xffffffff, first, 2);
                if (t == 0)
                    to[0][row] = first;
            } else {
                to[2 * t][row] = first;
                to[2 * t + 1][row] = second;
            }
        }
}

__device__ __forceinline__ float bias_at(const struct fmk_linear_part &part, int32_t expert, int32_t row) {
    return part.bias ? part.bias[(int64_t)expert * part.n + row] : 0.0f;
}

/* Adds up the sums of tokens first .. first+count-1 of a row block, and stores what becomes of them. */
template <int R, int WARPS, bool ONE>
__device__ __forceinline__ void store_sums(
    const struct fmk_linear_kernel_args &args, int32_t expert, int32_t block, int32_t first, int32_t count,
    const float (*from)[Sums<R, WARPS, ONE>::TOKENS][Sums<R, WARPS, ONE>::PITCH]) {
    const struct fmk_epilogue_args &e = args.epilogue;
    void *out = (char *)e.out + blockIdx.z * args.expert_out_stride * number_size(e.out_type);
    const int shift = args.glu || R == 1 ? 4 : 5;
    RowBlock at = find_block(args, 1 << shift, block);
    const struct fmk_linear_part &part = args.part[at.part];
    for (int i = threadIdx.x; i < count << shift; i += 32 * WARPS) {
        int r = i & ((1 << shift) - 1), token = i >> shift;
        int32_t row = at.row + r;
        if (row >= part.n)
            continue;
        float t = 0.0f, up = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            t += from[w][token][r];
            if (args.glu)
                up += from[w][token][16 * (R - 1) + r];
        }
        int64_t number = first + token;
        int64_t out_row = args.out_rows ? args.out_rows[number] : number;
        t += bias_at(part, expert, row);
        if (args.glu)
            finish_glu(e, out, out_row, row, t, up + bias_at(args.part[1], expert, row));
        else
            finish(e, out, out_row, part.column + row, t);
    }
}

/* ---- the kernel ---- */

template <int TOKENS>
__device__ __forceinline__ Tokens find_tokens(const struct fmk_linear_kernel_args &args) {
    if (args.tiles) {
        struct fmk_token_tile tile = args.tiles[blockIdx.y];
        return Tokens{tile.expert, tile.first, tile.count};
    }
    int32_t m = args.m;
    if (args.m_dev)
        m = min(m, max(*args.m_dev, 0)); /* or m - first could overflow */
    int32_t first = args.first_row + TOKENS * (int32_t)blockIdx.y;
    return Tokens{args.expert + (int32_t)blockIdx.z, first, min(TOKENS, m - first)};
}

template <class W, class X, int R, int NT, int WARPS, bool ONE, class State>
__device__ __forceinline__ void multiply_all(const struct fmk_linear_kernel_args &args) {
    __shared__ typename W::Slot rings[WARPS][W::AHEAD][R];
    __shared__ Sums<R, WARPS, ONE> sums;
    constexpr int BLOCKS_32 = W::UNIT_K / 32, PER_TILE = BLOCKS_32 / W::TILES;
    /* Kept, for what is made of them would be made anew in every unit. */
    const int warp = not_before_here(threadIdx.x / 32), lane = not_before_here(threadIdx.x % 32);
    const int32_t blocks = count_blocks(args, args.glu ? 16 : 16 * R);
    const int32_t units = (args.k_packed + W::UNIT_K - 1) / W::UNIT_K;
    const int32_t planes = X::COUNTED ? args.planes : X::PLANES;
    typename W::Slot(&ring)[W::AHEAD][R] = rings[warp];
    allow_dependents();

    /* Weights do not depend on the kernel before, but which ones are wanted may. */
    int32_t expert = args.expert + (int32_t)blockIdx.z;
    if (args.tiles) {
        wait_for_dependency();
        if (!args.tiles[blockIdx.y].count)
            return;
        expert = args.tiles[blockIdx.y].expert;
    }

    Cursor<W, R> ahead; /* of the copies */
    ahead.block = blockIdx.x;
    ahead.blocks = blocks;
    ahead.units = units;
    ahead.expert = expert;
    ahead.warp = warp;
    ahead.more = warp < units && ahead.block < blocks;
    if (ahead.more)
        enter_block<W, R>(args, ahead, lane);
#pragma unroll
    for (int slot = 0; slot < W::AHEAD; slot++) {
#pragma unroll
        for (int tile = 0; tile < W::TILES; tile++)
            copy_tile<W, R>(ahead, tile, tile == State::SHARED_TILE, lane, ring[slot]);
        next_unit<W, R, WARPS>(args, ahead, lane);
    }

    wait_for_dependency();
    Tokens tokens = find_tokens < ONE ? 1 : 8 * NT > (args);
    if (tokens.count <= 0) {
        wait_for_copies<0>();
        return;
    }
    using Fetch = FetchActs<W, X, NT, ONE>;
    Fetch fetch;
    ActRows<typename X::In, NT> rows = act_rows<typename X::In, W::WIDE, NT, ONE>(args, tokens, lane);
    fetch.start(rows, W::UNIT_K * min(warp, units - 1), planes, lane); /* a warp without a unit uses none */

    int slot = 0, buffer = 0;
    for (int32_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        typename W::Part part = W::part(args.part[find_block(args, args.glu ? 16 : 16 * R, block).part]);
        float total[R][NT][4] = {};
        for (int32_t unit = warp; unit < units; unit += WARPS) {
            typename W::Slot(&now)[R] = ring[slot];
            State state;
            fetch.enter(rows, W::UNIT_K * unit, W::UNIT_K * (unit + WARPS < units ? unit + WARPS : warp));
#pragma unroll
            for (int b = 0; b < BLOCKS_32; b++) {
                const bool shared = b / PER_TILE == State::SHARED_TILE;
                if (b % PER_TILE == 0) {
                    wait_for_copies<W::AHEAD * W::TILES - 1>();
                    if (shared)
                        __syncwarp(); /* lanes read what others copied */
                }
                if (b == 0) {
                    state.start(part, now, lane);
                    if constexpr (ONE)
#pragma unroll
                        for (int plane = 0; plane < X::PLANES; plane++)
                            if (plane < planes)
                                state.add_acts(fetch.now[plane], plane == 0);
                }
#pragma unroll
                for (int plane = 0; plane < X::PLANES; plane++)
                    if (plane < planes) {
                        Acts x[NT];
                        fetch.take(rows, b, plane, x);
                        state.multiply(b, plane, now, lane, x, total);
                    }
                state.finish(b, now, lane, fetch.unit_of_acts(), total);
                if ((b + 1) % PER_TILE == 0) {
                    if (shared)
                        __syncwarp(); /* nobody reads any more what the copies now replace */
                    copy_tile<W, R>(ahead, b / PER_TILE, shared, lane, now);
                }
            }
            next_unit<W, R, WARPS>(args, ahead, lane);
            slot = slot + 1 < W::AHEAD ? slot + 1 : 0;
        }
#pragma unroll
        for (int n = 0; n < NT; n++) {
            if (8 * n >= tokens.count)
                continue;
            put_sums<R, NT, WARPS, ONE>(sums.value[buffer][warp], total, n, lane);
            __syncthreads();
            store_sums<R, WARPS, ONE>(args, tokens.expert, block, tokens.first + 8 * n,
                                      min(8, tokens.count - 8 * n), sums.value[buffer]);
            buffer ^= 1;
        }
    }
    wait_for_copies<0>();
}

/* Up to 8 NT tokens a block. */
template <class W, class X, int R, int NT, int WARPS>
__device__ __forceinline__ void linear_mma(const struct fmk_linear_kernel_args &args) {
    multiply_all<W, X, R, NT, WARPS, false, typename W::template State<X, R, NT>>(args);
}

/* One token a block. */
template <class W, class X, int R, int WARPS>
__device__ __forceinline__ void linear_mma_one(const struct fmk_linear_kernel_args &args) {
    multiply_all<W, X, R, 1, WARPS, true, typename W::template One<X, R>>(args);
}

#endif
