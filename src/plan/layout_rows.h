/* The layouts that are the file's own rows. */
#ifndef FMK_PLAN_LAYOUT_ROWS_H
#define FMK_PLAN_LAYOUT_ROWS_H

#include "layout.h"

extern const struct fmk_layout fmk_layout_dense_rows, fmk_layout_q4k_rows, fmk_layout_q6k_rows;

#endif
