/* Q6_K on tensor cores: linear_mma.cuh over q6_k.t16. Per sub-block of 16, with S = d * scale of the row:
 * total += S * (sum(code * x) - 32 sum(x)). */
#include "layout.h"
#include "linear_mma.cuh"

struct Q6k {
    static constexpr int UNIT_K = FMK_Q6K_UNIT_K, AHEAD = 1;
    static constexpr bool WIDE = false; /* a step's 16 k are neighbours: they share a scale */
    struct Codes {
        uint4 low[4], high[2];
    };
    struct Header {
        uint4 scales[2]; /* of rows g and g + 8 */
        uint16_t d[2];
    };
    struct Part {};

    static __device__ __forceinline__ Part part(const struct fmk_linear_part &, int32_t, int32_t, int) {
        return Part{};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Part &) {
        return FMK_Q6K_UNIT;
    }
    static __device__ __forceinline__ const uint8_t *row_block(const struct fmk_linear_part &part,
                                                               const uint8_t *data, int32_t row, int) {
        return data + (uint64_t)(row / 16) * part.stride;
    }
    static __device__ __forceinline__ void load(const Part &, const uint8_t *from, int32_t, int b, int lane,
                                                Codes &codes) {
        if (b % 2)
            codes.low[b / 2] = load_stream(from + b / 2 * FMK_T16_TILE + 16 * lane);
        if (b % 4 == 3)
            codes.high[b / 4] = load_stream(from + FMK_Q6K_UNIT_HIGH + b / 4 * FMK_T16_TILE + 16 * lane);
    }
    static __device__ __forceinline__ Header load_header(const Part &, const uint8_t *from, int lane) {
        Header h;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = lane / 4 + 8 * i;
            h.scales[i] = load_stream(from + FMK_Q6K_UNIT_SCALES + 16 * row);
            h.d[i] = load_stream_2(from + FMK_Q6K_UNIT_D + 2 * row);
        }
        return h;
    }

    /* Four low bits, and above them two of the high word: pair i of step `step` of its two. */
    template <class X>
    static __device__ __forceinline__ void unpack_6(uint32_t low, uint32_t high, int step, uint32_t a[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int shift = 2 * (4 * step + i) - 4; /* brings the field to bits 4 and 5 */
            uint32_t bits = shift < 0 ? high << -shift : high >> shift;
            a[i] = X::codes((low >> 4 * i & 0x000f000f) | (bits & 0x00300030));
        }
    }

    template <class X, int R, int NT> struct State {
        uint4 scales[R][2];
        float d[R][2];

        __device__ __forceinline__ void start(const Part (&)[R], const Header (&header)[R],
                                              const uint8_t *const (&)[R], int) {
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    scales[r][i] = header[r].scales[i];
                    d[r][i] = f16_to_f32(header[r].d[i]) * X::CODE_UNIT;
                }
        }

        __device__ __forceinline__ void multiply(int b, int, const Codes (&codes)[R], const Acts (&acts)[NT],
                                                 float (&total)[R][NT][4]) {
            const uint32_t offset[4] = {X::MINUS_32_CODES, X::MINUS_32_CODES, X::MINUS_32_CODES,
                                        X::MINUS_32_CODES};
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
                    unpack_6<X>(word_of(codes[r].low[s / 4], s % 4), word_of(codes[r].high[s / 8], s / 2 % 4),
                                step, a);
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

        __device__ __forceinline__ void finish(int, float (&)[R][NT][4]) {}
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void q6k_f16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void q6k_f16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q6k_f16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q6k_f16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q6k_bf16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void q6k_bf16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q6k_bf16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void q6k_bf16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q6k, Bf16, 2, 4>(args);
}
