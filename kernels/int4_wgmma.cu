/* Grouped INT4 for many tokens, on compute capability 9.0: wgmma.cuh over int4.t64. */
#include "wgmma.cuh"

extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 1, 32, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_256x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 2, 32, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_512x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 4, 32, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 1, 64, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_256x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 2, 64, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_512x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 4, 64, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_128x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 1, 128, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_256x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 2, 128, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_f16_512x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<F16, 2, 2, 128, 1, 2>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 1, 32, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_256x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 2, 32, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_512x32(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 4, 32, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 1, 64, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_256x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 2, 64, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_512x64(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 4, 64, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_128x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 1, 128, 4, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_256x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 2, 128, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(384, 1) void int4_bf16_512x128(
    const __grid_constant__ struct fmk_wgmma_args args) {
    linear_wgmma<Bf16, 2, 2, 128, 1, 2>(args);
}
