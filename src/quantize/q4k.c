/* 256 weights to a Q4_K super-block: w ~ d * scale * code - dmin * min for each sub-block of 32.
 *
 * 1. Each sub-block on its own: codes for many ranges [lo + a step, hi - b step] are made, and for each set
 * of codes the step and minimum with the least squared error follow in closed form.
 * 2. d and dmin are set by the largest step and minimum; each sub-block takes, of the 6-bit scales and minima
 *    around its own, the pair with the least error after its codes have been made anew.
 * 3. With all 6-bit numbers and codes fixed, the best d and dmin are a closed form again; steps 2 and 3 are
 *    repeated while they help.
 *
 * A super-block is first multiplied by a power of two, so that its size has no part in any of this. */
#include "quantize.h"

#include "../formats/k_quants.h"
#include "lanes.h"

#include <math.h>

enum { RUN = 32, LANES = 4, GROUPS = FMK_SUPER_BLOCK / RUN / LANES, ROUNDS = 3 };

/* Four sub-blocks, one a lane, and the steps and minima (both >= 0) that suit them best. */
struct runs {
    fmk_v4 x[RUN];
    fmk_v4 sum, squares;
    fmk_v4 step, min, error;
};

/* What is stored of a super-block, but for the codes, and the squared error it makes. */
struct choice {
    float d, dmin;                     /* as f16 hold them, in the units of the scaled block */
    fmk_v4 scale[GROUPS], min[GROUPS]; /* whole numbers 0..63 */
    float error;
};

static struct fmk_code_sums make_codes(const struct runs *runs, fmk_v4 step, fmk_v4 min) {
    fmk_v4 inverse = fmk_inverse4(step);
    return fmk_code_sums(runs->x, RUN, inverse, min * inverse, 0, 15);
}

static fmk_v4 squared_error(const struct runs *runs, const struct fmk_code_sums *s, fmk_v4 step, fmk_v4 min) {
    return runs->squares + step * (step * s->qq - 2 * (s->xq + min * s->q)) +
           min * (2 * runs->sum + RUN * min);
}

/* Makes codes with a step and a minimum, fits the best step and minimum to these codes (least squares over
 * both >= 0), and keeps those where they are better than what is there. */
static void try_codes(struct runs *runs, fmk_v4 step, fmk_v4 min) {
    struct fmk_code_sums s = make_codes(runs, step, min);
    fmk_v4 determinant = RUN * s.qq - s.q * s.q;
    step = (RUN * s.xq - runs->sum * s.q) / determinant;
    min = (step * s.q - runs->sum) / RUN;
    fmk_v4i inside = (determinant > 0) & (min >= 0);
    min = (fmk_v4)((fmk_v4i)min & inside);
    step = fmk_max4(fmk_select4(inside, step, s.xq * fmk_inverse4(s.qq)), (fmk_v4){0});
    fmk_v4 error = squared_error(runs, &s, step, min);
    fmk_v4i better = error < runs->error;
    runs->step = fmk_select4(better, step, runs->step);
    runs->min = fmk_select4(better, min, runs->min);
    runs->error = fmk_select4(better, error, runs->error);
}

static void search(struct runs *runs) {
    static const float margins[] = {-0.3f, 0.1f, 0.5f, 0.9f, 1.3f}; /* in steps, at either end */
    enum { MARGINS = sizeof margins / sizeof margins[0] };
    fmk_v4 sum = {0}, squares = {0}, lo = {0}, hi = runs->x[0];
    for (int i = 0; i < RUN; i++) {
        sum += runs->x[i];
        squares += runs->x[i] * runs->x[i];
        lo = fmk_min4(lo, runs->x[i]);
        hi = fmk_max4(hi, runs->x[i]);
    }
    runs->sum = sum;
    runs->squares = squares;
    runs->step = (fmk_v4){0}; /* the minimum alone, which is all that a constant run below zero needs */
    runs->min = -lo;
    runs->error = squares - lo * (2 * sum - RUN * lo);
    fmk_v4 unit = (hi - lo) / 15;
    for (int a = 0; a < MARGINS; a++)
        for (int b = 0; b < MARGINS; b++)
            try_codes(runs, unit * ((15 - margins[a] - margins[b]) / 15),
                      fmk_max4(-lo - margins[a] * unit, (fmk_v4){0}));
    for (int round = 0; round < ROUNDS; round++)
        try_codes(runs, runs->step, runs->min);
}

/* The whole numbers 0..62 below value / unit. */
static fmk_v4 whole_units(fmk_v4 value, float unit) {
    if (!(unit > 0))
        return (fmk_v4){0};
    fmk_v4 units = fmk_min4(value / unit, (fmk_v4){0} + 62);
    return __builtin_convertvector(__builtin_convertvector(units, fmk_v4i), fmk_v4);
}

/* The 6-bit pairs around the runs' own steps and minima that leave the least errors; answers these. */
static fmk_v4 choose_pairs(const struct runs *runs, float d, float dmin, fmk_v4 *best_scale,
                           fmk_v4 *best_min) {
    fmk_v4 best = (fmk_v4){0} + INFINITY, low_scale = whole_units(runs->step, d),
           low_min = whole_units(runs->min, dmin);
    for (int i = 0; i < 4; i++) {
        fmk_v4 scale = low_scale + (float)(i & 1), min = low_min + (float)(i >> 1);
        struct fmk_code_sums s = make_codes(runs, d * scale, dmin * min);
        fmk_v4 error = squared_error(runs, &s, d * scale, dmin * min);
        fmk_v4i better = error < best;
        best = fmk_select4(better, error, best);
        *best_scale = fmk_select4(better, scale, *best_scale);
        *best_min = fmk_select4(better, min, *best_min);
    }
    return best;
}

static struct choice choose(const struct runs *runs, float d, float dmin) {
    struct choice choice = {.d = d, .dmin = dmin};
    for (int g = 0; g < GROUPS; g++)
        choice.error += fmk_sum4(choose_pairs(&runs[g], d, dmin, &choice.scale[g], &choice.min[g]));
    return choice;
}

/* The best d and dmin for the codes that a choice makes, by the normal equations over all runs. */
static void refit(const struct runs *runs, const struct choice *choice, float *d, float *dmin) {
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0; /* a = scale * code, b = min */
    for (int g = 0; g < GROUPS; g++) {
        fmk_v4 scale = choice->scale[g], min = choice->min[g];
        struct fmk_code_sums s = make_codes(&runs[g], choice->d * scale, choice->dmin * min);
        aa += fmk_sum4(scale * scale * s.qq);
        ab += fmk_sum4(scale * min * s.q);
        bb += fmk_sum4(RUN * min * min);
        xa += fmk_sum4(scale * s.xq);
        xb += fmk_sum4(min * runs[g].sum);
    }
    float determinant = aa * bb - ab * ab;
    *d = choice->d;
    *dmin = choice->dmin;
    if (determinant > 1e-6f * aa * bb) { /* else a and b cannot be told apart */
        *d = (xa * bb - xb * ab) / determinant;
        *dmin = (xa * ab - xb * aa) / determinant;
    } else if (aa > 0) {
        *d = (xa + choice->dmin * ab) / aa;
    }
}

static void store(const struct runs *runs, const struct choice *choice, int exponent, uint8_t *block) {
    uint16_t d = fmk_f32_to_f16(ldexpf(choice->d, exponent)),
             dmin = fmk_f32_to_f16(ldexpf(choice->dmin, exponent));
    uint8_t scale[GROUPS * LANES], min[GROUPS * LANES], codes[FMK_SUPER_BLOCK];
    for (int g = 0; g < GROUPS; g++) {
        fmk_v4 inverse = fmk_inverse4(choice->d * choice->scale[g]);
        fmk_v4 offset = choice->dmin * choice->min[g] * inverse;
        for (int i = 0; i < RUN; i++) {
            fmk_v4 q = fmk_code4(runs[g].x[i] * inverse + offset, 0, 15);
            for (int lane = 0; lane < LANES; lane++)
                codes[(g * LANES + lane) * RUN + i] = (uint8_t)q[lane];
        }
        for (int lane = 0; lane < LANES; lane++) {
            scale[g * LANES + lane] = (uint8_t)choice->scale[g][lane];
            min[g * LANES + lane] = (uint8_t)choice->min[g][lane];
        }
    }
    memcpy(block + FMK_Q4K_D, &d, sizeof d);
    memcpy(block + FMK_Q4K_DMIN, &dmin, sizeof dmin);
    fmk_q4k_store_scales(block + FMK_Q4K_SCALES, scale, min);
    fmk_q4k_store_codes(block, codes);
}

void fmk_quantize_q4k(const float *weights, uint8_t *block) {
    float scaled[FMK_SUPER_BLOCK];
    int exponent = fmk_scale_block(weights, FMK_SUPER_BLOCK, scaled);
    struct runs runs[GROUPS];
    float step = 0, min = 0;
    for (int g = 0; g < GROUPS; g++) {
        fmk_transpose4(scaled + g * LANES * RUN, RUN, runs[g].x);
        search(&runs[g]);
        for (int lane = 0; lane < LANES; lane++) {
            step = fmaxf(step, runs[g].step[lane]);
            min = fmaxf(min, runs[g].min[lane]);
        }
    }
    struct choice best = choose(runs, fmk_round_factor(step / 63, exponent, FMK_F16),
                                fmk_round_factor(min / 63, exponent, FMK_F16));
    for (int round = 0; round < ROUNDS; round++) {
        float d, dmin;
        refit(runs, &best, &d, &dmin);
        struct choice next =
            choose(runs, fmk_round_factor(d, exponent, FMK_F16), fmk_round_factor(dmin, exponent, FMK_F16));
        if (!(next.error < best.error))
            break;
        best = next;
    }
    store(runs, &best, exponent, block);
}
