/* Activations to int8, on any machine (quantize_row.h). */
#include "quantize_row.h"

#include <math.h>

static void largest_of(const float *x, uint32_t largest[2]) {
    largest[0] = largest[1] = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t magnitude = fmk_bits_of_float(x[i]) & 0x7fffffff, *of = &largest[i % 4 / 2];
        *of = magnitude > *of ? magnitude : *of;
    }
}

static void round_all(const float *x, const float inverse[2], const int16_t ratio[2], int8_t *q,
                      int32_t sum[2]) {
    for (int i = 0; i < 32; i++) {
        int32_t code = (int32_t)nearbyintf(x[i] * inverse[i % 4 / 2]);
        q[i] = (int8_t)code;
        sum[i / 16] += code * ratio[i % 4 / 2];
    }
}

void fmk_quantize_row_portable(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                               int64_t k) {
    quantize_row(x, count, acts, row, k, largest_of, round_all);
}
