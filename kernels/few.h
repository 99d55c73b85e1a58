/* Arguments of the kernels for few tokens (int4_few.cu), whose host lays their shared memory out
 * (src/cuda/few.c). */
#ifndef FMK_KERNELS_FEW_H
#define FMK_KERNELS_FEW_H

#include "args.h"

enum { FMK_FEW_WARPS = 8, FMK_FEW_THREADS = 32 * FMK_FEW_WARPS };

/* Bytes from one token's activations to the next one's: rows of 16 bytes in a column lie in different banks.
 */
#define FMK_FEW_PITCH(units) ((units)*256 + 16)
/* Floats from one token's sums to the next one's. */
#define FMK_FEW_SUMS_PITCH 68

/* Grid: clusters of 1, 2, 4 or 8 blocks along x walk over the row blocks, each block with its share of K; y
 * counts tiles of tokens, z experts. */
struct fmk_few_args {
    struct fmk_linear_kernel_args linear;
    int32_t blocks; /* of 64 rows; with an activation of gate alone */
    int32_t units;  /* of K, of a block's share; the last may have less */
    int32_t stages; /* of a warp's ring, of */
    int32_t slot;   /* bytes each */
    int32_t
        window; /* units whose activations are held at once, a multiple of the warps, or all of the share */
    int32_t keeps_sums; /* of the activations: there is room for those of a whole share */
    /* Where things begin in shared memory, behind the rings, in bytes. */
    int32_t at_acts;     /* [plane][token][FMK_FEW_PITCH] */
    int32_t at_row;      /* 0, or a token's activations in the order of the caller, of two bytes each */
    int32_t at_act_sums; /* [unit][4 or 1][tokens, to a multiple of 8] floats */
    int32_t at_sums;     /* [warp][token][FMK_FEW_SUMS_PITCH] floats */
    int32_t at_done;     /* [2][token][64] floats, of clusters of more than one */
    int32_t at_barriers; /* [warp][stage], and two more */
    int32_t ranks_shift; /* clusters have 1 << ranks_shift blocks */
};

#endif
