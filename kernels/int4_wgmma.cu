/* Grouped INT4 for many tokens, on compute capability 9.0: wgmma.cuh and wgmma_wide.cuh over int4.t64. */
#include "wgmma_wide.cuh"

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_64x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 1, 16, 4, 4, true>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 2, 16, 2, 2, true>>(args);
}

extern "C" __global__ __launch_bounds__(640, 1) void int4_f16_256x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<4, 1, 16, 4, 4>>(args);
}

extern "C" __global__ __launch_bounds__(640, 1) void int4_f16_512x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<4, 2, 16, 2, 2>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_64x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 1, 32, 4, 4, true>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 1, 32, 4, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_256x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 2, 32, 2, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 1, 64, 4, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_256x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 2, 64, 2, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, Plan<2, 1, 128, 0, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_wide_128x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<2, 128, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_wide_128x144(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<2, 144, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_wide_128x160(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<2, 160, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_wide_128x192(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<2, 192, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_wide_128x224(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<2, 224, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_wide_256x256(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<2, 256, 2>>(args);
}
extern "C" __global__ __launch_bounds__(512, 1) void int4_f16_wide_192x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<F16, Wide<3, 128, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_64x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 1, 16, 4, 4, true>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 2, 16, 2, 2, true>>(args);
}

extern "C" __global__ __launch_bounds__(640, 1) void int4_bf16_256x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<4, 1, 16, 4, 4>>(args);
}

extern "C" __global__ __launch_bounds__(640, 1) void int4_bf16_512x16(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<4, 2, 16, 2, 2>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_64x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 1, 32, 4, 4, true>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 1, 32, 4, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_256x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 2, 32, 2, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 1, 64, 4, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_256x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 2, 64, 2, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, Plan<2, 1, 128, 0, 4>>(args);
}

extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_wide_128x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<2, 128, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_wide_128x144(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<2, 144, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_wide_128x160(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<2, 160, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_wide_128x192(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<2, 192, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_wide_128x224(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<2, 224, 1>>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_wide_256x256(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<2, 256, 2>>(args);
}
extern "C" __global__ __launch_bounds__(512, 1) void int4_bf16_wide_192x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wide<Bf16, Wide<3, 128, 1>>(args);
}
