/* Grouped INT4 on tensor cores: linear_mma.cuh over int4.t16. Per group, with scale s and zero point z of the
 * row: total += s * (sum(code * x) - z * sum(x)). */
#include "layout.h"
#include "linear_mma.cuh"

/* What all kinds of groups have in common. */
struct Int4Codes {
    static constexpr int UNIT_K = FMK_INT4_UNIT_K, AHEAD = 2;
    static constexpr bool WIDE = true;
    struct Codes {
        uint4 tile[2];
    };
    struct Part {
        int32_t unit, dtype, chunks;
        bool has_zeros;
    };

    static __device__ __forceinline__ Part part(const struct fmk_linear_part &part, int32_t, int32_t, int) {
        int32_t size = part.dtype == NUMBER_F32 ? 4 : 2;
        return Part{FMK_INT4_UNIT(part.chunks, size, part.has_zeros), part.dtype, part.chunks,
                    part.has_zeros != 0};
    }
    static __device__ __forceinline__ int64_t unit_bytes(const Part &part) {
        return part.unit;
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
};

/* Rows g and g + 8 of a group: acc holds sums of codes * x, sum those of x. */
template <class X, int NT>
__device__ __forceinline__ void add_group(const float scale[2], const float zero[2],
                                          const float (&acc)[NT][4], const float (&sum)[NT][4],
                                          float (&total)[NT][4]) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float value = fmaf(acc[n][c], X::CODE_UNIT, -zero[c / 2] * sum[n][c]);
            total[n][c] = fmaf(scale[c / 2], value, total[n][c]);
        }
}

template <class X, int NT>
__device__ __forceinline__ void multiply_codes(const Int4Codes::Codes &codes, int b, const Acts (&acts)[NT],
                                               bool first, float (&acc)[NT][4]) {
#pragma unroll
    for (int step = 0; step < 2; step++) {
        uint32_t a[4];
        unpack<X>(word_of(codes.tile[b / 2], b % 2 * 2 + step), a);
#pragma unroll
        for (int n = 0; n < NT; n++)
            if (first && step == 0)
                mma_first<X>(acc[n], a, acts[n], step);
            else
                mma_add<X>(acc[n], a, acts[n], step);
    }
}

/* Groups of 128 and of multiples of it, with scales of two bytes: a unit is one group, and its scales are
 * loaded ahead. */
struct Int4 : Int4Codes {
    struct Header {
        uint16_t scale[2]; /* of rows g and g + 8 */
        uint8_t zero[2];
    };

    static __device__ __forceinline__ Header load_header(const Part &part, const uint8_t *from, int lane) {
        Header h = {{0, 0}, {8, 8}};
        const uint8_t *scales = from + FMK_INT4_UNIT_CODES;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = lane / 4 + 8 * i;
            h.scale[i] = load_stream_2(scales + 2 * row);
            if (part.has_zeros)
                h.zero[i] = load_stream_1(scales + 32 + row);
        }
        return h;
    }

    template <class X, int R, int NT> struct State {
        Header header[R];
        bool bf16_scales;
        float acc[R][NT][4], sum[NT][4];

        __device__ __forceinline__ void start(const Part (&part)[R], const Header (&headers)[R],
                                              const uint8_t *const (&)[R], int) {
            bf16_scales = part[0].dtype == NUMBER_BF16;
#pragma unroll
            for (int r = 0; r < R; r++)
                header[r] = headers[r];
        }

        __device__ __forceinline__ void multiply(int b, int plane, const Codes (&codes)[R],
                                                 const Acts (&acts)[NT], float (&)[R][NT][4]) {
            bool first = b == 0 && (!X::MANY_PLANES || plane == 0);
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], acts[n], first);
#pragma unroll
            for (int r = 0; r < R; r++)
                multiply_codes<X, NT>(codes[r], b, acts, first, acc[r]);
        }

        __device__ __forceinline__ void finish(int b, float (&total)[R][NT][4]) {
            if (b < UNIT_K / 32 - 1)
                return;
#pragma unroll
            for (int r = 0; r < R; r++) {
                float scale[2], zero[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    uint16_t bits = header[r].scale[i];
                    scale[i] = bf16_scales ? bf16_to_f32(bits) : f16_to_f32(bits);
                    zero[i] = (float)header[r].zero[i];
                }
                add_group<X, NT>(scale, zero, acc[r], sum, total[r]);
            }
        }
    };
};

/* Any group size and any type of scales: these are looked up for every 32 k. */
struct Int4Any : Int4Codes {
    struct Header {};

    static __device__ __forceinline__ Header load_header(const Part &part, const uint8_t *from, int lane) {
        int32_t offset = FMK_INT4_UNIT_CODES + 32 * lane;
        if (offset < part.unit)
            prefetch(from + offset);
        return Header{};
    }

    template <class X, int R, int NT> struct State {
        Part part[R];
        const uint8_t *scales[R]; /* row g's in the unit's first group */
        int group_row;

        __device__ __forceinline__ void start(const Part (&parts)[R], const Header (&)[R],
                                              const uint8_t *const (&from)[R], int lane) {
            group_row = lane / 4;
#pragma unroll
            for (int r = 0; r < R; r++) {
                part[r] = parts[r];
                scales[r] = from[r] + FMK_INT4_UNIT_CODES;
            }
        }

        __device__ __forceinline__ void multiply(int b, int, const Codes (&codes)[R], const Acts (&acts)[NT],
                                                 float (&total)[R][NT][4]) {
            float sum[NT][4];
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], acts[n], true);
#pragma unroll
            for (int r = 0; r < R; r++) {
                int at = 16 * (b / part[r].chunks), end = 16 * (4 / part[r].chunks);
                float acc[NT][4], scale[2], zero[2];
                multiply_codes<X, NT>(codes[r], b, acts, true, acc);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int row = at + group_row + 8 * i;
                    scale[i] = load_number(scales[r], part[r].dtype, row);
                    zero[i] = part[r].has_zeros
                                  ? (float)scales[r][end * (int)number_size(part[r].dtype) + row]
                                  : 8.0f;
                }
                add_group<X, NT>(scale, zero, acc, sum, total[r]);
            }
        }

        __device__ __forceinline__ void finish(int, float (&)[R][NT][4]) {}
    };
};

extern "C" __global__ __launch_bounds__(256, 3) void int4_f16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, F16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void int4_f16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, F16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_f16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, F16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_f16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_bf16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, Bf16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void int4_bf16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, Bf16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_bf16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, Bf16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_bf16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4, Bf16, 2, 4>(args);
}

extern "C" __global__ __launch_bounds__(256, 3) void int4_any_f16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void int4_any_f16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_any_f16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_any_f16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, F16, 2, 4>(args);
}
extern "C" __global__ __launch_bounds__(256, 3) void int4_any_bf16_1x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 1, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 2) void int4_any_bf16_2x1(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 2, 1>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_any_bf16_2x2(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 2, 2>(args);
}
extern "C" __global__ __launch_bounds__(256, 1) void int4_any_bf16_2x4(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_mma<Int4Any, Bf16, 2, 4>(args);
}
