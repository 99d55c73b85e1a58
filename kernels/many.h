/* Arguments of int4_many.cu, and what host and kernels agree on. */
#ifndef FMK_KERNELS_MANY_H
#define FMK_KERNELS_MANY_H

#include "args.h"

/* Kernels, + FMK_MANY_BF16 of bf16 activations, + FMK_MANY_ANY where groups are not of 128 k or a multiple,
 * or scales are f32. */
enum { FMK_MANY_128X128, FMK_MANY_64X64, FMK_MANY_BF16, FMK_MANY_ANY = 2 * FMK_MANY_BF16 };

enum {
    FMK_MANY_THREADS = 256,
    FMK_MANY_STAGES = 4,
    FMK_MANY_TILE = 20480 /* bytes of activations and codes in a stage, of either tile */
};

/* Bytes of a stage, and of a block: `any` as above. A stage has room for the scales of 8 panels. */
#define FMK_MANY_SCALES(any) ((any) ? 320 : 48)
#define FMK_MANY_STAGE(any) (FMK_MANY_TILE + 8 * FMK_MANY_SCALES(any))
#define FMK_MANY_SHARED(any) (FMK_MANY_STAGES * FMK_MANY_STAGE(any))

struct fmk_many_args {
    struct fmk_linear_kernel_args linear; /* without tiles, in_rows and out_rows */
    const float
        *range[FMK_LAUNCH_PARTS]; /* struct fmk_range of each part, or NULL: scales go in as they are */
};

#endif
