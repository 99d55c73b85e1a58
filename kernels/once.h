/* Arguments of the kernels of int4_once.cu, whose host decides on the shape of a launch (src/cuda/few.c). */
#ifndef FMK_KERNELS_ONCE_H
#define FMK_KERNELS_ONCE_H

#include "args.h"

enum {
    FMK_ONCE_WARPS = 8,
    FMK_ONCE_THREADS = 32 * FMK_ONCE_WARPS,
    FMK_ONCE_STAGES = 2,  /* units that a warp has under way */
    FMK_ONCE_PITCH = 272, /* bytes from one token's activations of a unit to the next one's */
    FMK_ONCE_BARRIER = 16 /* bytes at the beginning of shared memory */
};

/* Bytes of shared memory: of a stage, a unit's scales and zero points and the tokens' activations; and of a
 * block's sums. */
#define FMK_ONCE_STAGE(scales, tokens) ((scales) + (tokens)*FMK_ONCE_PITCH)
#define FMK_ONCE_SUMS(tokens) (FMK_ONCE_WARPS * (tokens)*256)

/* Grid: clusters of 1 or 2 blocks along x, one for each row block; y counts tiles of tokens, z experts. What
 * every block wants at its beginning lies together: kernel parameters come from memory line by line. */
struct fmk_once_args {
    const void *data; /* of part 0 and linear.expert; expert_stride, stride, blocks and scales are part 0's */
    uint64_t expert_stride, stride;
    int32_t blocks;      /* of 64 rows */
    int32_t scales;      /* bytes of a unit behind its codes */
    int32_t units;       /* of K */
    int32_t share;       /* units of a block; the last of a cluster may have less */
    int32_t ranks_shift; /* clusters have 1 << ranks_shift blocks */
    int32_t stage;       /* bytes of shared memory: FMK_ONCE_STAGE */
    int32_t acts_first;  /* activations are there when the kernel starts */
    const void *in;
    int64_t in_stride, expert_in_stride; /* elements */
    const int32_t *m_dev;
    int32_t m, first_row, k;
    int32_t bare; /* 0, or the rows of the one part: its sums are the output, of one expert */
    void *out;
    int64_t out_stride;
    int32_t out_type;
    /* Where things begin in shared memory, behind the stages of all warps. */
    int32_t at_sums;
    int32_t at_row, at_acts; /* act-order: a token's activations as the caller has them; in order */
    struct fmk_linear_kernel_args linear;
};

#endif
