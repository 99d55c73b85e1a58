/* A turn of products of bf16: 32 k of up to four tiles of sums. */
#ifndef FMK_CPU_AMX_BF16_TURN_H
#define FMK_CPU_AMX_BF16_TURN_H

#include "bf16_sheet.h"
#include "square.h"

enum { TILE_K = 32, TILE_PAIRS = TILE_K / 2 };

static inline __attribute__((always_inline)) void load_weights(const int b, const bf16_pair *pairs) {
    tile_load(b % 3 == 0 ? 6 : b % 3 == 1 ? 7 : 5, pairs, sizeof(bf16_pair));
}

/* 32 k of A tiles of tokens times B strips, which are w_stride pairs apart. */
static inline __attribute__((always_inline)) void multiply_turn(const uint16_t *x, const bf16_pair *w,
                                                                int64_t w_stride, const int A, const int B) {
    if (A == 1) {
        tile_load(4, x, TILE_K * sizeof *x);
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            load_weights(b, w + b * w_stride);
            tile_multiply_row_bf16(b);
        }
        return;
    }
#pragma GCC unroll 2
    for (int b = 0; b < B; b++)
        load_weights(b, w + b * w_stride);
#pragma GCC unroll 2
    for (int a = 0; a < A; a++) {
        tile_load(4 + a, x + a * TILE * TILE_K, TILE_K * sizeof *x);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++)
            tile_multiply_bf16(2 * a + b);
    }
}

#endif
