/* Q6_K on tensor cores: linear_mma.cuh over q6_k.t16. Per sub-block of 16, with S = d * scale of the row:
 * total += S * (sum(code * x) - 32 sum(x)). */
#include "layout.h"
#include "linear_mma.cuh"

struct Q6k {
    static constexpr int ACTS_AHEAD = 2, UNIT_K = FMK_Q6K_UNIT_K, UNIT_BYTES = FMK_Q6K_UNIT, TILES = 2,
                         AHEAD = 1;
    static constexpr bool WIDE = false, WHOLE_UNITS = true; /* a step's 16 k are neighbours: they share a
                                                               scale */
    struct Slot {
        uint4 low[4][32], high[2][32];
        uint4 scales[16]; /* rows */
        uint16_t d[16];
    };
    struct Place {};
    struct Part {};

    static __device__ __forceinline__ Place place(const struct fmk_linear_part &, int32_t, int32_t, int) {
        return Place{};
    }
    static __device__ __forceinline__ Part part(const struct fmk_linear_part &) {
        return Part{};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Place &) {
        return UNIT_BYTES;
    }
    static __device__ __forceinline__ const uint8_t *row_block(const struct fmk_linear_part &part,
                                                               const uint8_t *data, int32_t row, int lane) {
        return data + (uint64_t)(row / 16) * part.stride + 16 * lane;
    }
    /* A tile is half a super-block. */
    static __device__ __forceinline__ void copy(const Place &, const uint8_t *from, int32_t, int tile,
                                                bool shared, int lane, Slot &slot) {
#pragma unroll
        for (int i = 2 * tile; i < 2 * tile + 2; i++)
            copy_16_async(&slot.low[i][lane], from + FMK_T16_TILE * i);
        copy_16_async(&slot.high[tile][lane], from + FMK_Q6K_UNIT_HIGH + FMK_T16_TILE * tile);
        if (shared && lane < 18) /* the scales and, behind them, d */
            copy_16_async(&slot.scales[0] + lane, from + FMK_Q6K_UNIT_SCALES);
    }

    /* Four low bits, and above them two of the high word: pair i of step `step` of its two. */
    template <class X>
    static __device__ __forceinline__ void unpack_6(uint32_t low, uint32_t high, int step, uint32_t a[4]) {
        unpack_bits<X>(low, a);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = X::low_bit(i) + 4;          /* where the two bits belong */
            int shift = 2 * (4 * step + i) - at; /* from where they are */
            uint32_t bits = shift < 0 ? high << -shift : high >> shift;
            a[i] = X::codes(a[i] | (bits & 0x00030003u << at));
        }
    }

    template <class X, int R, int NT> struct State {
        static constexpr int SHARED_TILE = 0;
        uint4 scales[R][2];
        float d[R][2];
        uint4 low[R], high[R];

        __device__ __forceinline__ void start(const Part &, const Slot (&slot)[R], int lane) {
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int row = lane / 4 + 8 * i;
                    scales[r][i] = slot[r].scales[row];
                    d[r][i] = f16_to_f32(slot[r].d[row]) * X::code_unit(i);
                }
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[NT], float (&total)[R][NT][4]) {
            const uint32_t offset[4] = {X::MINUS_32_CODES, X::MINUS_32_CODES_8, X::MINUS_32_CODES,
                                        X::MINUS_32_CODES_8};
            bool first_plane = plane == 0;
#pragma unroll
            for (int r = 0; r < R; r++) {
                if (b % 2 == 0 && first_plane)
                    low[r] = slot[r].low[b / 2][lane];
                if (b % 4 == 0 && first_plane)
                    high[r] = slot[r].high[b / 4][lane];
            }
#pragma unroll
            for (int step = 0; step < 2; step++) {
                int s = 2 * b + step; /* sub-block */
                float base[NT][4];    /* -32 sum(x), in the codes' unit */
#pragma unroll
                for (int n = 0; n < NT; n++)
                    mma_first<X>(base[n], offset, acts[n], step);
#pragma unroll
                for (int r = 0; r < R; r++) {
                    uint32_t a[4];
                    unpack_6<X>(not_before_here(word_of(low[r], s % 4)), word_of(high[r], s / 2 % 4), step,
                                a);
                    float acc[NT][4];
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        X::mma(acc[n], a, acts[n].b[2 * step], acts[n].b[2 * step + 1], base[n]);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        uint32_t word = not_before_here(word_of(scales[r][i], s / 4));
                        float scale = d[r][i] * (float)(int8_t)(word >> s % 4 * 8);
#pragma unroll
                        for (int n = 0; n < NT; n++)
#pragma unroll
                            for (int c = 2 * i; c < 2 * i + 2; c++)
                                total[r][n][c] = fmaf(scale, acc[n][c], total[r][n][c]);
                    }
                }
            }
        }

        __device__ __forceinline__ void finish(int, const Slot (&)[R], int, float, float (&)[R][NT][4]) {}
    };

    /* Column j of sums[step] is sub-block 2 j + step of the unit: scales come in once for all. */
    template <class X, int R> struct One {
        static constexpr int SHARED_TILE = TILES - 1; /* the scales are read last */
        float acc[2][R][4], base[2][4];
        uint4 low[R], high[R];

        __device__ __forceinline__ void start(const Part &, const Slot (&)[R], int) {}

        __device__ __forceinline__ void add_acts(const Acts &acts, bool first) {
            const uint32_t offset[4] = {X::MINUS_32_CODES, X::MINUS_32_CODES_8, X::MINUS_32_CODES,
                                        X::MINUS_32_CODES_8};
#pragma unroll
            for (int step = 0; step < 2; step++)
                if (first)
                    mma_first<X>(base[step], offset, acts, step);
                else
                    mma_add<X>(base[step], offset, acts, step);
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[1], float (&)[R][1][4]) {
            bool first_plane = plane == 0, first = b == 0 && first_plane;
#pragma unroll
            for (int step = 0; step < 2; step++) {
                int s = 2 * b + step;
#pragma unroll
                for (int r = 0; r < R; r++) {
                    if (step == 0 && b % 2 == 0 && first_plane)
                        low[r] = slot[r].low[b / 2][lane];
                    if (step == 0 && b % 4 == 0 && first_plane)
                        high[r] = slot[r].high[b / 4][lane];
                    uint32_t a[4];
                    unpack_6<X>(word_of(low[r], s % 4), word_of(high[r], s / 2 % 4), step, a);
                    if (first)
                        mma_first<X>(acc[step][r], a, acts[0], step);
                    else
                        mma_add<X>(acc[step][r], a, acts[0], step);
                }
            }
        }

        /* The lane's columns 2 t and 2 t + 1 have the scales 4 t .. 4 t + 3. */
        __device__ __forceinline__ void finish(int b, const Slot (&slot)[R], int lane, float factor,
                                               float (&total)[R][1][4]) {
            if (b < UNIT_K / 32 - 1)
                return;
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int row = lane / 4 + 8 * i;
                    uint32_t word = ((const uint32_t *)&slot[r].scales[row])[lane % 4];
                    float d = f16_to_f32(slot[r].d[row]) * X::code_unit(i) * factor;
#pragma unroll
                    for (int j = 0; j < 2; j++)
#pragma unroll
                        for (int step = 0; step < 2; step++) {
                            float scale = d * (float)(int8_t)(word >> 8 * (2 * j + step));
                            float value = acc[step][r][2 * i + j] + base[step][2 * i + j];
                            total[r][0][2 * i + j] = fmaf(scale, value, total[r][0][2 * i + j]);
                        }
                }
        }
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void q6k_f16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q6k_f16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void q6k_f16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void q6k_f16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q6k_bf16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q6k_bf16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void q6k_bf16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void q6k_bf16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q6k_f16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q6k, F16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q6k_f16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q6k, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q6k_bf16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q6k, Bf16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q6k_bf16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q6k, Bf16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q6k_f32_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q6k, F32, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q6k_f32_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q6k, F32, 2, 4>(args);
}
