/* The kernels for one token and up to eight that are done with a row block once (kernels/int4_once.cu). */
#ifndef FMK_CUDA_ONCE_H
#define FMK_CUDA_ONCE_H

#include "../../kernels/once.h"
#include "device.h"

/* Whether they serve tiles of `tokens` with these arguments, activations of f16 or bf16. */
bool fmk_once_serves(const struct fmk_cuda *cuda, const struct fmk_linear_kernel_args *linear,
                     int32_t tokens);

/* Sets args, whose `linear` is set, and grid, whose y and z are; answers the kernel for activations of f16,
 * numbered as in modules.h. `early`: the kernel before may still be writing the activations when this one
 * starts. */
int32_t fmk_once_share(const struct fmk_cuda *cuda, int32_t tokens, bool early, struct fmk_once_args *args,
                       struct fmk_cuda_grid *grid);

#endif
