/* Activations of sheets, in blocks: of row r, k 256 b .. 256 b + 255 lie together, at row b * capacity + r.
 * So the rows of a few tokens follow one another, and never claim the same lines of the cache. Zero from k on
 * to a multiple of 32. */
#ifndef FMK_CPU_GEMM_ACTS_H
#define FMK_CPU_GEMM_ACTS_H

#include <stdint.h>

enum { FMK_I16_MOST = 2047 };

struct fmk_gemm_acts {
    int64_t capacity; /* rows there is room for */
    float *f32;       /* [k / 256][capacity][256] */
    /* x = i16 * step, |i16| <= 2047; the step and its sums are NaN where one of 256 values is not finite. Of
     * each four k, in this order: 0, 2, 1, 3. */
    int16_t *i16; /* [k / 256][capacity][256] */
    float *step;  /* [k / 256][capacity] */
    float *sum32; /* [k / 256][capacity][8]: of 32 k, times step */
    /* For tiles, 32 k of a row beside those of the next one; the second, where it is wanted, has what
     * rounding to the first left. */
    uint16_t *bf16[2]; /* [k / 32][capacity][32] */
    /* Likewise 64 k: x = i8 * step, |i8| <= 127, with `step` as above. Zero up to a multiple of 64. */
    int8_t *i8; /* [k / 64][capacity][64] */
};

#endif
