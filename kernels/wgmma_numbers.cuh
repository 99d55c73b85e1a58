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

__device__ __forceinline__ float scale_to_f32(uint16_t bits, int32_t dtype) {
    return dtype == NUMBER_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

/* A product of d, 64 x T, in as many instructions as it takes. */
template <class X, int T>
__device__ __forceinline__ void multiply_tokens(float *d, const uint32_t a[4], uint64_t b, bool add) {
    if constexpr (T >= 128) {
        X::multiply_128(d, a, b, add);
        if constexpr (T > 128)
            multiply_tokens<X, T - 128>(d + 64, a, b + (128 * 128 >> 4), add);
    } else if constexpr (T >= 64) {
        X::multiply_64(d, a, b, add);
        if constexpr (T > 64)
            multiply_tokens<X, T - 64>(d + 32, a, b + (64 * 128 >> 4), add);
    } else if constexpr (T == 32) {
        X::multiply_32(d, a, b, add);
    } else {
        static_assert(T == 16, "there is no instruction for these tokens here");
        X::multiply_16(d, a, b, add);
    }
}

struct F16 {
    static constexpr int TYPE = NUMBER_F16;
    static constexpr bool RANGED = true; /* weights may be out of its range: see struct fmk_range */

    /* 1024 + zero of row g; -(64 + zero of row g + 8): twice in a register. */
    struct Zeros {
        uint32_t low, high;
    };

    /* Of rows g and g + 8, twice in a register. */
    struct Scales {
        uint32_t scale[2];
        Zeros zeros;
    };

    static __device__ __forceinline__ uint32_t pack(float a, float b) {
        return f32_to_f16x2(a, b);
    }

    static __device__ __forceinline__ Zeros zeros(uint32_t both) {
        const uint32_t high = both >> 8 << 4;
        return Zeros{__byte_perm(both, 0x64, 0x4040), 0xd400d400 | high | high << 16};
    }

    /* `inverse`: a power of two that brings weights into range. */
    static __device__ __forceinline__ Scales scales(const Group &group, int32_t dtype, float inverse) {
        uint32_t both = group.scales;
        if (dtype == NUMBER_BF16)
            both = f32_to_f16x2(bits_to_f32(both << 16) * inverse, bits_to_f32(both & 0xffff0000) * inverse);
        else
            both = mul_f16x2(both, f32_to_f16x2(inverse, inverse));
        return Scales{{__byte_perm(both, 0, 0x1010), __byte_perm(both, 0, 0x3232)}, zeros(group.zeros)};
    }

    /* Codes less zero points. 1024 has a last place of 1: its low bits take a code, or four bits higher 16
     * times it. Subtracting is exact. */
    static __device__ __forceinline__ void integers(uint32_t word, const Zeros &zeros, uint32_t a[4]) {
        const uint32_t sixteenth = 0x2c002c00, thousand = 0x64006400;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t w = word >> 8 * half;
            a[2 * half] = sub_f16x2(and_or(w, 0x000f000f, thousand), zeros.low);
            a[2 * half + 1] = fma_f16x2(and_or(w, 0x00f000f0, thousand), sixteenth, zeros.high);
        }
    }

    /* Weights, which are rounded once. */
    static __device__ __forceinline__ void unpack(uint32_t word, const Scales &s, uint32_t a[4]) {
        integers(word, s.zeros, a);
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = mul_f16x2(a[i], s.scale[i % 2]);
    }

    static __device__ __forceinline__ void multiply_16(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n16_f16(d, a, b, add);
    }
    static __device__ __forceinline__ void multiply_32(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n32_f16(d, a, b, add);
    }
    static __device__ __forceinline__ void multiply_64(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n64_f16(d, a, b, add);
    }
    static __device__ __forceinline__ void multiply_128(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n128_f16(d, a, b, add);
    }
};

struct Bf16 {
    static constexpr int TYPE = NUMBER_BF16;
    static constexpr bool RANGED = false;

    /* 128 + zero of rows g and g + 8, each twice in a register. */
    struct Zeros {
        uint32_t zero[2];
    };

    /* Of these rows, each twice: a scale as the sum of two. */
    struct Scales {
        uint32_t scale[2], rest[2];
        Zeros zeros;
    };

    static __device__ __forceinline__ uint32_t pack(float a, float b) {
        return f32_to_bf16x2(a, b);
    }

    static __device__ __forceinline__ Zeros zeros(uint32_t both) {
        return Zeros{{__byte_perm(both, 0x43, 0x4040), __byte_perm(both, 0x43, 0x4141)}};
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
                      zeros(group.zeros)};
    }

    /* Codes less zero points. 128 has a last place of 1: its low bits take a code. Subtracting is exact. */
    static __device__ __forceinline__ void integers(uint32_t word, const Zeros &zeros, uint32_t a[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = sub_bf16x2(and_or(word >> 4 * i, 0x000f000f, 0x43004300), zeros.zero[i % 2]);
    }

    /* Weights, which are rounded once, but for what is made of the rest of a scale. */
    static __device__ __forceinline__ void unpack(uint32_t word, const Scales &s, uint32_t a[4]) {
        integers(word, s.zeros, a);
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = fma_bf16x2(a[i], s.scale[i % 2], mul_bf16x2(a[i], s.rest[i % 2]));
    }

    static __device__ __forceinline__ void multiply_16(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n16_bf16(d, a, b, add);
    }
    static __device__ __forceinline__ void multiply_32(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n32_bf16(d, a, b, add);
    }
    static __device__ __forceinline__ void multiply_64(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n64_bf16(d, a, b, add);
    }
    static __device__ __forceinline__ void multiply_128(float *d, const uint32_t a[4], uint64_t b, bool add) {
        wgmma_n128_bf16(d, a, b, add);
    }
};

#endif
