/* The grid of dense_one.cu: a block is four warps of two rows. */
#ifndef FMK_KERNELS_DENSE_ONE_H
#define FMK_KERNELS_DENSE_ONE_H

#include "args.h"

enum { FMK_DENSE_ONE_ROWS = 8, FMK_DENSE_ONE_THREADS = 128 };

/* Blocks of a part of n rows. With glu a block takes four rows of gate and the same of up. */
#define FMK_DENSE_ONE_BLOCKS(n) (((n) + FMK_DENSE_ONE_ROWS - 1) / FMK_DENSE_ONE_ROWS)

#endif
