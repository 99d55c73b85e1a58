/* The tiles of a square: up to 32 tokens, in one or two tiles of activations, by two strips of weights. */
#ifndef FMK_CPU_AMX_SQUARE_H
#define FMK_CPU_AMX_SQUARE_H

#include "tiles.h"

#include "../gemm/gemm.h"

#include <assert.h>

enum { TILE = 16 }; /* tokens, and rows of weights */
static_assert((int)FMK_STRIP == (int)TILE, "a strip is a tile wide");

/* Tiles of so many tokens: those of activations, and the sums beside them. Without a second one: a row of
 * sums, and three tiles of weights. */
static inline void configure_square(int32_t first, int32_t second) {
    struct tile_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        bool of_second = tile == 2 || tile == 3 || tile == 5;
        config.row_bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile >= 6                 ? TILE
                                      : of_second && second > 0 ? second
                                      : tile == 5               ? TILE
                                                                : first);
    }
    tile_configure(&config);
}

#endif
