/* Activations, what they should give, and how far from it a contender is. */
#ifndef BENCH_CPU_INPUTS_H
#define BENCH_CPU_INPUTS_H

#include "cpu_bench.h"

/* For errors: some rows of the weight and some tokens stand for all. Synthetic weights repeat after so many
 * rows. One token's outputs have their roundings of activations in common, which makes its error a matter of
 * luck: fewer tokens than FEWEST are several calls. */
enum { TOKENS = 32, FEWEST = 8, ROWS = 256 };

struct inputs {
    int64_t n, k, m; /* the largest m, and at least FEWEST */
    float *normal;   /* [m][k] of N(0, 1) */
    float *outliers; /* [m][k]: in one channel of a hundred 50 times as large */
    float *out;      /* [m][n] */
    int rows;
    int64_t row[ROWS];
    double *want_normal, *want_outliers; /* [TOKENS][ROWS], from the dequantized weight in double */
};

void inputs_make(struct inputs *inputs, struct bench *bench, const struct bench_peer_source *source);
void inputs_free(struct inputs *inputs);
/* A product of m rows. */
struct bench_peer_call inputs_call(const struct inputs *inputs, int64_t m);

/* Calls that an error of m rows takes. */
int error_calls(int64_t m);

/* Relative L2 of what `who` makes of `in`, which is one of the inputs, m rows a call, and `want` what belongs
 * to it. */
double error_of(struct contender *who, const struct inputs *inputs, int64_t m, const float *in,
                const double *want);

#endif
