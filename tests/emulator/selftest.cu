/* Kernels of test_emulator.cpp, which knows what they should give. */
#include "ptx_sm90.cuh"
#include "selftest.h"

/* Each block of 256 threads reverses its 256 numbers, again and again. */
extern "C" __global__ __launch_bounds__(256) void selftest_reverse(
    const __grid_constant__ struct selftest_reverse_args args) {
    __shared__ int32_t values[256];
    wait_for_dependency();
    int me = threadIdx.x, at = 256 * (blockIdx.x + gridDim.x * blockIdx.y);
    values[me] = args.in[at + me];
    for (int round = 0; round < args.rounds; round++) {
        __syncthreads();
        int32_t value = values[255 - me];
        __syncthreads();
        values[me] = value;
    }
    __syncthreads();
    args.out[at + me] = values[255 - (255 - me)];
}

/* Sums by warps, then by the first warp; the rest of the threads have ended by then. */
extern "C" __global__ __launch_bounds__(1024) void selftest_sum(
    const __grid_constant__ struct selftest_sum_args args) {
    __shared__ int32_t sums[32];
    wait_for_dependency();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < args.count; i += gridDim.x * blockDim.x)
        sum += args.in[i];
    for (int step = 16; step; step /= 2)
        sum += __shfl_down_sync(0xffffffff, sum, step);
    if (lane == 0)
        sums[warp] = sum;
    __syncthreads();
    if (warp)
        return;
    sum = lane < (int)blockDim.x / 32 ? sums[lane] : 0;
    for (int step = 16; step; step /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, step);
    __syncthreads();
    if (lane)
        return;
    args.out[blockIdx.x] = sum;
    atomicAdd(args.total, sum);
    atomicMax(args.largest, sum);
}

extern "C" __global__ __launch_bounds__(64) void selftest_shuffle(
    const __grid_constant__ struct selftest_shuffle_args args) {
    wait_for_dependency();
    int me = threadIdx.x, lane = me % 32;
    args.out[me] = __shfl_sync(0xffffffff, me, 5);
    args.out[64 + me] = __shfl_xor_sync(0xffffffff, me, 3);
    args.out[128 + me] = __shfl_down_sync(0xffffffff, me, 7, 16);
    args.out[192 + me] = __shfl_up_sync(0xffffffff, me, 3, 8);
    args.out[256 + me] = (int32_t)__ballot_sync(0xffffffff, lane % 3 == 0);
    /* halves of a warp that meet apart */
    if (lane < 16)
        args.out[320 + me] = __shfl_sync(0x0000ffff, me, 2);
    else
        args.out[320 + me] = __shfl_sync(0xffff0000, me, 2 + 16);
    __syncwarp();
    int64_t wide = (int64_t)me << 32;
    args.out[384 + me] = (int32_t)(__shfl_xor_sync(0xffffffff, wide, 1) >> 32);
}

extern "C" __global__ __launch_bounds__(32) void selftest_mma(
    const __grid_constant__ struct selftest_mma_args args) {
    wait_for_dependency();
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t a[4];
    float c[4];
    for (int i = 0; i < 4; i++) {
        const uint16_t *pair = args.a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        a[i] = pair[0] | (uint32_t)pair[1] << 16;
        c[i] = args.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    }
    const uint16_t *b = args.b + g * 16 + 2 * t;
    uint32_t b0 = b[0] | (uint32_t)b[1] << 16, b1 = b[8] | (uint32_t)b[9] << 16;
    for (int round = 0; round < args.rounds; round++) {
        if (args.bf16)
            mma_bf16(c, a, b0, b1, c);
        else
            mma_f16(c, a, b0, b1, c);
    }
    for (int i = 0; i < 4; i++)
        args.d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

/* Sums units of 64 numbers that come through a ring of three stages, by bulk copies; the last warp fetches.
 * `wrong` 1: a stage is released before it is read; 2: nobody waits for what comes; 3: nobody expects it. */
extern "C" __global__ __launch_bounds__(96) void selftest_ring(
    const __grid_constant__ struct selftest_ring_args args) {
    const int stages = 3, unit_bytes = 256;
    const uint32_t ring = shared_address(dynamic_shared()), full = ring + stages * unit_bytes,
                   empty = full + 8 * stages;
    wait_for_dependency();
    if (threadIdx.x == 0) {
        for (int i = 0; i < stages; i++) {
            mbarrier_init(full + 8 * i, 1);
            mbarrier_init(empty + 8 * i, 2);
        }
        fence_mbarrier_init();
    }
    __syncthreads();
    const uint32_t *in = args.in + (int64_t)blockIdx.x * args.units * 64;
    if (threadIdx.x == 64)
        for (int i = 0; i < args.units; i++) {
            const uint32_t slot = i % stages, at = full + 8 * slot;
            mbarrier_wait(empty + 8 * slot, i / stages % 2 ^ 1);
            if (args.wrong != 3)
                mbarrier_arrive_expecting(at, unit_bytes);
            copy_bulk(ring + slot * unit_bytes, in + 64 * i, unit_bytes, at);
        }
    if (threadIdx.x >= 64)
        return;
    uint32_t sum = 0;
    const uint32_t *numbers = (const uint32_t *)dynamic_shared();
    for (int i = 0; i < args.units; i++) {
        const uint32_t slot = i % stages;
        if (args.wrong != 2)
            mbarrier_wait(full + 8 * slot, i / stages % 2);
        __syncwarp();
        if (args.wrong == 1 && threadIdx.x % 32 == 0)
            mbarrier_arrive(empty + 8 * slot);
        sum += numbers[64 * slot + threadIdx.x];
        __syncwarp();
        if (args.wrong != 1 && threadIdx.x % 32 == 0)
            mbarrier_arrive(empty + 8 * slot);
    }
    uint32_t *sums = (uint32_t *)dynamic_shared();
    barrier_named(1, 64);
    sums[threadIdx.x] = sum;
    if (threadIdx.x >= 32) {
        arrive_named(2, 64);
        return;
    }
    barrier_named(2, 64);
    args.out[32 * blockIdx.x + threadIdx.x] = sums[threadIdx.x] + sums[32 + threadIdx.x];
}

extern "C" __global__ __launch_bounds__(32) void selftest_matrices(
    const __grid_constant__ struct selftest_matrices_args args) {
    __shared__ __align__(16) uint16_t rows[2][32][8];
    wait_for_dependency();
    const int lane = threadIdx.x;
    for (int i = 0; i < 8; i++)
        rows[0][lane][i] = args.in[8 * lane + i];
    __syncwarp();
    uint32_t v[4];
    load_matrices(shared_address(rows[0][lane]), v);
    store_transposed(shared_address(rows[1][lane]), v);
    __syncwarp();
    for (int i = 0; i < 8; i++) {
        args.out[8 * lane + i] = rows[1][lane][i];
        args.out[256 + 8 * lane + i] = (uint16_t)(v[i / 2] >> i % 2 * 16);
    }
}

/* For looking at what the emulator says of faults: which one is asked for. */
extern "C" __global__ __launch_bounds__(64) void selftest_fault(
    const __grid_constant__ struct selftest_fault_args args) {
    wait_for_dependency();
    if (threadIdx.x == 37) {
        if (args.kind == 0)
            args.at[args.count] = 1;
        if (args.kind == 1)
            args.at[args.count + 4096] = 1;
        if (args.kind == 2)
            __syncwarp(0xffffffff);
    }
}

/* A warp's threads read what their neighbours wrote, or had copied; `order` is what stands between. */
extern "C" __global__ __launch_bounds__(32) void selftest_neighbour(
    const __grid_constant__ struct selftest_neighbour_args args) {
    __shared__ int4 values[32];
    wait_for_dependency();
    int me = threadIdx.x;
    if (args.copy) {
        copy_16_async(&values[me], args.in + 4 * me);
        end_copies();
        wait_for_copies<0>();
    } else {
        values[me].x = args.in[4 * me];
    }
    if (args.order == SELFTEST_SYNCTHREADS)
        __syncthreads();
    if (args.order == SELFTEST_SYNCWARP)
        __syncwarp();
    if (args.order == SELFTEST_SHUFFLE)
        __shfl_xor_sync(0xffffffff, me, 1);
    args.out[me] = values[me ^ 1].x;
}
