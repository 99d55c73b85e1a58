/* From codes to fragments of A: what differs between f16 and bf16. A word is four pairs of nibbles, of rows
 * g, g + 8, g, g + 8 (layout.h); so is a fragment four pairs of numbers. */
#ifndef FMK_KERNELS_WGMMA_NUMBERS_CUH
#define FMK_KERNELS_WGMMA_NUMBERS_CUH

#include "numbers.cuh"
#include "ptx_sm90.cuh"

/* What a lane reads of a group of k: scales, and zero points as bytes, of rows g and g + 8. */
struct Group {
    uint32_t scales, zeros;
};

/* A product of d, 64 x T, in as many instructions as it takes. */
template <class X, int T>
__device__ __forceinline__ void multiply_tokens(float *d, const uint32_t a[4], uint64_t b) {
    if constexpr (T >= 128) {
        X::multiply_128(d, a, b);
        if constexpr (T > 128)
            multiply_tokens<X, T - 128>(d + 64, a, b + (128 * 128 >> 4));
    } else if constexpr (T >= 64) {
        X::multiply_64(d, a, b);
        if constexpr (T > 64)
            multiply_tokens<X, T - 64>(d + 32, a, b + (64 * 128 >> 4));
    } else {
        static_assert(T == 32, "tokens of a tile: a multiple of 32");
        X::multiply_32(d, a, b);
    }
}

struct F16 {
    static constexpr int TYPE = NUMBER_F16;
    static constexpr bool RANGED = true; /* weights may be out of its range: see struct fmk_range */

    /* Of rows g and g + 8. low: 1024 + zero of row g; high: -(64 + zero of row g + 8). All twice in a
     * register. */
    struct Scales {
        uint32_t scale[2], low, high;
    };

    static __device__ __forceinline__ uint32_t pack(float a, float b) {
        return f32_to_f16x2(a, b);
    }

    /* `inverse`: a power of two that brings weights into range. */
    static __device__ __forceinline__ Scales scales(const Group &group, int32_t dtype, float inverse) {
        uint32_t both = group.scales;
        if (dtype == NUMBER_BF16)
            both = f32_to_f16x2(bits_to_f32(both << 16) * inverse, bits_to_f32(both & 0xffff0000) * inverse);
        else
            both = mul_f16x2(both, f32_to_f16x2(inverse, inverse));
        const uint32_t high = group.zeros >> 8 << 4;
        return Scales{{__byte_perm(both, 0, 0x1010), __byte_perm(both, 0, 0x3232)},
                      __byte_perm(group.zeros, 0x64, 0x4040),
                      0xd400d400 | high | high << 16};
    }

    /* 1024 has a last place of 1: its low bits take a code, or four bits higher 16 times it. Subtracting is
     * exact, so that a weight is rounded once. */
    static __device__ __forceinline__ void unpack(uint32_t word, const Scales &s, uint32_t a[4]) {
        const uint32_t sixteenth = 0x2c002c00, thousand = 0x64006400;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t w = word >> 8 * half;
            a[2 * half] = mul_f16x2(sub_f16x2(and_or(w, 0x000f000f, thousand), s.low), s.scale[0]);
            a[2 * half + 1] =
                mul_f16x2(fma_f16x2(and_or(w, 0x00f000f0, thousand), sixteenth, s.high), s.scale[1]);
        }
    }

    static __device__ __forceinline__ void multiply_32(float *d, const uint32_t a[4], uint64_t b) {
        wgmma_n32_f16(d, a, b, true);
    }
    static __device__ __forceinline__ void multiply_64(float *d, const uint32_t a[4], uint64_t b) {
        wgmma_n64_f16(d, a, b, true);
    }
    static __device__ __forceinline__ void multiply_128(float *d, const uint32_t a[4], uint64_t b) {
        wgmma_n128_f16(d, a, b, true);
    }
};

struct Bf16 {
    static constexpr int TYPE = NUMBER_BF16;
    static constexpr bool RANGED = false;

    /* Of rows g and g + 8, each twice in a register: a scale as the sum of two, and 128 + zero. */
    struct Scales {
        uint32_t scale[2], rest[2], zero[2];
    };

    static __device__ __forceinline__ uint32_t pack(float a, float b) {
        return f32_to_bf16x2(a, b);
    }

    /* A scale of f16 is the sum of two of bf16. */
    static __device__ __forceinline__ Scales scales(const Group &group, int32_t dtype, float) {
        uint32_t both = group.scales, rest = 0;
        if (dtype == NUMBER_F16) {
            const float g = f16_to_f32((uint16_t)group.scales),
                        g8 = f16_to_f32((uint16_t)(group.scales >> 16));
            both = f32_to_bf16x2(g, g8);
            rest = f32_to_bf16x2(g - bits_to_f32(both << 16), g8 - bits_to_f32(both & 0xffff0000));
        }
        return Scales{{__byte_perm(both, 0, 0x1010), __byte_perm(both, 0, 0x3232)},
                      {__byte_perm(rest, 0, 0x1010), __byte_perm(rest, 0, 0x3232)},
                      {__byte_perm(group.zeros, 0x43, 0x4040), __byte_perm(group.zeros, 0x43, 0x4141)}};
    }

    /* 128 has a last place of 1: its low bits take a code. Subtracting is exact, and the product is rounded
     * once, but for what is made of the rest of a scale. */
    static __device__ __forceinline__ void unpack(uint32_t word, const Scales &s, uint32_t a[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t code = sub_bf16x2(and_or(word >> 4 * i, 0x000f000f, 0x43004300), s.zero[i % 2]);
            a[i] = fma_bf16x2(code, s.scale[i % 2], mul_bf16x2(code, s.rest[i % 2]));
        }
    }

    static __device__ __forceinline__ void multiply_32(float *d, const uint32_t a[4], uint64_t b) {
        wgmma_n32_bf16(d, a, b, true);
    }
    static __device__ __forceinline__ void multiply_64(float *d, const uint32_t a[4], uint64_t b) {
        wgmma_n64_bf16(d, a, b, true);
    }
    static __device__ __forceinline__ void multiply_128(float *d, const uint32_t a[4], uint64_t b) {
        wgmma_n128_bf16(d, a, b, true);
    }
};

#endif
