/* How activations become int16 for sheets of integers: step = (largest magnitude of 256) / 2047, code = x /
 * step rounded to nearest even. Each ISA brings its own largest_of and round_all, which do the same
 * operations on the same values, so that all results are the same bits. */
#ifndef FMK_CPU_GEMM_I16_ACTS_H
#define FMK_CPU_GEMM_I16_ACTS_H

#include "../../half.h"
#include "gemm.h"

/* Their bits: they order like the magnitudes, NaN above infinity. */
typedef uint32_t i16_largest(const float *x, int64_t count);
/* 32 codes in the order of struct fmk_gemm_acts; their sum. */
typedef int32_t i16_round(const float *x, float inverse, int16_t *code);

static inline __attribute__((always_inline)) void i16_fill(const float *x, int64_t count,
                                                           const struct fmk_gemm_acts *acts, int64_t row,
                                                           int64_t k, i16_largest *largest_of,
                                                           i16_round *round) {
    int64_t at = k / FMK_K_BLOCK * acts->capacity + row;
    int16_t *code = acts->i16 + at * FMK_K_BLOCK;
    uint32_t largest = largest_of(x, count);
    bool finite = largest < 0x7f800000;
    float amax = fmk_float_of_bits(largest);
    /* Below 2^-106 the inverse would leave the range of normal numbers; such values count as zero. */
    bool any = finite && amax >= 0x1p-106f;
    float step = !finite ? fmk_float_of_bits(0x7fc00000) : any ? amax / FMK_I16_MOST : 0;
    acts->step[at] = step;
    for (int64_t c = 0; c < count / 32; c++, code += 32) {
        if (any) {
            acts->sum32[at * 8 + c] = step * (float)round(x + 32 * c, 1 / step, code);
        } else {
            memset(code, 0, 32 * sizeof *code);
            acts->sum32[at * 8 + c] = step;
        }
    }
}

#endif
