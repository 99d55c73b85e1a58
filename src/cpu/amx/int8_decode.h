/* Weights of every layout of codes as int8 (int8_sheet.h), with AVX-512: 16 rows by 256 k at a time.
 *
 * A row's 256 weights share a step, a 127th of the largest magnitude that their scales allow. A weight of
 * panels is then code * scale + offset in 8.8 bits fixed point, the rounding being in the offset, and its
 * upper byte is what is wanted: of four codes in the bytes of a lane, two at a time. |upper byte| <= 127, so
 * the sum, of which a product may be twice that, stays within 16 bits. Scales are rounded to 2^-9 of a step,
 * which codes up to 15 make a 34th of a step, up to 32 a 16th; rounding to int8 itself makes half of one. */
#ifndef FMK_CPU_AMX_INT8_DECODE_H
#define FMK_CPU_AMX_INT8_DECODE_H

#include "../avx512/row_codes.h"
#include "../avx512/vectors.h"
#include "../gemm/f32_decode.h"
#include "../layouts/x16.h"
#include "int8_sheet.h"

enum { MOST = 127, FIXED = 256 };

/* ---- steps ---- */

/* Bits order as magnitudes do, and NaN is above infinity. */
FMK_INLINE ints magnitude_of(floats x) {
    return and(as_ints(x), all_32(INT32_MAX));
}
FMK_INLINE ints larger(ints a, ints b) {
    return _mm512_max_epu32(a, b);
}

/* Writes the steps; answers what a weight is multiplied by to be in units of a step, times `unit`. */
FMK_INLINE floats steps_of(ints largest, float unit, float *step) {
    floats most = as_floats(largest);
    __mmask16 finite = _mm512_cmplt_epu32_mask(largest, all_32(0x7f800000));
    /* Below, the inverse could be infinite; such weights count as zero. */
    __mmask16 any = _mm512_mask_cmp_ps_mask(finite, most, all_floats(0x1p-100f), _CMP_GE_OQ);
    floats steps = _mm512_maskz_mul_ps(any, most, all_floats(1.0f / MOST));
    store_floats(step, _mm512_mask_mov_ps(all_floats(__builtin_nanf("")), finite, steps));
    return _mm512_maskz_div_ps(any, all_floats(MOST * unit), most);
}

/* ---- panels ---- */

/* What code * scale + offset is, in both halves of a lane. */
struct fixed {
    ints scale, offset;
};

FMK_INLINE ints to_nearest(floats x) {
    return _mm512_cvtps_epi32(x);
}

/* Weights of code * scale - min, in units of a FIXEDth of a step. */
FMK_INLINE struct fixed fixed_less(floats scale, floats min) {
    return (struct fixed){twice_16(to_nearest(scale)),
                          twice_16(_mm512_sub_epi32(all_32(FIXED / 2), to_nearest(min)))};
}

/* Of (code - zero) * scale. */
FMK_INLINE struct fixed fixed_from(floats scale, ints zero) {
    ints whole = to_nearest(scale);
    ints below = _mm512_mullo_epi32(whole, zero);
    return (struct fixed){twice_16(whole), twice_16(_mm512_sub_epi32(all_32(FIXED / 2), below))};
}

/* A quad of codes, the first and third of four in `even`, the others in `odd`. */
FMK_INLINE void store_rounded(ints even, ints odd, struct fixed by, int8_quad *out) {
    ints low = _mm512_srli_epi16(_mm512_add_epi16(multiply_16(even, by.scale), by.offset), 8);
    ints high = _mm512_add_epi16(multiply_16(odd, by.scale), by.offset);
    store_ints(
        out, _mm512_ternarylogic_epi32(low, high, all_32((int32_t)0xff00ff00), 0xf8)); /* low | high & mask */
}

FMK_INLINE void nibbles_to_int8(const uint8_t *nibbles, struct fixed by, int8_quad *out) {
    const ints mask = all_32(0xf000f);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        ints both = load_ints(nibbles + 64 * v);
        store_rounded(and(both, mask), and(shift_right(both, 8), mask), by, out + v);
        store_rounded(and(shift_right(both, 4), mask), and(shift_right(both, 12), mask), by, out + 4 + v);
    }
}

FMK_INLINE void q4k_x16_to_int8(const uint8_t *panel, int64_t k, struct int8_strip *out) {
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q4K_X16_BLOCK;
    floats d = widen_f16(block), dmin = widen_f16(block + FMK_Q4K_X16_MINIMA), scale[8], min[8];
    ints largest = no_ints();
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        scale[c] = multiply(d, to_floats(widen_u8(block + FMK_Q4K_X16_SCALES + 16 * c)));
        min[c] = multiply(dmin, to_floats(widen_u8(block + FMK_Q4K_X16_MINS + 16 * c)));
        floats most = multiply_less(scale[c], all_floats(15), min[c]);
        largest = larger(largest, larger(magnitude_of(min[c]), magnitude_of(most)));
    }
    floats by = steps_of(largest, FIXED, out->step);
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++)
        nibbles_to_int8(block + FMK_Q4K_X16_NIBBLES + c * FMK_X16_CHUNK,
                        fixed_less(multiply(scale[c], by), multiply(min[c], by)), &out->quad[8 * c]);
}

/* Codes 0..63 stand for -32..31. */
FMK_INLINE void q6k_x16_to_int8(const uint8_t *panel, int64_t k, struct int8_strip *out) {
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q6K_X16_BLOCK;
    const ints low4 = all_32(0x0f0f0f0f), high2 = all_32(0x30303030), evens = all_32(0xff00ff);
    floats d = widen_f16(block);
    ints largest = no_ints();
    for (int i = 0; i < 16; i++)
        largest = larger(largest, _mm512_abs_epi32(widen_i8(block + FMK_Q6K_X16_SCALES + 16 * i)));
    floats most = multiply(multiply(d, all_floats(32)), to_floats(largest));
    floats by = multiply(d, steps_of(magnitude_of(most), FIXED, out->step));
    for (int c = 0; c < 8; c++) {
        const uint8_t *low = block + fmk_q6k_panel_low(16, c), *high = block + fmk_q6k_panel_high(16, c);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            floats scale = to_floats(widen_i8(block + FMK_Q6K_X16_SCALES + 32 * c + 16 * h));
            struct fixed fixed = fixed_from(multiply(scale, by), all_32(32));
            ints top = load_ints(high + 64 * h);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                ints bits = j < 2 ? shift_left(top, 4 - 2 * j) : shift_right(top, 2 * j - 4);
                ints codes = or (and(shift_right(load_ints(low + 64 * j), 4 * h), low4), and(bits, high2));
                store_rounded(and(codes, evens), and(shift_right(codes, 8), evens), fixed,
                              &out->quad[8 * c + 4 * h + j]);
            }
        }
    }
}

/* Scales and zero points of the 32 k number `chunk` of a panel; its nibbles. */
FMK_INLINE const uint8_t *int4_chunk(const struct fmk_packed *part, const uint8_t *panel, int64_t chunk,
                                     floats *scale, ints *zero) {
    const int64_t size = part->dtype == FMK_F32 ? 4 : 2, header = fmk_int4_x16_header(size);
    const uint8_t *block = panel + chunk / part->chunks * (header + part->chunks * FMK_X16_CHUNK);
    *scale = int4_scales(block, part->dtype);
    *zero = widen_u8(block + 16 * size);
    return block + header + chunk % part->chunks * FMK_X16_CHUNK;
}

FMK_INLINE void int4_x16_to_int8(const struct fmk_packed *part, const uint8_t *panel, int64_t k,
                                 int32_t count, struct int8_strip *out) {
    floats scale[8];
    ints zero[8], largest = no_ints();
    const uint8_t *nibbles[8];
    for (int c = 0; c < count / 32; c++) {
        nibbles[c] = int4_chunk(part, panel, k / 32 + c, &scale[c], &zero[c]);
        ints farthest = _mm512_max_epi32(zero[c], _mm512_sub_epi32(all_32(15), zero[c]));
        largest = larger(largest, magnitude_of(multiply(scale[c], to_floats(farthest))));
    }
    floats by = steps_of(largest, FIXED, out->step);
    for (int c = 0; c < count / 32; c++)
        nibbles_to_int8(nibbles[c], fixed_from(multiply(scale[c], by), zero[c]), &out->quad[8 * c]);
}

/* ---- rows as in the file: by way of floats ---- */

FMK_INLINE void f32_to_int8(const struct f32_strip *in, int32_t count, struct int8_strip *out) {
    const ints byte = all_32(255);
    ints largest = no_ints();
    for (int32_t k = 0; k < count; k++)
        largest = larger(largest, magnitude_of(load_floats(in->w[k])));
    floats by = steps_of(largest, 1, out->step);
    for (int32_t q = 0; q < count / 4; q++) {
        ints quad = no_ints();
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            ints whole = to_nearest(multiply(load_floats(in->w[4 * q + i]), by));
            quad = or (quad, shift_left(and(whole, byte), 8 * i));
        }
        store_ints(out->quad[q], quad);
    }
}

/* ---- any of them ---- */

/* `count` k, at most 256, of 16 rows from k on, which is a multiple of 256. */
FMK_INLINE void int8_decode_strip(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                                  struct int8_strip *out, i16_decode *decode) {
    struct f32_strip floats_of;
    switch (job->part->layout->id) {
    case FMK_LAYOUT_Q4_K_X16:
        q4k_x16_to_int8(panel_of(job, row, 16), k, out);
        return;
    case FMK_LAYOUT_INT4_X16:
        int4_x16_to_int8(job->part, panel_of(job, row, 16), k, count, out);
        return;
    case FMK_LAYOUT_Q6_K_X16:
        q6k_x16_to_int8(panel_of(job, row, 16), k, out);
        return;
    default:
        f32_decode_strip(job, row, k, count, &floats_of, decode);
        f32_to_int8(&floats_of, count, out);
    }
}

#endif
