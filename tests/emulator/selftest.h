/* Arguments of selftest.cu. */
#ifndef FMK_EMULATOR_SELFTEST_H
#define FMK_EMULATOR_SELFTEST_H

#include <stdint.h>

struct selftest_reverse_args {
    const int32_t *in;
    int32_t *out;
    int32_t rounds;
};

struct selftest_sum_args {
    const int32_t *in;
    int32_t *out; /* [blocks] */
    int32_t *total, *largest;
    int32_t count;
};

struct selftest_shuffle_args {
    int32_t *out; /* [7][64] */
};

struct selftest_mma_args {
    const uint16_t *a, *b; /* [16][16], [8][16] */
    const float *c;        /* [16][8] */
    float *d;
    int32_t bf16, rounds;
};

struct selftest_ring_args {
    const uint32_t *in; /* [blocks][units][64] */
    uint32_t *out;      /* [blocks][32] */
    int32_t units, wrong;
};

struct selftest_matrices_args {
    const uint16_t *in; /* [32][8] */
    uint16_t *out;      /* [2][32][8] */
};

struct selftest_neighbour_args {
    const int32_t *in; /* [32][4] */
    int32_t *out;      /* [32] */
    int32_t copy, order;
};
enum { SELFTEST_SYNCTHREADS, SELFTEST_SYNCWARP, SELFTEST_SHUFFLE, SELFTEST_NOTHING };

struct selftest_fault_args {
    int32_t *at;
    int32_t count, kind;
};

#endif
