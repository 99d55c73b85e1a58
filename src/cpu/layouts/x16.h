/* Panels of sixteen rows: offsets in a super-block or a block (panels.h). */
#ifndef FMK_CPU_X16_H
#define FMK_CPU_X16_H

#include "panels.h"
#include "../features.h"

enum {
    FMK_X16_CHUNK = 16 * FMK_PANEL_CHUNK,
    FMK_Q4K_X16_MINIMA = 16 * FMK_Q4K_PANEL_MINIMA,
    FMK_Q4K_X16_SCALES = 16 * FMK_Q4K_PANEL_SCALES,
    FMK_Q4K_X16_MINS = 16 * FMK_Q4K_PANEL_MINS,
    FMK_Q4K_X16_NIBBLES = 16 * FMK_Q4K_PANEL_NIBBLES,
    FMK_Q4K_X16_BLOCK = 16 * FMK_Q4K_PANEL_BLOCK,
    FMK_Q6K_X16_SCALES = 16 * FMK_Q6K_PANEL_SCALES,
    FMK_Q6K_X16_BLOCK = 16 * FMK_Q6K_PANEL_BLOCK
};

/* What the kernels of x16 layouts need: those for float activations, too, are of this instruction set. */
enum { FMK_X16_NEEDS = FMK_CPU_AVX2 | FMK_CPU_FMA | FMK_CPU_F16C | FMK_CPU_AVX512_VNNI };

/* int4: bytes in front of a block's nibbles. */
static inline int64_t fmk_int4_x16_header(int64_t scale_size) {
    return 16 * (scale_size + 1);
}

#endif
