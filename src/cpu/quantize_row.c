/* Activations to int8, 32 at a time: scale = (largest magnitude) / 127, q = x / scale rounded to nearest
 * even. The AVX2 version does the same operations on the same values, so its results are the same bits. */
#include "tile.h"
#include "../half.h"

#include <math.h>
#include <string.h>

/* A chunk with an infinity or a NaN: its scale carries the NaN to every output. */
static void quantize_bad(int8_t *q, float *scale, float *sum32, float *sum16) {
    memset(q, 0, 32);
    *scale = *sum32 = sum16[0] = sum16[1] = fmk_float_of_bits(0x7fc00000);
}

void fmk_quantize_row_portable(const float *x, int64_t k, int8_t *q, float *scale, float *sum32,
                               float *sum16) {
    for (int64_t c = 0; c < k / 32; c++, x += 32, q += 32) {
        uint32_t largest = 0; /* magnitudes order like their bits, NaN above infinity */
        for (int i = 0; i < 32; i++) {
            uint32_t magnitude = fmk_bits_of_float(x[i]) & 0x7fffffff;
            largest = magnitude > largest ? magnitude : largest;
        }
        if (largest >= 0x7f800000) {
            quantize_bad(q, &scale[c], &sum32[c], &sum16[2 * c]);
            continue;
        }
        /* Below 127 * 2^-126 the quotient 127 / amax could overflow; such values count as zero. */
        float amax = fmk_float_of_bits(largest);
        if (amax < 127 * 0x1p-126f)
            amax = 0;
        float step = amax / 127, inverse = amax > 0 ? 127 / amax : 0;
        int32_t sums[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            int32_t code = (int32_t)nearbyintf(x[i] * inverse);
            q[i] = (int8_t)code;
            sums[i / 16] += code;
        }
        scale[c] = step;
        sum16[2 * c] = step * (float)sums[0];
        sum16[2 * c + 1] = step * (float)sums[1];
        sum32[c] = step * (float)(sums[0] + sums[1]);
    }
}
