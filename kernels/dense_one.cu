/* Dense weights and one token: a warp takes two rows, or a row of gate and the same of up, and reads them
 * from end to end. Weights and activations of any two types meet as floats; a lane's sums are added up in a
 * fixed tree. */
#include "dense_one.h"
#include "epilogue.cuh"

enum { STEP = 8 * 32, AHEAD = 4 }; /* k that a warp takes at once, eight a lane; and steps in flight */

struct Eight {
    float x[8];
};

/* Eight numbers at an address that is a multiple of 16, or of 32 for floats. */
template <int TYPE> struct Numbers;

template <> struct Numbers<NUMBER_F16> {
    uint4 bits;
    __device__ __forceinline__ void load(const void *from, int32_t at, bool stream) {
        const uint16_t *first = (const uint16_t *)from + at;
        bits = stream ? load_stream(first) : load_16(first);
    }
    __device__ __forceinline__ Eight floats() const {
        const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
        Eight out;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            out.x[2 * i] = f16_to_f32((uint16_t)words[i]);
            out.x[2 * i + 1] = f16_to_f32((uint16_t)(words[i] >> 16));
        }
        return out;
    }
};

template <> struct Numbers<NUMBER_BF16> {
    uint4 bits;
    __device__ __forceinline__ void load(const void *from, int32_t at, bool stream) {
        const uint16_t *first = (const uint16_t *)from + at;
        bits = stream ? load_stream(first) : load_16(first);
    }
    __device__ __forceinline__ Eight floats() const {
        const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
        Eight out;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            out.x[2 * i] = bits_to_f32(words[i] << 16);
            out.x[2 * i + 1] = bits_to_f32(words[i] & 0xffff0000);
        }
        return out;
    }
};

template <> struct Numbers<NUMBER_F32> {
    uint4 bits[2];
    __device__ __forceinline__ void load(const void *from, int32_t at, bool stream) {
        const float *first = (const float *)from + at;
#pragma unroll
        for (int i = 0; i < 2; i++)
            bits[i] = stream ? load_stream(first + 4 * i) : load_16(first + 4 * i);
    }
    __device__ __forceinline__ Eight floats() const {
        Eight out;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            out.x[4 * i] = bits_to_f32(bits[i].x);
            out.x[4 * i + 1] = bits_to_f32(bits[i].y);
            out.x[4 * i + 2] = bits_to_f32(bits[i].z);
            out.x[4 * i + 3] = bits_to_f32(bits[i].w);
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
    if (args.glu) {
        int32_t row = 4 * (int32_t)blockIdx.x + warp;
        return Rows{{0, 1}, {row, row}};
    }
    int32_t p = 0, block = (int32_t)blockIdx.x;
    while (p < args.num_parts - 1 && block >= FMK_DENSE_ONE_BLOCKS(args.part[p].n))
        block -= FMK_DENSE_ONE_BLOCKS(args.part[p++].n);
    int32_t row = FMK_DENSE_ONE_ROWS * block + 2 * warp;
    return Rows{{p, p}, {row, row + 1}};
}

template <int W, int X> __device__ __forceinline__ void dense_one(const struct fmk_linear_kernel_args &args) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Rows rows = find_rows(args, warp);
    const struct fmk_epilogue_args &e = args.epilogue;
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
    bool there[2];
    Numbers<W> weights[AHEAD][2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const struct fmk_linear_part &part = args.part[rows.part[i]];
        there[i] = rows.row[i] < part.n;
        from[i] = (const char *)part.data + (uint64_t)expert * part.expert_stride +
                  (uint64_t)min(rows.row[i], part.n - 1) * part.stride;
    }
    int32_t k = 8 * lane;
#pragma unroll
    for (int s = 0; s < AHEAD; s++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (k + STEP * s < args.k)
                weights[s][i].load(from[i], k + STEP * s, true);

    wait_for_dependency();
    if (!args.tiles && args.m_dev && number >= *args.m_dev)
        return;
    int64_t in_row = args.in_rows ? args.in_rows[number] : number;
    const char *in = (const char *)args.in +
                     (in_row * args.in_stride + blockIdx.z * args.expert_in_stride) * number_size(X);
    float sum[2][2] = {};
    for (; k < args.k; k += STEP * AHEAD) {
        Numbers<X> acts[AHEAD];
#pragma unroll
        for (int s = 0; s < AHEAD; s++)
            if (k + STEP * s < args.k)
                acts[s].load(in, k + STEP * s, false);
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            if (k + STEP * s >= args.k)
                continue;
            Eight x = acts[s].floats();
#pragma unroll
            for (int i = 0; i < 2; i++) {
                Eight w = weights[s][i].floats();
#pragma unroll
                for (int c = 0; c < 8; c++)
                    sum[i][c % 2] = fmaf(w.x[c], x.x[c], sum[i][c % 2]);
                if (k + STEP * (s + AHEAD) < args.k)
                    weights[s][i].load(from[i], k + STEP * (s + AHEAD), true);
            }
        }
    }

    float t[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const struct fmk_linear_part &part = args.part[rows.part[i]];
        t[i] = add_lanes(sum[i][0] + sum[i][1]);
        if (there[i] && part.bias)
            t[i] += part.bias[(int64_t)expert * part.n + rows.row[i]];
    }
    void *out = (char *)e.out + blockIdx.z * args.expert_out_stride * number_size(e.out_type);
    int64_t out_row = args.out_rows ? args.out_rows[number] : number;
    if (args.glu) {
        if (lane == 0 && there[0])
            finish_glu(e, out, out_row, rows.row[0], t[0], t[1]);
    } else if (lane < 2 && there[lane]) {
        finish(e, out, out_row, args.part[rows.part[0]].column + rows.row[0] + lane, lane ? t[1] : t[0]);
    }
}

extern "C" __global__ __launch_bounds__(128) void dense_one_f16_f16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F16, NUMBER_F16>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_f16_bf16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F16, NUMBER_BF16>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_f16_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F16, NUMBER_F32>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_bf16_f16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_BF16, NUMBER_F16>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_bf16_bf16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_BF16, NUMBER_BF16>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_bf16_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_BF16, NUMBER_F32>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_f32_f16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F32, NUMBER_F16>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_f32_bf16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F32, NUMBER_BF16>(args);
}
extern "C" __global__ __launch_bounds__(128) void dense_one_f32_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    dense_one<NUMBER_F32, NUMBER_F32>(args);
}
