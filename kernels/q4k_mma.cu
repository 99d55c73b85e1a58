/* Q4_K on tensor cores: linear_mma.cuh over q4_k.t16. Per sub-block of 32, with S = d * scale and M = dmin *
 * min of the row: total += S * sum(code * x) - M * sum(x). */
#include "layout.h"
#include "linear_mma.cuh"

template <int UNITS> struct Q4k {
    static constexpr int UNIT_K = FMK_Q4K_UNIT_K, UNIT_BYTES = FMK_Q4K_UNIT, TILES = 4, AHEAD = UNITS;
    static constexpr bool WIDE = true;
    struct Slot {
        uint4 codes[4][32];
        uint4 row[16]; /* d and dmin, scales[12] */
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
                                                               const uint8_t *data, int32_t row, int) {
        return data + (uint64_t)(row / 16) * part.stride;
    }
    static __device__ __forceinline__ void copy(const Place &, const uint8_t *from, int32_t, int tile,
                                                bool shared, int lane, Slot &slot) {
        copy_16_async(&slot.codes[tile][lane], from + FMK_T16_TILE * tile + 16 * lane);
        if (shared && lane < 16)
            copy_16_async(&slot.row[lane], from + FMK_Q4K_UNIT_HEADERS + 16 * lane);
    }

    /* A row's eight scales and minima, a byte each: the first four of each have 6 bits of a word of their
     * own, the last four 4 bits of the third word and 2 that the others have left. */
    struct Scales {
        float d, dmin, d_offset, dmin_offset;
        uint32_t scale[2], min[2];
    };

    /* Factor times byte i of a word, exactly: under the exponent of 2^23 the byte is 2^23 more than itself,
     * and `offset` is -2^23 factors. */
    static __device__ __forceinline__ float times_byte(float factor, float offset, uint32_t word, int i) {
        return fmaf(factor, bits_to_f32(__byte_perm(word, 0x4b000000, 0x7440 | i)), offset);
    }

    static __device__ __forceinline__ Scales expand(const uint4 &row, float code_unit, float factor) {
        Scales s;
        s.d = f16_to_f32((uint16_t)row.x) * code_unit * factor;
        s.dmin = -f16_to_f32((uint16_t)(row.x >> 16)) * factor;
        s.d_offset = -8388608.0f * s.d;
        s.dmin_offset = -8388608.0f * s.dmin;
        s.scale[0] = row.y & 0x3f3f3f3f;
        s.scale[1] = (row.w & 0x0f0f0f0f) | (row.y >> 6 & 0x03030303) << 4;
        s.min[0] = row.z & 0x3f3f3f3f;
        s.min[1] = (row.w >> 4 & 0x0f0f0f0f) | (row.z >> 6 & 0x03030303) << 4;
        return s;
    }

    template <class X, int R, int NT> struct State {
        static constexpr int SHARED_TILE = 0;
        Scales scales[R][2];
        uint4 codes[R]; /* of the tile */

        __device__ __forceinline__ void start(const Part &, const Slot (&slot)[R], int lane) {
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    scales[r][i] = expand(slot[r].row[lane / 4 + 8 * i], X::code_unit(i), 1.0f);
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[NT], float (&total)[R][NT][4]) {
            float sum[NT][4];
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], acts[n], true);
#pragma unroll
            for (int r = 0; r < R; r++) {
                float acc[NT][4];
                if (b % 2 == 0 && plane == 0)
                    codes[r] = slot[r].codes[b / 2][lane];
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4];
                    unpack<X>(not_before_here(word_of(codes[r], b % 2 * 2 + step)), a);
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
                    float scale = times_byte(s.d, s.d_offset, s.scale[b / 4], b % 4);
                    float min = times_byte(s.dmin, s.dmin_offset, s.min[b / 4], b % 4);
#pragma unroll
                    for (int n = 0; n < NT; n++)
#pragma unroll
                        for (int c = 2 * i; c < 2 * i + 2; c++) {
                            total[r][n][c] = fmaf(scale, acc[n][c], total[r][n][c]);
                            total[r][n][c] = fmaf(min, sum[n][c], total[r][n][c]);
                        }
                }
            }
        }

        __device__ __forceinline__ void finish(int, const Slot (&)[R], int, float, float (&)[R][NT][4]) {}
    };

    /* Column j of the sums is sub-block j of the unit: scales come in once for all. */
    template <class X, int R> struct One {
        static constexpr int SHARED_TILE = TILES - 1; /* the scales are read last */
        float acc[R][1][4], sum[1][4];
        uint4 codes[R]; /* of the tile */

        __device__ __forceinline__ void start(const Part &, const Slot (&)[R], int) {}

        __device__ __forceinline__ void add_acts(const Acts &acts, bool first) {
            sum_acts<X>(sum[0], acts, first);
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[1], float (&)[R][1][4]) {
            bool first_plane = plane == 0, first = b == 0 && first_plane;
#pragma unroll
            for (int r = 0; r < R; r++) {
                if (b % 2 == 0 && first_plane)
                    codes[r] = slot[r].codes[b / 2][lane];
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4];
                    unpack<X>(word_of(codes[r], b % 2 * 2 + step), a);
                    if (first && step == 0)
                        mma_first<X>(acc[r][0], a, acts[0], step);
                    else
                        mma_add<X>(acc[r][0], a, acts[0], step);
                }
            }
        }

        /* The lane's columns are sub-blocks 2 t and 2 t + 1. */
        __device__ __forceinline__ void finish(int b, const Slot (&slot)[R], int lane, float factor,
                                               float (&total)[R][1][4]) {
            if (b < UNIT_K / 32 - 1)
                return;
            const int t = lane % 4;
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    Scales s = expand(slot[r].row[lane / 4 + 8 * i], X::code_unit(i), factor);
                    uint32_t scale = (t < 2 ? s.scale[0] : s.scale[1]) >> t % 2 * 16;
                    uint32_t min = (t < 2 ? s.min[0] : s.min[1]) >> t % 2 * 16;
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        float &to = total[r][0][2 * i + j];
                        to = fmaf(times_byte(s.d, s.d_offset, scale, j), acc[r][0][2 * i + j], to);
                        to = fmaf(times_byte(s.dmin, s.dmin_offset, min, j), sum[0][2 * i + j], to);
                    }
                }
        }
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void q4k_f16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<2>, F16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q4k_f16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<1>, F16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void q4k_f16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<1>, F16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void q4k_f16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<1>, F16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q4k_bf16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<2>, Bf16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q4k_bf16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<1>, Bf16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void q4k_bf16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<1>, Bf16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void q4k_bf16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Q4k<1>, Bf16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q4k_f16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q4k<2>, F16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q4k_f16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q4k<1>, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q4k_bf16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q4k<2>, Bf16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q4k_bf16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q4k<1>, Bf16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void q4k_f32_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q4k<2>, F32, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void q4k_f32_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Q4k<1>, F32, 2, 4>(args);
}
