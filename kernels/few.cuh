/* What the kernels for few tokens over int4.t64 share: codes as numbers, and a group's scales and zero
 * points.
 */
#ifndef FMK_KERNELS_FEW_CUH
#define FMK_KERNELS_FEW_CUH

#include "few.h"
#include "layout.h"
#include "linear_mma.cuh"
#include "ptx_sm90.cuh"

enum { PANELS = 4, UNIT_K = FMK_INT4_UNIT_K };

/* ---- codes as numbers: see F16 and Bf16 of linear_mma.cuh ---- */

struct HalfCodes : F16 {
    static constexpr int TYPE = NUMBER_F16;
    static constexpr int BIAS = 0;
    static __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) {
        ::unpack<F16>(word, a);
    }
};

/* Codes as 128 + code; the 128 goes with the zero point. */
struct Bf16Codes : Bf16 {
    static constexpr int TYPE = NUMBER_BF16;
    static constexpr int BIAS = 128;
    static __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) {
        const uint32_t bias = 0x43004300;
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = and_or(word >> 4 * i, 0x000f000f, bias);
    }
};

/* Floats as three bf16 matrices: codes without a bias, which would cost bits of the sums. */
struct PlaneCodes : Bf16 {
    static constexpr int BIAS = 0;
    static __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) {
        ::unpack<Bf16>(word, a);
    }
};

/* ---- a group of k ---- */

/* Scales and zero points of a group, as they lie: of rows g and g + 8 of every panel. */
struct GroupBits {
    uint4 scales;
    uint2 zeros;
};

/* `shift`: of 4, 2 or 1 groups in a unit by 0, 1, 2. */
__device__ __forceinline__ GroupBits load_group(const struct fmk_linear_part &part, const uint8_t *unit,
                                                int s, int shift, int g) {
    const uint8_t *scales = unit + FMK_T64_CODES;
    GroupBits bits;
    bits.scales = load_16(scales + 128 * s + 16 * g);
    bits.zeros = make_uint2(0x08080808, 0x08080808);
    if (part.has_zeros)
        bits.zeros = load_8(scales + (512 >> shift) + 64 * s + 8 * g);
    return bits;
}

/* total += scale * (acc - zero * sum), of the columns that are there. */
template <class X, int NT, int COLUMNS>
__device__ __forceinline__ void add_group(const GroupBits &bits, int32_t type,
                                          const float (&acc)[PANELS][NT][4], const float (&sum)[NT][4],
                                          float (&total)[PANELS][NT][4]) {
#pragma unroll
    for (int r = 0; r < PANELS; r++) {
        float scale[2];
        split_pair(word_of(bits.scales, r), type, scale);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t byte = (r < 2 ? bits.zeros.x : bits.zeros.y) >> (16 * (r % 2) + 8 * i) & 255;
            float zero = (float)(byte + X::BIAS);
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) {
                    float value = fmaf(acc[r][n][2 * i + c], X::code_unit(i), -zero * sum[n][c]);
                    total[r][n][2 * i + c] = fmaf(scale[i], value, total[r][n][2 * i + c]);
                }
        }
    }
}

__device__ __forceinline__ uint32_t pair_of(uint16_t low, uint16_t high) {
    return low | (uint32_t)high << 16;
}

#endif
