/* What every kernel does with a sum before it is stored: t += bias + addend; out = act(t) * weight. */
#ifndef FMK_KERNELS_EPILOGUE_CUH
#define FMK_KERNELS_EPILOGUE_CUH

#include "args.h"
#include "numbers.cuh"

enum { ACT_SILU_MUL = 1, ACT_GELU_TANH_MUL = 2 }; /* as in ferrumk.h */

__device__ __forceinline__ float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float activate(const struct fmk_epilogue_args &e, float g, float u) {
    const float root = 0.7978845608028654f; /* sqrt(2 / pi) */
    switch (e.act) {
    case ACT_SILU_MUL:
        return g * sigmoid(g) * u;
    case ACT_GELU_TANH_MUL:
        return 0.5f * g * (1.0f + tanhf(root * (g + 0.044715f * g * g * g))) * u;
    default: /* SWIGLU_CLAMP; written so that a NaN stays one */
        g = g > e.limit ? e.limit : g;
        u = u > e.limit ? e.limit : u < -e.limit ? -e.limit : u;
        return g * sigmoid(e.alpha * g) * (u + 1.0f);
    }
}

__device__ __forceinline__ float addend_at(const struct fmk_epilogue_args &e, int64_t row, int32_t column) {
    return e.addend ? load_number(e.addend, e.addend_type, row * e.addend_stride + column) : 0.0f;
}

__device__ __forceinline__ void store_result(const struct fmk_epilogue_args &e, void *out, int64_t row,
                                             int32_t column, float value) {
    if (e.weights)
        value *= e.weights[row];
    store_number(out, e.out_type, row * e.out_stride + column, value);
}

/* One column without an activation. `out` is e.out, or the expert's share of it. */
__device__ __forceinline__ void finish(const struct fmk_epilogue_args &e, void *out, int64_t row,
                                       int32_t column, float t) {
    store_result(e, out, row, column, t + addend_at(e, row, column));
}

/* The same column of gate and up. */
__device__ __forceinline__ void finish_glu(const struct fmk_epilogue_args &e, void *out, int64_t row,
                                           int32_t column, float gate, float up) {
    gate += addend_at(e, row, column);
    up += addend_at(e, row, e.up_column + column);
    store_result(e, out, row, column, activate(e, gate, up));
}

#endif
