/* Dense weights and one token: a warp takes two rows, or a row of gate and the same of up, and reads them
 * from end to end through a ring of asynchronous copies. Weights and activations of any two types meet as
 * floats; a lane's sums are added up in a fixed tree. */
#include "dense_one.h"
#include "epilogue.cuh"

enum { STEP = 8 * 32 }; /* k that a warp takes at once, eight a lane */

struct Eight {
    float x[8];
};

/* Eight numbers as they lie in memory. */
template <int TYPE> struct Numbers {
    static constexpr int WORDS_16 = TYPE == NUMBER_F32 ? 2 : 1; /* of 16 bytes */
    uint4 bits[WORDS_16];

    __device__ __forceinline__ void load(const void *from) {
#pragma unroll
        for (int i = 0; i < WORDS_16; i++)
            bits[i] = load_16((const uint4 *)from + i);
    }

    __device__ __forceinline__ Eight floats() const {
        Eight out;
#pragma unroll
        for (int i = 0; i < WORDS_16; i++) {
            const uint32_t words[4] = {bits[i].x, bits[i].y, bits[i].z, bits[i].w};
#pragma unroll
            for (int w = 0; w < 4; w++)
                if (TYPE == NUMBER_F32) {
                    out.x[4 * i + w] = bits_to_f32(words[w]);
                } else if (TYPE == NUMBER_F16) {
                    out.x[2 * w] = f16_to_f32((uint16_t)words[w]);
                    out.x[2 * w + 1] = f16_to_f32((uint16_t)(words[w] >> 16));
                } else {
                    out.x[2 * w] = bits_to_f32(words[w] << 16);
                    out.x[2 * w + 1] = bits_to_f32(words[w] & 0xffff0000);
                }
        }
        return out;
    }
};

__device__ __forceinline__ float add_lanes(float sum) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, distance);
    return sum;
}

struct Rows {
    int32_t part[2], row[2];
};

/* The two rows of a warp; without `glu` neighbours. */
__device__ __forceinline__ Rows find_rows(const struct fmk_linear_kernel_args &args, int warp) {
    int32_t block = (int32_t)blockIdx.x, p = 0;
    if (args.glu) {
        int32_t row = FMK_DENSE_ONE_ROWS / 2 * block + warp;
        return Rows{{0, 1}, {row, row}};
    }
    while (p < args.num_parts - 1 && block >= FMK_DENSE_ONE_BLOCKS(args.part[p].n))
        block -= FMK_DENSE_ONE_BLOCKS(args.part[p++].n);
    int32_t row = FMK_DENSE_ONE_ROWS * block + 2 * warp;
    return Rows{{p, p}, {row, row + 1}};
}

template <int W, int X> __device__ __forceinline__ void dense_one(const struct fmk_linear_kernel_args &args) {
    constexpr int WARPS = FMK_DENSE_ONE_THREADS / 32, WORDS = Numbers<W>::WORDS_16, SLOTS = 8 / WORDS;
    __shared__ uint4 rings[WARPS][SLOTS][2][WORDS][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const struct fmk_epilogue_args &e = args.epilogue;
    const Rows rows = find_rows(args, warp);
    const int32_t steps = (args.k + STEP - 1) / STEP;
    uint4(&ring)[SLOTS][2][WORDS][32] = rings[warp];
    allow_dependents();
    int32_t expert = args.expert + (int32_t)blockIdx.z, number = args.first_row + (int32_t)blockIdx.y;
    if (args.tiles) {
        wait_for_dependency();
        struct fmk_token_tile tile = args.tiles[blockIdx.y];
        if (!tile.count)
            return;
        expert = tile.expert;
        number = tile.first;
    }

    const char *from[2];
    bool stored[2];
#pragma unroll
    for (int i = 0; i < 2; i++) { /* a row past the last repeats it, and is not stored */
        const struct fmk_linear_part &part = args.part[rows.part[i]];
        stored[i] = rows.row[i] < part.n;
        from[i] = (const char *)part.data + (uint64_t)expert * part.expert_stride +
                  (uint64_t)min(rows.row[i], part.n - 1) * part.stride + 16 * WORDS * lane;
    }
    /* Warps begin their rows at different steps, and go round: rows that lie a power of two apart would
     * otherwise be read from the same memory channels at the same time. */
    const int32_t first = (int32_t)(blockIdx.x * WARPS + warp) % steps;
    int32_t ahead = first, step = first; /* of the copies, of the sums */
    auto copy = [&](int slot) {
        bool there = STEP * ahead + 8 * lane < args.k;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int w = 0; w < WORDS; w++)
                copy_16_async(&ring[slot][i][w][lane], from[i] + 16 * (WORDS * 32 * (int64_t)ahead + w),
                              there);
        end_copies();
        ahead = ahead + 1 < steps ? ahead + 1 : 0;
    };
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++)
        if (slot < steps)
            copy(slot);
        else
            end_copies();

    wait_for_dependency();
    if (!args.tiles && args.m_dev && number >= *args.m_dev) {
        wait_for_copies<0>();
        return;
    }
    int64_t in_row = args.in_rows ? args.in_rows[number] : number;
    const char *in =
        (const char *)args.in +
        (in_row * args.in_stride + blockIdx.z * args.expert_in_stride + 8 * lane) * number_size(X);
    Numbers<X> acts; /* of the next step */
    if (STEP * step + 8 * lane < args.k)
        acts.load(in + (int64_t)STEP * step * number_size(X));
    float sum[2][2] = {};
    for (int32_t done = 0, slot = 0; done < steps; done++) {
        bool there = STEP * step + 8 * lane < args.k;
        Eight x = acts.floats();
        step = step + 1 < steps ? step + 1 : 0;
        if (STEP * step + 8 * lane < args.k)
            acts.load(in + (int64_t)STEP * step * number_size(X));
        wait_for_copies<SLOTS - 1>();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            Numbers<W> weights;
#pragma unroll
            for (int w = 0; w < WORDS; w++)
                weights.bits[w] = ring[slot][i][w][lane];
            Eight w = weights.floats();
            if (there)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    sum[i][c % 2] = fmaf(w.x[c], x.x[c], sum[i][c % 2]);
        }
        if (done + SLOTS < steps)
            copy(slot);
        else
            end_copies(); /* so that the groups count the steps */
        slot = (slot + 1) % SLOTS;
    }

    float t[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const struct fmk_linear_part &part = args.part[rows.part[i]];
        t[i] = add_lanes(sum[i][0] + sum[i][1]);
        if (stored[i] && part.bias)
            t[i] += part.bias[(int64_t)expert * part.n + rows.row[i]];
    }
    char *out = (char *)e.out + blockIdx.z * args.expert_out_stride * number_size(e.out_type);
    int64_t out_row = args.out_rows ? args.out_rows[number] : number;
    if (args.glu) {
        if (lane == 0 && stored[0])
            finish_glu(e, out, out_row, rows.row[0], t[0], t[1]);
    } else if (lane < 2 && stored[lane]) {
        finish(e, out, out_row, args.part[rows.part[0]].column + rows.row[0] + lane, lane ? t[1] : t[0]);
    }
}

extern "C" __global__ __launch_bounds__(128, 6) void dense_one_f16_f16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F16, NUMBER_F16>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_f16_bf16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F16, NUMBER_BF16>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_f16_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F16, NUMBER_F32>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_bf16_f16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_BF16, NUMBER_F16>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_bf16_bf16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_BF16, NUMBER_BF16>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_bf16_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_BF16, NUMBER_F32>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_f32_f16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F32, NUMBER_F16>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_f32_bf16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F32, NUMBER_BF16>(args);
}
extern "C" __global__ __launch_bounds__(128, 6) void dense_one_f32_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F32, NUMBER_F32>(args);
}
