/* Grouped INT4 on tensor cores: linear_mma.cuh over int4.t16. Per group, with scale s and zero point z of the
 * row: total += s * (sum(code * x) - z * sum(x)). */
#include "layout.h"
#include "linear_mma.cuh"

/* What all kinds of groups have in common. SCALES_16: room for a unit's scales and zeros, in 16 bytes. */
template <int SCALES_16> struct Int4Codes {
    static constexpr int ACTS_AHEAD = 4, UNIT_K = FMK_INT4_UNIT_K;
    static constexpr bool WIDE = true, WHOLE_UNITS = false;
    struct Slot {
        uint4 codes[2][32];
        uint4 scales[SCALES_16];
    };
    struct Place {
        int32_t unit;
    };
    struct Part {
        int32_t dtype, chunks, has_zeros;
    };

    static __device__ __forceinline__ Place place(const struct fmk_linear_part &part, int32_t, int32_t, int) {
        int32_t size = part.dtype == NUMBER_F32 ? 4 : 2;
        return Place{FMK_INT4_UNIT(part.chunks, size, part.has_zeros)};
    }
    static __device__ __forceinline__ Part part(const struct fmk_linear_part &part) {
        return Part{part.dtype, part.chunks, part.has_zeros};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Place &place) {
        return place.unit;
    }
    static __device__ __forceinline__ const uint8_t *row_block(const struct fmk_linear_part &part,
                                                               const uint8_t *data, int32_t row, int lane) {
        return data + (uint64_t)(row / 16) * part.stride + 16 * lane;
    }
    static __device__ __forceinline__ void copy_codes(const uint8_t *from, int tile, int lane, Slot &slot) {
        copy_16_async(&slot.codes[tile][lane], from + FMK_T16_TILE * tile);
    }
    static __device__ __forceinline__ void copy_scales(const Place &place, const uint8_t *from, int lane,
                                                       Slot &slot) {
        if (FMK_INT4_UNIT_CODES + 16 * lane < place.unit)
            copy_16_async(&slot.scales[lane], from + FMK_INT4_UNIT_CODES);
    }
};

/* Rows g and g + 8 of a group: acc holds sums of codes * x, sum those of x. */
template <class X, int NT>
__device__ __forceinline__ void add_group(const float (&scale)[2], const float (&zero)[2], float factor,
                                          const float (&acc)[NT][4], const float (&sum)[NT][4],
                                          float (&total)[NT][4]) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float value = fmaf(acc[n][c], X::code_unit(c / 2), -zero[c / 2] * sum[n][c]);
            total[n][c] = fmaf(scale[c / 2], value * factor, total[n][c]);
        }
}

template <class X, int NT>
__device__ __forceinline__ void multiply_codes(const uint4 &codes, int b, const Acts (&acts)[NT], bool first,
                                               float (&acc)[NT][4]) {
#pragma unroll
    for (int step = 0; step < 2; step++) {
        uint32_t a[4];
        unpack<X>(word_of(codes, b % 2 * 2 + step), a);
#pragma unroll
        for (int n = 0; n < NT; n++)
            if (first && step == 0)
                mma_first<X>(acc[n], a, acts[n], step);
            else
                mma_add<X>(acc[n], a, acts[n], step);
    }
}

/* Groups of 128 and of multiples of it, with scales of two bytes: a unit is one group. */
template <int UNITS> struct Int4 : Int4Codes<3> {
    static constexpr int TILES = 2, AHEAD = UNITS;

    static __device__ __forceinline__ void copy(const Place &place, const uint8_t *from, int32_t, int tile,
                                                bool shared, int lane, Slot &slot) {
        copy_codes(from, tile, lane, slot);
        if (shared)
            copy_scales(place, from, lane, slot);
    }

    template <class X, int R, int NT> struct State {
        static constexpr int SHARED_TILE = 0;
        float scale[R][2], zero[R][2]; /* of rows g and g + 8 */
        uint4 codes[R];                /* of the tile */
        float acc[R][NT][4], sum[NT][4];

        __device__ __forceinline__ void start(const Part &part, const Slot (&slot)[R], int lane) {
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int row = lane / 4 + 8 * i;
                    uint16_t bits = ((const uint16_t *)slot[r].scales)[row];
                    scale[r][i] = part.dtype == NUMBER_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
                    zero[r][i] = part.has_zeros ? (float)((const uint8_t *)slot[r].scales)[32 + row] : 8.0f;
                }
        }

        __device__ __forceinline__ void multiply_rows(int b, int plane, const Slot (&slot)[R], int lane,
                                                      const Acts (&acts)[NT]) {
#pragma unroll
            for (int r = 0; r < R; r++) {
                if (b % 2 == 0 && plane == 0)
                    codes[r] = slot[r].codes[b / 2][lane];
                multiply_codes<X, NT>(codes[r], b, acts, b == 0 && plane == 0, acc[r]);
            }
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[NT], float (&)[R][NT][4]) {
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], acts[n], b == 0 && plane == 0);
            multiply_rows(b, plane, slot, lane, acts);
        }

        __device__ __forceinline__ void finish(int b, const Slot (&)[R], int, float factor,
                                               float (&total)[R][NT][4]) {
            if (b < UNIT_K / 32 - 1)
                return;
#pragma unroll
            for (int r = 0; r < R; r++)
                add_group<X, NT>(scale[r], zero[r], factor, acc[r], sum, total[r]);
        }
    };

    /* A unit's blocks share their scales. */
    template <class X, int R> struct One : State<X, R, 1> {
        __device__ __forceinline__ void add_acts(const Acts &acts, bool first) {
            sum_acts<X>(this->sum[0], acts, first);
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[1], float (&)[R][1][4]) {
            this->multiply_rows(b, plane, slot, lane, acts);
        }
    };
};

/* Any group size and any type of scales: these are looked up for every 32 k. */
struct Int4Any : Int4Codes<20> {
    static constexpr int TILES = 1, AHEAD = 2;

    static __device__ __forceinline__ void copy(const Place &place, const uint8_t *from, int32_t, int, bool,
                                                int lane, Slot &slot) {
        copy_codes(from, 0, lane, slot);
        copy_codes(from, 1, lane, slot);
        copy_scales(place, from, lane, slot);
    }

    template <class X, int R, int NT> struct State {
        static constexpr int SHARED_TILE = 0;
        Part part;

        __device__ __forceinline__ void start(const Part &of, const Slot (&)[R], int) {
            part = of;
        }

        __device__ __forceinline__ void multiply(int b, int, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[NT], float (&total)[R][NT][4]) {
            float sum[NT][4];
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], acts[n], true);
            int groups = 4 / part.chunks, size = (int)number_size(part.dtype);
#pragma unroll
            for (int r = 0; r < R; r++) {
                const uint8_t *zeros = (const uint8_t *)slot[r].scales + 16 * groups * size;
                float acc[NT][4], scale[2], zero[2];
                multiply_codes<X, NT>(slot[r].codes[b / 2][lane], b, acts, true, acc);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int row = 16 * (b / part.chunks) + lane / 4 + 8 * i;
                    scale[i] = load_number(slot[r].scales, part.dtype, row);
                    zero[i] = part.has_zeros ? (float)zeros[row] : 8.0f;
                }
                add_group<X, NT>(scale, zero, 1.0f, acc, sum, total[r]);
            }
        }

        __device__ __forceinline__ void finish(int, const Slot (&)[R], int, float, float (&)[R][NT][4]) {}
    };

    template <class X, int R> struct One : State<X, R, 1> {
        __device__ __forceinline__ void add_acts(const Acts &, bool) {
        } /* each block's are added with its codes */
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void int4_f16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<4>, F16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_f16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<2>, F16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void int4_f16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<2>, F16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void int4_f16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<2>, F16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_bf16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<4>, Bf16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_bf16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<2>, Bf16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void int4_bf16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<2>, Bf16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void int4_bf16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4<2>, Bf16, 2, 4, 4>(args);
}

extern "C" __global__ __launch_bounds__(256, 2) void int4_any_f16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 4) void int4_any_f16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void int4_any_f16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void int4_any_f16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void int4_any_bf16_16x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 1, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 4) void int4_any_bf16_32x8(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 2, 1, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 3) void int4_any_bf16_32x16(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 2, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(128, 2) void int4_any_bf16_32x32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 2, 4, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_f16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4<4>, F16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_f16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4<2>, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_bf16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4<4>, Bf16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_bf16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4<2>, Bf16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_any_f16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4Any, F16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_any_f16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4Any, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_any_bf16_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4Any, Bf16, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_any_bf16_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4Any, Bf16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_f32_16x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4<4>, F32, 1, 8>(args);
}
extern "C" __global__ __launch_bounds__(128, 5) void int4_f32_32x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma_one<Int4<2>, F32, 2, 4>(args);
}
