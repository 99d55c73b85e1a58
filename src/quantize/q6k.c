/* 256 weights to a Q6_K super-block: w ~ d * scale * q for each sub-block of 16, q in -32..31.
 *
 * As for Q4_K: each sub-block's best step is searched on its own, with the largest magnitude near either end
 * of the codes (a negative step turns them round); then d, and of the 8-bit scales around each step the one
 * with the least error after its codes have been made anew; then the best d for those, repeated while it
 * helps. */
#include "quantize.h"

#include "../formats/k_quants.h"
#include "lanes.h"

#include <math.h>

enum { RUN = 16, LANES = 4, GROUPS = FMK_SUPER_BLOCK / RUN / LANES, ROUNDS = 2 };

/* Four sub-blocks, one a lane, and the steps, of either sign, that suit them best. */
struct runs {
    fmk_v4 x[RUN];
    fmk_v4 squares;
    fmk_v4 step;
};

struct choice {
    float d;              /* as f16 holds it, in the units of the scaled block */
    fmk_v4 scale[GROUPS]; /* whole numbers -128..127 */
    float error;
};

static struct fmk_code_sums make_codes(const struct runs *runs, fmk_v4 step) {
    return fmk_code_sums(runs->x, RUN, fmk_inverse4(step), (fmk_v4){0}, -32, 31);
}

static void search(struct runs *runs) {
    /* The code, were it not rounded, of the largest magnitude. */
    static const float tops[] = {-33.2f, -32.7f, -32.2f, -31.8f, -31.4f, -31.0f, -30.5f, -30.0f, -29.4f,
                                 -28.8f, 32.2f,  31.7f,  31.2f,  30.8f,  30.4f,  30.0f,  29.4f,  28.8f};
    fmk_v4 squares = {0}, lo = {0}, hi = {0};
    for (int i = 0; i < RUN; i++) {
        squares += runs->x[i] * runs->x[i];
        lo = fmk_min4(lo, runs->x[i]);
        hi = fmk_max4(hi, runs->x[i]);
    }
    runs->squares = squares;
    runs->step = (fmk_v4){0};
    fmk_v4 largest = fmk_select4(hi > -lo, hi, lo), best = squares;
    for (size_t i = 0; i < sizeof tops / sizeof tops[0]; i++) {
        struct fmk_code_sums s = make_codes(runs, largest / tops[i]);
        fmk_v4 step = s.xq * fmk_inverse4(s.qq), error = squares - step * s.xq;
        fmk_v4i better = error < best;
        best = fmk_select4(better, error, best);
        runs->step = fmk_select4(better, step, runs->step);
    }
}

static fmk_v4 choose_scales(const struct runs *runs, float d, fmk_v4 *best_scale) {
    fmk_v4 best = (fmk_v4){0} + INFINITY, low = {0};
    for (int lane = 0; lane < LANES && d > 0; lane++)
        low[lane] = floorf(fmaxf(fminf(runs->step[lane] / d, 126), -128));
    for (int i = 0; i < 2; i++) {
        fmk_v4 scale = low + (float)i, step = d * scale;
        struct fmk_code_sums s = make_codes(runs, step);
        fmk_v4 error = runs->squares + step * (step * s.qq - 2 * s.xq);
        fmk_v4i better = error < best;
        best = fmk_select4(better, error, best);
        *best_scale = fmk_select4(better, scale, *best_scale);
    }
    return best;
}

static struct choice choose(const struct runs *runs, float d) {
    struct choice choice = {.d = d};
    for (int g = 0; g < GROUPS; g++)
        choice.error += fmk_sum4(choose_scales(&runs[g], d, &choice.scale[g]));
    return choice;
}

/* The best d for the codes that a choice makes. */
static float refit(const struct runs *runs, const struct choice *choice) {
    float above = 0, below = 0;
    for (int g = 0; g < GROUPS; g++) {
        fmk_v4 scale = choice->scale[g];
        struct fmk_code_sums s = make_codes(&runs[g], choice->d * scale);
        above += fmk_sum4(scale * s.xq);
        below += fmk_sum4(scale * scale * s.qq);
    }
    return below > 0 ? above / below : 0;
}

static void store(const struct runs *runs, const struct choice *choice, int exponent, uint8_t *block) {
    uint16_t d = fmk_f32_to_f16(ldexpf(choice->d, exponent));
    int8_t scale[GROUPS * LANES];
    uint8_t codes[FMK_SUPER_BLOCK];
    for (int g = 0; g < GROUPS; g++) {
        fmk_v4 inverse = fmk_inverse4(choice->d * choice->scale[g]);
        for (int i = 0; i < RUN; i++) {
            fmk_v4 q = fmk_code4(runs[g].x[i] * inverse, -32, 31);
            for (int lane = 0; lane < LANES; lane++)
                codes[(g * LANES + lane) * RUN + i] = (uint8_t)(q[lane] + 32);
        }
        for (int lane = 0; lane < LANES; lane++)
            scale[g * LANES + lane] = (int8_t)choice->scale[g][lane];
    }
    memcpy(block + FMK_Q6K_D, &d, sizeof d);
    memcpy(block + FMK_Q6K_SCALES, scale, sizeof scale);
    fmk_q6k_store_codes(block, codes);
}

void fmk_quantize_q6k(const float *weights, uint8_t *block) {
    float scaled[FMK_SUPER_BLOCK];
    int exponent = fmk_scale_block(weights, FMK_SUPER_BLOCK, scaled);
    struct runs runs[GROUPS];
    float largest = 0;
    for (int g = 0; g < GROUPS; g++) {
        fmk_transpose4(scaled + g * LANES * RUN, RUN, runs[g].x);
        search(&runs[g]);
        for (int lane = 0; lane < LANES; lane++)
            largest = fmaxf(largest, fabsf(runs[g].step[lane]));
    }
    struct choice best = choose(runs, fmk_round_factor(largest / 127, exponent, FMK_F16));
    for (int round = 0; round < ROUNDS; round++) {
        struct choice next = choose(runs, fmk_round_factor(refit(runs, &best), exponent, FMK_F16));
        if (!(next.error < best.error))
            break;
        best = next;
    }
    store(runs, &best, exponent, block);
}
