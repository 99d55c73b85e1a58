/* Four-bit codes as bf16 of 128 + code, 32 k of 16 rows at a time, with AVX-512; their scales and minima. */
#ifndef FMK_CPU_AMX_CODES_DECODE_H
#define FMK_CPU_AMX_CODES_DECODE_H

#include "../avx512/row_codes.h"
#include "../avx512/vectors.h"
#include "../gemm/i16_decode.h"
#include "../layouts/x16.h"
#include "bf16_sheet.h"

enum { CODES_FROM = 128 };

/* Of k 4q .. 4q+3, pair 2q holds the first and third, pair 2q+1 the second and fourth. A weight is scale *
 * number - min. */
struct codes {
    _Alignas(64) bf16_pair pairs[16];
    float scale[FMK_STRIP], min[FMK_STRIP];
};

/* Of bits 0 to 3 of both halves of a lane. */
FMK_INLINE ints codes_pair(ints x) {
    return _mm512_ternarylogic_epi32(x, all_32(0xf000f), all_32(0x43004300), 0xea); /* x & mask | 2^7 */
}

FMK_INLINE void codes_of_nibbles(const uint8_t *nibbles, bf16_pair *out) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        ints both = load_ints(nibbles + 64 * v);
        store_ints(out + 2 * v, codes_pair(both));
        store_ints(out + 2 * v + 1, codes_pair(shift_right(both, 8)));
        store_ints(out + 8 + 2 * v, codes_pair(shift_right(both, 4)));
        store_ints(out + 8 + 2 * v + 1, codes_pair(shift_right(both, 12)));
    }
}

FMK_INLINE void decode_q4k_chunk(const uint8_t *panel, int64_t chunk, struct codes *out) {
    const uint8_t *block = panel + chunk / 8 * FMK_Q4K_X16_BLOCK;
    const int64_t c = chunk % 8;
    floats scale = multiply(widen_f16(block), to_floats(widen_u8(block + FMK_Q4K_X16_SCALES + 16 * c)));
    floats min = multiply(widen_f16(block + FMK_Q4K_X16_MINIMA),
                          to_floats(widen_u8(block + FMK_Q4K_X16_MINS + 16 * c)));
    store_floats(out->scale, scale);
    store_floats(out->min, multiply_add(scale, all_floats(CODES_FROM), min));
    codes_of_nibbles(block + FMK_Q4K_X16_NIBBLES + c * FMK_X16_CHUNK, out->pairs);
}

FMK_INLINE void decode_int4_chunk(const struct fmk_packed *part, const uint8_t *panel, int64_t chunk,
                                  struct codes *out) {
    const int64_t size = part->dtype == FMK_F32 ? 4 : 2, header = fmk_int4_x16_header(size);
    const uint32_t c = (uint32_t)chunk, chunks = (uint32_t)part->chunks;
    const uint8_t *block = panel + c / chunks * (header + part->chunks * FMK_X16_CHUNK);
    floats scale = int4_scales(block, part->dtype);
    floats zero = add(to_floats(widen_u8(block + 16 * size)), all_floats(CODES_FROM));
    store_floats(out->scale, scale);
    store_floats(out->min, multiply(scale, zero));
    codes_of_nibbles(block + header + c % chunks * FMK_X16_CHUNK, out->pairs);
}

/* The 32 k number `chunk` of a panel. */
FMK_INLINE void decode_chunk(const struct fmk_packed *part, const uint8_t *panel, int64_t chunk,
                             struct codes *out) {
    if (part->layout->family == FMK_FAMILY_Q4_K)
        decode_q4k_chunk(panel, chunk, out);
    else
        decode_int4_chunk(part, panel, chunk, out);
}

#endif
