/* A file's weights into the t16 layouts and t64 (layout.h), a warp 16 rows of a unit; and the largest weight
 * among them, for struct fmk_range. Bits are moved, nothing is rounded.
 *
 * None of these allows its dependents: a linear call may fetch weights before it waits for the kernel before
 * it. */
#include "layout.h"
#include "numbers.cuh"
#include "pack.h"

#define LARGEST_FLOAT 3.402823466e38f

/* ---- memory ---- */

/* Four bytes at an address that is a multiple of `alignment`. */
__device__ __forceinline__ uint32_t load_word(const uint8_t *from, int32_t alignment) {
    if (alignment >= 4)
        return *(const uint32_t *)from;
    if (alignment == 2)
        return ((const uint16_t *)from)[0] | (uint32_t)((const uint16_t *)from)[1] << 16;
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

__device__ __forceinline__ uint16_t load_half(const uint8_t *from, int32_t alignment) {
    return alignment >= 2 ? *(const uint16_t *)from : (uint16_t)(from[0] | from[1] << 8);
}

/* The largest of the warp's magnitudes, into *largest. The order of positive floats is that of their bits, so
 * the result does not depend on who comes first. What is not finite says nothing of the others. */
__device__ __forceinline__ void note_largest(float *largest, float magnitude) {
    if (!(magnitude <= LARGEST_FLOAT))
        magnitude = 0;
    for (int lanes = 16; lanes; lanes /= 2)
        magnitude = fmaxf(magnitude, bits_to_f32(__shfl_xor_sync(~0u, f32_to_bits(magnitude), lanes)));
    if (threadIdx.x % 32 == 0 && f32_to_bits(magnitude) > load_volatile((const uint32_t *)largest))
        atomicMax((unsigned *)largest, f32_to_bits(magnitude));
}

__device__ __forceinline__ float larger(float a, float b) {
    return fabsf(b) > a ? fabsf(b) : a; /* a where b is NaN */
}

/* ---- fragments ---- */

/* The eight codes of a word, lowest nibble first, as a lane holds them: bits of a word of row g, or shifted
 * by 4 of row g + 8. `nibbles` has four k in its low 16 bits. */
__device__ __forceinline__ uint32_t spread(uint32_t nibbles) {
    return (nibbles & 15) | (nibbles >> 4 & 15) << 16 | (nibbles >> 8 & 15) << 8 | (nibbles >> 12 & 15) << 24;
}

/* ---- int4 ---- */

/* The code of position `at` (-1: none) in a column. */
__device__ __forceinline__ uint32_t code_at(const struct fmk_pack_int4_args &a, int32_t k, int64_t c) {
    int64_t word;
    int shift;
    if (a.marlin) {
        word = k / 16 * a.row_words + 128 * (c / 64) + 16 * (c % 8) + c % 64 / 16 + 4 * (k % 8 / 2);
        shift = 4 * (int)(2 * (c % 16 / 8) + k % 16 / 8 + 4 * (k % 2));
    } else {
        word = k / 8 * a.row_words + c;
        shift = 4 * (k % 8);
    }
    return load_word(a.words + 4 * word, a.aligned ? 4 : 1) >> shift & 15;
}

/* The codes of 8 positions from `at` on, of one row; `zero` where there is no k. */
__device__ __forceinline__ uint32_t codes_of(const struct fmk_pack_int4_args &a, int32_t at, int64_t c,
                                             uint32_t zero) {
    if (!a.k_index && !a.marlin && a.k_begin % 8 == 0 && at + 8 <= a.k)
        return load_word(a.words + 4 * ((a.k_begin + at) / 8 * a.row_words + c), a.aligned ? 4 : 1);
    uint32_t codes = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int32_t k = a.k_index ? a.k_index[at + i] : at + i < a.k ? at + i : -1;
        codes |= (k < 0 ? zero : code_at(a, a.k_begin + k, c)) << 4 * i;
    }
    return codes;
}

/* A lane of four has the codes of k 8 t .. 8 t + 7 of 32: those of its pairs of step 0 and of step 1, each
 * first 2 t, 2 t + 1, then 2 t + 8, 2 t + 9, in 16 bits. */
__device__ __forceinline__ uint32_t exchange_pairs(uint32_t codes, int t) {
    uint32_t pairs = 0;
#pragma unroll
    for (int octet = 0; octet < 4; octet++)
        pairs |= (__shfl_sync(~0u, codes, octet, 4) >> 8 * t & 255) << 8 * octet;
    return pairs;
}

/* Where 16 rows of a unit have their codes, their scales and their zero points. */
struct int4_place {
    uint8_t *codes, *scales, *zeros;
    int rows; /* from a group's scales to the next one's */
};

__device__ __forceinline__ struct int4_place int4_place(const struct fmk_pack_int4_args &a, int32_t panel,
                                                        int32_t unit) {
    int size = (int)number_size(a.dtype), scales = 4 / a.chunks, has_zeros = a.zeros ? 1 : 0;
    int panels = a.t64 ? FMK_T64_ROWS / FMK_T16_ROWS : 1, rows = FMK_T16_ROWS * panels;
    uint8_t *out =
        a.out + panel / panels * a.stride + (int64_t)unit * panels * FMK_INT4_UNIT(a.chunks, size, has_zeros);
    uint8_t *after = out + panels * FMK_INT4_UNIT_CODES;
    return {out + panel % panels * FMK_INT4_UNIT_CODES, after, after + rows * scales * size, rows};
}

extern "C" __global__ __launch_bounds__(32 * FMK_PACK_WARPS) void pack_int4(
    const __grid_constant__ struct fmk_pack_int4_args a) {
    wait_for_dependency();
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int32_t unit = blockIdx.x, panel = FMK_PACK_WARPS * blockIdx.y + threadIdx.x / 32;
    if (panel >= a.panels)
        return;
    int scales = 4 / a.chunks, size = (int)number_size(a.dtype);
    struct int4_place out = int4_place(a, a.first_panel + panel, unit);

    int32_t row[2] = {panel * FMK_T16_ROWS + g, panel * FMK_T16_ROWS + g + 8};
    int64_t column[2];
    for (int r = 0; r < 2; r++)
        column[r] = a.column + (a.order && row[r] < a.rows ? a.order[row[r]] : row[r]);
#pragma unroll
    for (int tile = 0; tile < 2; tile++) {
        uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int64_t group = (int64_t)scales * unit + (2 * tile + half) / a.chunks;
                uint32_t zero = 8, codes;
                if (a.zeros)
                    zero = row[r] < a.rows ? a.zeros[group * a.scale_stride + row[r]] : 0;
                codes = row[r] < a.rows ? codes_of(a, FMK_INT4_UNIT_K * unit + 64 * tile + 32 * half + 8 * t,
                                                   column[r], zero)
                                        : zero * 0x11111111u;
                if (a.t64)
                    codes = exchange_pairs(codes, t);
                words[2 * half] |= spread(codes) << 4 * r;
                words[2 * half + 1] |= spread(codes >> 16) << 4 * r;
            }
        *(uint4 *)(out.codes + FMK_T16_TILE * tile + 16 * lane) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }

    /* A lane a row; the second half of the warp does nothing but take part in the search. */
    float largest = 0;
    int32_t own = panel * FMK_T16_ROWS + lane;
    int place = a.t64 ? FMK_T64_PLACE((a.first_panel + panel) % 4 * FMK_T16_ROWS + lane) : lane;
    for (int s = 0; lane < FMK_T16_ROWS && s < scales; s++) {
        int64_t from = ((int64_t)scales * unit + s) * a.scale_stride + own;
        uint8_t *to = out.scales + (out.rows * s + place) * size;
        bool there = own < a.rows;
        float scale = there ? load_number(a.scales, a.dtype, from) : 0;
        if (size == 4)
            *(uint32_t *)to = there ? ((const uint32_t *)a.scales)[from] : 0;
        else
            *(uint16_t *)to = there ? ((const uint16_t *)a.scales)[from] : 0;
        float zero = 8;
        if (a.zeros) {
            uint8_t bits = there ? a.zeros[from] : 0;
            out.zeros[out.rows * s + place] = bits;
            zero = bits;
        }
        largest = larger(largest, mul_rn(scale, fmaxf(zero, 15 - zero)));
    }
    note_largest(a.largest, largest);
}

/* ---- K-quants ---- */

/* A row's block of this warp's unit, or null past the last row. */
__device__ __forceinline__ const uint8_t *block_of(const struct fmk_pack_blocks_args &a, int32_t row,
                                                   int64_t offset) {
    if (row >= a.rows)
        return nullptr;
    return a.blocks + (a.order ? a.order[row] : row) * a.row_bytes + offset;
}

enum { Q4K_BLOCK = 144, Q4K_HEADER = 16, Q6K_BLOCK = 210, Q6K_HIGH = 128, Q6K_SCALES = 192, Q6K_D = 208 };

/* Low nibbles of four bytes, in the order of k, as four nibbles. */
__device__ __forceinline__ uint32_t gather_nibbles(uint32_t bytes) {
    bytes &= 0x0f0f0f0f;
    bytes |= bytes >> 4;
    return (bytes & 255) | (bytes >> 8 & 0xff00);
}

/* The largest weight of a sub-block: codes are 0..15, and a sum of two products is largest at an end. */
__device__ __forceinline__ float largest_q4k(float scale, float min) {
    return larger(fabsf(min), sub_rn(mul_rn(scale, 15), min));
}

extern "C" __global__ __launch_bounds__(32 * FMK_PACK_WARPS) void pack_q4k(
    const __grid_constant__ struct fmk_pack_blocks_args a) {
    wait_for_dependency();
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int32_t unit = FMK_PACK_WARPS * blockIdx.x + threadIdx.x / 32, panel = blockIdx.y;
    if (unit >= a.units)
        return;
    uint8_t *out = a.out + panel * a.stride + (int64_t)unit * FMK_Q4K_UNIT;
    const uint8_t *row[2];
    for (int r = 0; r < 2; r++)
        row[r] = block_of(a, FMK_T16_ROWS * panel + g + 8 * r, (int64_t)unit * Q4K_BLOCK);

        /* The file's run of 32 bytes number `tile` is the tile's 64 k: low nibbles first, then high ones. */
#pragma unroll
    for (int tile = 0; tile < 4; tile++) {
        uint32_t words[4] = {0, 0, 0, 0};
        for (int r = 0; r < 2; r++)
            for (int step = 0; row[r] && step < 2; step++) {
                uint32_t bytes = load_word(row[r] + Q4K_HEADER + 32 * tile + 8 * t + 4 * step, a.alignment);
                words[step] |= spread(gather_nibbles(bytes)) << 4 * r;
                words[2 + step] |= spread(gather_nibbles(bytes >> 4)) << 4 * r;
            }
        *(uint4 *)(out + FMK_T16_TILE * tile + 16 * lane) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }

    float largest = 0;
    if (lane < FMK_T16_ROWS) {
        const uint8_t *block = block_of(a, FMK_T16_ROWS * panel + lane, (int64_t)unit * Q4K_BLOCK);
        uint32_t h[4] = {0, 0, 0, 0};
        for (int i = 0; block && i < 4; i++)
            h[i] = load_word(block + 4 * i, a.alignment);
        *(uint4 *)(out + FMK_Q4K_UNIT_HEADERS + 16 * lane) = make_uint4(h[0], h[1], h[2], h[3]);
        float d = f16_to_f32((uint16_t)h[0]), dmin = f16_to_f32((uint16_t)(h[0] >> 16));
        /* Four scales and minima of 6 bits lie whole, of the other four the high 2 bits lie apart. */
        for (int j = 0; j < 4; j++) {
            uint32_t s = h[1] >> 8 * j & 255, m = h[2] >> 8 * j & 255, low = h[3] >> 8 * j & 255;
            largest = larger(largest, largest_q4k(mul_rn(d, (float)(s & 63)), mul_rn(dmin, (float)(m & 63))));
            s = (low & 15) | (s >> 6) << 4;
            m = low >> 4 | (m >> 6) << 4;
            largest = larger(largest, largest_q4k(mul_rn(d, (float)s), mul_rn(dmin, (float)m)));
        }
    }
    note_largest(a.largest, largest);
}

/* Bits 2 run and 2 run + 1 of four bytes, as fields of a word of `high`: of k 0 at bit 0, k 1 at bit 16, k 2
 * at bit 4, k 3 at bit 20. */
__device__ __forceinline__ uint32_t spread_pairs(uint32_t bytes, int run) {
    bytes = bytes >> 2 * run & 0x03030303;
    return (bytes & 3) | (bytes >> 8 & 3) << 16 | (bytes >> 16 & 3) << 4 | (bytes >> 24) << 20;
}

extern "C" __global__ __launch_bounds__(32 * FMK_PACK_WARPS) void pack_q6k(
    const __grid_constant__ struct fmk_pack_blocks_args a) {
    wait_for_dependency();
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int32_t unit = FMK_PACK_WARPS * blockIdx.x + threadIdx.x / 32, panel = blockIdx.y;
    if (unit >= a.units)
        return;
    uint8_t *out = a.out + panel * a.stride + (int64_t)unit * FMK_Q6K_UNIT;
    const uint8_t *row[2];
    for (int r = 0; r < 2; r++)
        row[r] = block_of(a, FMK_T16_ROWS * panel + g + 8 * r, (int64_t)unit * Q6K_BLOCK);

        /* Half a block's 64 low bytes are its first 64 k in their low nibbles and the next 64 in the high
         * ones; its 32 high bytes are four runs of 32 k. */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t low[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}}, high[4] = {0, 0, 0, 0};
        for (int r = 0; r < 2; r++)
            for (int step = 0; row[r] && step < 4; step++) {
                uint32_t bytes = load_word(row[r] + 64 * half + 16 * step + 4 * t, a.alignment);
                uint32_t pairs =
                    load_word(row[r] + Q6K_HIGH + 32 * half + 16 * (step % 2) + 4 * t, a.alignment);
                for (int tile = 0; tile < 2; tile++) {
                    low[tile][step] |= spread(gather_nibbles(bytes >> 4 * tile)) << 4 * r;
                    high[2 * tile + step / 2] |= spread_pairs(pairs, 2 * tile + step / 2)
                                                 << (8 * (step % 2) + 2 * r);
                }
            }
        for (int tile = 0; tile < 2; tile++)
            *(uint4 *)(out + FMK_T16_TILE * (2 * half + tile) + 16 * lane) =
                make_uint4(low[tile][0], low[tile][1], low[tile][2], low[tile][3]);
        *(uint4 *)(out + FMK_Q6K_UNIT_HIGH + 512 * half + 16 * lane) =
            make_uint4(high[0], high[1], high[2], high[3]);
    }

    /* Two lanes a row: eight scales each. */
    float largest = 0, d = 0;
    const uint8_t *block = block_of(a, FMK_T16_ROWS * panel + lane / 2, (int64_t)unit * Q6K_BLOCK);
    uint32_t scales[2] = {0, 0};
    uint16_t bits = 0;
    if (block) {
        bits = load_half(block + Q6K_D, a.alignment);
        d = f16_to_f32(bits);
        for (int i = 0; i < 2; i++)
            scales[i] = load_word(block + Q6K_SCALES + 8 * (lane % 2) + 4 * i, a.alignment);
    }
    *(uint2 *)(out + FMK_Q6K_UNIT_SCALES + 8 * lane) = make_uint2(scales[0], scales[1]);
    if (lane % 2 == 0)
        *(uint16_t *)(out + FMK_Q6K_UNIT_D + lane) = bits;
    for (int i = 0; i < 8; i++)
        largest = larger(largest, mul_rn(mul_rn(d, (float)(int8_t)(scales[i / 4] >> 8 * (i % 4))), 32));
    note_largest(a.largest, largest);
}

/* ---- the rest ---- */

extern "C" __global__ __launch_bounds__(FMK_PACK_COPY_THREADS) void pack_rows(
    const __grid_constant__ struct fmk_pack_rows_args a) {
    wait_for_dependency();
    int64_t row = blockIdx.x;
    const uint8_t *from = a.from + (a.order ? a.order[row] : row) * a.from_stride;
    uint8_t *to = a.to + row * a.to_stride;
    for (int64_t at = (int64_t)threadIdx.x * a.alignment; at < a.bytes;
         at += (int64_t)FMK_PACK_COPY_THREADS * a.alignment) {
        if (a.alignment == 16)
            *(uint4 *)(to + at) = *(const uint4 *)(from + at);
        else if (a.alignment == 4)
            *(uint32_t *)(to + at) = *(const uint32_t *)(from + at);
        else
            to[at] = from[at];
    }
}

/* f16 holds up to 65504. Where that is too little, weights go down to at most half of it, so that rounding
 * cannot lead out of it. */
extern "C" __global__ __launch_bounds__(32) void pack_range(
    const __grid_constant__ struct fmk_pack_range_args a) {
    wait_for_dependency();
    if (threadIdx.x)
        return;
    float scale = 1, inverse = 1, largest = a.range[0];
    while (largest > 65504 && mul_rn(largest, inverse) > 32768) {
        scale *= 2;
        inverse *= 0.5f;
    }
    a.range[1] = scale;
    a.range[2] = inverse;
    a.range[3] = 0;
}
