/* A group of weights to INT4: w ~ scale * (code - zero), codes 0..15.
 *
 * Written with c = code - zero, so that padding weights of 0 take no part: for a zero and a trial scale the
 * codes are made, the scale with the least squared error for these codes follows in closed form, and of all
 * trials the best is rounded to the type that holds it. Trial scales go down from the one that covers the
 * whole range in steps of 5%, because a large group gains from clipping its few largest weights. */
#include "quantize.h"

#include "lanes.h"

#include <math.h>

enum { TRIALS = 28, ROUNDS = 3 };

struct group {
    const fmk_v4 *x;
    int vectors;
    float error; /* of the best trial */
    float scale;
    int zero;
};

static void try_scale(struct group *group, float squares, float trial, int zero) {
    struct fmk_code_sums sums = fmk_code_sums(group->x, group->vectors, (fmk_v4){0} + 1 / trial, (fmk_v4){0},
                                              (float)-zero, (float)(15 - zero));
    float qq = fmk_sum4(sums.qq), xq = fmk_sum4(sums.xq);
    float scale = qq > 0 ? xq / qq : 0, error = squares - scale * xq;
    if (error < group->error) {
        group->error = error;
        group->scale = scale;
        group->zero = zero;
    }
}

static int clamp_zero(float zero, int least) {
    return (int)fminf(fmaxf(rintf(zero), (float)least), 15);
}

static void search(struct group *group, bool symmetric, int least_zero) {
    fmk_v4 squares4 = {0}, lo4 = {0}, hi4 = {0};
    for (int i = 0; i < group->vectors; i++) {
        squares4 += group->x[i] * group->x[i];
        lo4 = fmk_min4(lo4, group->x[i]);
        hi4 = fmk_max4(hi4, group->x[i]);
    }
    float squares = fmk_sum4(squares4);
    float lo = fminf(fminf(lo4[0], lo4[1]), fminf(lo4[2], lo4[3]));
    float hi = fmaxf(fmaxf(hi4[0], hi4[1]), fmaxf(hi4[2], hi4[3]));
    *group = (struct group){.x = group->x, .vectors = group->vectors, .error = INFINITY, .zero = 8};
    if (hi == lo) /* both are 0 */
        return;
    /* Half a step more than the codes reach is still rounded to them. */
    float trial = symmetric ? fmaxf(hi / 7.4f, -lo / 8.4f) : (hi - lo) / 15.8f;
    for (int i = 0; i < TRIALS; i++, trial *= 0.95f) {
        if (symmetric) {
            try_scale(group, squares, trial, 8);
            continue;
        }
        int centre = clamp_zero(7.5f - (lo + hi) / 2 / trial, least_zero);
        for (int zero = centre - 1; zero <= centre + 1; zero++)
            if (zero >= least_zero && zero <= 15)
                try_scale(group, squares, trial, zero);
    }
    for (int round = 0; round < ROUNDS && group->scale > 0; round++) {
        float before = group->error;
        try_scale(group, squares, group->scale, group->zero);
        if (!(group->error < before))
            break;
    }
}

uint16_t fmk_quantize_int4(float *weights, int64_t count, bool symmetric, int least_zero,
                           fmk_dtype scale_type, uint8_t *codes, uint8_t *zero) {
    int exponent = fmk_scale_block(weights, count, weights);
    struct group group = {.x = (const fmk_v4 *)weights, .vectors = (int)(count / 4)};
    search(&group, symmetric, least_zero);
    float scale = fmk_round_factor(group.scale, exponent, scale_type), inverse = scale > 0 ? 1 / scale : 0;
    for (int i = 0; i < group.vectors; i++) {
        fmk_v4 c = fmk_code4(group.x[i] * inverse, (float)-group.zero, (float)(15 - group.zero));
        for (int lane = 0; lane < 4; lane++)
            codes[4 * i + lane] = (uint8_t)((int)c[lane] + group.zero);
    }
    *zero = (uint8_t)group.zero;
    float stored = ldexpf(scale, exponent);
    return scale_type == FMK_F16 ? fmk_f32_to_f16(stored) : fmk_f32_to_bf16(stored);
}
