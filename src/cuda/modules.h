/* The kernels as the host knows them: which fatbin holds each, and its handle once that is loaded. One .cu is
 * one module. */
#ifndef FMK_CUDA_MODULES_H
#define FMK_CUDA_MODULES_H

#include "driver.h"

#include "../context.h"

enum fmk_cuda_module {
    FMK_MODULE_DENSE_ONE,
    FMK_MODULE_DENSE_MMA,
    FMK_MODULE_INT4_MMA,
    FMK_MODULE_INT4_MANY, /* kernels numbered in kernels/many.h */
    FMK_MODULE_INT4_FEW,
    FMK_MODULE_INT4_ONCE,
    FMK_MODULE_Q4K_MMA,
    FMK_MODULE_Q6K_MMA,
    FMK_MODULE_PLAIN,
    FMK_MODULE_DECODE,
    FMK_MODULE_ROWS, /* gather, routing, epilogue, reduce */
    FMK_MODULE_PACK,
    FMK_MODULE_INT4_WGMMA, /* needs the feature wgmma */
    FMK_MODULES
};

/* Kernels of a module, numbered from 0; modules.c has their names in this order.
 *
 * The mma modules: variant + FMK_MMA_VARIANTS where activations are bf16, or with f32 FMK_MMA_F32 + one of
 * the first two; int4: + FMK_MMA_KERNELS where chunks is not 4 or scales are f32. Dense has no variants of
 * one token: the first is FMK_MMA_16X8. */
enum {
    FMK_MMA_16X1, /* weight rows x tokens of a block */
    FMK_MMA_32X1,
    FMK_MMA_16X8,
    FMK_MMA_32X8,
    FMK_MMA_32X16,
    FMK_MMA_32X32,
    FMK_MMA_VARIANTS,
    FMK_MMA_F32 = 2 * FMK_MMA_VARIANTS,
    FMK_MMA_KERNELS = FMK_MMA_F32 + 2
};
/* dense_one: 3 * (fmk_dtype of the weights - 1) + that of the activations - 1. */
/* plain: enum fmk_family, or FMK_PLAIN_INT4_T64; + FMK_PLAIN_DOUBLE where accumulators are double. */
enum { FMK_PLAIN_INT4_T64 = 4, FMK_PLAIN_DOUBLE = 5 };

enum { FMK_PACK_INT4, FMK_PACK_Q4K, FMK_PACK_Q6K, FMK_PACK_ROWS, FMK_PACK_RANGE };

enum { FMK_MODULE_KERNELS = 40 }; /* room for the kernels of the largest module */

/* Loads a module unless it is loaded. Takes the context's lock; not for fmk_linear. */
fmk_status fmk_cuda_load(struct fmk_context *ctx, enum fmk_cuda_module module);
/* NULL while the module is not loaded. */
CUfunction fmk_cuda_function(const struct fmk_context *ctx, enum fmk_cuda_module module, int32_t kernel);

/* int4_few: FMK_FEW_16 where there are three of one type of activations, + FMK_FEW_BF16 or FMK_FEW_F32 (which
 * has no FMK_FEW_16), + FMK_FEW_ANY where chunks is not 4. */
enum { FMK_FEW_1, FMK_FEW_8, FMK_FEW_16, FMK_FEW_BF16, FMK_FEW_F32 = 6, FMK_FEW_ANY = 8 };

/* int4_once: tokens, or one in act-order; + FMK_ONCE_BF16; + FMK_ONCE_NARROW for strips of 32 rows, or
 * FMK_ONCE_GROUP where there is more than is_usual of once.c says, or FMK_ONCE_ANY where chunks is not 4. */
enum {
    FMK_ONCE_1,
    FMK_ONCE_8,
    FMK_ONCE_ORDER,
    FMK_ONCE_BF16,
    FMK_ONCE_NARROW = 2 * FMK_ONCE_BF16,
    FMK_ONCE_GROUP = 2 * FMK_ONCE_NARROW,
    FMK_ONCE_ANY = 3 * FMK_ONCE_NARROW
};

/* int4_wgmma: enum FMK_WGMMA_64X16 .. (kernels/wgmma.h) + FMK_WGMMA_VARIANTS where activations are bf16. */

struct fmk_cuda_grid {
    uint32_t x, y, z, threads;
    uint32_t shared;  /* bytes of dynamic shared memory, in modules that have it */
    uint32_t cluster; /* blocks of a cluster, along x; 0 as 1 */
};
/* Enqueues a kernel whose one parameter is the struct at args. FMK_ENOTPREPARED when its module is not
 * loaded. `early`: it may start before the kernel in front of it on the stream has ended (programmatic
 * dependent launch); ignored on devices without. */
fmk_status fmk_cuda_launch(struct fmk_queue *queue, enum fmk_cuda_module module, int32_t kernel,
                           struct fmk_cuda_grid grid, const void *args, bool early);

#endif
