/* Codes of every layout times their integer scales, into strips (i16_sheet.h), for the ISA whose vectors.h
 * and row_codes.h were included before. */
#ifndef FMK_CPU_GEMM_I16_DECODE_H
#define FMK_CPU_GEMM_I16_DECODE_H

#include "../../formats/k_quants.h"
#include "../layouts/panels.h"
#include "i16_sheet.h"

/* ---- interleaved layouts: R rows to a panel, of which LANES from `lane` on ---- */

/* The panel of a row; where a strip's second half is past the end, the last panel once more. */
FMK_INLINE const uint8_t *panel_of(const struct fmk_gemm_job *job, int64_t row, const int R) {
    int64_t last = (job->part->n - 1) / R;
    return job->data + (uint64_t)fmk_min(row / R, last) * job->part->stride;
}

/* Both pairs of a quad of codes in the low bits of its bytes, times the scales. */
FMK_INLINE void store_scaled(ints codes, const int bits, ints scale, int16_t (*pair)[FMK_STRIP][2], int row) {
    const ints mask = all_32(bits << 16 | bits);
    store_ints(pair[0][row], multiply_16(and(codes, mask), scale));
    store_ints(pair[1][row], multiply_16(and(shift_right(codes, 8), mask), scale));
}

FMK_INLINE void decode_q4k(const uint8_t *panel, int64_t k, int lane, struct i16_strip *strip, int row,
                           const int R) {
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q4K_PANEL_BLOCK * R;
    floats dmin = widen_f16(block + FMK_Q4K_PANEL_MINIMA * R + 2 * lane);
    store_floats(strip->scale[0] + row, widen_f16(block + 2 * lane));
    for (int c = 0; c < 8; c++) {
        ints scale = widen_u8(block + (FMK_Q4K_PANEL_SCALES + c) * R + lane);
        ints min = widen_u8(block + (FMK_Q4K_PANEL_MINS + c) * R + lane);
        store_floats(strip->min[c] + row, multiply(dmin, to_floats(min)));
        scale = or (scale, shift_left(scale, 16));
        const uint8_t *nibbles = block + (FMK_Q4K_PANEL_NIBBLES + c * FMK_PANEL_CHUNK) * R + 4 * lane;
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            ints both = load_ints(nibbles + 4 * v * R);
            store_scaled(both, 15, scale, &strip->pair[16 * c + 2 * v], row);
            store_scaled(shift_right(both, 4), 15, scale, &strip->pair[16 * c + 8 + 2 * v], row);
        }
    }
}

/* Codes 0..63 stand for -32..31. */
FMK_INLINE void store_centered(ints codes, ints scale, int16_t (*pair)[FMK_STRIP][2], int row) {
    const ints mask = all_32(0xff00ff), middle = all_16(32);
    ints odd = and(shift_right(codes, 8), mask);
    store_ints(pair[0][row], multiply_16(subtract_16(and(codes, mask), middle), scale));
    store_ints(pair[1][row], multiply_16(subtract_16(odd, middle), scale));
}

/* An int8 that fills its lane, twice as int16. */
FMK_INLINE ints twice_16(ints scale) {
    return or (and(scale, all_32(0xffff)), shift_left(scale, 16));
}

FMK_INLINE void decode_q6k(const uint8_t *panel, int64_t k, int lane, struct i16_strip *strip, int row,
                           const int R) {
    const ints low4 = all_32(0x0f0f0f0f), high2 = all_32(0x30303030);
    const uint8_t *block = panel + k / FMK_K_BLOCK * FMK_Q6K_PANEL_BLOCK * R;
    store_floats(strip->scale[0] + row, widen_f16(block + 2 * lane));
    for (int c = 0; c < 8; c++) {
        const uint8_t *low = block + fmk_q6k_panel_low(R, c) + 4 * lane;
        const uint8_t *high = block + fmk_q6k_panel_high(R, c) + 4 * lane;
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            ints scale = twice_16(widen_i8(block + (FMK_Q6K_PANEL_SCALES + 2 * c + h) * R + lane));
            ints top = load_ints(high + 4 * h * R);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                ints bits = j < 2 ? shift_left(top, 4 - 2 * j) : shift_right(top, 2 * j - 4);
                ints codes = or (and(shift_right(load_ints(low + 4 * j * R), 4 * h), low4), and(bits, high2));
                store_centered(codes, scale, &strip->pair[16 * c + 8 * h + 2 * j], row);
            }
        }
    }
}

FMK_INLINE floats int4_scales(const uint8_t *scales, fmk_dtype dtype) {
    return dtype == FMK_F32   ? as_floats(load_ints(scales))
           : dtype == FMK_F16 ? widen_f16(scales)
                              : widen_bf16(scales);
}

FMK_INLINE void store_uncentered(ints codes, ints zero, int16_t (*pair)[FMK_STRIP][2], int row) {
    const ints mask = all_32(0xf000f);
    store_ints(pair[0][row], subtract_16(and(codes, mask), zero));
    store_ints(pair[1][row], subtract_16(and(shift_right(codes, 8), mask), zero));
}

FMK_INLINE void decode_int4(const struct fmk_packed *part, const uint8_t *panel, int64_t k, int32_t count,
                            int lane, struct i16_strip *strip, int row, const int R) {
    const int64_t size = part->dtype == FMK_F32 ? 4 : 2, header = R * (size + 1);
    const int32_t run = i16_runs_of(part).length / 32;
    for (int c = 0; c < count / 32; c++) {
        int64_t chunk = k / 32 + c, in_block = chunk % part->chunks;
        const uint8_t *block = panel + chunk / part->chunks * (header + part->chunks * FMK_PANEL_CHUNK * R);
        ints zero = widen_u8(block + size * R + lane);
        zero = or (zero, shift_left(zero, 16));
        if (c % run == 0)
            store_floats(strip->scale[c / run] + row, int4_scales(block + size * lane, part->dtype));
        const uint8_t *nibbles = block + header + in_block * FMK_PANEL_CHUNK * R + 4 * lane;
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            ints both = load_ints(nibbles + 4 * v * R);
            store_uncentered(both, zero, &strip->pair[16 * c + 2 * v], row);
            store_uncentered(shift_right(both, 4), zero, &strip->pair[16 * c + 8 + 2 * v], row);
        }
    }
}

/* ---- rows as in the file: LANES quads of LANES rows, transposed ---- */

/* The super-block at k of the rows from `row` on; past the last one, the last once more. */
FMK_INLINE void blocks_of(const struct fmk_gemm_job *job, int64_t row, int64_t offset,
                          const uint8_t *block[LANES]) {
    for (int i = 0; i < LANES; i++)
        block[i] = job->data + (uint64_t)fmk_min(row + i, job->part->n - 1) * job->part->stride + offset;
}

FMK_INLINE void store_quads(ints even[LANES], ints odd[LANES], int16_t (*pair)[FMK_STRIP][2], int row) {
    transpose(even);
    transpose(odd);
#pragma GCC unroll 16
    for (int q = 0; q < LANES; q++) {
        store_ints(pair[2 * q][row], even[q]);
        store_ints(pair[2 * q + 1][row], odd[q]);
    }
}

FMK_INLINE void decode_q4k_rows(const struct fmk_gemm_job *job, int64_t first, int64_t k,
                                struct i16_strip *strip, int row) {
    const ints mask = all_32(0xf000f);
    const uint8_t *block[LANES];
    uint8_t scale[LANES][8], min[8];
    blocks_of(job, first, k / FMK_K_BLOCK * FMK_Q4K_BLOCK, block);
    for (int i = 0; i < LANES; i++) {
        fmk_q4k_scales(block[i] + FMK_Q4K_SCALES, scale[i], min);
        float dmin = fmk_load_f16(block[i] + FMK_Q4K_DMIN);
        strip->scale[0][row + i] = fmk_load_f16(block[i] + FMK_Q4K_D);
        for (int j = 0; j < 8; j++)
            strip->min[j][row + i] = dmin * min[j];
    }
    for (int c = 0; c < FMK_K_BLOCK / 4 / LANES; c++) {
        ints even[LANES], odd[LANES];
        for (int i = 0; i < LANES; i++) {
            ints codes = q4k_row_codes(block[i], c), factor = q4k_row_scales(scale[i], c);
            even[i] = multiply_16(and(codes, mask), factor);
            odd[i] = multiply_16(and(shift_right(codes, 8), mask), factor);
        }
        store_quads(even, odd, &strip->pair[2 * c * LANES], row);
    }
}

FMK_INLINE void decode_q6k_rows(const struct fmk_gemm_job *job, int64_t first, int64_t k,
                                struct i16_strip *strip, int row) {
    const ints mask = all_32(0xff00ff), middle = all_16(32);
    const uint8_t *block[LANES];
    blocks_of(job, first, k / FMK_K_BLOCK * FMK_Q6K_BLOCK, block);
    for (int i = 0; i < LANES; i++)
        strip->scale[0][row + i] = fmk_load_f16(block[i] + FMK_Q6K_D);
    for (int c = 0; c < FMK_K_BLOCK / 4 / LANES; c++) {
        ints even[LANES], odd[LANES];
        for (int i = 0; i < LANES; i++) {
            ints codes = q6k_row_codes(block[i], c), factor = q6k_row_scales(block[i] + FMK_Q6K_SCALES, c);
            even[i] = multiply_16(subtract_16(and(codes, mask), middle), factor);
            odd[i] = multiply_16(subtract_16(and(shift_right(codes, 8), mask), middle), factor);
        }
        store_quads(even, odd, &strip->pair[2 * c * LANES], row);
    }
}

/* ---- a strip of any of them ---- */

/* `part->n` is not looked at but to stay within the rows there are. */
FMK_INLINE void i16_decode_strip(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                                 struct i16_strip *strip) {
    const struct fmk_packed *part = job->part;
    for (int at = 0; at < FMK_STRIP; at += LANES)
        switch (part->layout->id) {
        case FMK_LAYOUT_Q4_K_ROWS:
            decode_q4k_rows(job, row + at, k, strip, at);
            break;
        case FMK_LAYOUT_Q6_K_ROWS:
            decode_q6k_rows(job, row + at, k, strip, at);
            break;
        case FMK_LAYOUT_Q4_K_X16:
            decode_q4k(panel_of(job, row, 16), k, at, strip, at, 16);
            break;
        case FMK_LAYOUT_Q6_K_X16:
            decode_q6k(panel_of(job, row, 16), k, at, strip, at, 16);
            break;
        case FMK_LAYOUT_INT4_X16:
            decode_int4(part, panel_of(job, row, 16), k, count, at, strip, at, 16);
            break;
        case FMK_LAYOUT_Q4_K_X8: /* only where LANES are 8 */
            decode_q4k(panel_of(job, row + at, 8), k, 0, strip, at, 8);
            break;
        case FMK_LAYOUT_Q6_K_X8:
            decode_q6k(panel_of(job, row + at, 8), k, 0, strip, at, 8);
            break;
        case FMK_LAYOUT_INT4_X8:
            decode_int4(part, panel_of(job, row + at, 8), k, count, 0, strip, at, 8);
            break;
        default:
            break; /* the table's objection keeps other layouts away */
        }
}

/* The same as a function. */
static void decode_integers(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                            struct i16_strip *strip) {
    i16_decode_strip(job, row, k, count, strip);
}

#endif
