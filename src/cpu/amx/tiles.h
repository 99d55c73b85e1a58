/* The instructions of AMX that the kernels use, each wrapped once. Tiles 0..3 hold sums, 4 and 5 activations
 * (16 tokens by 32 k of bf16, 64 of int8), 6 and 7, and 5 where 4 alone has activations, weights (16 pairs of
 * k, or quads, by 16 rows). A tile's number is part of the instruction, so a switch picks it; with a constant
 * nothing of that is left.
 *
 * Written in assembly, as gcc 12's _tile_loadconfig tells the compiler that it reads 8 of the 64 bytes, and
 * its other intrinsics that they touch no memory. */
#ifndef FMK_CPU_AMX_TILES_H
#define FMK_CPU_AMX_TILES_H

#include <stdint.h>

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "as ldtilecfg reads it");

static inline __attribute__((always_inline)) void tile_configure(const struct tile_config *config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(*config) : "memory");
}

/* Gives the registers back: a thread with nothing in them is switched faster. */
static inline __attribute__((always_inline)) void tile_release(void) {
    __asm__ volatile("tilerelease" : : : "memory");
}

static inline __attribute__((always_inline)) void tile_zero(const int tile) {
    switch (tile) {
    case 0:
        __asm__ volatile("tilezero %%tmm0" : :);
        break;
    case 1:
        __asm__ volatile("tilezero %%tmm1" : :);
        break;
    case 2:
        __asm__ volatile("tilezero %%tmm2" : :);
        break;
    default:
        __asm__ volatile("tilezero %%tmm3" : :);
    }
}

/* Rows of the tile from rows of memory, `stride` bytes apart. */
static inline __attribute__((always_inline)) void tile_load(const int tile, const void *from,
                                                            int64_t stride) {
    switch (tile) {
    case 0:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm0" : : "r"(from), "r"(stride) : "memory");
        break;
    case 1:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm1" : : "r"(from), "r"(stride) : "memory");
        break;
    case 2:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm2" : : "r"(from), "r"(stride) : "memory");
        break;
    case 3:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm3" : : "r"(from), "r"(stride) : "memory");
        break;
    case 4:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm4" : : "r"(from), "r"(stride) : "memory");
        break;
    case 5:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm5" : : "r"(from), "r"(stride) : "memory");
        break;
    case 6:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm6" : : "r"(from), "r"(stride) : "memory");
        break;
    default:
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm7" : : "r"(from), "r"(stride) : "memory");
    }
}

static inline __attribute__((always_inline)) void tile_store(const int tile, void *to, int64_t stride) {
    switch (tile) {
    case 0:
        __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" : : "r"(to), "r"(stride) : "memory");
        break;
    case 1:
        __asm__ volatile("tilestored %%tmm1, (%0,%1,1)" : : "r"(to), "r"(stride) : "memory");
        break;
    case 2:
        __asm__ volatile("tilestored %%tmm2, (%0,%1,1)" : : "r"(to), "r"(stride) : "memory");
        break;
    default:
        __asm__ volatile("tilestored %%tmm3, (%0,%1,1)" : : "r"(to), "r"(stride) : "memory");
    }
}

/* sums[m][n] += acts[m][2p] * weights[p][n][0] + acts[m][2p+1] * weights[p][n][1], bf16, over p, of a square
 * of two tiles of activations and two of weights: sums = 2 * (acts - 4) + (weights - 6). */
static inline __attribute__((always_inline)) void tile_multiply_bf16(const int sums) {
    switch (sums) {
    case 0:
        __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0" : :);
        break;
    case 1:
        __asm__ volatile("tdpbf16ps %%tmm7, %%tmm4, %%tmm1" : :);
        break;
    case 2:
        __asm__ volatile("tdpbf16ps %%tmm6, %%tmm5, %%tmm2" : :);
        break;
    default:
        __asm__ volatile("tdpbf16ps %%tmm7, %%tmm5, %%tmm3" : :);
    }
}

/* sums[m][n] += the same of four int8: acts[m][4q..4q+3] * weights[q][n][0..3], over q. */
static inline __attribute__((always_inline)) void tile_multiply_int8(const int sums) {
    switch (sums) {
    case 0:
        __asm__ volatile("tdpbssd %%tmm6, %%tmm4, %%tmm0" : :);
        break;
    case 1:
        __asm__ volatile("tdpbssd %%tmm7, %%tmm4, %%tmm1" : :);
        break;
    case 2:
        __asm__ volatile("tdpbssd %%tmm6, %%tmm5, %%tmm2" : :);
        break;
    default:
        __asm__ volatile("tdpbssd %%tmm7, %%tmm5, %%tmm3" : :);
    }
}

/* bf16 of a row of up to four sums: activations are in tile 4, weights of sums 0 to 3 in 6, 7, 5, 6. */
static inline __attribute__((always_inline)) void tile_multiply_row_bf16(const int sums) {
    switch (sums) {
    case 0:
        __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0" : :);
        break;
    case 1:
        __asm__ volatile("tdpbf16ps %%tmm7, %%tmm4, %%tmm1" : :);
        break;
    case 2:
        __asm__ volatile("tdpbf16ps %%tmm5, %%tmm4, %%tmm2" : :);
        break;
    default:
        __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm3" : :);
    }
}

#endif
