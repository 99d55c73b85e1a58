/* out = in . W^T on tensor cores, weights as the A operand of mma.m16n8k16: 16 weight rows by 8 tokens.
 *
 * A block computes 16 R weight rows by 8 NT tokens over all of K. Its eight warps take K's units in turn;
 * each lane loads its own fragments of the weights straight to registers, a number of units ahead. At the end
 * of a row block the warps' sums meet in shared memory and are added up in the order of the warps. A block
 * walks over several row blocks, so that the loads of the next are under way while the sums of the last are
 * made.
 *
 * An output's sums are made in an order that depends on K alone: neither on m nor on the token's place.
 *
 * A family brings a struct W:
 *     UNIT_K                   k of a unit, a multiple of 32
 *     AHEAD                    units in flight
 *     WIDE                     a lane's activations of 32 k: 8 neighbours, or twice 4 (kernels/layout.h)
 *     Codes, Header            what a lane loads of a unit
 *     Part                     what it wants to know of a part, made by part(args, k, row, lane)
 *     unit_bytes(part)
 *     row_block(part, data, row, lane)   where the lane's units of 16 rows begin
 *     load(part, from, unit, b, lane, codes)   of the unit at `from`, what is read last in its 32-k block b
 *     load_header(part, from, lane)
 *     State<X, R, NT>          what lives as long as a unit: start(part, header, from, lane), multiply(b,
 * codes, acts, total) adds 32 k of one plane, finish(b, total) ends the block */
#ifndef FMK_KERNELS_LINEAR_MMA_CUH
#define FMK_KERNELS_LINEAR_MMA_CUH

#include "epilogue.cuh"

/* Codes 0..63 in the low bits of 16-bit halves become numbers that mma multiplies exactly. */
struct F16 {
    /* As f16 denormals they are codes times 2^-24 without any arithmetic. */
    static constexpr float CODE_UNIT = 16777216.0f;
    static constexpr bool MANY_PLANES = false;
    static constexpr uint32_t ONES = 0x3c003c00, MINUS_32_CODES = 0x80208020;
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
    static constexpr float CODE_UNIT = 1.0f;
    static constexpr bool MANY_PLANES = true; /* wider activations come as a sum of bf16 matrices */
    static constexpr uint32_t ONES = 0x3f803f80, MINUS_32_CODES = 0xc200c200;
    static __device__ __forceinline__ uint32_t codes(uint32_t bits) {
        return sub_bf16x2(bits | 0x43004300, 0x43004300);
    }
    static __device__ __forceinline__ void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
                                               const float c[4]) {
        mma_bf16(d, a, b0, b1, c);
    }
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

/* A word of nibbles as the A fragment of one step. */
template <class X> __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = X::codes(word >> 4 * i & 0x000f000f);
}

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Which tokens a block computes, and of which expert. */
struct Tokens {
    int32_t expert, first, count;
};

/* Where a lane finds the activations of its tokens. */
template <int NT> struct ActRows {
    const uint16_t *row[NT]; /* NULL: no such token */
    int32_t k;
    int64_t plane_stride;
};

template <int NT>
__device__ __forceinline__ ActRows<NT> act_rows(const struct fmk_linear_kernel_args &args,
                                                const Tokens &tokens, int lane) {
    ActRows<NT> rows;
    const uint16_t *in = (const uint16_t *)args.in + blockIdx.z * args.expert_in_stride;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        int token = 8 * n + lane / 4;
        rows.row[n] = nullptr;
        if (token < tokens.count) {
            int64_t row = tokens.first + token;
            rows.row[n] = in + (args.in_rows ? args.in_rows[row] : row) * args.in_stride;
        }
    }
    rows.k = args.k;
    rows.plane_stride = args.plane_stride;
    return rows;
}

template <bool WIDE, int NT>
__device__ __forceinline__ void load_acts(const ActRows<NT> &rows, int32_t k, int plane, int lane,
                                          Acts acts[NT]) {
    int t = lane % 4;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        uint4 v = make_uint4(0, 0, 0, 0);
        const uint16_t *row = rows.row[n] + plane * rows.plane_stride + k;
        if (WIDE) {
            if (rows.row[n] && k + 8 * t < rows.k)
                v = load_16(row + 8 * t);
        } else if (rows.row[n] && k < rows.k) { /* narrow families have whole super-blocks */
            uint2 low = load_8(row + 4 * t), high = load_8(row + 16 + 4 * t);
            v = make_uint4(low.x, low.y, high.x, high.y);
        }
        acts[n] = Acts{{v.x, v.y, v.z, v.w}};
    }
}

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
    typename W::Part part[R];
    int32_t block, unit; /* row block; unit along K */
};

template <class W, int R>
__device__ __forceinline__ void enter_block(const struct fmk_linear_kernel_args &args, int32_t expert,
                                            Cursor<W, R> &cursor, int warp, int lane) {
    int32_t rows = args.glu ? 16 : 16 * R;
    RowBlock at = find_block(args, rows, cursor.block);
    cursor.unit = warp;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const struct fmk_linear_part &part = args.part[args.glu ? r : at.part];
        int32_t row = args.glu ? at.row : min(at.row + 16 * r, (part.n - 1) / 16 * 16);
        cursor.part[r] = W::part(part, args.k, row, lane);
        const uint8_t *data = (const uint8_t *)part.data + (uint64_t)expert * part.expert_stride;
        cursor.from[r] = W::row_block(part, data, row, lane) + (int64_t)warp * W::unit_bytes(cursor.part[r]);
    }
}

template <class W, int R>
__device__ __forceinline__ void next_unit(const struct fmk_linear_kernel_args &args, int32_t expert,
                                          int32_t units, int32_t blocks, Cursor<W, R> &cursor, int warp,
                                          int lane) {
    cursor.unit += FMK_MMA_WARPS;
    if (cursor.unit < units) {
#pragma unroll
        for (int r = 0; r < R; r++)
            cursor.from[r] += FMK_MMA_WARPS * W::unit_bytes(cursor.part[r]);
        return;
    }
    cursor.block += gridDim.x;
    if (cursor.block < blocks)
        enter_block<W, R>(args, expert, cursor, warp, lane);
}

/* What a family may want to look up when a unit's turn has come. */
template <class W, int R> struct Place {
    const uint8_t *from[R];
    typename W::Part part[R];

    __device__ __forceinline__ Place() {}
    __device__ __forceinline__ explicit Place(const Cursor<W, R> &cursor) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            from[r] = cursor.from[r];
            part[r] = cursor.part[r];
        }
    }
};

/* ---- sums of the warps ---- */

template <int R, int NT> struct Sums {
    static constexpr int ROWS = 16 * R, TOKENS = 8 * NT, PITCH = ROWS + 4;
    static constexpr int BUFFERS = NT <= 2 ? 2 : 1; /* two: the next block's sums may arrive while these are
                                                       added up */
    float value[BUFFERS][FMK_MMA_WARPS][TOKENS][PITCH];
};

template <int R, int NT>
__device__ __forceinline__ void put_sums(float (*to)[Sums<R, NT>::PITCH], const float total[R][NT][4],
                                         int lane) {
    int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[8 * n + 2 * t + i % 2][16 * r + g + i / 2 * 8] = total[r][n][i];
}

template <int R, int NT>
__device__ __forceinline__ float add_sums(const float (*from)[8 * NT][Sums<R, NT>::PITCH], int token,
                                          int row) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < FMK_MMA_WARPS; w++)
        sum += from[w][token][row];
    return sum;
}

__device__ __forceinline__ float bias_at(const struct fmk_linear_part &part, int32_t expert, int32_t row) {
    return part.bias ? part.bias[(int64_t)expert * part.n + row] : 0.0f;
}

template <int R, int NT>
__device__ __forceinline__ void store_block(const struct fmk_linear_kernel_args &args, const Tokens &tokens,
                                            int32_t block, const float (*sums)[8 * NT][Sums<R, NT>::PITCH]) {
    const struct fmk_epilogue_args &e = args.epilogue;
    void *out = (char *)e.out + blockIdx.z * args.expert_out_stride * number_size(e.out_type);
    const int shift = args.glu || R == 1 ? 4 : 5;
    RowBlock at = find_block(args, 1 << shift, block);
    const struct fmk_linear_part &part = args.part[at.part];
    for (int i = threadIdx.x; i < tokens.count << shift; i += 32 * FMK_MMA_WARPS) {
        int r = i & ((1 << shift) - 1), token = i >> shift;
        int32_t row = at.row + r;
        if (row >= part.n)
            continue;
        int64_t number = tokens.first + token;
        int64_t out_row = args.out_rows ? args.out_rows[number] : number;
        float t = add_sums<R, NT>(sums, token, r) + bias_at(part, tokens.expert, row);
        if (args.glu) {
            float up =
                add_sums<R, NT>(sums, token, 16 * (R - 1) + r) + bias_at(args.part[1], tokens.expert, row);
            finish_glu(e, out, out_row, row, t, up);
        } else {
            finish(e, out, out_row, part.column + row, t);
        }
    }
}

/* ---- the kernel ---- */

template <int NT> __device__ __forceinline__ Tokens find_tokens(const struct fmk_linear_kernel_args &args) {
    if (args.tiles) {
        struct fmk_token_tile tile = args.tiles[blockIdx.y];
        return Tokens{tile.expert, tile.first, tile.count};
    }
    int32_t m = args.m;
    if (args.m_dev)
        m = min(m, *args.m_dev);
    int32_t first = args.first_row + 8 * NT * (int32_t)blockIdx.y;
    return Tokens{args.expert + (int32_t)blockIdx.z, first, min(8 * NT, m - first)};
}

template <class W, class X, int R, int NT>
__device__ __forceinline__ void linear_mma(const struct fmk_linear_kernel_args &args) {
    __shared__ Sums<R, NT> sums;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int32_t blocks = count_blocks(args, args.glu ? 16 : 16 * R);
    const int32_t units = (args.k_packed + W::UNIT_K - 1) / W::UNIT_K;
    const int32_t planes = X::MANY_PLANES ? args.planes : 1;
    constexpr int BLOCKS_32 = W::UNIT_K / 32;
    allow_dependents();

    /* Weights do not depend on the kernel before, but which ones are wanted may. */
    int32_t expert = args.expert + (int32_t)blockIdx.z;
    if (args.tiles) {
        wait_for_dependency();
        if (!args.tiles[blockIdx.y].count)
            return;
        expert = args.tiles[blockIdx.y].expert;
    }

    typename W::Codes codes[W::AHEAD][R];
    typename W::Header header[W::AHEAD][R];
    Place<W, R> place[W::AHEAD];
    Cursor<W, R> ahead; /* of the loads */
    ahead.block = blockIdx.x;
    bool more = warp < units && ahead.block < blocks; /* for `ahead` to load */
    if (more)
        enter_block<W, R>(args, expert, ahead, warp, lane);
#pragma unroll
    for (int slot = 0; slot < W::AHEAD; slot++) {
        if (!more)
            continue;
#pragma unroll
        for (int r = 0; r < R; r++) {
            header[slot][r] = W::load_header(ahead.part[r], ahead.from[r], lane);
#pragma unroll
            for (int b = 0; b < BLOCKS_32; b++)
                W::load(ahead.part[r], ahead.from[r], ahead.unit, b, lane, codes[slot][r]);
        }
        place[slot] = Place<W, R>(ahead);
        next_unit<W, R>(args, expert, units, blocks, ahead, warp, lane);
        more = ahead.block < blocks;
    }

    wait_for_dependency();
    Tokens tokens = find_tokens<NT>(args);
    if (tokens.count <= 0)
        return;
    ActRows<NT> rows = act_rows<NT>(args, tokens, lane);
    Acts acts[NT];
    load_acts<W::WIDE, NT>(rows, W::UNIT_K * warp, 0, lane, acts);

    float total[R][NT][4] = {};
    int32_t block = blockIdx.x, unit = warp;
    int buffer = 0, slot_now = 0;
    while (block < blocks) {
#pragma unroll
        for (int slot = 0; slot < W::AHEAD; slot++) {
            if (slot != slot_now || unit >= units)
                continue;
            typename W::template State<X, R, NT> state;
            state.start(place[slot].part, header[slot], place[slot].from, lane);
            if (more) {
#pragma unroll
                for (int r = 0; r < R; r++)
                    header[slot][r] = W::load_header(ahead.part[r], ahead.from[r], lane);
            }
            int32_t unit_after = unit + FMK_MMA_WARPS < units ? unit + FMK_MMA_WARPS : warp;
#pragma unroll
            for (int b = 0; b < BLOCKS_32; b++) {
                for (int plane = 0; plane < planes; plane++) {
                    Acts now[NT];
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        now[n] = acts[n];
                    int32_t k = W::UNIT_K * unit + 32 * b;
                    if (plane + 1 < planes)
                        load_acts<W::WIDE, NT>(rows, k, plane + 1, lane, acts);
                    else if (b + 1 < BLOCKS_32)
                        load_acts<W::WIDE, NT>(rows, k + 32, 0, lane, acts);
                    else
                        load_acts<W::WIDE, NT>(rows, W::UNIT_K * unit_after, 0, lane, acts);
                    state.multiply(b, plane, codes[slot], now, total);
                }
                state.finish(b, total);
                if (more) {
#pragma unroll
                    for (int r = 0; r < R; r++)
                        W::load(ahead.part[r], ahead.from[r], ahead.unit, b, lane, codes[slot][r]);
                }
            }
            if (more) {
                place[slot] = Place<W, R>(ahead);
                next_unit<W, R>(args, expert, units, blocks, ahead, warp, lane);
                more = ahead.block < blocks;
            }
            unit += FMK_MMA_WARPS;
            slot_now = slot + 1 < W::AHEAD ? slot + 1 : 0;
        }
        if (unit < units)
            continue;
        unit = warp;
        put_sums<R, NT>(sums.value[buffer][warp], total, lane);
        __syncthreads();
        store_block<R, NT>(args, tokens, block, sums.value[buffer]);
        if (Sums<R, NT>::BUFFERS == 1)
            __syncthreads();
        else
            buffer ^= 1;
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    total[r][n][i] = 0.0f;
        block += gridDim.x;
    }
}

#endif
