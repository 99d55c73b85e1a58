/* A sheet of integers: what stands between decoding and multiplying (gemm.h). */
#ifndef FMK_CPU_GEMM_I16_SHEET_H
#define FMK_CPU_GEMM_I16_SHEET_H

#include "gemm.h"

/* 256 k of 16 rows. Of k 4q .. 4q+3, pair 2q holds the first and third, pair 2q+1 the second and fourth: so
 * they fall out of four bytes by a mask. A weight is pair * scale - min. */
struct i16_strip {
    _Alignas(64) int16_t pair[FMK_K_BLOCK / 2][FMK_STRIP][2];
    float scale[FMK_K_BLOCK / 32][FMK_STRIP]; /* of each run */
    float min[FMK_K_BLOCK / 32][FMK_STRIP];   /* of each 32 k, where there are minima */
};

/* How a part's k share scales. */
struct i16_runs {
    int32_t length; /* k of a scale in a sheet: it divides 256 */
    bool minima;
};

/* INT4's groups are of `chunks` chunks of 32 k, and need not end where blocks of 256 do. */
static inline struct i16_runs i16_runs_of(const struct fmk_packed *part) {
    if (part->layout->family != FMK_FAMILY_INT4)
        return (struct i16_runs){FMK_K_BLOCK, part->layout->family == FMK_FAMILY_Q4_K};
    int32_t chunks = part->chunks & -part->chunks; /* the largest power of two that divides it */
    return (struct i16_runs){chunks < 8 ? 32 * chunks : FMK_K_BLOCK, false};
}

/* Decodes 16 rows from `row` on, `count` k from k on. */
typedef void i16_decode(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                        struct i16_strip *strip);

#endif
