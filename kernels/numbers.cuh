/* One number of a matrix whose type is known at run time. */
#ifndef FMK_KERNELS_NUMBERS_CUH
#define FMK_KERNELS_NUMBERS_CUH

#include "ptx.cuh"

enum { NUMBER_F16 = 1, NUMBER_BF16 = 2, NUMBER_F32 = 3 }; /* as in ferrumk.h */

__device__ __forceinline__ float load_number(const void *from, int32_t type, int64_t at) {
    if (type == NUMBER_F32)
        return ((const float *)from)[at];
    uint16_t bits = ((const uint16_t *)from)[at];
    return type == NUMBER_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

__device__ __forceinline__ void store_number(void *to, int32_t type, int64_t at, float value) {
    if (type == NUMBER_F32)
        ((float *)to)[at] = value;
    else
        ((uint16_t *)to)[at] = type == NUMBER_F16 ? f32_to_f16(value) : f32_to_bf16(value);
}

__device__ __forceinline__ int64_t number_size(int32_t type) {
    return type == NUMBER_F32 ? 4 : 2;
}

/* The 16 bits in front of a number, and what is left of it. Cutting off, not rounding, keeps every plane
 * finite where the number is; where it is not, the first plane carries that alone. */
__device__ __forceinline__ uint16_t cut_bf16(float &x) {
    uint32_t bits = f32_to_bits(x);
    if ((bits & 0x7f800000) == 0x7f800000) {
        x = 0.0f;
        return (uint16_t)(bits >> 16 | (bits & 0x7fffff ? 0x40 : 0));
    }
    x = sub_rn(x, bits_to_f32(bits & 0xffff0000));
    return (uint16_t)(bits >> 16);
}

/* Two numbers of 16 bits. */
__device__ __forceinline__ void split_pair(uint32_t pair, int32_t type, float x[2]) {
    x[0] = type == NUMBER_F16 ? f16_to_f32((uint16_t)pair) : bits_to_f32(pair << 16);
    x[1] = type == NUMBER_F16 ? f16_to_f32((uint16_t)(pair >> 16)) : bits_to_f32(pair & 0xffff0000);
}

/* Whether four numbers that lie together can be loaded or stored at once, from here or a multiple of 4 on. */
__device__ __forceinline__ bool is_aligned(const void *at, int32_t type) {
    return ((uintptr_t)at & (4 * number_size(type) - 1)) == 0;
}

/* Numbers k .. k+3 of a row of `count`; 0 past its end. At once where `vectors`: see is_aligned. */
__device__ __forceinline__ void load_quad(const void *row, int32_t type, int64_t k, int64_t count,
                                          bool vectors, float x[4]) {
    if (!vectors || k + 4 > count) {
        for (int i = 0; i < 4; i++)
            x[i] = k + i < count ? load_number(row, type, k + i) : 0.0f;
    } else if (type == NUMBER_F32) {
        uint4 v = load_16((const float *)row + k);
        x[0] = bits_to_f32(v.x), x[1] = bits_to_f32(v.y), x[2] = bits_to_f32(v.z), x[3] = bits_to_f32(v.w);
    } else {
        uint2 v = load_8((const uint16_t *)row + k);
        split_pair(v.x, type, x);
        split_pair(v.y, type, x + 2);
    }
}

#endif
