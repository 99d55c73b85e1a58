/* Dense weights of the activations' own type on tensor cores: linear_mma.cuh over the rows as they lie in the
 * file. */
#include "linear_mma.cuh"

struct Dense {
    static constexpr int ACTS_AHEAD = 2, UNIT_K = 64, TILES = 1, AHEAD = 2;
    static constexpr bool WIDE = true, WHOLE_UNITS = false;
    struct Slot {
        uint4 row[2][2][32]; /* [32 k][rows g and g + 8][lane]: 8 neighbours each */
    };
    struct Place {
        int32_t k;      /* columns from the lane's first on: weights past it count as 0 */
        int64_t second; /* bytes from row g to row g + 8 */
    };
    struct Part {};

    /* Rows past the last are computed from the last, and not stored. */
    static __device__ __forceinline__ int32_t row_of(const struct fmk_linear_part &part, int32_t row,
                                                     int lane, int i) {
        return min(row + lane / 4 + 8 * i, part.n - 1);
    }
    static __device__ __forceinline__ Place place(const struct fmk_linear_part &part, int32_t k, int32_t row,
                                                  int lane) {
        int32_t rows = row_of(part, row, lane, 1) - row_of(part, row, lane, 0);
        return Place{k - 8 * (lane % 4), rows * (int64_t)part.stride};
    }
    static __device__ __forceinline__ Part part(const struct fmk_linear_part &) {
        return Part{};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Place &) {
        return 2 * UNIT_K;
    }
    static __device__ __forceinline__ const uint8_t *row_block(const struct fmk_linear_part &part,
                                                               const uint8_t *data, int32_t row, int lane) {
        return data + row_of(part, row, lane, 0) * (int64_t)part.stride + 16 * (lane % 4);
    }
    static __device__ __forceinline__ void copy(const Place &place, const uint8_t *from, int32_t unit, int,
                                                bool, int lane, Slot &slot) {
#pragma unroll
        for (int b = 0; b < 2; b++) {
            bool there = UNIT_K * unit + 32 * b < place.k;
            copy_16_async(&slot.row[b][0][lane], from + 64 * b, there);
            copy_16_async(&slot.row[b][1][lane], from + 64 * b + place.second, there);
        }
    }

    template <class X, int R, int NT> struct State {
        static constexpr int SHARED_TILE = 0;
        __device__ __forceinline__ void start(const Part &, const Slot (&)[R], int) {}

        __device__ __forceinline__ void multiply(int b, int, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[NT], float (&total)[R][NT][4]) {
#pragma unroll
            for (int r = 0; r < R; r++) {
                const uint4 g = slot[r].row[b][0][lane], g8 = slot[r].row[b][1][lane];
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4] = {word_of(g, 2 * step), word_of(g8, 2 * step), word_of(g, 2 * step + 1),
                                     word_of(g8, 2 * step + 1)};
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        mma_add<X>(total[r][n], a, acts[n], step);
                }
            }
        }

        __device__ __forceinline__ void finish(int, const Slot (&)[R], int, float, float (&)[R][NT][4]) {}
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void dense_f16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void dense_f16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void dense_f16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void dense_f16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, F16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void dense_bf16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void dense_bf16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void dense_bf16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void dense_bf16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Dense, Bf16, 2, 4, 4>(args);
}
