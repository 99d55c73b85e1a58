/* Arguments of the kernels of int4_once.cu, whose host decides on the shape of a launch (src/cuda/once.c). */
#ifndef FMK_KERNELS_ONCE_H
#define FMK_KERNELS_ONCE_H

#include "args.h"

enum {
    FMK_ONCE_WARPS = 16,
    FMK_ONCE_THREADS = 32 * FMK_ONCE_WARPS,
    FMK_ONCE_PITCH = 272, /* bytes from one token's activations of a unit to the next one's */
    FMK_ONCE_BARRIER = 16 /* bytes at the beginning of shared memory: two mbarriers */
};

/* Bytes of the sums of a strip of so many panels of 16 rows. A block has those of two strips. */
#define FMK_ONCE_SUMS(tokens, panels) (FMK_ONCE_WARPS * (tokens) * (panels)*64)

/* Stages of a warp; with narrow strips, what is fetched for the next unit comes while this one is multiplied.
 */
#define FMK_ONCE_STAGES(panels) ((panels) == 2 ? 2 : 1)

/* u / units for 0 <= u, (u + 1) * units <= 2^30: the high word of (2 u + 1) times this. */
#define FMK_ONCE_INVERSE(units) ((uint32_t)(((UINT64_C(1) << 31) + (units)-1) / (units)))

/* Which units a block does. Strips and units count from the first one's on. */
struct fmk_once_share {
    int32_t skipped; /* strips of the cluster */
    int32_t first;   /* unit of the first strip */
    int32_t count;
    int32_t halved; /* the strip of which the cluster's other block does a part too, or -1 */
    int32_t turn; /* so many units of its own part of that come first, so that the other has the sums early */
    int32_t last; /* strip, in the order of the units */
    int32_t reserved[2];
};

/* Grid: clusters of 1 or 2 blocks along x, to which strips of 4 or 2 panels of 16 rows are dealt; y counts
 * tiles of tokens, z experts. What every block wants at its beginning lies together: kernel parameters come
 * from memory line by line. */
struct fmk_once_args {
    const void
        *data; /* of part 0 and linear.expert; expert_stride, stride, first_strips and scales are part 0's */
    uint64_t expert_stride;
    uint32_t stride;
    int32_t first_strips;
    int32_t scales;                    /* bytes of a unit behind its codes */
    int32_t units;                     /* of K */
    uint32_t inverse;                  /* FMK_ONCE_INVERSE(units) */
    int32_t ranks_shift;               /* clusters have 1 << ranks_shift blocks */
    int32_t strips, spare;             /* of a cluster; the first `spare` have one more */
    struct fmk_once_share share[2][2]; /* of clusters with one strip more, and not; of their blocks */
    const void *in;
    int64_t expert_in_stride; /* elements, as in_stride and out_stride */
    int32_t in_stride;
    int32_t k, m, first_row;
    const int32_t *m_dev;
    int32_t acts_first; /* activations are there when the kernel starts */
    int32_t resident;   /* activations of all of K are kept */
    int32_t scale_type; /* where all parts have one */
    /* Where things begin in shared memory, behind the stages of all warps, and bytes of a stage, of which a
     * warp has FMK_ONCE_STAGES: scales and zero points, unless the kernel has them in registers, and
     * activations, unless these are resident. */
    int32_t stage, at_acts, at_sums, at_halves;
    int32_t at_row;       /* act-order: a token's activations as the caller has them */
    const int32_t *index; /* act-order: part 0's and linear.expert's */
    void *out;
    int64_t out_stride;
    int32_t out_type;
    int32_t n; /* rows of part 0 */
    struct fmk_linear_kernel_args linear;
};

#endif
