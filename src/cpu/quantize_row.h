/* How activations become int8: step = (largest magnitude of 256) / (127 * 4095); of each 16 that share a
 * scale, ratio = what the largest of them takes, q = x / (step * ratio) rounded to nearest even. Each ISA
 * brings its own largest_32 and round_32, which do the same operations on the same values, so that all
 * results are the same bits. */
#ifndef FMK_CPU_QUANTIZE_ROW_H
#define FMK_CPU_QUANTIZE_ROW_H

#include "tile.h"
#include "../half.h"

#include <string.h>

/* The bits of both scales' largest magnitudes: they order like the magnitudes, NaN above infinity. */
typedef void largest_32(const float *x, uint32_t largest[2]);
/* x * inverse, rounded; sum = sum of q * ratio over each half in the order of k. */
typedef void round_32(const float *x, const float inverse[2], const int16_t ratio[2], int8_t *q,
                      int32_t sum[2]);

/* An infinity or a NaN makes the step NaN, which it carries to every output. Below 2^-106 the step and its
 * inverse would leave the range of normal numbers; such values count as zero. */
static inline float quantize_step(uint32_t largest) {
    if (largest >= 0x7f800000)
        return fmk_float_of_bits(0x7fc00000);
    float amax = fmk_float_of_bits(largest);
    return amax < 0x1p-106f ? 0 : amax / (127.0f * FMK_RATIO_MAX);
}

/* `steps`: the largest magnitude over 127 times the step. It must fit: so the next whole number. */
static inline int16_t least_ratio(float steps) {
    int32_t ratio = (int32_t)steps + 1;
    return (int16_t)(ratio < FMK_RATIO_MAX ? ratio : FMK_RATIO_MAX);
}

/* Up to 256 values of which the first is number `at` of all rows. */
static inline __attribute__((always_inline)) void quantize_block(const float *x, int count,
                                                                 const struct fmk_acts *acts, int64_t at,
                                                                 float *step, largest_32 *largest_of,
                                                                 round_32 *round) {
    uint32_t largest[FMK_K_BLOCK / 32][2], all = 0;
    for (int c = 0; c < count / 32; c++) {
        largest_of(x + 32 * c, largest[c]);
        for (int g = 0; g < 2; g++)
            all = largest[c][g] > all ? largest[c][g] : all;
    }
    float one = *step = quantize_step(all), per = one > 0 ? 1 / (127 * one) : 0;
    for (int c = 0; c < count / 32; c++, at += 32) {
        int16_t *ratio = acts->ratio[at / 32];
        int32_t sum[2] = {0, 0};
        if (one > 0) {
            float inverse[2];
            for (int g = 0; g < 2; g++) {
                ratio[g] = least_ratio(fmk_float_of_bits(largest[c][g]) * per);
                inverse[g] = 1 / (one * ratio[g]);
            }
            round(x + 32 * c, inverse, ratio, acts->q + at, sum);
        } else {
            memset(acts->q + at, 0, 32);
            ratio[0] = ratio[1] = 1;
        }
        for (int h = 0; h < 2; h++) /* exact: 16 * 127 * 4095 < 2^24 */
            acts->sum16[at / 16 + h] = one * (float)sum[h];
        acts->sum32[at / 32] = one * (float)(sum[0] + sum[1]);
    }
}

static inline __attribute__((always_inline)) void quantize_row(const float *x, int64_t count,
                                                               const struct fmk_acts *acts, int64_t row,
                                                               int64_t k, largest_32 *largest,
                                                               round_32 *round) {
    int64_t blocks = (acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
    for (int64_t done = 0; done < count; done += FMK_K_BLOCK, k += FMK_K_BLOCK) {
        int64_t left = count - done;
        quantize_block(x + done, left < FMK_K_BLOCK ? (int)left : FMK_K_BLOCK, acts, row * acts->k + k,
                       &acts->step[row * blocks + k / FMK_K_BLOCK], largest, round);
    }
}

#endif
