/* Grouped INT4 for one token, or up to eight, on compute capability 9.0: out = in . W^T over int4.t64,
 * weights as the A operand of mma.m16n8k16. For activations that can be copied as they are, or one token in
 * act-order; the rest is int4_few.cu's.
 *
 * A cluster of one or two blocks computes 64 rows, with K cut in as many shares, and ends. A block's warps
 * take its units in turn; codes go straight to registers, FMK_ONCE_STAGES units ahead, what lanes share of a
 * unit (scales, zero points, activations) to shared memory. The sums of all warps of the cluster are added up
 * in the order of the blocks and warps by the block that stores them.
 *
 * All code runs once or twice: what is not there need not be fetched. */
#include "few.cuh"
#include "once.h"

enum { WARPS = FMK_ONCE_WARPS, THREADS = FMK_ONCE_THREADS, STAGES = FMK_ONCE_STAGES };

/* ---- where a block's work is ---- */

/* Of the row block: a part, and where its data begin. */
struct Place {
    const struct fmk_linear_part *part;
    const uint8_t *data;
    int32_t row;    /* first, in the part */
    int32_t scales; /* bytes of a unit behind its codes */
};

__device__ __forceinline__ Place find_place(const struct fmk_once_args &args, int32_t block) {
    const struct fmk_linear_kernel_args &a = args.linear;
    if (block < args.blocks)
        return Place{&a.part[0],
                     (const uint8_t *)args.data + blockIdx.z * args.expert_stride +
                         (uint64_t)block * args.stride,
                     block * FMK_T64_ROWS, args.scales};
    RowBlock at = find_block(a, FMK_T64_ROWS, block);
    const struct fmk_linear_part &part = a.part[at.part];
    return Place{&part,
                 (const uint8_t *)part.data + (a.expert + blockIdx.z) * part.expert_stride +
                     (uint64_t)(at.row / FMK_T64_ROWS) * part.stride,
                 at.row, (256 >> (part.chunks >> 1)) * (part.has_zeros ? 3 : 2)};
}

/* Which units are a warp's: `first`, and every WARPS'th from there on, below `end`. */
struct Units {
    int32_t first, end;

    __device__ __forceinline__ bool has(int32_t turn) const {
        return first + turn * WARPS < end;
    }
};

/* ---- what is fetched of a unit ---- */

/* A lane's codes: of every panel's two tiles of 64 k. */
struct Codes {
    uint4 of[PANELS][2];
};

__device__ __forceinline__ void load_codes(const uint8_t *unit, int lane, Codes &codes) {
#pragma unroll
    for (int r = 0; r < PANELS; r++)
#pragma unroll
        for (int tile = 0; tile < 2; tile++)
            codes.of[r][tile] = load_stream(unit + FMK_INT4_UNIT_CODES * r + FMK_T16_TILE * tile + 16 * lane);
}

/* Starts copies of its scales and zero points: 192 bytes at most where a unit is one group, else 768. */
template <bool ANY>
__device__ __forceinline__ void copy_scales(const uint8_t *unit, int32_t bytes, int lane, uint8_t *to) {
#pragma unroll
    for (int at = 0; at < (ANY ? 1024 : 512); at += 512)
        if (at + 16 * lane < bytes)
            copy_16_async(to + at + 16 * lane, unit + FMK_T64_CODES + at + 16 * lane);
}

/* A warp's own copying of activations: two tokens at a time, half a warp each. */
template <int TOKENS> struct FetchActs16 {
    const uint16_t *from; /* the lane's 8 of its first token, of the warp's first unit */
    int64_t stride;       /* of two tokens */
    int32_t k, tokens;    /* columns that are there from `from` on; tokens from the lane's first on */

    __device__ __forceinline__ void copy(int32_t turn, int lane, uint8_t *to) const {
        const int32_t at = turn * (WARPS * UNIT_K);
#pragma unroll
        for (int i = 0; i < TOKENS; i += 2)
            if (i < tokens)
                copy_16_async(to + i * FMK_ONCE_PITCH + lane / 16 * FMK_ONCE_PITCH + 16 * (lane % 16),
                              from + i / 2 * stride + at, at < k);
    }
};

/* ---- act-order, one token ---- */

/* Puts the activations of a warp's units in order: unit by unit behind one another at `to`. `row` is the
 * block's copy of all of them, which the block makes first. */
__device__ __forceinline__ void order_acts(const struct fmk_once_args &args, const uint16_t *in,
                                           int32_t expert, const Units &units, int lane, uint8_t *row,
                                           uint8_t *to) {
    const int4 *index =
        (const int4 *)(args.linear.part[0].k_index + (int64_t)expert * args.units * UNIT_K) + lane;
    for (int32_t k = 8 * (int32_t)threadIdx.x; k < args.k; k += 8 * THREADS)
        copy_16_async(row + 2 * k, in + k);
    end_copies();
    int4 at = units.has(0) ? index[units.first * (UNIT_K / 4)] : make_int4(-1, -1, -1, -1);
    wait_for_copies<0>();
    __syncthreads();
    const uint16_t *x = (const uint16_t *)row;
    for (int32_t turn = 0; units.has(turn); turn++) {
        const int4 now = at;
        if (units.has(turn + 1))
            at = index[(units.first + (turn + 1) * WARPS) * (UNIT_K / 4)];
        const uint16_t h[4] = {now.x >= 0 ? x[now.x] : (uint16_t)0, now.y >= 0 ? x[now.y] : (uint16_t)0,
                               now.z >= 0 ? x[now.z] : (uint16_t)0, now.w >= 0 ? x[now.w] : (uint16_t)0};
        *(uint2 *)(to + 2 * UNIT_K * turn + 8 * lane) = make_uint2(pair_of(h[0], h[1]), pair_of(h[2], h[3]));
    }
    __syncwarp();
}

/* ---- a unit ---- */

/* One token's sum over the 32 k of block t = lane % 4: column n of B is step n of the unit, and two columns
 * are a block. */
template <class X> __device__ __forceinline__ float sum_of_block(uint32_t acts, int lane) {
    const uint32_t ones[4] = {X::ONES, X::ONES, X::ONES, X::ONES};
    const float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    uint32_t b[2];
    float sum[4];
    load_two_matrices(acts + 32 * (lane % 8) + 16 * (lane / 8 % 2), b);
    X::mma(sum, ones, b[0], b[1], zero);
    return sum[0] + sum[1];
}

/* total += what a unit comes to. `acts`: of the first token, in shared memory; `row`: the lane's offset there
 * for ldmatrix. */
template <class X, int TOKENS, bool ANY>
__device__ __forceinline__ void multiply_unit(const struct fmk_linear_part &part, const Codes &codes,
                                              const uint8_t *scales, uint32_t acts, uint32_t row, int lane,
                                              float (&total)[PANELS][1][4]) {
    constexpr int COLUMNS = TOKENS == 1 ? 1 : 2;
    const int shift = ANY ? part.chunks >> 1 : 2;
    const uint8_t *unit = scales - FMK_T64_CODES;
    float acc[PANELS][1][4], sum[1][4], block = 0.0f;
    if (TOKENS == 1)
        block = sum_of_block<X>(acts, lane);
    if (TOKENS == 1 && !ANY) {
        block += __shfl_xor_sync(0xffffffff, block, 1);
        sum[0][0] = block + __shfl_xor_sync(0xffffffff, block, 2);
    }
#pragma unroll
    for (int b = 0; b < UNIT_K / 32; b++) {
        const bool first = ANY || b == 0;
        Acts x;
        load_matrices(acts + row + 64 * b, x.b);
        if (TOKENS > 1)
            sum_acts<X>(sum[0], x, first);
#pragma unroll
        for (int step = 0; step < 2; step++)
#pragma unroll
            for (int r = 0; r < PANELS; r++) {
                uint32_t a[4];
                X::unpack(word_of(codes.of[r][b / 2], b % 2 * 2 + step), a);
                if (first && step == 0)
                    mma_first<X>(acc[r][0], a, x, step);
                else
                    mma_add<X>(acc[r][0], a, x, step);
            }
        if (!ANY && b + 1 < UNIT_K / 32)
            continue;
        if (TOKENS == 1 && ANY)
            sum[0][0] = __shfl_sync(0xffffffff, block, lane / 4 * 4 + b);
        add_group<X, 1, COLUMNS>(load_group(part, unit, ANY ? b >> shift : 0, shift, lane / 4), part.dtype,
                                 acc, sum, total);
    }
}

/* ---- sums ---- */

/* The sums of a cluster's warps meet in the block that stores them: rows with g = row % 8 in block
 * g >> 3 - shift, where they lie as [rank][warp][token][half of a panel][g][panel]. */
template <int TOKENS> struct Meeting {
    uint8_t *sums;
    uint32_t barrier; /* the other blocks' sums have come */
    int32_t rank, shift;

    __device__ __forceinline__ int own_rows() const { /* of eight */
        return 8 >> shift;
    }
    __device__ __forceinline__ int32_t bytes_of_warp() const {
        return TOKENS * 256 >> shift;
    }
    /* The panels of one row of eight. */
    __device__ __forceinline__ int32_t place(int warps, int token, int half, int g) const {
        return warps * bytes_of_warp() + ((2 * token + half) * own_rows() + (g & (own_rows() - 1))) * 16;
    }

    __device__ __forceinline__ void begin() const {
        mbarrier_init(barrier, 1);
        fence_mbarrier_init();
        mbarrier_arrive_expecting(barrier, (uint32_t)(((1 << shift) - 1) * WARPS * bytes_of_warp()));
    }

    __device__ __forceinline__ void put(const float (&total)[PANELS][1][4], int warp, int lane) const {
        const int g = lane / 4, t = lane % 4, owner = g >> (3 - shift);
        if (shift)
            cluster_wait(); /* its barrier is there */
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int c = 0; c < (TOKENS == 1 ? 1 : 2); c++) {
                if (TOKENS == 1 && t)
                    continue;
                const int i = 2 * half + c;
                const float4 v = make_float4(total[0][0][i], total[1][0][i], total[2][0][i], total[3][0][i]);
                uint8_t *to =
                    sums + place((rank << (3 /* WARPS */)) + warp, TOKENS == 1 ? 0 : 2 * t + c, half, g);
                if (owner == rank)
                    *(float4 *)to = v;
                else
                    store_4_floats_to((uint32_t)owner, shared_address(to), v, barrier);
            }
        __syncthreads();
        if (shift)
            mbarrier_wait(barrier, 0);
    }

    /* Of the row `row` of the row block, one of the block's own. */
    __device__ __forceinline__ float take(int token, int row) const {
        const float *at = (const float *)(sums + place(0, token, row / 8 % 2, row % 8)) + row / 16;
        float total = 0.0f;
#pragma unroll 1
        for (int r = 0; r < 1 << shift; r++) {
            float each[WARPS];
#pragma unroll
            for (int w = 0; w < WARPS; w++, at += bytes_of_warp() / 4)
                each[w] = *at;
#pragma unroll
            for (int w = 0; w < WARPS; w++)
                total += each[w];
        }
        return total;
    }
};

template <int TOKENS>
__device__ __forceinline__ void store_sums(const struct fmk_once_args &args, const Meeting<TOKENS> &meeting,
                                           const Place &place, int32_t first, int32_t tokens) {
    const struct fmk_linear_kernel_args &a = args.linear;
    const int32_t own = meeting.own_rows();
#pragma unroll 1
    for (int32_t i = threadIdx.x; i < tokens << (6 - meeting.shift); i += THREADS) {
        const int32_t token = i >> (6 - meeting.shift), eight = i >> (3 - meeting.shift) & 7;
        const int32_t row = 8 * eight + meeting.rank * own + (i & (own - 1));
        const float sum = meeting.take(token, row);
        if (args.bare) {
            if (place.row + row < args.bare)
                store_number(args.out, args.out_type, (first + token) * args.out_stride + place.row + row,
                             sum);
            continue;
        }
        const struct fmk_epilogue_args &e = a.epilogue;
        const struct fmk_linear_part &part = *place.part;
        if (place.row + row >= part.n)
            continue;
        finish(e, (char *)e.out + blockIdx.z * a.expert_out_stride * number_size(e.out_type), first + token,
               part.column + place.row + row,
               sum + bias_at(part, a.expert + (int32_t)blockIdx.z, place.row + row));
    }
}

/* ---- the kernel ---- */

/* X: how codes become numbers; ANY: of the group sizes; ORDER: one token in act-order. */
template <class X, int TOKENS, bool ANY, bool ORDER>
__device__ __forceinline__ void linear_once(const struct fmk_once_args &args) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    allow_dependents();
    uint8_t *shared = dynamic_shared(), *stages = shared + FMK_ONCE_BARRIER + warp * STAGES * args.stage;
    const int32_t shift = args.ranks_shift, rank = shift ? (int32_t)cluster_rank() : 0;
    const Meeting<TOKENS> meeting = {shared + args.at_sums, shared_address(shared), rank, shift};
    const Place place = find_place(args, (int32_t)blockIdx.x >> shift);
    const Units units = {rank * args.share + warp, min((rank + 1) * args.share, args.units)};
    const int32_t unit_bytes = FMK_T64_CODES + place.scales;
    const uint8_t *from = place.data + (int64_t)units.first * unit_bytes;

    const int32_t first = args.first_row + TOKENS * (int32_t)blockIdx.y;
    const int32_t expert = args.linear.expert + (int32_t)blockIdx.z;
    const uint16_t *in =
        (const uint16_t *)args.in + blockIdx.z * args.expert_in_stride + first * args.in_stride;
    FetchActs16<TOKENS> acts = {in + lane / 16 * args.in_stride + units.first * UNIT_K + 8 * (lane % 16),
                                2 * args.in_stride, args.k - units.first * UNIT_K - 8 * (lane % 16), 0};
    uint8_t *ordered = shared + args.at_acts + warp * 2 * UNIT_K * ((args.share + WARPS - 1) / WARPS);
    int32_t tokens = 0;
    Codes codes[STAGES];

    auto fetch_acts = [&]() {
        wait_for_dependency();
        const int32_t m = args.m_dev ? min(args.m, max(*args.m_dev, 0)) : args.m;
        tokens = min(TOKENS, m - first);
        acts.tokens = tokens - lane / 16;
        if (ORDER) {
            if (tokens > 0)
                order_acts(args, in, expert, units, lane, shared + args.at_row, ordered);
            return;
        }
#pragma unroll
        for (int s = 0; s < STAGES; s++)
            if (units.has(s))
                acts.copy(s, lane, stages + s * args.stage + args.stage - TOKENS * FMK_ONCE_PITCH);
    };
    if (TOKENS > 1 && args.acts_first)
        fetch_acts();
#pragma unroll
    for (int s = 0; s < STAGES; s++)
        if (units.has(s)) {
            load_codes(from + s * (WARPS * unit_bytes), lane, codes[s]);
            copy_scales<ANY>(from + s * (WARPS * unit_bytes), place.scales, lane, stages + s * args.stage);
        }
    if (shift) {
        if (threadIdx.x == 0)
            meeting.begin();
        __syncwarp();
        cluster_arrive();
    }
    if (TOKENS == 1 || !args.acts_first)
        fetch_acts();
#pragma unroll
    for (int s = 0; s < STAGES; s++)
        end_copies(); /* all in the first group */
    if (tokens <= 0) {
        if (shift)
            cluster_wait();
        wait_for_copies<0>();
        return;
    }

    const uint32_t row = (uint32_t)(min(lane % 8, tokens - 1) * FMK_ONCE_PITCH + lane / 8 * 16);
    float total[PANELS][1][4] = {};
    for (int32_t turn = 0; units.has(turn); turn += STAGES) {
#pragma unroll
        for (int s = 0; s < STAGES; s++) {
            if (!units.has(turn + s))
                break;
            uint8_t *scales = stages + s * args.stage;
            uint8_t *at = scales + args.stage - TOKENS * FMK_ONCE_PITCH;
            wait_for_copies<STAGES - 1>();
            __syncwarp();
            multiply_unit<X, TOKENS, ANY>(*place.part, codes[s], scales,
                                          shared_address(ORDER ? ordered + 2 * UNIT_K * (turn + s) : at), row,
                                          lane, total);
            __syncwarp();
            const int32_t next = turn + s + STAGES;
            if (units.has(next)) {
                load_codes(from + next * (WARPS * unit_bytes), lane, codes[s]);
                copy_scales<ANY>(from + next * (WARPS * unit_bytes), place.scales, lane, scales);
                if (!ORDER)
                    acts.copy(next, lane, at);
            }
            end_copies();
        }
    }
    meeting.put(total, warp, lane);
    store_sums<TOKENS>(args, meeting, place, first, tokens);
}

extern "C" __global__ __launch_bounds__(THREADS, 2) void once_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, false, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, false, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, false, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, false, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, false, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, false, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, true, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, true, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, true, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, true, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, true, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, true, true>(args);
}
