/* Dense weights of the activations' own type on tensor cores: linear_mma.cuh over the rows as they lie in the
 * file. */
#include "linear_mma.cuh"

struct Dense {
    static constexpr int UNIT_K = 64, AHEAD = 2;
    static constexpr bool WIDE = true;
    struct Codes {
        uint4 row[2][2]; /* [32 k][rows g and g + 8]: 8 neighbours each */
    };
    struct Header {};
    struct Part {
        int32_t k;      /* columns from the lane's first on: weights past it count as 0 */
        int64_t second; /* bytes from row g to row g + 8 */
    };

    /* Rows past the last are computed from the last, and not stored. */
    static __device__ __forceinline__ int32_t row_of(const struct fmk_linear_part &part, int32_t row,
                                                     int lane, int i) {
        return min(row + lane / 4 + 8 * i, part.n - 1);
    }
    static __device__ __forceinline__ Part part(const struct fmk_linear_part &part, int32_t k, int32_t row,
                                                int lane) {
        int32_t rows = row_of(part, row, lane, 1) - row_of(part, row, lane, 0);
        return Part{k - 8 * (lane % 4), rows * (int64_t)part.stride};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Part &) {
        return 2 * UNIT_K;
    }
    static __device__ __forceinline__ const uint8_t *row_block(const struct fmk_linear_part &part,
                                                               const uint8_t *data, int32_t row, int lane) {
        return data + row_of(part, row, lane, 0) * (int64_t)part.stride + 16 * (lane % 4);
    }
    static __device__ __forceinline__ void load(const Part &part, const uint8_t *from, int32_t unit, int b,
                                                int, Codes &codes) {
        bool there = UNIT_K * unit + 32 * b < part.k;
#pragma unroll
        for (int i = 0; i < 2; i++)
            codes.row[b][i] = there ? load_stream(from + 64 * b + i * part.second) : make_uint4(0, 0, 0, 0);
    }
    static __device__ __forceinline__ Header load_header(const Part &, const uint8_t *, int) {
        return Header{};
    }

    template <class X, int R, int NT> struct State {
        __device__ __forceinline__ void start(const Part (&)[R], const Header (&)[R],
                                              const uint8_t *const (&)[R], int) {}

        __device__ __forceinline__ void multiply(int b, int, const Codes (&codes)[R], const Acts (&acts)[NT],
                                                 float (&total)[R][NT][4]) {
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    const uint4 &g = codes[r].row[b][0], &g8 = codes[r].row[b][1];
                    uint32_t a[4] = {word_of(g, 2 * step), word_of(g8, 2 * step), word_of(g, 2 * step + 1),
                                     word_of(g8, 2 * step + 1)};
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        mma_add<X>(total[r][n], a, acts[n], step);
                }
        }

        __device__ __forceinline__ void finish(int, float (&)[R][NT][4]) {}
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void dense_f16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void dense_f16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void dense_f16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void dense_f16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void dense_bf16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void dense_bf16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void dense_bf16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void dense_bf16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 2, 4>(args);
}
