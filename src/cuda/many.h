/* Products by kernels/int4_many.cu: which tile, and the launch. */
#ifndef FMK_CUDA_MANY_H
#define FMK_CUDA_MANY_H

#include "../../kernels/many.h"
#include "rows.h"

/* Rows first_row .. m-1 of a call, by so many experts. `any`: see kernels/many.h. The caller has entered. */
fmk_status fmk_many_launch(struct fmk_cuda_order *order, const struct fmk_many_args *args, uint32_t experts,
                           bool any);
/* The same, by tiles FMK_MANY_128X16 .. */
fmk_status fmk_many_launch_tile(struct fmk_cuda_order *order, const struct fmk_many_args *args,
                                uint32_t experts, bool any, int32_t tile);

#endif
