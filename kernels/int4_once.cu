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

/* ---- what is fetched of a unit ---- */

/* Of units: one group each, without zero points, scales in the type of the activations; one group each; any
 * groups. */
enum Kind { USUAL, GROUP, ANY };

/* Whether what is behind the codes is in registers; else in shared memory. */
template <int TOKENS, Kind KIND> constexpr bool OWN_SCALES = KIND == USUAL &&TOKENS == 1;

/* A lane's codes, of every panel's two tiles of 64 k; and scales, if OWN_SCALES. */
struct Bits {
    uint4 codes[PANELS][2], scales;
};

/* A warp's units, one by one. `left` is negative when all have been fetched. */
template <int TOKENS, Kind KIND> struct Feed {
    const uint8_t *unit; /* the lane's first byte of the next unit */
    uint32_t acts;       /* bytes from the tile's first token to the lane's first 8 activations of the next
                            unit; half a warp fetches a token's */
    uint32_t to;         /* offset in shared memory of the same, in the warp's first stage */
    int32_t scales;      /* bytes of a unit behind its codes */
    int32_t k, tokens;   /* that are there, from the lane's first on */
    int32_t left;

    __device__ __forceinline__ void fetch_bits(int lane, uint8_t *to, Bits &bits) const {
#pragma unroll
        for (int r = 0; r < PANELS; r++)
#pragma unroll
            for (int tile = 0; tile < 2; tile++)
                bits.codes[r][tile] = load_stream(unit + FMK_INT4_UNIT_CODES * r + FMK_T16_TILE * tile);
        const uint8_t *shared = unit + FMK_T64_CODES;
        if (OWN_SCALES<TOKENS, KIND>) {
            bits.scales = load_stream(shared + 16 * (lane / 4) - 16 * lane);
            return;
        }
#pragma unroll
        for (int at = 0; at < (KIND == ANY ? 1024 : 512); at += 512) /* up to 768 bytes, or 192 */
            if (at + 16 * lane < (KIND == USUAL ? 128 : scales))
                copy_16_async(to + at + 16 * lane, shared + at);
    }

    /* `stride` in bytes. */
    __device__ __forceinline__ void fetch_acts(const uint8_t *in, int64_t stride, int32_t stage) const {
#pragma unroll
        for (int i = 0; i < TOKENS; i += 2)
            if (i < tokens)
                copy_16_async(dynamic_shared() + (to + stage + i * FMK_ONCE_PITCH), in + i * stride + acts,
                              k > 0);
    }

    __device__ __forceinline__ void next() {
        unit += WARPS * (FMK_T64_CODES + (KIND == USUAL ? 128 : scales));
        acts += 2 * WARPS * UNIT_K;
        k -= WARPS * UNIT_K;
        left -= WARPS;
    }
};

/* ---- act-order, one token ---- */

/* Its activations are copied as they are, by all of the block, and put in order from there. */
struct Order {
    const int4 *index; /* the lane's of the warp's first unit */
    int32_t units;     /* of the warp */
    int4 first;
    uint8_t *row, *to; /* of the block: all; of the warp: its units' behind one another */

    __device__ __forceinline__ void load_index() {
        if (units > 0)
            first = index[0];
    }

    __device__ __forceinline__ void begin(const uint16_t *in, int32_t count) const {
        for (int32_t k = 8 * (int32_t)threadIdx.x; k < count; k += 8 * THREADS)
            copy_16_async(row + 2 * k, in + k);
        end_copies();
    }

    __device__ __forceinline__ void end(int lane) const {
        wait_for_copies<0>();
        __syncthreads();
        const uint16_t *x = (const uint16_t *)row;
        int4 ahead = first;
        for (int32_t unit = 0; unit < units; unit++) {
            const int4 at = ahead;
            if (unit + 1 < units)
                ahead = index[(unit + 1) * (WARPS * UNIT_K / 4)];
            const uint16_t h[4] = {at.x >= 0 ? x[at.x] : (uint16_t)0, at.y >= 0 ? x[at.y] : (uint16_t)0,
                                   at.z >= 0 ? x[at.z] : (uint16_t)0, at.w >= 0 ? x[at.w] : (uint16_t)0};
            *(uint2 *)(to + 2 * UNIT_K * unit + 8 * lane) =
                make_uint2(pair_of(h[0], h[1]), pair_of(h[2], h[3]));
        }
        __syncwarp();
    }
};

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

/* As add_group, of scales in the type of the activations and zero points of 8. */
template <class X, int COLUMNS>
__device__ __forceinline__ void add_symmetric(const uint4 &scales, const float (&acc)[PANELS][1][4],
                                              const float (&sum)[1][4], float (&total)[PANELS][1][4]) {
#pragma unroll
    for (int r = 0; r < PANELS; r++) {
        float scale[2];
        split_pair(word_of(scales, r), X::TYPE, scale);
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                float value = fmaf(acc[r][0][2 * i + c], X::code_unit(i), -(8.0f + X::BIAS) * sum[0][c]);
                total[r][0][2 * i + c] = fmaf(scale[i], value, total[r][0][2 * i + c]);
            }
    }
}

/* total += what a unit comes to. `shared` is where its scales and zero points lie, unless OWN_SCALES; `acts`
 * where the activations of the first token do, `row` the lane's offset there for ldmatrix. */
template <class X, int TOKENS, Kind KIND>
__device__ __forceinline__ void multiply_unit(const struct fmk_linear_part &part, const Bits &bits,
                                              const uint8_t *shared, uint32_t acts, uint32_t row, int lane,
                                              float (&total)[PANELS][1][4]) {
    constexpr int COLUMNS = TOKENS == 1 ? 1 : 2;
    const int shift = KIND == ANY ? part.chunks >> 1 : 2;
    float acc[PANELS][1][4], sum[1][4], block = 0.0f;
    if (TOKENS == 1)
        block = sum_of_block<X>(acts, lane);
    if (TOKENS == 1 && KIND != ANY) {
        block += __shfl_xor_sync(0xffffffff, block, 1);
        sum[0][0] = block + __shfl_xor_sync(0xffffffff, block, 2);
    }
#pragma unroll
    for (int b = 0; b < UNIT_K / 32; b++) {
        const bool first = KIND == ANY || b == 0;
        Acts x;
        load_matrices(acts + row + 64 * b, x.b);
        if (TOKENS > 1)
            sum_acts<X>(sum[0], x, first);
#pragma unroll
        for (int step = 0; step < 2; step++)
#pragma unroll
            for (int r = 0; r < PANELS; r++) {
                uint32_t a[4];
                X::unpack(word_of(bits.codes[r][b / 2], b % 2 * 2 + step), a);
                if (first && step == 0)
                    mma_first<X>(acc[r][0], a, x, step);
                else
                    mma_add<X>(acc[r][0], a, x, step);
            }
        if (KIND != ANY && b + 1 < UNIT_K / 32)
            continue;
        if (KIND == USUAL) {
            add_symmetric<X, COLUMNS>(
                OWN_SCALES<TOKENS, KIND> ? bits.scales : load_16(shared + 16 * (lane / 4)), acc, sum, total);
            continue;
        }
        if (KIND == ANY && TOKENS == 1)
            sum[0][0] = __shfl_sync(0xffffffff, block, lane / 4 * 4 + b);
        const GroupBits group =
            load_group(part, shared - FMK_T64_CODES, KIND == ANY ? b >> shift : 0, shift, lane / 4);
        if (!part.has_zeros && part.dtype == X::TYPE)
            add_symmetric<X, COLUMNS>(group.scales, acc, sum, total);
        else
            add_group<X, 1, COLUMNS>(group, part.dtype, acc, sum, total);
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
                uint8_t *to = sums + place(rank * WARPS + warp, TOKENS == 1 ? 0 : 2 * t + c, half, g);
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

/* X: how codes become numbers; ORDER: one token in act-order. */
template <class X, int TOKENS, Kind KIND, bool ORDER>
__device__ __forceinline__ void linear_once(const struct fmk_once_args &args) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    allow_dependents();
    const int32_t shift = args.ranks_shift, rank = shift ? (int32_t)cluster_rank() : 0;
    const Place place = find_place(args, (int32_t)blockIdx.x >> shift);
    const int32_t unit = rank * args.share + warp, first = args.first_row + TOKENS * (int32_t)blockIdx.y;
    const int32_t unit_bytes = FMK_T64_CODES + (KIND == USUAL ? 128 : place.scales);
    const int64_t stride = 2 * args.in_stride;
    const uint8_t *in = (const uint8_t *)args.in + 2 * blockIdx.z * args.expert_in_stride + first * stride;
    Feed<TOKENS, KIND> feed;
    feed.unit = place.data + (int64_t)unit * unit_bytes + 16 * lane;
    feed.acts = not_before_here((uint32_t)(lane / 16 * stride) + 2 * (unit * UNIT_K + 8 * (lane % 16)));
    feed.scales = place.scales;
    feed.k = args.k - unit * UNIT_K - 8 * (lane % 16);
    feed.left = min((rank + 1) * args.share, args.units) - unit - 1;

    uint8_t *shared = dynamic_shared();
    const int32_t at_stages = FMK_ONCE_BARRIER + warp * STAGES * args.stage;
    const int32_t at_acts = args.stage - TOKENS * FMK_ONCE_PITCH; /* in a stage */
    feed.to =
        not_before_here((uint32_t)(at_stages + at_acts + lane / 16 * FMK_ONCE_PITCH + 16 * (lane % 16)));
    uint8_t *stages = shared + at_stages;
    Order order;
    if (ORDER) {
        order.units = (feed.left + WARPS) / WARPS;
        order.index = (const int4 *)(args.linear.part[0].k_index +
                                     (int64_t)(args.linear.expert + blockIdx.z) * args.units * UNIT_K) +
                      unit * (UNIT_K / 4) + lane;
        order.row = shared + args.at_row;
        order.to = shared + args.at_acts + warp * 2 * UNIT_K * ((args.share + WARPS - 1) / WARPS);
        order.load_index();
    }
    int32_t tokens = 0;
    auto begin_acts = [&]() {
        wait_for_dependency();
        const int32_t m = args.m_dev ? min(args.m, max(*args.m_dev, 0)) : args.m;
        tokens = min(TOKENS, m - first);
        feed.tokens = tokens - lane / 16;
        if (ORDER && tokens > 0)
            order.begin((const uint16_t *)in, args.k);
    };
    auto fetch_acts = [&]() { /* of the first units, in one group */
                              Feed<TOKENS, KIND> now = feed;
#pragma unroll
                              for (int s = 0; s < STAGES && !ORDER; s++, now.next())
                                  if (now.left >= 0)
                                      now.fetch_acts(in, stride, s * args.stage);
    };
    const bool acts_first = ORDER && args.acts_first; /* putting them in order takes time */
    if (acts_first) {
        begin_acts();
        fetch_acts();
    }
    Bits bits[STAGES];
    Feed<TOKENS, KIND> ahead = feed;
#pragma unroll
    for (int s = 0; s < STAGES; s++, ahead.next())
        if (ahead.left >= 0)
            ahead.fetch_bits(lane, stages + s * args.stage, bits[s]);
    const Meeting<TOKENS> meeting = {shared + args.at_sums, shared_address(shared), rank, shift};
    if (shift) {
        if (threadIdx.x == 0)
            meeting.begin();
        __syncwarp();
        cluster_arrive();
    }
    if (!acts_first) {
        begin_acts();
        fetch_acts();
    }
    ahead.tokens = feed.tokens;
#pragma unroll
    for (int s = 0; s < STAGES; s++)
        end_copies(); /* all are in the first group */
    if (tokens <= 0) {
        if (shift)
            cluster_wait();
        wait_for_copies<0>();
        return;
    }
    if (ORDER)
        order.end(lane);

    const uint32_t row = (uint32_t)(min(lane % 8, tokens - 1) * FMK_ONCE_PITCH + lane / 8 * 16);
    const uint32_t acts = shared_address(ORDER ? order.to : stages + at_acts);
    float total[PANELS][1][4] = {};
    uint32_t ordered = acts;
    while (ahead.left + STAGES * WARPS >= 0) {
#pragma unroll
        for (int s = 0; s < STAGES; s++) {
            if (ahead.left + STAGES * WARPS < 0)
                break;
            uint8_t *stage = stages + s * args.stage;
            wait_for_copies<STAGES - 1>();
            __syncwarp();
            multiply_unit<X, TOKENS, KIND>(*place.part, bits[s], stage,
                                           ORDER ? ordered : acts + s * args.stage, row, lane, total);
            ordered += 2 * UNIT_K;
            __syncwarp();
            if (ahead.left >= 0) {
                ahead.fetch_bits(lane, stage, bits[s]);
                if (!ORDER)
                    ahead.fetch_acts(in, stride, s * args.stage);
            }
            ahead.next();
            end_copies();
        }
    }
    meeting.put(total, warp, lane);
    store_sums<TOKENS>(args, meeting, place, first, tokens);
}

/* Two blocks to a multiprocessor, or one that has all of its registers. */
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_alone_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_alone_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_alone_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_alone_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_alone_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_alone_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_group_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_group_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_group_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, GROUP, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_group_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_group_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_group_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, GROUP, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, ANY, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void once_any_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, ANY, true>(args);
}
