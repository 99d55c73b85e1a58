/* Q4_K on tensor cores: linear_mma.cuh over q4_k.t16. Per sub-block of 32, with S = d * scale and M = dmin *
 * min of the row: total += S * sum(code * x) - M * sum(x). */
#include "layout.h"
#include "linear_mma.cuh"

template <int UNITS> struct Q4k {
    static constexpr int ACTS_AHEAD = 4, UNIT_K = FMK_Q4K_UNIT_K, UNIT_BYTES = FMK_Q4K_UNIT, TILES = 4,
                         AHEAD = UNITS;
    static constexpr bool WIDE = true, WHOLE_UNITS = true;
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
                                                               const uint8_t *data, int32_t row, int lane) {
        return data + (uint64_t)(row / 16) * part.stride + 16 * lane;
    }
    static __device__ __forceinline__ void copy(const Place &, const uint8_t *from, int32_t, int tile,
                                                bool shared, int lane, Slot &slot) {
        copy_16_async(&slot.codes[tile][lane], from + FMK_T16_TILE * tile);
        if (shared && lane < 16)
            copy_16_async(&slot.row[lane], from + FMK_Q4K_UNIT_HEADERS);
    }

    /* A row's eight scales and minima, a byte each: the first four of each have 6 bits of a word of their
     * own, the last four 4 bits of the third word and 2 that the others have left. */
    struct Scales {
        float d, dmin, d_offset, dmin_offset;
        uint32_t scale[2], min[2];
    };

    /* Factor times byte i of a word, exactly: under the exponent of 2^23 the byte is 2^23 more than itself,
     * and `offset` is -2^23 factors. The selector, 0x7440 | i, puts them together. */
    static __device__ __forceinline__ float times_byte(float factor, float offset, uint32_t word,
                                                       uint32_t selector) {
        return fmaf(factor, bits_to_f32(__byte_perm(word, 0x4b000000, selector)), offset);
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

    /* Sums of each sub-block, which its scale and minimum multiply. */
    template <class X, int R, int NT> struct BySubBlock {
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
                    float scale = times_byte(s.d, s.d_offset, s.scale[b / 4], 0x7440 | b % 4);
                    float min = times_byte(s.dmin, s.dmin_offset, s.min[b / 4], 0x7440 | b % 4);
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

    /* Several tokens of f16. A scale has 6 bits: code times scale is exact in f16, so one sum serves all
     * sub-blocks. The minima, 16 rows by 8 sub-blocks, are multiplied by the sums of x, 8 sub-blocks by 8
     * tokens, with one mma: its first 8 k take these as bf16, its last 8 what is left of them. */
    template <int R, int NT> struct Folded {
        static constexpr int SHARED_TILE = 0;
        struct Row {
            uint32_t scale[2];           /* a byte each */
            uint32_t minima;             /* A, of sub-blocks 2 t and 2 t + 1 */
            uint32_t d;                  /* f16 d and dmin */
        } row[R][2];                     /* g and g + 8 */
        uint4 codes[R];                  /* of the tile */
        float acc[R][NT][4], sum[NT][4]; /* sum: row g is sub-block g */

        __device__ __forceinline__ void start(const Part &, const Slot (&slot)[R], int lane) {
            const int t = lane % 4;
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const uint4 h = slot[r].row[lane / 4 + 8 * i];
                    uint32_t min =
                        t < 2 ? h.z & 0x3f3f3f3f : (h.w >> 4 & 0x0f0f0f0f) | (h.z >> 2 & 0x30303030);
                    /* 128 has a last place of 1 in bf16. */
                    uint32_t pair = __byte_perm(min, 0x43434343, t % 2 ? 0x4342 : 0x4140);
                    row[r][i] = Row{{h.y & 0x3f3f3f3f, (h.w & 0x0f0f0f0f) | (h.y >> 2 & 0x30303030)},
                                    sub_bf16x2(pair, 0x43004300),
                                    h.x};
                }
        }

        /* A scale as both halves of a register: under the exponent of 1024 it is 1024 more than itself. */
        static __device__ __forceinline__ uint32_t as_f16x2(uint32_t bytes, int i) {
            return sub_f16x2(__byte_perm(bytes, 0x64646464, 0x4040 | i | i << 8), 0x64006400);
        }

        __device__ __forceinline__ void multiply(int b, int, const Slot (&slot)[R], int lane,
                                                 const Acts (&acts)[NT], float (&)[R][NT][4]) {
            const uint32_t one = lane / 4 == b ? F16::ONES : 0, row_b[4] = {one, 0, one, 0};
#pragma unroll
            for (int n = 0; n < NT; n++) {
                if (b == 0)
                    mma_first<F16>(sum[n], row_b, acts[n], 0);
                else
                    mma_add<F16>(sum[n], row_b, acts[n], 0);
                mma_add<F16>(sum[n], row_b, acts[n], 1);
            }
#pragma unroll
            for (int r = 0; r < R; r++) {
                const uint32_t by[2] = {as_f16x2(row[r][0].scale[b / 4], b % 4),
                                        as_f16x2(row[r][1].scale[b / 4], b % 4)};
                if (b % 2 == 0)
                    codes[r] = slot[r].codes[b / 2][lane];
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4];
                    unpack<F16>(word_of(codes[r], b % 2 * 2 + step), a);
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        a[i] = mul_f16x2(a[i], by[i % 2]);
#pragma unroll
                    for (int n = 0; n < NT; n++)
                        if (b == 0 && step == 0)
                            mma_first<F16>(acc[r][n], a, acts[n], step);
                        else
                            mma_add<F16>(acc[r][n], a, acts[n], step);
                }
            }
        }

        __device__ __forceinline__ void finish(int b, const Slot (&)[R], int, float,
                                               float (&total)[R][NT][4]) {
            if (b < UNIT_K / 32 - 1)
                return;
            uint32_t high[NT], low[NT]; /* B: of token g, sub-blocks 2 t and 2 t + 1 */
#pragma unroll
            for (int n = 0; n < NT; n++) {
                uint32_t bits = f32_to_bf16x2(sum[n][0], sum[n][1]);
                float left[2] = {sum[n][0] - bits_to_f32(bits << 16),
                                 sum[n][1] - bits_to_f32(bits & 0xffff0000)};
                high[n] = transpose_8x8(bits);
                low[n] = transpose_8x8(f32_to_bf16x2(left[0], left[1]));
            }
#pragma unroll
            for (int r = 0; r < R; r++) {
                const uint32_t a[4] = {row[r][0].minima, row[r][1].minima, row[r][0].minima,
                                       row[r][1].minima};
                float d[2], dmin[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    d[i] = f16_to_f32((uint16_t)row[r][i].d) * F16::code_unit(i);
                    dmin[i] = -f16_to_f32((uint16_t)(row[r][i].d >> 16));
                }
#pragma unroll
                for (int n = 0; n < NT; n++) {
                    const float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    float minima[4];
                    mma_bf16(minima, a, high[n], low[n], zero);
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        float &to = total[r][n][c];
                        to = fmaf(d[c / 2], acc[r][n][c], to);
                        to = fmaf(dmin[c / 2], minima[c], to);
                    }
                }
            }
        }
    };

    template <class X, int R, int NT> struct StateOf { using Type = BySubBlock<X, R, NT>; };
    template <int R, int NT> struct StateOf<F16, R, NT> { using Type = Folded<R, NT>; };
    template <class X, int R, int NT> using State = typename StateOf<X, R, NT>::Type;

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

        /* The lane's columns are sub-blocks 2 t and 2 t + 1. Lanes with t < 2 find their scales and minima
         * in the low 6 bits of the second and third word; the others have 4 bits in the last word, below
         * and above, and the 2 high ones on top of the second and third. */
        __device__ __forceinline__ void finish(int b, const Slot (&slot)[R], int lane, float factor,
                                               float (&total)[R][1][4]) {
            if (b < UNIT_K / 32 - 1)
                return;
            const int t = lane % 4;
            const bool early = t < 2;
            const uint32_t low = early ? 0x3f3f3f3f : 0x0f0f0f0f, high = early ? 0 : 0x30303030;
            const uint32_t first = 0x7440 | t % 2 * 2; /* of the byte that becomes a float, see times_byte */
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const uint4 row = slot[r].row[lane / 4 + 8 * i];
                    const float d = f16_to_f32((uint16_t)row.x) * X::code_unit(i) * factor;
                    const float dmin = -f16_to_f32((uint16_t)(row.x >> 16)) * factor;
                    const float d_offset = -8388608.0f * d, dmin_offset = -8388608.0f * dmin;
                    const uint32_t scale = ((early ? row.y : row.w) & low) | (row.y >> 2 & high);
                    const uint32_t min = ((early ? row.z : row.w >> 4) & low) | (row.z >> 2 & high);
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        float &to = total[r][0][2 * i + j];
                        to = fmaf(times_byte(d, d_offset, scale, first + j), acc[r][0][2 * i + j], to);
                        to = fmaf(times_byte(dmin, dmin_offset, min, first + j), sum[0][2 * i + j], to);
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
