/* Runs of f32, f16 or bf16 elements to and from float, at any address. */
#ifndef FMK_FLOATS_H
#define FMK_FLOATS_H

#include "ferrumk.h"

/* out[i] = data[first + i], i < count. */
void fmk_load_floats(const void *data, fmk_dtype type, int64_t first, int64_t count, float *out);
/* data[first + i] = in[i], rounded to nearest even. */
void fmk_store_floats(void *data, fmk_dtype type, int64_t first, int64_t count, const float *in);

#endif
