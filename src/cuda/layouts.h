/* The t16 layouts and t64, for plan/layouts.c: kernels/layout.h describes their bytes. Only a device packs
 * and decodes them; their numbers are the host's, so these rows are in every build. */
#ifndef FMK_CUDA_LAYOUTS_H
#define FMK_CUDA_LAYOUTS_H

#include "../plan/layout.h"

extern const struct fmk_layout fmk_layout_int4_t16, fmk_layout_int4_t64, fmk_layout_q4k_t16,
    fmk_layout_q6k_t16;

#endif
