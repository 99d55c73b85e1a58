/* What the quantizers share: blocks scaled to a common size, and factors as f16 or bf16 will hold them. */
#include "quantize.h"

#include <math.h>

int fmk_scale_block(const float *weights, int64_t count, float *out) {
    float largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(weights[i]));
    int exponent = largest > 0 ? ilogbf(largest) : 0;
    /* In two steps, because 2^149 is not a float. */
    float half = ldexpf(1, -exponent / 2), rest = ldexpf(1, -exponent - -exponent / 2);
    for (int64_t i = 0; i < count; i++)
        out[i] = weights[i] * half * rest;
    return exponent;
}

float fmk_round_factor(float value, int exponent, fmk_dtype type) {
    if (!(value > 0))
        return 0;
    value = ldexpf(value, exponent);
    value = type == FMK_F16 ? fmaxf(fmk_f16_to_f32(fmk_f32_to_f16(fminf(value, 65504))), 0x1p-24f)
                            : fmaxf(fmk_bf16_to_f32(fmk_f32_to_bf16(fminf(value, 0x1.fep127f))), 0x1p-133f);
    return ldexpf(value, -exponent);
}
