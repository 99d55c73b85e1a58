/* Weights of every layout as floats, into strips (f32_sheet.h), for the ISA whose vectors.h and row_codes.h
 * were included before. */
#ifndef FMK_CPU_GEMM_F32_DECODE_H
#define FMK_CPU_GEMM_F32_DECODE_H

#include "f32_sheet.h"
#include "i16_decode.h"

/* ---- dense rows: lines of LANES rows, transposed in 32-bit words: one k of f32, or two of the other types
 * ---- */

/* The words at p of a row that ends after `left` k, and zeros after it. */
FMK_INLINE ints dense_words(const uint8_t *p, const int size, int32_t left) {
    if (left * size >= LANES * 4)
        return load_ints(p);
    _Alignas(64) uint8_t rest[LANES * 4] = {0};
    if (left > 0)
        memcpy(rest, p, (size_t)(left * size));
    return load_ints(rest);
}

FMK_INLINE void store_words(ints words, float (*out)[FMK_STRIP], int row, const fmk_dtype dtype) {
    if (dtype == FMK_F32) {
        store_ints(out[0] + row, words);
    } else if (dtype == FMK_BF16) {
        store_ints(out[0] + row, shift_left(words, 16));
        store_ints(out[1] + row, and(words, all_32(INT32_C(-65536))));
    } else {
        store_floats(out[0] + row, low_f16(words));
        store_floats(out[1] + row, low_f16(shift_right(words, 16)));
    }
}

FMK_INLINE void decode_dense(const struct fmk_gemm_job *job, int64_t first, int64_t k, int32_t count,
                             float (*out)[FMK_STRIP], int row, const fmk_dtype dtype) {
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
            store_words(w[j], out + i + j * per_word, row, dtype);
    }
}

/* ---- integers, scaled: the products are exact, so that a weight is rounded once, by its minimum ---- */

FMK_INLINE void i16_to_f32(const struct i16_strip *in, struct i16_runs runs, int32_t count,
                           struct f32_strip *out) {
    for (int32_t q = 0; q < count / 4; q++)
        for (int row = 0; row < FMK_STRIP; row += LANES) {
            floats scale = load_floats(in->scale[4 * q / runs.length] + row);
            floats min = runs.minima ? load_floats(in->min[q / 8] + row) : no_floats();
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                ints pair = load_ints(in->pair[2 * q + h][row]);
                floats low = to_floats(shift_right_signed(shift_left(pair, 16), 16));
                floats high = to_floats(shift_right_signed(pair, 16));
                store_floats(out->w[4 * q + h] + row, multiply_less(low, scale, min));
                store_floats(out->w[4 * q + h + 2] + row, multiply_less(high, scale, min));
            }
        }
}

/* ---- a strip of any of them ---- */

FMK_INLINE void f32_decode_strip(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                                 struct f32_strip *strip, i16_decode *decode) {
    if (job->part->layout->family == FMK_FAMILY_DENSE) {
        for (int at = 0; at < FMK_STRIP; at += LANES)
            if (job->part->dtype == FMK_F32)
                decode_dense(job, row + at, k, count, strip->w, at, FMK_F32);
            else if (job->part->dtype == FMK_F16)
                decode_dense(job, row + at, k, count, strip->w, at, FMK_F16);
            else
                decode_dense(job, row + at, k, count, strip->w, at, FMK_BF16);
        return;
    }
    struct i16_strip integers;
    decode(job, row, k, count, &integers);
    i16_to_f32(&integers, i16_runs_of(job->part), count, strip);
}

#endif
