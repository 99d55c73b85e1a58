/* Arguments of int4_many.cu, and what host and kernels agree on. */
#ifndef FMK_KERNELS_MANY_H
#define FMK_KERNELS_MANY_H

#include "args.h"

/* Tiles, of weight rows by tokens. Kernels are numbered so, + FMK_MANY_TILES of bf16 activations, + twice
 * that where groups are not of 128 k or a multiple, or scales are f32. */
enum {
    FMK_MANY_128X16,
    FMK_MANY_64X32,
    FMK_MANY_128X32,
    FMK_MANY_64X64,
    FMK_MANY_128X64,
    FMK_MANY_128X128,
    FMK_MANY_TILES
};

enum { FMK_MANY_THREADS = 256, FMK_MANY_STAGES = 4 };

/* Bytes of a stage of k columns, and of a block: activations, codes, scales and zero points of each panel, of
 * which `any` kernels have more. */
#define FMK_MANY_SCALES(any) ((any) ? 320 : 48)
#define FMK_MANY_STAGE(rows, tokens, k, any)                                                                 \
    ((tokens)*2 * (k) + (rows) / 2 * (k) + (rows) / 16 * (((k) + 127) / 128) * FMK_MANY_SCALES(any))
#define FMK_MANY_SHARED(rows, tokens, k, any) (FMK_MANY_STAGES * FMK_MANY_STAGE(rows, tokens, k, any))

struct fmk_many_args {
    struct fmk_linear_kernel_args linear; /* without tiles, in_rows and out_rows */
    const float
        *range[FMK_LAUNCH_PARTS]; /* struct fmk_range of each part, or NULL: scales go in as they are */
};

#endif
