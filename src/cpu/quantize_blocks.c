/* Activations to blocks of int8 (tile.h), on any machine: scale = largest magnitude of 16 / 127, q = x * (127
 * / largest) rounded to nearest even. Magnitudes below 2^-100 count as zero: their inverse would be too
 * large. */
#include "tile.h"
#include "../half.h"

#include <math.h>
#include <string.h>

/* 16 values to q; answers the sum of q. */
static int32_t quantize_16(const float *x, float *scale, int8_t *q) {
    uint32_t largest = 0;
    for (int i = 0; i < 16; i++) {
        uint32_t magnitude = fmk_bits_of_float(x[i]) & 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
    }
    float amax = fmk_float_of_bits(largest);
    if (largest >= 0x7f800000 || amax < 0x1p-100f) {
        *scale = largest >= 0x7f800000 ? fmk_float_of_bits(0x7fc00000) : 0;
        memset(q, 0, 16);
        return 0;
    }
    *scale = amax / 127;
    float inverse = 127 / amax;
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)nearbyintf(x[i] * inverse);
        sum += q[i];
    }
    return sum;
}

void fmk_quantize_blocks_portable(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                                  int64_t k) {
    struct fmk_acts_block *block =
        acts->blocks + row * ((acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) + k / FMK_K_BLOCK;
    for (int64_t i = 0; i < count; i += 32) {
        struct fmk_acts_block *b = block + i / FMK_K_BLOCK;
        int64_t at = i % FMK_K_BLOCK, h = at / 16;
        float part[2];
        for (int j = 0; j < 2; j++) {
            int32_t sum = quantize_16(x + i + 16 * j, &b->scale[h + j], b->q + at + 16 * j);
            b->start[h + j] = -32 * sum;
            part[j] = b->scale[h + j] * (float)sum;
        }
        b->sum[at / 32] = part[0] + part[1];
    }
}
