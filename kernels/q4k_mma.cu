/* Q4_K on tensor cores: linear_mma.cuh over q4_k.t16. Per sub-block of 32, with S = d * scale and M = dmin *
 * min of the row: total += S * sum(code * x) - M * sum(x). */
#include "layout.h"
#include "linear_mma.cuh"

struct Q4k {
    static constexpr int UNIT_K = FMK_Q4K_UNIT_K, AHEAD = 1;
    static constexpr bool WIDE = true;
    struct Codes {
        uint4 tile[4];
    };
    struct Header {
        uint4 row[2]; /* d and dmin, scales[12] of rows g and g + 8 */
    };
    struct Part {};

    static __device__ __forceinline__ Part part(const struct fmk_linear_part &, int32_t, int32_t, int) {
        return Part{};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Part &) {
        return FMK_Q4K_UNIT;
    }
    static __device__ __forceinline__ const uint8_t *row_block(const struct fmk_linear_part &part,
                                                               const uint8_t *data, int32_t row, int) {
        return data + (uint64_t)(row / 16) * part.stride;
    }
    static __device__ __forceinline__ void load(const Part &, const uint8_t *from, int32_t, int b, int lane,
                                                Codes &codes) {
        if (b % 2)
            codes.tile[b / 2] = load_stream(from + b / 2 * FMK_T16_TILE + 16 * lane);
    }
    static __device__ __forceinline__ Header load_header(const Part &, const uint8_t *from, int lane) {
        const uint8_t *rows = from + FMK_Q4K_UNIT_HEADERS + 16 * (lane / 4);
        return Header{{load_stream(rows), load_stream(rows + 16 * 8)}};
    }

    /* A row's eight scales and minima, a byte each: the first four of each have 6 bits of a word of their
     * own, the last four 4 bits of the third word and 2 that the others have left. */
    struct Scales {
        float d, dmin;
        uint32_t scale[2], min[2];
    };

    template <class X> static __device__ __forceinline__ Scales expand(const uint4 &row) {
        Scales s;
        s.d = f16_to_f32((uint16_t)row.x) * X::CODE_UNIT;
        s.dmin = f16_to_f32((uint16_t)(row.x >> 16));
        s.scale[0] = row.y & 0x3f3f3f3f;
        s.scale[1] = (row.w & 0x0f0f0f0f) | (row.y >> 6 & 0x03030303) << 4;
        s.min[0] = row.z & 0x3f3f3f3f;
        s.min[1] = (row.w >> 4 & 0x0f0f0f0f) | (row.z >> 6 & 0x03030303) << 4;
        return s;
    }

    template <class X, int R, int NT> struct State {
        Scales scales[R][2];

        __device__ __forceinline__ void start(const Part (&)[R], const Header (&header)[R],
                                              const uint8_t *const (&)[R], int) {
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    scales[r][i] = expand<X>(header[r].row[i]);
        }

        __device__ __forceinline__ void multiply(int b, int, const Codes (&codes)[R], const Acts (&acts)[NT],
                                                 float (&total)[R][NT][4]) {
            float sum[NT][4];
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], acts[n], true);
#pragma unroll
            for (int r = 0; r < R; r++) {
                float acc[NT][4];
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4];
                    unpack<X>(word_of(codes[r].tile[b / 2], b % 2 * 2 + step), a);
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        if (step == 0)
                            mma_first<X>(acc[n], a, acts[n], step);
                        else
                            mma_add<X>(acc[n], a, acts[n], step);
                }
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const Scales &s = scales[r][i];
                    float scale = s.d * (float)(uint8_t)(not_before_here(s.scale[b / 4]) >> b % 4 * 8);
                    float min = s.dmin * (float)(uint8_t)(not_before_here(s.min[b / 4]) >> b % 4 * 8);
#pragma unroll
                    for (int n = 0; n < NT; n++)
#pragma unroll
                        for (int c = 2 * i; c < 2 * i + 2; c++) {
                            total[r][n][c] = fmaf(scale, acc[n][c], total[r][n][c]);
                            total[r][n][c] = fmaf(-min, sum[n][c], total[r][n][c]);
                        }
                }
            }
        }

        __device__ __forceinline__ void finish(int, float (&)[R][NT][4]) {}
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void q4k_f16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, F16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void q4k_f16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, F16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q4k_f16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, F16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q4k_f16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q4k_bf16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, Bf16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void q4k_bf16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, Bf16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q4k_bf16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, Bf16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q4k_bf16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k, Bf16, 2, 4>(args);
}
