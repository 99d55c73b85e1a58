/* Activations of sheets (gemm.h), on any machine. */
#include "i16_acts.h"

#include <math.h>

static uint32_t largest_of(const float *x, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude = fmk_bits_of_float(x[i]) & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

static int32_t round_all(const float *x, float inverse, int16_t *code) {
    static const int8_t from[4] = {0, 2, 1, 3};
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        code[i] = (int16_t)nearbyintf(x[i / 4 * 4 + from[i % 4]] * inverse);
        sum += code[i];
    }
    return sum;
}

void fmk_gemm_fill_i16_portable(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                                int64_t k) {
    i16_fill(x, count, &acts->gemm, row, k, largest_of, round_all);
}

void fmk_gemm_fill_f32(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row, int64_t k) {
    int64_t at = k / FMK_K_BLOCK * acts->gemm.capacity + row;
    memcpy(acts->gemm.f32 + at * FMK_K_BLOCK, x, (size_t)count * sizeof *x);
}
