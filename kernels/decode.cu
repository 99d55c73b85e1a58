/* Weights back to numbers: whole matrices at the speed of memory (decode_*), and rows by id or in the order
 * of the file (rows_*). */
#include "decode.h"
#include "weights.cuh"

/* ---- decode_*: a warp decodes a unit, 16 rows by 128 or 256 k ---- */

struct output {
    char *row[2]; /* of rows g and g + 8; NULL past the last row */
    int32_t type, width;
};

__device__ __forceinline__ void store_16(const struct output &out, int row, int32_t k, uint4 v) {
    if (out.row[row] && k < out.width)
        *reinterpret_cast<uint4 *>(out.row[row] + k * number_size(out.type)) = v;
}

__device__ __forceinline__ uint4 bits_of(const float w[4]) {
    return make_uint4(f32_to_bits(w[0]), f32_to_bits(w[1]), f32_to_bits(w[2]), f32_to_bits(w[3]));
}

__device__ __forceinline__ uint2 halves_of(const float w[4], int32_t type) {
    if (type == NUMBER_F16)
        return make_uint2(f32_to_f16x2(w[0], w[1]), f32_to_f16x2(w[2], w[3]));
    return make_uint2(f32_to_bf16x2(w[0], w[1]), f32_to_bf16x2(w[2], w[3]));
}

__device__ __forceinline__ uint2 exchange(uint2 v, int lanes) {
    return make_uint2(__shfl_xor_sync(~0u, v.x, lanes), __shfl_xor_sync(~0u, v.y, lanes));
}

__device__ __forceinline__ uint4 exchange(uint4 v, int lanes) {
    return make_uint4(__shfl_xor_sync(~0u, v.x, lanes), __shfl_xor_sync(~0u, v.y, lanes),
                      __shfl_xor_sync(~0u, v.z, lanes), __shfl_xor_sync(~0u, v.w, lanes));
}

/* Two steps of a wide tile, 8 neighbouring k: the four lanes of a row have 32 neighbours. */
__device__ __forceinline__ void store_wide(const struct output &out, int row, int32_t k, int t,
                                           const float w[8]) {
    k += 8 * t;
    if (out.type != NUMBER_F32) {
        uint2 a = halves_of(w, out.type), b = halves_of(w + 4, out.type);
        store_16(out, row, k, make_uint4(a.x, a.y, b.x, b.y));
        return;
    }
    /* Lanes write to each other's places, so that each store fills whole sectors of 32 bytes: first the even
     * lane's 8, then the odd one's. */
    bool odd = t & 1;
    uint4 a = bits_of(w), b = bits_of(w + 4), other = exchange(odd ? a : b, 1);
    store_16(out, row, odd ? k - 4 : k, odd ? other : a);
    store_16(out, row, odd ? k + 4 : k + 8, odd ? b : other);
}

/* Two steps of a narrow tile, 4 neighbouring k in each: the four lanes of a row have 32 neighbours. */
__device__ __forceinline__ void store_narrow(const struct output &out, int row, int32_t k, int t,
                                             const float w[8]) {
    if (out.type == NUMBER_F32) {
        store_16(out, row, k + 4 * t, bits_of(w));
        store_16(out, row, k + 16 + 4 * t, bits_of(w + 4));
        return;
    }
    /* An even lane takes its neighbour's share of the first step, an odd one that of the second. */
    bool odd = t & 1;
    uint2 a = halves_of(w, out.type), b = halves_of(w + 4, out.type), other = exchange(odd ? a : b, 1);
    store_16(out, row, odd ? k + 16 + 4 * (t - 1) : k + 4 * t,
             odd ? make_uint4(other.x, other.y, b.x, b.y) : make_uint4(a.x, a.y, other.x, other.y));
}

template <int family> __device__ __forceinline__ void decode_unit(const struct fmk_decode_args &a) {
    allow_dependents();
    wait_for_dependency();
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int32_t panel = blockIdx.x / a.blocks_per_panel;
    int32_t number = blockIdx.x % a.blocks_per_panel * FMK_DECODE_WARPS + threadIdx.x / 32;
    if (number >= a.units)
        return;

    const uint8_t *unit = block_of_row<family>(a.part, (const uint8_t *)a.part.data, 16 * (int64_t)panel) +
                          (int64_t)number * unit_bytes<family>(a.part);
    const int in_block = panel % (BLOCK_ROWS<family> / 16);
    constexpr int tiles = UNIT_K<family> / 64;
    struct lane_codes codes[tiles];
#pragma unroll
    for (int tile = 0; tile < tiles; tile++)
        codes[tile] = load_codes<family>(unit, in_block, tile, lane);
    struct unit_headers<family> headers;
    load_headers(unit, g, headers);

    float factor = a.factor ? *a.factor : 1.0f;
    struct output out = {{NULL, NULL}, a.type, a.width};
    for (int row = 0; row < 2; row++) {
        int64_t at = 16 * (int64_t)panel + g + 8 * row;
        if (at < a.part.n)
            out.row[row] = (char *)a.out + at * a.stride * number_size(a.type);
    }
#pragma unroll
    for (int tile = 0; tile < tiles; tile++) {
        struct fragment f;
        decode_fragment(a.part, unit, headers, 16 * in_block + g, tile, codes[tile], f);
        int32_t k = number * UNIT_K<family> + 64 * tile;
#pragma unroll
        for (int row = 0; row < 2; row++) {
#pragma unroll
            for (int i = 0; i < 16; i++)
                f.w[row][i] = mul_rn(f.w[row][i], factor);
#pragma unroll
            for (int half = 0; half < 2; half++)
                if (NARROW<family>)
                    store_narrow(out, row, k + 32 * half, t, f.w[row] + 8 * half);
                else
                    store_wide(out, row, k + 32 * half, t, f.w[row] + 8 * half);
        }
    }
}

extern "C" __global__ __launch_bounds__(32 * FMK_DECODE_WARPS) void decode_int4(
    const __grid_constant__ struct fmk_decode_args args) {
    decode_unit<INT4>(args);
}

extern "C" __global__ __launch_bounds__(32 * FMK_DECODE_WARPS) void decode_q4k(
    const __grid_constant__ struct fmk_decode_args args) {
    decode_unit<Q4K>(args);
}

extern "C" __global__ __launch_bounds__(32 * FMK_DECODE_WARPS) void decode_q6k(
    const __grid_constant__ struct fmk_decode_args args) {
    decode_unit<Q6K>(args);
}

extern "C" __global__ __launch_bounds__(32 * FMK_DECODE_WARPS) void decode_int4_t64(
    const __grid_constant__ struct fmk_decode_args args) {
    decode_unit<INT4_T64>(args);
}

/* ---- rows_*: a block writes a row, each thread 4 weights at a time ---- */

/* Four numbers at a time where `vectors`, which needs an address aligned to that many bytes. */
__device__ __forceinline__ void store_quad(char *row, int32_t type, int32_t k, int32_t width, bool vectors,
                                           const float w[4]) {
    if (vectors && k + 4 <= width) {
        char *to = row + k * number_size(type);
        if (type == NUMBER_F32)
            *reinterpret_cast<uint4 *>(to) = bits_of(w);
        else
            *reinterpret_cast<uint2 *>(to) = halves_of(w, type);
        return;
    }
    for (int i = 0; i < 4; i++)
        if (k + i < width)
            store_number(row, type, k + i, w[i]);
}

template <int family> __device__ __forceinline__ void write_row(const struct fmk_lookup_args &a) {
    allow_dependents();
    wait_for_dependency();
    int64_t size = number_size(a.type);
    char *out = (char *)a.out + blockIdx.x * a.stride * size;
    int64_t id = a.ids ? a.ids[blockIdx.x] : (int64_t)a.first + blockIdx.x, row = id - a.first;
    if (id < 0 || id >= a.total) {
        for (int32_t k = threadIdx.x; a.zeroes && k < a.width; k += blockDim.x)
            store_number(out, a.type, k, 0.0f);
        return;
    }
    if (row < 0 || row >= a.part.n)
        return; /* another part's */

    const uint8_t *data = (const uint8_t *)a.part.data;
    data = family == DENSE ? data + row * a.part.stride : block_of_row<family>(a.part, data, row);
    bool in_vectors = is_aligned(data, a.part.dtype), out_vectors = is_aligned(out, a.type);
    const int32_t *index = family == DENSE ? NULL : a.part.k_index; /* of whole quads */
    float factor = a.factor ? *a.factor : 1.0f;
    for (int32_t k = 4 * threadIdx.x; k < a.k_packed; k += 4 * blockDim.x) {
        float w[4];
        if (family == DENSE)
            load_quad(data, a.part.dtype, k, a.k_packed, in_vectors, w);
        else
            decode_quad<family>(a.part, data, (int)(row % BLOCK_ROWS<family>), k, w);
        for (int i = 0; i < 4; i++)
            w[i] = mul_rn(w[i], factor);
        if (!index)
            store_quad(out, a.type, k, a.width, out_vectors, w);
        for (int i = 0; index && i < 4; i++)
            if (index[k + i] >= 0)
                store_number(out, a.type, index[k + i], w[i]);
    }
}

extern "C" __global__ __launch_bounds__(FMK_LOOKUP_THREADS) void rows_dense(
    const __grid_constant__ struct fmk_lookup_args args) {
    write_row<DENSE>(args);
}

extern "C" __global__ __launch_bounds__(FMK_LOOKUP_THREADS) void rows_int4(
    const __grid_constant__ struct fmk_lookup_args args) {
    write_row<INT4>(args);
}

extern "C" __global__ __launch_bounds__(FMK_LOOKUP_THREADS) void rows_q4k(
    const __grid_constant__ struct fmk_lookup_args args) {
    write_row<Q4K>(args);
}

extern "C" __global__ __launch_bounds__(FMK_LOOKUP_THREADS) void rows_q6k(
    const __grid_constant__ struct fmk_lookup_args args) {
    write_row<Q6K>(args);
}

extern "C" __global__ __launch_bounds__(FMK_LOOKUP_THREADS) void rows_int4_t64(
    const __grid_constant__ struct fmk_lookup_args args) {
    write_row<INT4_T64>(args);
}
