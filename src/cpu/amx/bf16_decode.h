/* Weights of every layout as pairs of bf16 (bf16_sheet.h), with AVX-512 BF16, a *unit* at a time: 16 rows by
 * 64 k of panels, by 256 k of others; with zeros from the last k on to a multiple of 32. */
#ifndef FMK_CPU_AMX_BF16_DECODE_H
#define FMK_CPU_AMX_BF16_DECODE_H

#include "../avx512/row_codes.h"
#include "../avx512/vectors.h"
#include "../layouts/x16.h"
#include "../gemm/f32_decode.h"
#include "bf16_sheet.h"

enum { UNIT_K = 64 }; /* of panels */

/* Both rounded to nearest even; the conversion puts the 16 of `low` below those of `high`, the permutation
 * side by side. */
FMK_INLINE void store_pairs(bf16_pair *out, floats low, floats high) {
    static const uint16_t interleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    ints halves = (ints)_mm512_cvtne2ps_pbh(high, low);
    store_ints(out, _mm512_permutexvar_epi16(load_ints(interleave), halves));
}

/* ---- codes of interleaved layouts, as the low bits of floats ----
 *
 * A float of exponent 2^7 counts ones from bit 16 on, one of 2^11 from bit 12 on. So a nibble that lies
 * there, with the exponent's bits, is the float 128 + code or 2048 + code, and scale * float - (scale * 128 +
 * min), fused, is the weight. Rounding scale * 2048 errs by 2^-13 of a scale, a sixteenth of what rounding to
 * bf16 does. */

enum { AT_16 = 0x43000000, AT_12 = 0x45000000 };

/* Both without their lower 16 bits: two instructions, where rounding takes four. Cutting takes half a step of
 * bf16 on average, 2^-8 of a weight at the lower end of a binade and 2^-9 at the upper one; so scales are
 * larger by something between. What bf16 can hold stays what it is, a step being more than that, and the
 * error is 5% larger than with rounding to nearest. */
static const float OVER = 1 + 0x1p-8f / 1.5f;

FMK_INLINE void store_cut_pairs(bf16_pair *out, floats low, floats high) {
    store_ints(out, _mm512_ternarylogic_epi32(shift_right(as_ints(low), 16), as_ints(high),
                                              all_32(INT32_C(-65536)), 0xf8)); /* low | high & mask */
}

FMK_INLINE floats code_float(ints x, int32_t mask, int32_t exponent) {
    return as_floats(
        _mm512_ternarylogic_epi32(x, all_32(mask), all_32(exponent), 0xea)); /* x & mask | exponent */
}

/* A quad of the low nibbles, which lie at bits 0, 8, 16, 24, and one of the high nibbles. */
FMK_INLINE void nibble_quads(ints both, floats scale, floats from_16, floats from_12, bf16_pair *low,
                             bf16_pair *high) {
    const int32_t at_16 = 0xf0000, at_12 = 0xf000;
    ints up_16 = shift_left(both, 16), up_8 = shift_left(both, 8);
    ints down_8 = shift_right(both, 8), down_16 = shift_right(both, 16);
    floats l0 = multiply_less(code_float(up_16, at_16, AT_16), scale, from_16);
    floats l1 = multiply_less(code_float(up_8, at_16, AT_16), scale, from_16);
    floats l2 = multiply_less(code_float(both, at_16, AT_16), scale, from_16);
    floats l3 = multiply_less(code_float(down_8, at_16, AT_16), scale, from_16);
    floats h0 = multiply_less(code_float(up_8, at_12, AT_12), scale, from_12);
    floats h1 = multiply_less(code_float(both, at_12, AT_12), scale, from_12);
    floats h2 = multiply_less(code_float(down_8, at_12, AT_12), scale, from_12);
    floats h3 = multiply_less(code_float(down_16, at_12, AT_12), scale, from_12);
    store_cut_pairs(low, l0, l1);
    store_cut_pairs(low + 1, l2, l3);
    store_cut_pairs(high, h0, h1);
    store_cut_pairs(high + 1, h2, h3);
}

/* 32 k that share scale and min. */
FMK_INLINE void nibble_chunk(const uint8_t *nibbles, floats scale, floats min, bf16_pair *out) {
    floats from_16 = multiply_add(scale, all_floats(128), min);
    floats from_12 = multiply_add(scale, all_floats(2048), min);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++)
        nibble_quads(load_ints(nibbles + 64 * v), scale, from_16, from_12, out + 2 * v, out + 8 + 2 * v);
}

FMK_INLINE void q4k_x16_to_bf16(const uint8_t *panel, int64_t k, bf16_pair *out) {
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q4K_X16_BLOCK;
    const int first = (int)(k % FMK_K_BLOCK) / 32;
    floats d = multiply(widen_f16(block), all_floats(OVER));
    floats dmin = multiply(widen_f16(block + FMK_Q4K_X16_MINIMA), all_floats(OVER));
    for (int i = 0; i < UNIT_K / 32; i++) {
        int c = first + i;
        floats scale = multiply(d, to_floats(widen_u8(block + FMK_Q4K_X16_SCALES + 16 * c)));
        floats min = multiply(dmin, to_floats(widen_u8(block + FMK_Q4K_X16_MINS + 16 * c)));
        nibble_chunk(block + FMK_Q4K_X16_NIBBLES + c * FMK_X16_CHUNK, scale, min, out + 16 * i);
    }
}

FMK_INLINE void int4_x16_to_bf16(const struct fmk_packed *part, const uint8_t *panel, int64_t k,
                                 int32_t count, bf16_pair *out) {
    const int64_t size = part->dtype == FMK_F32 ? 4 : 2, header = fmk_int4_x16_header(size);
    for (int i = 0; i < count / 32; i++) {
        uint32_t chunk = (uint32_t)(k / 32) + (uint32_t)i, chunks = (uint32_t)part->chunks;
        const uint8_t *block = panel + chunk / chunks * (header + part->chunks * FMK_X16_CHUNK);
        floats scale = multiply(int4_scales(block, part->dtype), all_floats(OVER));
        floats zero = to_floats(widen_u8(block + 16 * size));
        nibble_chunk(block + header + chunk % chunks * FMK_X16_CHUNK, scale, multiply(scale, zero),
                     out + 16 * i);
    }
}

/* Codes 0..63 from bit 16 on. */
FMK_INLINE void code_quad(ints codes, floats scale, floats from, bf16_pair *out) {
    const int32_t at = 0x3f0000;
    floats k0 = multiply_less(code_float(shift_left(codes, 16), at, AT_16), scale, from);
    floats k1 = multiply_less(code_float(shift_left(codes, 8), at, AT_16), scale, from);
    floats k2 = multiply_less(code_float(codes, at, AT_16), scale, from);
    floats k3 = multiply_less(code_float(shift_right(codes, 8), at, AT_16), scale, from);
    store_cut_pairs(out, k0, k1);
    store_cut_pairs(out + 1, k2, k3);
}

FMK_INLINE void q6k_x16_to_bf16(const uint8_t *panel, int64_t k, bf16_pair *out) {
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q6K_X16_BLOCK;
    const int first = (int)(k % FMK_K_BLOCK) / 32;
    const ints low4 = all_32(0x0f0f0f0f), high2 = all_32(0x30303030);
    floats d = multiply(widen_f16(block), all_floats(OVER));
    for (int i = 0; i < UNIT_K / 32; i++) {
        int c = first + i;
        const uint8_t *low = block + fmk_q6k_panel_low(16, c), *high = block + fmk_q6k_panel_high(16, c);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            floats scale = multiply(d, to_floats(widen_i8(block + FMK_Q6K_X16_SCALES + 32 * c + 16 * h)));
            floats from = multiply(scale, all_floats(128 + 32));
            ints top = load_ints(high + 64 * h);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                ints bits = j < 2 ? shift_left(top, 4 - 2 * j) : shift_right(top, 2 * j - 4);
                ints codes = or (and(shift_right(load_ints(low + 64 * j), 4 * h), low4), and(bits, high2));
                code_quad(codes, scale, from, out + 16 * i + 8 * h + 2 * j);
            }
        }
    }
}

/* ---- rows as in the file ---- */

static void i16_to_bf16(const struct i16_strip *in, struct i16_runs runs, int32_t count, bf16_pair *out) {
    for (int32_t q = 0; q < count / 4; q++) {
        floats scale = load_floats(in->scale[4 * q / runs.length]);
        floats min = runs.minima ? load_floats(in->min[q / 8]) : no_floats();
        floats low[2], high[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            ints pair = load_ints(in->pair[2 * q + h]);
            low[h] = multiply_less(to_floats(shift_right_signed(shift_left(pair, 16), 16)), scale, min);
            high[h] = multiply_less(to_floats(shift_right_signed(pair, 16)), scale, min);
        }
        store_pairs(out + 2 * q, low[0], low[1]);
        store_pairs(out + 2 * q + 1, high[0], high[1]);
    }
}

/* Words of bf16 are pairs already. */
FMK_INLINE void dense_to_bf16(const struct fmk_gemm_job *job, int64_t first, int64_t k, int32_t count,
                              bf16_pair *out, const fmk_dtype dtype) {
    const int size = dtype == FMK_F32 ? 4 : 2, per_word = 4 / size;
    const uint8_t *rows[LANES];
    blocks_of(job, first, k * size, rows);
    for (int32_t i = 0; i < fmk_round_up(count, 32); i += LANES * per_word) {
        ints w[LANES];
        for (int r = 0; r < LANES; r++)
            w[r] = dense_words(rows[r] + i * size, size, count - i);
        transpose(w);
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++)
            if (dtype == FMK_BF16)
                store_ints(out + i / 2 + j, w[j]);
            else if (dtype == FMK_F16)
                store_pairs(out + i / 2 + j, low_f16(w[j]), low_f16(shift_right(w[j], 16)));
            else if (j % 2)
                store_pairs(out + i / 2 + j / 2, as_floats(w[j - 1]), as_floats(w[j]));
    }
}

/* ---- a unit of any of them ---- */

FMK_INLINE bool is_x16(const struct fmk_packed *part) {
    int32_t id = part->layout->id;
    return id == FMK_LAYOUT_Q4_K_X16 || id == FMK_LAYOUT_Q6_K_X16 || id == FMK_LAYOUT_INT4_X16;
}

FMK_INLINE int32_t bf16_unit_k(const struct fmk_packed *part) {
    return is_x16(part) ? UNIT_K : FMK_K_BLOCK;
}

/* `count` k, of at most a unit, of 16 rows from k on, which is a multiple of a unit. */
FMK_INLINE void bf16_decode_unit(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                                 bf16_pair *out, i16_decode *decode) {
    const struct fmk_packed *part = job->part;
    struct i16_strip integers;
    switch (part->layout->id) {
    case FMK_LAYOUT_Q4_K_X16:
        q4k_x16_to_bf16(panel_of(job, row, 16), k, out);
        return;
    case FMK_LAYOUT_INT4_X16:
        int4_x16_to_bf16(part, panel_of(job, row, 16), k, count, out);
        return;
    case FMK_LAYOUT_Q6_K_X16:
        q6k_x16_to_bf16(panel_of(job, row, 16), k, out);
        return;
    case FMK_LAYOUT_DENSE_ROWS:
        if (part->dtype == FMK_F32)
            dense_to_bf16(job, row, k, count, out, FMK_F32);
        else if (part->dtype == FMK_F16)
            dense_to_bf16(job, row, k, count, out, FMK_F16);
        else
            dense_to_bf16(job, row, k, count, out, FMK_BF16);
        return;
    default:
        decode(job, row, k, count, &integers);
        i16_to_bf16(&integers, i16_runs_of(part), count, out);
    }
}

#endif
