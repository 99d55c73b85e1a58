/* Grouped INT4 for one token, or up to eight, on compute capability 9.0: out = in . W^T over int4.t64,
 * weights as the A operand of mma.m16n8k16. For activations that can be copied as they are, or one token in
 * act-order; the rest is int4_few.cu's.
 *
 * Every multiprocessor has the same number of units to do: blocks, or clusters of two, are dealt strips of 64
 * rows, or 32, by all of K, and the units of these are one run for the block's warps, which take them in
 * turn. Nothing waits for the others before the end, so that loads are under way all the time: a warp that
 * comes to another strip leaves its sums in shared memory. They are added up in the order of the blocks and
 * warps. */
#include "few.cuh"
#include "once.h"

enum { WARPS = FMK_ONCE_WARPS, THREADS = FMK_ONCE_THREADS };

/* Of calls: one part of one expert, with one group a unit, no zero points, and sums that are the output:
 * every instruction before the first load counts; one group a unit; any groups. */
enum Kind { USUAL, GROUP, ANY };

/* ---- which units are a block's ---- */

struct Share : fmk_once_share {
    int32_t strip; /* of all, the block's first */

    __device__ __forceinline__ int32_t opening() const { /* strip */
        return turn ? halved : 0;
    }
    __device__ __forceinline__ int32_t after(int32_t strip) const {
        return turn && strip == halved ? 0 : strip + 1;
    }
};

__device__ __forceinline__ Share find_share(const struct fmk_once_args &args, int32_t rank) {
    Share share;
    if (!args.ranks_shift) {
        const int32_t block = (int32_t)blockIdx.x, strips = args.strips + (block < args.spare);
        (struct fmk_once_share &)share = {0, 0, strips * args.units, -1, 0, strips - 1, {}};
        share.strip = block * args.strips + min(block, args.spare);
        return share;
    }
    const int32_t cluster = (int32_t)blockIdx.x / 2;
    (struct fmk_once_share &)share = args.share[cluster >= args.spare][rank];
    share.strip = cluster * args.strips + min(cluster, args.spare) + share.skipped;
    return share;
}

struct Unit {
    int32_t strip, k;
};

__device__ __forceinline__ Unit find_unit(const struct fmk_once_args &args, const Share &share, int32_t i) {
    const int32_t u = share.first - share.turn + i + (i < share.turn ? share.count : 0);
    const int32_t strip = (int32_t)((uint64_t)(2 * (uint32_t)u + 1) * args.inverse >> 32);
    return Unit{strip, u - strip * args.units};
}

/* Of a strip: a part, and where its data begin. */
struct Place {
    const struct fmk_linear_part *part;
    const uint8_t *data; /* of its row block */
    int32_t row;         /* first, in the part */
    int32_t scales;      /* bytes of a unit behind its codes */
};

template <int STRIP>
__device__ __forceinline__ Place find_place(const struct fmk_once_args &args, int32_t strip) {
    const struct fmk_linear_kernel_args &a = args.linear;
    if (strip < args.first_strips) {
        const int32_t row = 16 * STRIP * strip;
        return Place{&a.part[0],
                     (const uint8_t *)args.data + blockIdx.z * args.expert_stride +
                         (uint64_t)((uint32_t)row / FMK_T64_ROWS) * args.stride,
                     row, args.scales};
    }
    RowBlock at = find_block(a, 16 * STRIP, strip);
    const struct fmk_linear_part &part = a.part[at.part];
    return Place{&part,
                 (const uint8_t *)part.data + (a.expert + blockIdx.z) * part.expert_stride +
                     (uint64_t)(at.row / FMK_T64_ROWS) * part.stride,
                 at.row, (256 >> (part.chunks >> 1)) * (part.has_zeros ? 3 : 2)};
}

/* ---- what is fetched of a unit ---- */

/* A lane's codes, of every panel's two tiles of 64 k; USUAL: scales of rows g and g + 8 of every panel, which
 * are in shared memory else. */
template <int STRIP> struct Bits {
    uint4 codes[STRIP][2];
    uint32_t scales[STRIP];
};

/* Where a warp finds its next unit. */
template <int STRIP, Kind KIND> struct Feed {
    const struct fmk_linear_part *part;
    const uint8_t *data;  /* the row block's first unit */
    int32_t strip;        /* as in Share */
    int32_t scales;       /* bytes of a unit behind its codes */
    int32_t panel;        /* of the row block, the strip's first */
    const uint8_t *codes; /* the lane's first of the unit */

    __device__ __forceinline__ void go_to(const struct fmk_once_args &args, const Share &share,
                                          const Unit &unit, int lane) {
        if (KIND == USUAL) { /* strips lie behind one another */
            const int32_t at = share.strip + unit.strip;
            panel = STRIP == PANELS ? 0 : at % 2 * STRIP;
            codes =
                (const uint8_t *)args.data +
                (uint64_t)(uint32_t)(at / (PANELS / STRIP) * args.units + unit.k) * (FMK_T64_CODES + 128) +
                (uint32_t)(FMK_INT4_UNIT_CODES * panel + 16 * lane);
            return;
        }
        if (unit.strip != strip) {
            const Place place = find_place<STRIP>(args, share.strip + unit.strip);
            part = place.part;
            data = place.data;
            strip = unit.strip;
            scales = place.scales;
            panel = STRIP == PANELS ? 0 : (uint32_t)place.row / 16 % PANELS;
        }
        codes = data + (int64_t)unit.k * (FMK_T64_CODES + scales) + FMK_INT4_UNIT_CODES * panel + 16 * lane;
    }
    __device__ __forceinline__ void fetch_tile(int tile, Bits<STRIP> &bits) const {
#pragma unroll
        for (int r = 0; r < STRIP; r++)
            bits.codes[r][tile] = load_stream(codes + FMK_INT4_UNIT_CODES * r + FMK_T16_TILE * tile);
    }
    /* USUAL */
    __device__ __forceinline__ void fetch_scales(int lane, Bits<STRIP> &bits) const {
        const uint8_t *from =
            codes + FMK_T64_CODES + (4 - FMK_INT4_UNIT_CODES) * panel + 16 * (lane / 4) - 16 * lane;
        if (STRIP == PANELS) {
            const uint4 v = load_stream(from);
#pragma unroll
            for (int r = 0; r < STRIP; r++)
                bits.scales[r] = word_of(v, r);
        } else {
            const uint2 v = load_8(from);
            bits.scales[0] = v.x;
            bits.scales[1] = v.y;
        }
    }
    /* What is behind the codes, unless USUAL. */
    __device__ __forceinline__ void copy_scales(int lane, uint8_t *to) const {
        const uint8_t *from = codes + FMK_T64_CODES;
#pragma unroll
        for (int at = 0; at < (KIND == ANY ? 1024 : 512); at += 512) /* up to 768 bytes, or 192 */
            if (at + 16 * lane < scales)
                copy_16_async(to + at + 16 * lane, from + at);
    }
};

/* Activations, 256 bytes of each token and unit. */
template <int TOKENS> struct ActFeed {
    const uint8_t *in; /* the lane's first 8 of the first unit; half a warp fetches a token's */
    int32_t stride;    /* bytes */
    int32_t k;         /* columns that are there, from the lane's first on */
    int32_t tokens;    /* likewise */
    uint8_t *to;       /* the lane's in shared memory, of the first unit or the warp's only one */

    __device__ __forceinline__ void fetch(int32_t unit, int32_t place) const {
#pragma unroll
        for (int i = 0; i < TOKENS; i += 2)
            if (i < tokens)
                copy_16_async(to + place + i * FMK_ONCE_PITCH, in + (int64_t)i * stride + 2 * UNIT_K * unit,
                              k > UNIT_K * unit);
    }
};

/* ---- act-order, one token ---- */

/* Puts activations in the weights' order, all of K, from where they lie as the caller has them: the block
 * together. Others see them after a barrier. */
__device__ __forceinline__ void put_in_order(const uint16_t *row, const int4 *index, int4 at, int32_t units,
                                             uint8_t *to) {
    for (int32_t i = threadIdx.x; i < units * (UNIT_K / 4);) {
        const int4 now = at;
        const int32_t next = i + THREADS;
        if (next < units * (UNIT_K / 4))
            at = index[next];
        const uint16_t h[4] = {now.x >= 0 ? row[now.x] : (uint16_t)0, now.y >= 0 ? row[now.y] : (uint16_t)0,
                               now.z >= 0 ? row[now.z] : (uint16_t)0, now.w >= 0 ? row[now.w] : (uint16_t)0};
        *(uint2 *)(to + i / (UNIT_K / 4) * FMK_ONCE_PITCH + i % (UNIT_K / 4) * 8) =
            make_uint2(pair_of(h[0], h[1]), pair_of(h[2], h[3]));
        i = next;
    }
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

/* As add_group, of zero points of 8. */
template <class X, int STRIP, int COLUMNS>
__device__ __forceinline__ void add_symmetric(const uint32_t (&scales)[STRIP], int32_t type,
                                              const float (&acc)[STRIP][1][4], const float (&sum)[1][4],
                                              float (&total)[STRIP][1][4]) {
#pragma unroll
    for (int r = 0; r < STRIP; r++) {
        float scale[2];
        split_pair(scales[r], type, scale);
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                float value = fmaf(acc[r][0][2 * i + c], X::code_unit(i), -(8.0f + X::BIAS) * sum[0][c]);
                total[r][0][2 * i + c] = fmaf(scale[i], value, total[r][0][2 * i + c]);
            }
    }
}

/* total += what a group comes to. `shared` is where the unit's scales lie. */
template <class X, int COLUMNS>
__device__ __forceinline__ void add_any(const struct fmk_linear_part &part, const uint8_t *shared, int group,
                                        int shift, int lane, const float (&acc)[PANELS][1][4],
                                        const float (&sum)[1][4], float (&total)[PANELS][1][4]) {
    const GroupBits bits = load_group(part, shared - FMK_T64_CODES, group, shift, lane / 4);
    if (part.has_zeros) {
        add_group<X, 1, COLUMNS>(bits, part.dtype, acc, sum, total);
        return;
    }
    const uint32_t scales[PANELS] = {bits.scales.x, bits.scales.y, bits.scales.z, bits.scales.w};
    add_symmetric<X, PANELS, COLUMNS>(scales, part.dtype, acc, sum, total);
}

/* Whether registers take the next unit's codes tile by tile, as they are done with. In wide strips the loads
 * of activations would wait behind these. */
template <int STRIP> constexpr bool EARLY = STRIP < PANELS;

/* total += what a unit comes to. `acts` is where the activations of the first token lie, `row` the lane's
 * offset there for ldmatrix. */
template <class X, int TOKENS, int STRIP, Kind KIND>
__device__ __forceinline__ void multiply_unit(const struct fmk_linear_part &part, int32_t scale_type,
                                              Bits<STRIP> &bits, const uint8_t *shared, uint32_t acts,
                                              uint32_t row, int lane, const Feed<STRIP, KIND> &feed,
                                              bool more, float (&total)[STRIP][1][4]) {
    constexpr int COLUMNS = TOKENS == 1 ? 1 : 2;
    const int shift = KIND == ANY ? part.chunks >> 1 : 2;
    float acc[STRIP][1][4], sum[1][4], block = 0.0f;
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
            for (int r = 0; r < STRIP; r++) {
                uint32_t a[4];
                X::unpack(word_of(bits.codes[r][b / 2], b % 2 * 2 + step), a);
                if (first && step == 0)
                    mma_first<X>(acc[r][0], a, x, step);
                else
                    mma_add<X>(acc[r][0], a, x, step);
            }
        if (EARLY<STRIP> && b % 2 && more)
            feed.fetch_tile(b / 2, bits);
        if constexpr (KIND == ANY) {
            if (TOKENS == 1)
                sum[0][0] = __shfl_sync(0xffffffff, block, lane / 4 * 4 + b);
            add_any<X, COLUMNS>(part, shared, b >> shift, shift, lane, acc, sum, total);
        }
    }
    if (!EARLY<STRIP> && more) {
        feed.fetch_tile(0, bits);
        feed.fetch_tile(1, bits);
    }
    if constexpr (KIND == USUAL) {
        add_symmetric<X, STRIP, COLUMNS>(bits.scales, scale_type, acc, sum, total);
        if (more)
            feed.fetch_scales(lane, bits);
    }
    if constexpr (KIND == GROUP)
        add_any<X, COLUMNS>(part, shared, 0, shift, lane, acc, sum, total);
}

/* ---- sums ---- */

/* WarpSums of a strip, as the warps leave them: [warp][token][quad][g][4], where rows with g = row % 8 have
 * one or two quads. Of a strip that two blocks have a part of, each adds up and stores four of eight rows: it
 * has the sums of both blocks' warps, of rows 0..3 or 4..7 of eight. */
template <int TOKENS, int STRIP> struct WarpSums {
    static constexpr int QUADS = STRIP / 2, FLOATS = TOKENS * STRIP * 16; /* of a warp */

    /* A lane's numbers of the token in column c of the tile's two. */
    static __device__ __forceinline__ float4 quad(const float (&total)[STRIP][1][4], int q, int c) {
        if constexpr (STRIP == PANELS)
            return make_float4(total[0][0][2 * q + c], total[1][0][2 * q + c], total[2][0][2 * q + c],
                               total[3][0][2 * q + c]);
        else
            return make_float4(total[0][0][c], total[1][0][c], total[0][0][2 + c], total[1][0][2 + c]);
    }
    /* Among the sums of `rows` of eight. */
    static __device__ __forceinline__ int32_t place(int token, int q, int rows, int g) {
        return ((token * QUADS + q) * rows + (g & (rows - 1))) * 4;
    }
    /* Of a row, which is 8 eight + g. */
    static __device__ __forceinline__ float take(const float *sums, int warps, int token, int rows, int eight,
                                                 int g) {
        const int32_t at = STRIP == PANELS ? place(token, eight % 2, rows, g) + eight / 2
                                           : place(token, 0, rows, g) + eight % 2 * 2 + eight / 2;
        const float *from = sums + at;
        float total = 0.0f;
#pragma unroll 1
        for (int w = 0; w < warps; w += WARPS) {
            float each[WARPS];
#pragma unroll
            for (int i = 0; i < WARPS; i++, from += FLOATS / 8 * rows)
                each[i] = *from;
#pragma unroll
            for (int i = 0; i < WARPS; i++)
                total += each[i];
        }
        return total;
    }
};

/* Of `warps` warps' sums at `sums`, `rows` of eight from `g` on. */
template <int TOKENS, int STRIP, Kind KIND>
__device__ __forceinline__ void store_sums(const struct fmk_once_args &args, const float *sums, int warps,
                                           int32_t strip, int rows, int g, int32_t first, int32_t tokens) {
    const struct fmk_linear_kernel_args &a = args.linear;
    const int shift = rows == 8 ? 3 : 2;
#pragma unroll 1
    for (int32_t i = threadIdx.x; i < tokens * 2 * STRIP << shift; i += THREADS) {
        const int32_t of_eight = g + (i & (rows - 1)), eight = i >> shift & (2 * STRIP - 1);
        const int32_t token = (i >> shift) / (2 * STRIP), row = 8 * eight + of_eight;
        const float sum = WarpSums<TOKENS, STRIP>::take(sums, warps, token, rows, eight, of_eight);
        if (KIND == USUAL) {
            const int32_t column = 16 * STRIP * strip + row;
            if (column < args.n)
                store_number(args.out, args.out_type, token * args.out_stride + column, sum);
            continue;
        }
        const RowBlock at = find_block(a, 16 * STRIP, strip);
        const struct fmk_epilogue_args &e = a.epilogue;
        const struct fmk_linear_part &part = a.part[at.part];
        if (at.row + row >= part.n)
            continue;
        finish(e, (char *)e.out + blockIdx.z * a.expert_out_stride * number_size(e.out_type), first + token,
               part.column + at.row + row, sum + bias_at(part, a.expert + (int32_t)blockIdx.z, at.row + row));
    }
}

/* ---- the kernel ---- */

/* X: how codes become numbers; STRIP: panels of 16 rows; ORDER: one token in act-order. */
template <class X, int TOKENS, int STRIP, Kind KIND, bool ORDER>
__device__ __forceinline__ void linear_once(const struct fmk_once_args &args) {
    using Warp = WarpSums<TOKENS, STRIP>;
    enum { REST = -1, JOINED = -2, END = -3 };
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    allow_dependents();
    const int32_t rank = args.ranks_shift ? (int32_t)cluster_rank() : 0;
    const Share share = find_share(args, rank);
    const bool resident = ORDER || (TOKENS > 1 && args.resident);
    uint8_t *shared = dynamic_shared();
    uint8_t *stages = shared + FMK_ONCE_BARRIER + warp * FMK_ONCE_STAGES(STRIP) * args.stage;
    uint8_t *acts = resident ? shared + args.at_acts : stages + args.stage - TOKENS * FMK_ONCE_PITCH;
    const bool some = warp < share.count;
    Unit unit = find_unit(args, share, warp);
    Feed<STRIP, KIND> feed;
    feed.strip = END;
    Bits<STRIP> bits;
    auto fetch_first = [&]() {
        if (some) {
            feed.go_to(args, share, unit, lane);
            feed.fetch_tile(0, bits);
        }
    };
    if (!ORDER) /* putting activations in order takes time */
        fetch_first();

    const int32_t first =
        KIND == USUAL ? 0
                      : (int32_t)not_before_here((uint32_t)(args.first_row + TOKENS * (int32_t)blockIdx.y));
    const uint8_t *in = (const uint8_t *)args.in;
    if (KIND != USUAL)
        in += 2 * (blockIdx.z * args.expert_in_stride + (int64_t)first * args.in_stride);
    ActFeed<TOKENS> act_feed;
    act_feed.stride = 2 * args.in_stride;
    act_feed.in = in + not_before_here((uint32_t)(lane / 16 * act_feed.stride + 16 * (lane % 16)));
    act_feed.k = args.k - 8 * (lane % 16);
    act_feed.to = acts + lane / 16 * FMK_ONCE_PITCH + 16 * (lane % 16);
    const int4 *index = NULL;
    int4 index_ahead;
    if (ORDER) {
        index = (const int4 *)(args.index + (int64_t)blockIdx.z * args.units * UNIT_K);
        if ((int32_t)threadIdx.x < args.units * (UNIT_K / 4))
            index_ahead = index[threadIdx.x];
    }
    int32_t tokens = 0;
    auto begin_acts = [&]() {
        wait_for_dependency();
        const int32_t m = KIND != USUAL && args.m_dev ? min(args.m, max(*args.m_dev, 0)) : args.m;
        tokens = min(TOKENS, m - first);
        act_feed.tokens = tokens - lane / 16;
        if (ORDER && tokens > 0)
            for (int32_t k = 8 * (int32_t)threadIdx.x; k < args.k; k += 8 * THREADS)
                copy_16_async(shared + args.at_row + 2 * k, in + 2 * k);
    };
    /* Where the unit's activations are. Of what a warp keeps, each is fetched once. */
    auto place_of = [&](const Unit &unit, int32_t stage) {
        return resident ? unit.k * (TOKENS * FMK_ONCE_PITCH) : stage;
    };
    auto fetch_acts = [&](const Unit &unit, int32_t i, int32_t stage) {
        if (!ORDER && (!resident || i < args.units + share.turn))
            act_feed.fetch(unit.k, place_of(unit, stage));
    };

    if (args.acts_first) {
        begin_acts();
        if (some)
            fetch_acts(unit, warp, 0);
    }
    if (ORDER)
        fetch_first();
    if (some) {
        feed.fetch_tile(1, bits);
        if (KIND == USUAL)
            feed.fetch_scales(lane, bits);
        else
            feed.copy_scales(lane, stages);
    }
    const uint32_t barrier = shared_address(shared);
    not_before_here(
        (uint32_t)(args.out_type + args.n)); /* they come from memory, and are wanted at the end */
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init(barrier + 8, THREADS);
        fence_mbarrier_init();
        mbarrier_arrive_expecting(barrier, share.halved < 0 ? 0 : WARPS * Warp::FLOATS * 2);
    }
    __syncthreads();
    if (args.ranks_shift)
        cluster_arrive();
    if (!args.acts_first) {
        begin_acts();
        if (some)
            fetch_acts(unit, warp, 0);
    }
    if (tokens <= 0) {
        if (args.ranks_shift)
            cluster_wait();
        end_copies();
        wait_for_copies<0>();
        return;
    }
    if (ORDER) {
        end_copies();
        wait_for_copies<0>();
        __syncthreads();
        put_in_order((const uint16_t *)(shared + args.at_row), index, index_ahead, args.units, acts);
        __syncthreads();
    }

    float total[STRIP][1][4] = {};
    float *sums = (float *)(shared + args.at_sums), *halves = (float *)(shared + args.at_halves);
    int32_t kept = 0, last_kept = 0;
    auto put = [&](float *to, bool halved) {
        const int g = lane / 4, t = lane % 4, owner = g / 4;
#pragma unroll
        for (int q = 0; q < Warp::QUADS; q++)
#pragma unroll
            for (int c = 0; c < (TOKENS == 1 ? 1 : 2); c++) {
                if (TOKENS == 1 && t)
                    continue;
                const float4 v = Warp::quad(total, q, c);
                float *at = to + Warp::place(TOKENS == 1 ? 0 : 2 * t + c, q, halved ? 4 : 8, g);
                if (!halved || owner == rank)
                    *(float4 *)at = v;
                else
                    store_4_floats_to((uint32_t)owner, shared_address(at), v, barrier);
            }
#pragma unroll
        for (int r = 0; r < STRIP; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                total[r][0][i] = 0.0f;
    };
    /* Leaves a strip and answers what is next to be left: REST, what is to be stored of the last strip; then
     * JOINED, what is to be stored of the halved one; then END. While a strip is left, the one before is
     * added up, whose sums all warps have left by then; and when all warps are that far, nobody needs what
     * the one before that left. */
    auto leave = [&](int32_t strip) {
        if (strip >= 0 && strip == share.halved) {
            cluster_wait(); /* the barrier is there */
            put(halves + (rank * WARPS + warp) * (Warp::FLOATS / 2), true);
        } else {
            const bool joined = strip == JOINED;
            if (joined)
                mbarrier_wait(barrier, 0);
            else if (strip == REST)
                __syncthreads();
            else if (kept)
                mbarrier_wait(barrier + 8, (uint32_t)(kept - 1) & 1);
            if (strip >= 0)
                put(sums + ((kept & 1) * WARPS + warp) * Warp::FLOATS, false);
            if (joined || kept)
                store_sums<TOKENS, STRIP, KIND>(
                    args, joined ? halves : sums + ((kept - 1) & 1) * WARPS * Warp::FLOATS,
                    joined ? 2 * WARPS : WARPS, share.strip + (joined ? share.halved : last_kept),
                    joined ? 4 : 8, joined ? 4 * rank : 0, first, tokens);
            if (strip >= 0) {
                if (strip != share.last)
                    mbarrier_arrive(barrier + 8);
                kept++;
                last_kept = strip;
            }
        }
        if (strip >= 0)
            return strip == share.last ? (int32_t)REST : share.after(strip);
        return strip == REST && share.halved >= 0 ? (int32_t)JOINED : (int32_t)END;
    };
    const uint32_t row = (uint32_t)(min(lane % 8, tokens - 1) * FMK_ONCE_PITCH + lane / 8 * 16);
    int32_t strip = share.opening(), stage = 0;
    for (int32_t i = warp;; i += WARPS) {
        const bool here = i < share.count, more = i + WARPS < share.count;
        while (strip != (here ? unit.strip : END))
            strip = leave(strip);
        if (!here)
            break;
        end_copies();
        wait_for_copies<0>();
        __syncwarp();
        const uint32_t x = shared_address(acts) + place_of(unit, stage);
        const struct fmk_linear_part &part = *feed.part;
        if (more) {
            unit = find_unit(args, share, i + WARPS);
            feed.go_to(args, share, unit, lane);
        }
        if (EARLY<STRIP>) {
            stage = args.stage - stage;
            if (more)
                fetch_acts(unit, i + WARPS, stage);
        }
        multiply_unit<X, TOKENS, STRIP, KIND>(part, args.scale_type, bits, stages, x, row, lane, feed, more,
                                              total);
        if (!EARLY<STRIP> && more) {
            __syncwarp();
            if (KIND != USUAL)
                feed.copy_scales(lane, stages);
            fetch_acts(unit, i + WARPS, 0);
        }
    }
    if (args.ranks_shift && share.halved < 0)
        cluster_wait();
}

/* Strips of 64 rows, or 32. */
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 4, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, 4, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 4, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 4, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, 4, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 4, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_narrow_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 2, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_narrow_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, 2, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_narrow_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 2, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_narrow_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 2, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_narrow_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, 2, USUAL, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_narrow_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 2, USUAL, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_group_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 4, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_group_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, 4, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_group_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 4, GROUP, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_group_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 4, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_group_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, 4, GROUP, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_group_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 4, GROUP, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_any_f16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 4, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_any_f16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 8, 4, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_any_f16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<HalfCodes, 1, 4, ANY, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_any_bf16_1(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 4, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_any_bf16_8(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 8, 4, ANY, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void once_any_bf16_order(
    const __grid_constant__ struct fmk_once_args args) {
    linear_once<Bf16Codes, 1, 4, ANY, true>(args);
}
