/* The CPU's own layouts, for plan/layouts.c: eight or sixteen rows interleaved (panels.h). */
#ifndef FMK_CPU_LAYOUTS_H
#define FMK_CPU_LAYOUTS_H

#include "../../plan/layout.h"

extern const struct fmk_layout fmk_layout_q4k_x8, fmk_layout_q6k_x8, fmk_layout_int4_x8;
extern const struct fmk_layout fmk_layout_q4k_x16, fmk_layout_q6k_x16, fmk_layout_int4_x16;

#endif
