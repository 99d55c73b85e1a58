/* float weights to the blocks and groups of the file formats. */
#ifndef FMK_QUANTIZE_QUANTIZE_H
#define FMK_QUANTIZE_QUANTIZE_H

#include "../half.h"
#include "ferrumk.h"

#include <stdbool.h>

/* Fills in defaults, checks everything but the pointers, and answers the bytes of each output. */
fmk_status fmk_quantize_check(fmk_quantize_args *args, uint64_t *qweight, uint64_t *scales, uint64_t *qzeros);
/* Checked args, pointers too. Weights that are not finite are refused before anything is written. */
fmk_status fmk_quantize_weights(struct fmk_context *ctx, const fmk_quantize_args *args);

/* 256 finite weights to one super-block of 144 or 210 bytes. */
void fmk_quantize_q4k(const float *weights, uint8_t *block);
void fmk_quantize_q6k(const float *weights, uint8_t *block);

/* One group of finite weights, padded with zeros to `count`, a multiple of 4, and aligned to 16; they are
 * changed. codes: 0..15 each. *zero: 8 if symmetric, else least_zero..15. Answers the scale's bits. */
uint16_t fmk_quantize_int4(float *weights, int64_t count, bool symmetric, int least_zero,
                           fmk_dtype scale_type, uint8_t *codes, uint8_t *zero);

/* Scales by the power of two that brings the largest magnitude into [1, 2): out = weights * 2^-exponent.
 * Answers the exponent; 0 for a block of zeros. */
int fmk_scale_block(const float *weights, int64_t count, float *out);

/* value * 2^exponent as f16 or bf16 holds it, times 2^-exponent: at most the type's largest number, at least
 * its smallest if value is above 0; else 0. */
float fmk_round_factor(float value, int exponent, fmk_dtype type);

#endif
