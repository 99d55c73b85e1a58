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

enum { RUNS = 16, RUN = FMK_SUPER_BLOCK / RUNS, VECTORS = RUN / 4, ROUNDS = 2 };

struct run {
    const fmk_v4 *x;
    float squares;
    float step; /* of either sign */
};

struct choice {
    float d; /* as f16 holds it, in the units of the scaled block */
    int8_t scale[RUNS];
    float error;
};

static struct fmk_code_sums make_codes(const struct run *run, float step) {
    return fmk_code_sums(run->x, VECTORS, step != 0 ? 1 / step : 0, 0, -32, 31);
}

static float squared_error(const struct run *run, struct fmk_code_sums s, float step) {
    return run->squares + step * (step * s.qq - 2 * s.xq);
}

static void search_run(struct run *run) {
    /* The code, were it not rounded, of the largest magnitude. */
    static const float tops[] = {-33.2f, -32.7f, -32.2f, -31.8f, -31.4f, -31.0f, -30.5f, -30.0f, -29.4f,
                                 -28.8f, 32.2f,  31.7f,  31.2f,  30.8f,  30.4f,  30.0f,  29.4f,  28.8f};
    fmk_v4 squares = {0}, lo4 = {0}, hi4 = {0};
    for (int i = 0; i < VECTORS; i++) {
        squares += run->x[i] * run->x[i];
        lo4 = fmk_min4(lo4, run->x[i]);
        hi4 = fmk_max4(hi4, run->x[i]);
    }
    run->squares = fmk_sum4(squares);
    run->step = 0;
    float lo = fminf(fminf(lo4[0], lo4[1]), fminf(lo4[2], lo4[3]));
    float hi = fmaxf(fmaxf(hi4[0], hi4[1]), fmaxf(hi4[2], hi4[3]));
    float largest = hi > -lo ? hi : lo, best = run->squares;
    if (largest == 0)
        return;
    for (size_t i = 0; i < sizeof tops / sizeof tops[0]; i++) {
        struct fmk_code_sums sums = make_codes(run, largest / tops[i]);
        float step = sums.qq > 0 ? sums.xq / sums.qq : 0, error = squared_error(run, sums, step);
        if (error < best) {
            best = error;
            run->step = step;
        }
    }
}

static void choose_scales(const struct run *runs, struct choice *choice) {
    choice->error = 0;
    for (int j = 0; j < RUNS; j++) {
        float best = INFINITY;
        int low = choice->d > 0 ? (int)floorf(fmaxf(fminf(runs[j].step / choice->d, 126), -128)) : 0;
        for (int scale = low; scale <= low + 1; scale++) {
            float step = choice->d * (float)scale;
            float error = squared_error(&runs[j], make_codes(&runs[j], step), step);
            if (error < best) {
                best = error;
                choice->scale[j] = (int8_t)scale;
            }
        }
        choice->error += best;
    }
}

static float refit(const struct run *runs, const struct choice *choice) {
    float above = 0, below = 0;
    for (int j = 0; j < RUNS; j++) {
        float scale = choice->scale[j];
        struct fmk_code_sums s = make_codes(&runs[j], choice->d * scale);
        above += scale * s.xq;
        below += scale * scale * s.qq;
    }
    return below > 0 ? above / below : 0;
}

static void store(const fmk_v4 *x, const struct choice *choice, int exponent, uint8_t *block) {
    uint16_t d = fmk_f32_to_f16(ldexpf(choice->d, exponent));
    memcpy(block + FMK_Q6K_D, &d, sizeof d);
    memcpy(block + FMK_Q6K_SCALES, choice->scale, sizeof choice->scale);
    uint8_t codes[FMK_SUPER_BLOCK];
    for (int i = 0; i < FMK_SUPER_BLOCK / 4; i++) {
        float step = choice->d * choice->scale[i / VECTORS];
        fmk_v4 q = fmk_code4(x[i] * (step != 0 ? 1 / step : 0), -32, 31);
        for (int lane = 0; lane < 4; lane++)
            codes[4 * i + lane] = (uint8_t)(q[lane] + 32);
    }
    fmk_q6k_store_codes(block, codes);
}

void fmk_quantize_q6k(const float *weights, uint8_t *block) {
    fmk_v4 x[FMK_SUPER_BLOCK / 4];
    int exponent = fmk_scale_block(weights, FMK_SUPER_BLOCK, (float *)x);
    struct run runs[RUNS];
    float largest = 0;
    for (int j = 0; j < RUNS; j++) {
        runs[j].x = x + VECTORS * j;
        search_run(&runs[j]);
        largest = fmaxf(largest, fabsf(runs[j].step));
    }
    struct choice best = {.d = fmk_round_factor(largest / 127, exponent, FMK_F16)};
    choose_scales(runs, &best);
    for (int round = 0; round < ROUNDS; round++) {
        struct choice next = {.d = fmk_round_factor(refit(runs, &best), exponent, FMK_F16)};
        choose_scales(runs, &next);
        if (!(next.error < best.error))
            break;
        best = next;
    }
    store(x, &best, exponent, block);
}
