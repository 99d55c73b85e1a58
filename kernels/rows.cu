/* The kernels around a product: gather rows in front of it, route them to experts, finish and sum them behind
 * it. Each is bound by the few bytes that it moves. */
#include "epilogue.cuh"
#include "rows.h"

/* ---- which rows a block is about ---- */

struct Rows {
    int32_t expert, first, end;
};

/* `all`: those past *m_dev too. */
__device__ __forceinline__ Rows find_rows(const struct fmk_rows_set &set, bool all) {
    if (set.tiles) {
        struct fmk_token_tile tile = set.tiles[blockIdx.y];
        return Rows{tile.expert, tile.first, tile.first + tile.count};
    }
    int32_t m = set.m_dev && !all ? min(set.m, *set.m_dev) : set.m;
    int64_t first = set.first + set.block * (int64_t)blockIdx.y;
    int64_t end = min((int64_t)m, first + set.block);
    return Rows{set.expert + (int32_t)blockIdx.z, (int32_t)min(first, end), (int32_t)end};
}

/* ---- gather ---- */

enum { TOGETHER = 4 }; /* rows */

struct Columns {
    float x[FMK_GATHER_COLUMNS];
};

/* Which columns of a row of in become columns column .. column+7 of out; -1: none. */
struct Order {
    int32_t k[FMK_GATHER_COLUMNS];
};

__device__ __forceinline__ Order order_of(const struct fmk_gather_args &args, int32_t expert,
                                          int32_t column) {
    const int32_t *k_index = args.k_index ? args.k_index + (int64_t)expert * args.k_packed : nullptr;
    Order order;
#pragma unroll
    for (int i = 0; i < FMK_GATHER_COLUMNS; i++) {
        int32_t k = column + i;
        if (k_index)
            k = k < args.k_packed ? k_index[k] : -1;
        order.k[i] = k < args.k ? k : -1;
    }
    return order;
}

__device__ __forceinline__ Columns load_columns(const struct fmk_gather_args &args, int64_t from,
                                                const Order &order) {
    Columns c;
    if (args.in_type == NUMBER_F32) {
        const float *in = (const float *)args.in + from;
#pragma unroll
        for (int i = 0; i < FMK_GATHER_COLUMNS; i++)
            c.x[i] = order.k[i] >= 0 ? in[order.k[i]] : 0.0f;
        return c;
    }
    const uint16_t *in = (const uint16_t *)args.in + from;
    uint16_t h[FMK_GATHER_COLUMNS]; /* first all: what they are is a branch, and would wait for each */
#pragma unroll
    for (int i = 0; i < FMK_GATHER_COLUMNS; i++)
        h[i] = order.k[i] >= 0 ? in[order.k[i]] : (uint16_t)0;
#pragma unroll
    for (int i = 0; i < FMK_GATHER_COLUMNS; i++)
        c.x[i] = args.in_type == NUMBER_F16 ? f16_to_f32(h[i]) : bf16_to_f32(h[i]);
    return c;
}

__device__ __forceinline__ void store_halves(uint16_t *to, const uint16_t h[FMK_GATHER_COLUMNS]) {
    *(uint4 *)to = make_uint4(h[0] | (uint32_t)h[1] << 16, h[2] | (uint32_t)h[3] << 16,
                              h[4] | (uint32_t)h[5] << 16, h[6] | (uint32_t)h[7] << 16);
}

__device__ __forceinline__ void store_columns(const struct fmk_gather_args &args, int64_t to, Columns c) {
    if (args.out_type == NUMBER_F32) {
        float4 *out = (float4 *)((float *)args.out + to);
        out[0] = make_float4(c.x[0], c.x[1], c.x[2], c.x[3]);
        out[1] = make_float4(c.x[4], c.x[5], c.x[6], c.x[7]);
        return;
    }
    for (int32_t plane = 0; plane < args.planes; plane++) {
        uint16_t halves[FMK_GATHER_COLUMNS];
#pragma unroll
        for (int i = 0; i < FMK_GATHER_COLUMNS; i++)
            if (args.planes > 1)
                halves[i] = cut_bf16(c.x[i]);
            else
                halves[i] = args.out_type == NUMBER_F16 ? f32_to_f16(c.x[i]) : f32_to_bf16(c.x[i]);
        store_halves((uint16_t *)args.out + plane * args.plane_stride + to, halves);
    }
}

extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_gather(
    const __grid_constant__ struct fmk_gather_args args) {
    allow_dependents();
    const int64_t column = FMK_GATHER_COLUMNS * ((int64_t)FMK_ROWS_THREADS * blockIdx.x + threadIdx.x);
    /* An order belongs to the weights, which do not depend on the kernel before; whose it is may. */
    Order order;
    if (!args.rows.tiles && column < args.width)
        order = order_of(args, args.rows.expert + (int32_t)blockIdx.z, (int32_t)column);
    wait_for_dependency();
    Rows rows = find_rows(args.rows, args.zero_rest);
    int32_t there = args.rows.m_dev ? *args.rows.m_dev : INT32_MAX;
    if (column >= args.width)
        return;
    if (args.rows.tiles)
        order = order_of(args, rows.expert, (int32_t)column);
    /* Several rows at a time, so that they are fetched at once. */
    for (int32_t first = rows.first; first < rows.end; first += TOGETHER) {
        Columns c[TOGETHER] = {};
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const int32_t row = first + i;
            /* Entries past *m_dev are not read. */
            if (row >= rows.end || (!args.rows.tiles && row >= there))
                continue;
            int64_t from = args.in_rows ? args.in_rows[row] : row;
            if (from >= 0 && from < args.in_limit)
                c[i] = load_columns(args, from * args.in_stride + blockIdx.z * args.expert_in_stride, order);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++)
            if (first + i < rows.end)
                store_columns(
                    args, (first + i) * args.out_stride + blockIdx.z * args.expert_out_stride + column, c[i]);
    }
}

/* ---- finish ---- */

extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_finish(
    const __grid_constant__ struct fmk_finish_args args) {
    allow_dependents();
    wait_for_dependency();
    const struct fmk_epilogue_args &e = args.epilogue;
    Rows rows = find_rows(args.rows, false);
    int64_t at = (int64_t)FMK_ROWS_THREADS * blockIdx.x + threadIdx.x;
    if (at >= args.n || rows.first >= rows.end)
        return;
    int32_t column = (int32_t)at;
    int64_t bias_at = (int64_t)rows.expert * args.bias_stride + column;
    float bias = args.bias ? args.bias[bias_at] : 0.0f, up_bias = args.up_bias ? args.up_bias[bias_at] : 0.0f;
    void *out = (char *)e.out + blockIdx.z * args.expert_out_stride * number_size(e.out_type);
    for (int32_t row = rows.first; row < rows.end; row++) {
        const float *sums = args.sums + row * args.stride + blockIdx.z * args.expert_stride + column;
        int64_t out_row = args.out_rows ? args.out_rows[row] : row;
        if (e.act)
            finish_glu(e, out, out_row, args.column + column, sums[0] + bias, sums[args.up] + up_bias);
        else
            finish(e, out, out_row, args.column + column, sums[0] + bias);
    }
}

/* ---- reduce ---- */

extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_reduce(
    const __grid_constant__ struct fmk_reduce_args args) {
    allow_dependents();
    wait_for_dependency();
    int64_t column = (int64_t)FMK_ROWS_THREADS * blockIdx.x + threadIdx.x;
    int64_t token = args.first + (int64_t)blockIdx.y;
    if (column >= args.width || token >= (args.m_dev ? min(args.m, *args.m_dev) : args.m))
        return;
    float sum = 0.0f;
    for (int64_t pair = token * args.top_k; pair < (token + 1) * args.top_k; pair++)
        if (args.present[pair])
            sum += args.pairs[pair * args.width + column];
    if (args.addend)
        sum += load_number(args.addend, args.addend_type, token * args.addend_stride + column);
    store_number(args.out, args.out_type, token * args.out_stride + column, sum);
}

/* ---- routing ---- */

enum { WARPS_AT_MOST = 32, PLACE_ITEMS = 8 /* entries that a thread looks at in one round */ };

/* The sum of `value` over the threads before this one; *total over all. `sums` is shared. */
template <class T> __device__ __forceinline__ T scan_block(T value, T *sums, T *total) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    T upto = value;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        T other = __shfl_up_sync(0xffffffff, upto, d);
        upto += lane >= d ? other : 0;
    }
    if (lane == 31)
        sums[warp] = upto;
    __syncthreads();
    T before = 0, all = 0;
    for (int w = 0; w < warps; w++) {
        before += w < warp ? sums[w] : 0;
        all += sums[w];
    }
    __syncthreads();
    *total = all;
    return before + upto - value;
}

/* Entries of a[0 .. count) that are less than `value`; a ascends. */
__device__ __forceinline__ int32_t lower_bound(const int32_t *a, int32_t count, int32_t value) {
    int32_t low = 0, high = count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (a[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* One past the last pair that counts. */
__device__ __forceinline__ int32_t pairs_end(const struct fmk_route_args &args) {
    if (!args.m_dev)
        return args.end;
    int64_t there = (int64_t)*args.m_dev * args.top_k;
    return there < args.end ? (int32_t)max(there, (int64_t)0) : args.end;
}

/* -1: nobody here. */
__device__ __forceinline__ int32_t expert_of_id(const struct fmk_route_args &args, int32_t pair) {
    int32_t id = args.ids[pair];
    int64_t expert = (int64_t)id - args.expert_base;
    return id >= 0 && expert >= 0 && expert < args.experts ? (int32_t)expert : -1;
}

__device__ __forceinline__ int32_t sorted_pair(const struct fmk_route_args &args, int32_t at) {
    return args.pairs ? args.pairs[at] : at;
}

/* The sorted rows of an expert, whatever the offsets say. */
struct Range {
    int32_t from, to;
};

__device__ __forceinline__ Range sorted_range(const struct fmk_route_args &args, int32_t expert) {
    int32_t from = min(max(args.offsets[expert], 0), args.sorted_limit);
    return Range{from, min(max(args.offsets[expert + 1], from), args.sorted_limit)};
}

__device__ __forceinline__ void write_entry(const struct fmk_route_args &args, int32_t at, int32_t pair) {
    args.out_rows[at] = pair;
    if (args.in_rows)
        args.in_rows[at] = args.in_per_pair ? pair : pair / args.top_k;
    if (args.present)
        args.present[pair - args.begin] = 1;
}

extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_route_clear(
    const __grid_constant__ struct fmk_route_args args) {
    allow_dependents();
    wait_for_dependency();
    int64_t me = (int64_t)FMK_ROWS_THREADS * blockIdx.x + threadIdx.x;
    int64_t step = (int64_t)FMK_ROWS_THREADS * gridDim.x;
    for (int64_t e = me; e <= args.experts; e += step)
        args.first[e] = 0;
    for (int64_t pair = me; args.present && pair < args.end - args.begin; pair += step)
        args.present[pair] = 0;
}

/* first[e + 1] = entries of expert e. */
extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_route_count(
    const __grid_constant__ struct fmk_route_args args) {
    __shared__ int32_t sums[WARPS_AT_MOST];
    allow_dependents();
    wait_for_dependency();
    int32_t end = pairs_end(args);
    if (args.ids) {
        int64_t pair = args.begin + (int64_t)FMK_ROWS_THREADS * blockIdx.x + threadIdx.x;
        for (; pair < end; pair += (int64_t)FMK_ROWS_THREADS * gridDim.x) {
            int32_t expert = expert_of_id(args, (int32_t)pair);
            if (expert >= 0)
                atomicAdd(&args.first[expert + 1], 1);
        }
        return;
    }
    for (int32_t expert = blockIdx.x; expert < args.experts; expert += gridDim.x) {
        Range range = sorted_range(args, expert);
        int32_t count = 0, total;
        for (int64_t at = range.from + (int64_t)threadIdx.x; at < range.to; at += FMK_ROWS_THREADS) {
            int32_t pair = sorted_pair(args, (int32_t)at);
            count += pair >= args.begin && pair < end;
        }
        scan_block(count, sums, &total);
        if (threadIdx.x == 0)
            args.first[expert + 1] = total;
    }
}

/* Tile number t of all, when each expert's first is known; past the last, one without rows. */
__device__ __forceinline__ struct fmk_token_tile tile_at(const struct fmk_route_args &args, int32_t t) {
    if (t >= args.first_tile[args.experts])
        return {0, 0, 0, 0};
    int32_t expert = lower_bound(args.first_tile, args.experts + 1, t + 1) - 1;
    int32_t first = args.first[expert] + (t - args.first_tile[expert]) * args.tile;
    return {expert, first, min(args.tile, args.first[expert + 1] - first), 0};
}

__device__ __forceinline__ int32_t tiles_of(int32_t entries, int32_t tile) {
    return (int32_t)(((int64_t)entries + tile - 1) / tile);
}

/* Counts become beginnings, and tiles follow from these. Wrong offsets may name more entries than there is
 * room for: these are cut off. */
extern "C" __global__ __launch_bounds__(FMK_ROWS_SCAN_THREADS) void rows_route_scan(
    const __grid_constant__ struct fmk_route_args args) {
    __shared__ int64_t sums[WARPS_AT_MOST];
    allow_dependents();
    wait_for_dependency();
    /* A run of experts for each thread. */
    const int32_t run = (args.experts + FMK_ROWS_SCAN_THREADS - 1) / FMK_ROWS_SCAN_THREADS;
    const int32_t from = min(run * (int32_t)threadIdx.x, args.experts), to = min(from + run, args.experts);
    const int64_t room = args.capacity;
    int64_t entries = 0, tiles = 0, all;
    for (int32_t e = from; e < to; e++)
        entries += args.first[e + 1];
    entries = scan_block(entries, sums, &all);
    for (int32_t e = from; e < to; e++) {
        int64_t begin = min(entries, room);
        entries += args.first[e + 1];
        args.first[e + 1] = (int32_t)min(entries, room);
        if (args.tiles)
            tiles += tiles_of((int32_t)(min(entries, room) - begin), args.tile);
    }
    if (!args.tiles)
        return;
    int64_t tile = scan_block(tiles, sums, &all); /* and now every first[] can be seen */
    for (int32_t e = from; e < to; e++) {
        args.first_tile[e] = (int32_t)tile;
        tile += tiles_of(args.first[e + 1] - args.first[e], args.tile);
    }
    if (threadIdx.x == 0)
        args.first_tile[args.experts] = (int32_t)all;
    __syncthreads();
    for (int32_t t = threadIdx.x; t < args.num_tiles; t += FMK_ROWS_SCAN_THREADS)
        args.tiles[t] = tile_at(args, t);
}

/* Each expert's entries to its place, in their order: a block looks at all that may be its own. */
extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_route_place(
    const __grid_constant__ struct fmk_route_args args) {
    __shared__ int32_t sums[WARPS_AT_MOST];
    allow_dependents();
    wait_for_dependency();
    const int32_t end = pairs_end(args);
    for (int32_t expert = blockIdx.x; expert < args.experts; expert += gridDim.x) {
        int32_t place = args.first[expert];
        const int32_t limit = args.first[expert + 1];
        Range range = {args.begin, end};
        if (!args.ids)
            range = sorted_range(args, expert);
        for (int64_t base = range.from; base < range.to && place < limit;
             base += PLACE_ITEMS * FMK_ROWS_THREADS) {
            int64_t at = base + PLACE_ITEMS * (int)threadIdx.x;
            int32_t pair[PLACE_ITEMS], mine = 0, all;
#pragma unroll
            for (int i = 0; i < PLACE_ITEMS; i++) {
                pair[i] = -1;
                if (at + i >= range.to)
                    continue;
                if (!args.ids)
                    pair[i] = sorted_pair(args, (int32_t)(at + i));
                else if (expert_of_id(args, (int32_t)(at + i)) == expert)
                    pair[i] = (int32_t)(at + i);
                if (pair[i] < args.begin || pair[i] >= end)
                    pair[i] = -1;
                mine += pair[i] >= 0;
            }
            int32_t to = place + scan_block(mine, sums, &all);
#pragma unroll
            for (int i = 0; i < PLACE_ITEMS; i++)
                if (pair[i] >= 0 && to < limit)
                    write_entry(args, to++, pair[i]);
            place += all;
        }
    }
}

/* ---- routing of a few pairs by one block ---- */

enum {
    SMALL = FMK_ROUTE_SMALL_PAIRS,
    SMALL_ITEMS = SMALL / FMK_ROWS_THREADS,
    NOBODY = 0x7fffffff /* a key above all others */
};

/* The expert of the sorted row `at`, or -1. Ascends with it whatever the offsets are: a search that goes to
 * the right for one goes there for every larger one. */
__device__ __forceinline__ int32_t expert_of_sorted(const struct fmk_route_args &args, int32_t at) {
    int32_t after = lower_bound(args.offsets, args.experts + 1, at + 1);
    return after <= args.experts ? after - 1 : -1;
}

extern "C" __global__ __launch_bounds__(FMK_ROWS_THREADS) void rows_route_small(
    const __grid_constant__ struct fmk_route_args args) {
    __shared__ __align__(16) int32_t keys[SMALL]; /* expert * SMALL + place: all different */
    __shared__ int32_t experts[SMALL], sums[WARPS_AT_MOST];
    allow_dependents();
    wait_for_dependency();
    const int32_t end = pairs_end(args), me = threadIdx.x;
    const int32_t places = args.ids ? end - args.begin : args.sorted_limit;

    int32_t pair[SMALL_ITEMS], key[SMALL_ITEMS], rank[SMALL_ITEMS], mine = 0, count;
#pragma unroll
    for (int i = 0; i < SMALL_ITEMS; i++) {
        int32_t place = me + FMK_ROWS_THREADS * i, expert = -1;
        if (place < places) {
            expert = args.ids ? expert_of_id(args, args.begin + place) : expert_of_sorted(args, place);
            if (expert >= 0) /* entries past the last offset may not be there */
                pair[i] = args.ids ? args.begin + place : sorted_pair(args, place);
            if (expert >= 0 && (pair[i] < args.begin || pair[i] >= end))
                expert = -1;
        }
        keys[place] = key[i] = expert < 0 ? NOBODY : expert * SMALL + place;
        rank[i] = 0;
        mine += expert >= 0;
    }
    for (int32_t i = me; args.present && i < args.end - args.begin; i += FMK_ROWS_THREADS)
        args.present[i] = 0;
    scan_block(mine, sums, &count); /* and every key can be seen */
    count = min(count, args.capacity);

    for (int32_t i = 0; i < places; i += 4) {
        int4 other = *(const int4 *)&keys[i];
#pragma unroll
        for (int j = 0; j < SMALL_ITEMS; j++)
            rank[j] += (other.x < key[j]) + (other.y < key[j]) + (other.z < key[j]) + (other.w < key[j]);
    }
#pragma unroll
    for (int i = 0; i < SMALL_ITEMS; i++)
        if (key[i] != NOBODY && rank[i] < count) {
            experts[rank[i]] = key[i] / SMALL;
            write_entry(args, rank[i], pair[i]);
        }
    __syncthreads();

    for (int32_t e = me; args.first && e <= args.experts; e += FMK_ROWS_THREADS)
        args.first[e] = lower_bound(experts, count, e);
    if (!args.tiles)
        return;
    /* A tile begins at every so many entries of an expert. */
    int32_t begins[SMALL_ITEMS], tile = 0, tiles;
#pragma unroll
    for (int i = 0; i < SMALL_ITEMS; i++) {
        int32_t at = SMALL_ITEMS * me + i;
        begins[i] = at < count && (at - lower_bound(experts, count, experts[at])) % args.tile == 0;
        tile += begins[i];
    }
    tile = scan_block(tile, sums, &tiles);
#pragma unroll
    for (int i = 0; i < SMALL_ITEMS; i++) {
        int32_t at = SMALL_ITEMS * me + i;
        if (!begins[i] || tile >= args.num_tiles)
            continue;
        int32_t last = lower_bound(experts, count, experts[at] + 1);
        args.tiles[tile++] = {experts[at], at, min(args.tile, last - at), 0};
    }
    for (int32_t t = tiles + me; t < args.num_tiles; t += FMK_ROWS_THREADS)
        args.tiles[t] = {0, 0, 0, 0};
}
