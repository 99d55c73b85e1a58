/* 256 weights to a Q4_K super-block: w ~ d * scale * q - dmin * min for each sub-block of 32.
 *
 * 1. Each sub-block on its own: codes of many ranges [lo + a step, hi - b step] are made, and for each set of
 *    codes the step and minimum with the least squared error follow in closed form.
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

enum { RUNS = 8, RUN = FMK_SUPER_BLOCK / RUNS, VECTORS = RUN / 4, ROUNDS = 3 };

/* A sub-block, and the step and minimum that suit it best. */
struct run {
    const fmk_v4 *x;
    float sum, squares;
    float step, min; /* both >= 0 */
};

/* What is stored of a super-block, but for the codes, and the squared error it makes. */
struct choice {
    float d, dmin; /* as f16 hold them, in the units of the scaled block */
    uint8_t scale[RUNS], min[RUNS];
    float error;
};

static struct fmk_code_sums make_codes(const struct run *run, float step, float min) {
    float inverse = step > 0 ? 1 / step : 0;
    return fmk_code_sums(run->x, VECTORS, inverse, min * inverse, 0, 15);
}

static float squared_error(const struct run *run, struct fmk_code_sums s, float step, float min) {
    return run->squares + step * (step * s.qq - 2 * (s.xq + min * s.q)) + min * (2 * run->sum + RUN * min);
}

/* Least squares over step >= 0 and min >= 0 for given codes. */
static void fit(const struct run *run, struct fmk_code_sums s, float *step, float *min) {
    float determinant = RUN * s.qq - s.q * s.q;
    *step = *min = 0;
    if (determinant > 0) {
        *step = (RUN * s.xq - run->sum * s.q) / determinant;
        *min = (*step * s.q - run->sum) / RUN;
    }
    if (determinant <= 0 || *min < 0) {
        *min = 0;
        *step = s.qq > 0 ? s.xq / s.qq : 0;
    }
    if (*step < 0)
        *step = 0;
}

static void search_run(struct run *run) {
    static const float margins[] = {-0.3f, 0.1f, 0.5f, 0.9f, 1.3f}; /* in steps, at either end */
    enum { MARGINS = sizeof margins / sizeof margins[0] };
    fmk_v4 sum = {0}, squares = {0}, lo4 = {0}, hi4 = run->x[0];
    for (int i = 0; i < VECTORS; i++) {
        sum += run->x[i];
        squares += run->x[i] * run->x[i];
        lo4 = fmk_min4(lo4, run->x[i]);
        hi4 = fmk_max4(hi4, run->x[i]);
    }
    run->sum = fmk_sum4(sum);
    run->squares = fmk_sum4(squares);
    float lo = fminf(fminf(lo4[0], lo4[1]), fminf(lo4[2], lo4[3]));
    float hi = fmaxf(fmaxf(hi4[0], hi4[1]), fmaxf(hi4[2], hi4[3]));
    run->step = 0;
    run->min = -lo;
    if (!(hi > lo)) /* all the same, and not above zero */
        return;
    float best = INFINITY, unit = (hi - lo) / 15;
    for (int a = 0; a < MARGINS; a++)
        for (int b = 0; b < MARGINS; b++) {
            float step = unit * (15 - margins[a] - margins[b]) / 15, min = fmaxf(-lo - margins[a] * unit, 0);
            struct fmk_code_sums sums = make_codes(run, step, min);
            fit(run, sums, &step, &min);
            float error = squared_error(run, sums, step, min);
            if (error < best) {
                best = error;
                run->step = step;
                run->min = min;
            }
        }
    for (int round = 0; round < ROUNDS; round++) {
        float step, min;
        struct fmk_code_sums sums = make_codes(run, run->step, run->min);
        fit(run, sums, &step, &min);
        float error = squared_error(run, sums, step, min);
        if (!(error < best))
            break;
        best = error;
        run->step = step;
        run->min = min;
    }
}

/* The 6-bit pair around the run's own step and minimum that leaves the least error; answers that error. */
static float choose_pair(const struct run *run, float d, float dmin, uint8_t *scale, uint8_t *min) {
    float best = INFINITY;
    int scale_low = d > 0 ? (int)fminf(run->step / d, 62) : 0,
        min_low = dmin > 0 ? (int)fminf(run->min / dmin, 62) : 0;
    for (int s = scale_low; s <= scale_low + 1; s++)
        for (int m = min_low; m <= min_low + 1; m++) {
            struct fmk_code_sums sums = make_codes(run, d * (float)s, dmin * (float)m);
            float error = squared_error(run, sums, d * (float)s, dmin * (float)m);
            if (error < best) {
                best = error;
                *scale = (uint8_t)s;
                *min = (uint8_t)m;
            }
        }
    return best;
}

static void choose_pairs(const struct run *runs, struct choice *choice) {
    choice->error = 0;
    for (int j = 0; j < RUNS; j++)
        choice->error += choose_pair(&runs[j], choice->d, choice->dmin, &choice->scale[j], &choice->min[j]);
}

/* The best d and dmin for the codes that a choice makes, by the normal equations over all runs. */
static void refit(const struct run *runs, const struct choice *choice, float *d, float *dmin) {
    float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0; /* a = scale * q, b = min */
    for (int j = 0; j < RUNS; j++) {
        float scale = choice->scale[j], min = choice->min[j];
        struct fmk_code_sums s = make_codes(&runs[j], choice->d * scale, choice->dmin * min);
        aa += scale * scale * s.qq;
        ab += scale * min * s.q;
        bb += RUN * min * min;
        xa += scale * s.xq;
        xb += min * runs[j].sum;
    }
    float determinant = aa * bb - ab * ab;
    if (determinant > 1e-6f * aa * bb) {
        *d = (xa * bb - xb * ab) / determinant;
        *dmin = (xa * ab - xb * aa) / determinant;
    } else if (aa > 0) {
        *d = (xa + choice->dmin * ab) / aa;
    }
}

static void store(const fmk_v4 *x, const struct choice *choice, int exponent, uint8_t *block) {
    uint16_t d = fmk_f32_to_f16(ldexpf(choice->d, exponent)),
             dmin = fmk_f32_to_f16(ldexpf(choice->dmin, exponent));
    memcpy(block + FMK_Q4K_D, &d, sizeof d);
    memcpy(block + FMK_Q4K_DMIN, &dmin, sizeof dmin);
    fmk_q4k_store_scales(block + FMK_Q4K_SCALES, choice->scale, choice->min);
    uint8_t codes[FMK_SUPER_BLOCK];
    for (int i = 0; i < FMK_SUPER_BLOCK / 4; i++) {
        float step = choice->d * choice->scale[i / VECTORS], min = choice->dmin * choice->min[i / VECTORS];
        float inverse = step > 0 ? 1 / step : 0;
        fmk_v4 q = fmk_code4(x[i] * inverse + min * inverse, 0, 15);
        for (int lane = 0; lane < 4; lane++)
            codes[4 * i + lane] = (uint8_t)q[lane];
    }
    fmk_q4k_store_codes(block, codes);
}

void fmk_quantize_q4k(const float *weights, uint8_t *block) {
    fmk_v4 x[FMK_SUPER_BLOCK / 4];
    int exponent = fmk_scale_block(weights, FMK_SUPER_BLOCK, (float *)x);
    struct run runs[RUNS];
    float step = 0, min = 0;
    for (int j = 0; j < RUNS; j++) {
        runs[j].x = x + VECTORS * j;
        search_run(&runs[j]);
        step = fmaxf(step, runs[j].step);
        min = fmaxf(min, runs[j].min);
    }
    struct choice best = {.d = fmk_round_factor(step / 63, exponent, FMK_F16),
                          .dmin = fmk_round_factor(min / 63, exponent, FMK_F16)};
    choose_pairs(runs, &best);
    for (int round = 0; round < ROUNDS; round++) {
        struct choice next = best;
        refit(runs, &best, &next.d, &next.dmin);
        next.d = fmk_round_factor(next.d, exponent, FMK_F16);
        next.dmin = fmk_round_factor(next.dmin, exponent, FMK_F16);
        choose_pairs(runs, &next);
        if (!(next.error < best.error))
            break;
        best = next;
    }
    store(x, &best, exponent, block);
}
