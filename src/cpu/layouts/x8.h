/* Panels of eight rows: offsets in a super-block or a block (panels.h). */
#ifndef FMK_CPU_X8_H
#define FMK_CPU_X8_H

#include "panels.h"

enum {
    FMK_X8_CHUNK = 8 * FMK_PANEL_CHUNK,
    FMK_Q4K_X8_MINIMA = 8 * FMK_Q4K_PANEL_MINIMA,
    FMK_Q4K_X8_SCALES = 8 * FMK_Q4K_PANEL_SCALES,
    FMK_Q4K_X8_MINS = 8 * FMK_Q4K_PANEL_MINS,
    FMK_Q4K_X8_NIBBLES = 8 * FMK_Q4K_PANEL_NIBBLES,
    FMK_Q4K_X8_BLOCK = 8 * FMK_Q4K_PANEL_BLOCK,
    FMK_Q6K_X8_SCALES = 8 * FMK_Q6K_PANEL_SCALES,
    FMK_Q6K_X8_LOW = 8 * FMK_Q6K_PANEL_LOW,
    FMK_Q6K_X8_HIGH = 8 * FMK_Q6K_PANEL_HIGH,
    FMK_Q6K_X8_BLOCK = 8 * FMK_Q6K_PANEL_BLOCK
};

/* int4: bytes in front of a block's nibbles. */
static inline int64_t fmk_int4_x8_header(int64_t scale_size) {
    return 8 * (scale_size + 1);
}

#endif
