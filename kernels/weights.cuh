/* Weights as floats, of any layout (layout.h): by the published formulas, product by product, so that they
 * are the same bits as on the host. int4  scale * (code - zero) q4_k  (d * scale) * code - (dmin * min) q6_k
 * (d * scale) * (code - 32) */
#ifndef FMK_KERNELS_WEIGHTS_CUH
#define FMK_KERNELS_WEIGHTS_CUH

#include "args.h"
#include "layout.h"
#include "numbers.cuh"

/* Families, as enum fmk_family, in the t16 layouts; and int4 in t64. */
enum { DENSE, INT4, Q4K, Q6K, INT4_T64 };

/* The float with the bits of 2^23 and a small integer in its lowest bits is 2^23 + that integer, and a
 * difference of two such is exact: cheaper than a conversion. */
#define TWO_23_BITS 0x4b000000u
#define TWO_23 8388608.0f

__device__ __forceinline__ float float_of_byte(uint32_t word, int byte) {
    return (float)(word >> 8 * byte & 255);
}

__device__ __forceinline__ float float_of_signed_byte(uint32_t word, int byte) {
    return (float)(int8_t)(word >> 8 * byte);
}

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Codes of four neighbouring k, less an offset (`base` is 2^23 + it). `word` is a word of a fragment, shifted
 * right by 4 for the row g + 8. */
__device__ __forceinline__ void low_codes(uint32_t word, float base, float code[4]) {
    code[0] = sub_rn(bits_to_f32(TWO_23_BITS | (word & 15)), base);
    code[1] = sub_rn(bits_to_f32(TWO_23_BITS | (word >> 16 & 15)), base);
    code[2] = sub_rn(bits_to_f32(TWO_23_BITS | (word >> 8 & 15)), base);
    code[3] = sub_rn(bits_to_f32(TWO_23_BITS | (word >> 24 & 15)), base);
}

/* The same with two more bits: `high` is the word that serves the step, shifted right by 8 for an odd step
 * and by 2 for the row g + 8. */
__device__ __forceinline__ void six_bit_codes(uint32_t word, uint32_t high, float base, float code[4]) {
    code[0] = sub_rn(bits_to_f32(TWO_23_BITS | (word & 15) | (high << 4 & 48)), base);
    code[1] = sub_rn(bits_to_f32(TWO_23_BITS | (word >> 16 & 15) | (high >> 12 & 48)), base);
    code[2] = sub_rn(bits_to_f32(TWO_23_BITS | (word >> 8 & 15) | (high & 48)), base);
    code[3] = sub_rn(bits_to_f32(TWO_23_BITS | (word >> 24 & 15) | (high >> 16 & 48)), base);
}

/* ---- where units are ---- */

/* Rows whose units are one. */
template <int family> constexpr int BLOCK_ROWS = family == INT4_T64 ? FMK_T64_ROWS : FMK_T16_ROWS;

template <int family>
constexpr int UNIT_K = family == INT4 || family == INT4_T64 ? FMK_INT4_UNIT_K : FMK_Q4K_UNIT_K;

template <int family> __device__ __forceinline__ int unit_bytes(const struct fmk_linear_part &part) {
    if (family == INT4 || family == INT4_T64)
        return BLOCK_ROWS<family> / 16 *
               (FMK_INT4_UNIT_CODES +
                (64 >> (part.chunks >> 1)) * ((int)number_size(part.dtype) + (part.has_zeros ? 1 : 0)));
    return family == Q4K ? FMK_Q4K_UNIT : FMK_Q6K_UNIT;
}

/* Unit 0 of the block that has a row of the matrix at `data`. */
template <int family>
__device__ __forceinline__ const uint8_t *block_of_row(const struct fmk_linear_part &part,
                                                       const uint8_t *data, int64_t row) {
    return data + row / BLOCK_ROWS<family> * part.stride;
}

/* ---- what a unit says of a row ---- */

struct int4_group {
    float scale, base; /* 2^23 + zero */
};

/* Of the 32 k number `chunk` (0..3) of a unit; row: 0..15, of t64 0..63. */
template <int family>
__device__ __forceinline__ struct int4_group int4_group(const struct fmk_linear_part &part,
                                                        const uint8_t *unit, int row, int chunk) {
    constexpr int rows = BLOCK_ROWS<family>;
    const uint8_t *scales = unit + rows / 16 * FMK_INT4_UNIT_CODES;
    int shift = part.chunks >> 1; /* by 0, 1, 2: chunk / chunks */
    int at = rows * (chunk >> shift) + (family == INT4_T64 ? FMK_T64_PLACE(row) : row);
    float zero = 8;
    if (part.has_zeros)
        zero = (float)scales[(4 * rows >> shift) * number_size(part.dtype) + at];
    return {load_number(scales, part.dtype, at), TWO_23 + zero};
}

/* Eight scales and minima of 6 bits, a byte each. */
struct q4k_header {
    float d, dmin;
    uint32_t scale[2], min[2];
};

__device__ __forceinline__ struct q4k_header q4k_header(const uint8_t *unit, int row) {
    uint4 bytes = load_16(unit + FMK_Q4K_UNIT_HEADERS + 16 * row);
    return {f16_to_f32((uint16_t)bytes.x),
            f16_to_f32((uint16_t)(bytes.x >> 16)),
            {bytes.y & 0x3f3f3f3f, (bytes.w & 0x0f0f0f0f) | (bytes.y >> 6 & 0x03030303) << 4},
            {bytes.z & 0x3f3f3f3f, (bytes.w >> 4 & 0x0f0f0f0f) | (bytes.z >> 6 & 0x03030303) << 4}};
}

__device__ __forceinline__ float q4k_scale(const struct q4k_header &h, int sub_block) {
    return mul_rn(h.d, float_of_byte(sub_block < 4 ? h.scale[0] : h.scale[1], sub_block & 3));
}

__device__ __forceinline__ float q4k_min(const struct q4k_header &h, int sub_block) {
    return mul_rn(h.dmin, float_of_byte(sub_block < 4 ? h.min[0] : h.min[1], sub_block & 3));
}

struct q6k_header {
    float d;
    uint4 scale; /* sixteen signed bytes */
};

__device__ __forceinline__ struct q6k_header q6k_header(const uint8_t *unit, int row) {
    return {load_number(unit + FMK_Q6K_UNIT_D, NUMBER_F16, row),
            load_16(unit + FMK_Q6K_UNIT_SCALES + 16 * row)};
}

__device__ __forceinline__ float q6k_scale(const struct q6k_header &h, int run) {
    return mul_rn(h.d, float_of_signed_byte(word_of(h.scale, run >> 2), run & 3));
}

/* ---- fragments: a lane's weights of a tile of 64 k, rows g and g + 8 ---- */

/* [row g, row g + 8][4 * step + i] */
struct fragment {
    float w[2][16];
};

/* Whether a lane's step is four neighbours of 16 k, or of 32 k two steps are eight. */
template <int family> constexpr bool NARROW = family == Q6K || family == INT4_T64;

/* The first k, in its tile, of a lane's step. */
template <int family> __device__ __forceinline__ int fragment_k(int t, int step) {
    return NARROW<family> ? 16 * step + 4 * t : 32 * (step / 2) + 8 * t + 4 * (step % 2);
}

/* What rows g and g + 8 need besides their codes; loaded once for the tiles of a unit. */
template <int family> struct unit_headers;
template <> struct unit_headers<INT4> {};
template <> struct unit_headers<INT4_T64> {};
template <> struct unit_headers<Q4K> { struct q4k_header row[2]; };
template <> struct unit_headers<Q6K> { struct q6k_header row[2]; };

__device__ __forceinline__ void load_headers(const uint8_t *, int, struct unit_headers<INT4> &) {}
__device__ __forceinline__ void load_headers(const uint8_t *, int, struct unit_headers<INT4_T64> &) {}

__device__ __forceinline__ void load_headers(const uint8_t *unit, int g, struct unit_headers<Q4K> &h) {
    h.row[0] = q4k_header(unit, g);
    h.row[1] = q4k_header(unit, g + 8);
}

__device__ __forceinline__ void load_headers(const uint8_t *unit, int g, struct unit_headers<Q6K> &h) {
    h.row[0] = q6k_header(unit, g);
    h.row[1] = q6k_header(unit, g + 8);
}

/* The bits of a tile that are a lane's (4 g + t). */
struct lane_codes {
    uint4 low;
    uint2 high; /* q6_k: of steps 0 and 1, 2 and 3 */
};

/* Two words of t64, of pairs of k 2 t and 2 t + 8, and of 2 t + 2 and 2 t + 10: four neighbours of the first
 * or, `second`, of the last. */
__device__ __forceinline__ uint32_t join_pairs(uint32_t even, uint32_t odd, bool second) {
    return __byte_perm(even, odd, second ? 0x7351 : 0x6240);
}

/* Four neighbours of each step, of what two lanes of the row have. */
__device__ __forceinline__ uint4 join_lanes(const uint8_t *tile, int lane) {
    const uint8_t *from = tile + 16 * (lane & ~3) + 32 * (lane & 1);
    uint4 even = load_16(from), odd = load_16(from + 16);
    bool second = lane & 2;
    return make_uint4(join_pairs(even.x, odd.x, second), join_pairs(even.y, odd.y, second),
                      join_pairs(even.z, odd.z, second), join_pairs(even.w, odd.w, second));
}

/* `panel`: of 16 rows, in the block. */
template <int family>
__device__ __forceinline__ struct lane_codes load_codes(const uint8_t *unit, int panel, int tile, int lane) {
    if (family == INT4_T64)
        return {join_lanes(unit + FMK_INT4_UNIT_CODES * panel + FMK_T16_TILE * tile, lane), {0, 0}};
    struct lane_codes codes = {load_stream(unit + FMK_T16_TILE * tile + 16 * lane), {0, 0}};
    if (family == Q6K)
        codes.high =
            load_8(unit + FMK_Q6K_UNIT_HIGH + FMK_T16_TILE * (tile >> 1) + 16 * lane + 8 * (tile & 1));
    return codes;
}

/* One step of one row: four neighbouring k. */
__device__ __forceinline__ void int4_step(const struct int4_group &group, uint32_t word, float w[4]) {
    low_codes(word, group.base, w);
    for (int i = 0; i < 4; i++)
        w[i] = mul_rn(group.scale, w[i]);
}

__device__ __forceinline__ void q4k_step(float scale, float min, uint32_t word, float w[4]) {
    low_codes(word, TWO_23, w);
    for (int i = 0; i < 4; i++)
        w[i] = sub_rn(mul_rn(scale, w[i]), min);
}

__device__ __forceinline__ void q6k_step(float scale, uint32_t word, uint32_t high, float w[4]) {
    six_bit_codes(word, high, TWO_23 + 32, w);
    for (int i = 0; i < 4; i++)
        w[i] = mul_rn(scale, w[i]);
}

/* `g` is the row g in the block, `tile` counts from the unit's first. */
template <int family>
__device__ __forceinline__ void decode_int4_fragment(const struct fmk_linear_part &part, const uint8_t *unit,
                                                     int g, int tile, const struct lane_codes &codes,
                                                     struct fragment &f) {
#pragma unroll
    for (int row = 0; row < 2; row++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            struct int4_group group = int4_group<family>(part, unit, g + 8 * row, 2 * tile + half);
            int4_step(group, word_of(codes.low, 2 * half) >> 4 * row, f.w[row] + 8 * half);
            int4_step(group, word_of(codes.low, 2 * half + 1) >> 4 * row, f.w[row] + 8 * half + 4);
        }
}

__device__ __forceinline__ void decode_fragment(const struct fmk_linear_part &part, const uint8_t *unit,
                                                const struct unit_headers<INT4> &, int g, int tile,
                                                const struct lane_codes &codes, struct fragment &f) {
    decode_int4_fragment<INT4>(part, unit, g, tile, codes, f);
}

__device__ __forceinline__ void decode_fragment(const struct fmk_linear_part &part, const uint8_t *unit,
                                                const struct unit_headers<INT4_T64> &, int g, int tile,
                                                const struct lane_codes &codes, struct fragment &f) {
    decode_int4_fragment<INT4_T64>(part, unit, g, tile, codes, f);
}

__device__ __forceinline__ void decode_fragment(const struct fmk_linear_part &, const uint8_t *,
                                                const struct unit_headers<Q4K> &headers, int, int tile,
                                                const struct lane_codes &codes, struct fragment &f) {
#pragma unroll
    for (int row = 0; row < 2; row++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float scale = q4k_scale(headers.row[row], 2 * tile + half);
            float min = q4k_min(headers.row[row], 2 * tile + half);
            q4k_step(scale, min, word_of(codes.low, 2 * half) >> 4 * row, f.w[row] + 8 * half);
            q4k_step(scale, min, word_of(codes.low, 2 * half + 1) >> 4 * row, f.w[row] + 8 * half + 4);
        }
}

__device__ __forceinline__ void decode_fragment(const struct fmk_linear_part &, const uint8_t *,
                                                const struct unit_headers<Q6K> &headers, int, int tile,
                                                const struct lane_codes &codes, struct fragment &f) {
#pragma unroll
    for (int row = 0; row < 2; row++)
#pragma unroll
        for (int step = 0; step < 4; step++)
            q6k_step(q6k_scale(headers.row[row], 4 * tile + step), word_of(codes.low, step) >> 4 * row,
                     (step < 2 ? codes.high.x : codes.high.y) >> (8 * (step % 2) + 2 * row),
                     f.w[row] + 4 * step);
}

/* ---- quads: weights k .. k+3 of one row, k a multiple of 4 ---- */

/* `block` is where the row's block begins, `row` is counted from there. */
template <int family>
__device__ __forceinline__ void decode_quad(const struct fmk_linear_part &part, const uint8_t *block, int row,
                                            int32_t k, float w[4]) {
    const uint8_t *unit = block + (int64_t)(k / UNIT_K<family>)*unit_bytes<family>(part);
    k %= UNIT_K<family>;
    int tile = k / 64, in_tile = k % 64;
    int step = NARROW<family> ? in_tile / 16 : in_tile / 32 * 2 + in_tile % 8 / 4;
    int lane = 4 * (row % 8) + (NARROW<family> ? in_tile % 16 / 4 : in_tile % 32 / 8);
    const uint32_t *words = (const uint32_t *)(unit + row / 16 * FMK_INT4_UNIT_CODES + FMK_T16_TILE * tile);
    uint32_t word;
    if (family == INT4_T64) {
        const uint32_t *even = words + 4 * (lane & ~3) + 8 * (lane & 1) + step;
        word = join_pairs(even[0], even[4], lane & 2);
    } else {
        word = words[4 * lane + step];
    }
    word >>= row % 16 / 8 * 4;
    if constexpr (family == INT4 || family == INT4_T64) {
        int4_step(int4_group<family>(part, unit, row, k / 32), word, w);
    } else if (family == Q4K) {
        struct q4k_header header = q4k_header(unit, row);
        q4k_step(q4k_scale(header, k / 32), q4k_min(header, k / 32), word, w);
    } else {
        const uint32_t *high = (const uint32_t *)(unit + FMK_Q6K_UNIT_HIGH + FMK_T16_TILE * (tile / 2));
        uint32_t bits = high[4 * lane + 2 * (tile % 2) + step / 2] >> (8 * (step % 2) + 2 * (row / 8));
        q6k_step(q6k_scale(q6k_header(unit, row), k / 16), word, bits, w);
    }
}

#endif
