/* Arguments of the linear kernels: structs that the host fills in and the kernels take by value. Pointers are
 * device addresses. Plain C, read by both compilers. */
#ifndef FMK_KERNELS_ARGS_H
#define FMK_KERNELS_ARGS_H

#include <stdint.h>

enum {
    FMK_LAUNCH_PARTS = 4 /* parts of one layout that one launch serves */
};

/* Tokens of one expert that are computed together; tokens are numbered as in_rows and out_rows are. */
struct fmk_token_tile {
    int32_t expert, first, count, reserved; /* count 0: nothing to do */
};

struct fmk_linear_part {
    const void *data;       /* of expert 0 */
    const float *bias;      /* [experts][n], or NULL */
    uint64_t expert_stride; /* bytes */
    uint64_t stride;        /* bytes from panel to panel (t64: from block to block), or from row to row */
    int32_t n;              /* rows of the part */
    int32_t column;         /* of the output, that row 0 makes */
    int32_t dtype;          /* fmk_dtype of dense weights, of int4 scales */
    int32_t chunks;         /* int4: runs of 32 k that share a scale: 1, 2, 4 */
    int32_t has_zeros;      /* int4: zero points are stored; else each is 8 */
    int32_t reserved;
    const int32_t *k_index; /* [experts][k_packed], or NULL; only few-token and plain kernels look at it */
};

/* t = in . W + bias; then t += addend; out = act(t) * weight. */
struct fmk_epilogue_args {
    void *out;
    const void *addend;                /* or NULL */
    const float *weights;              /* by output row, or NULL */
    int64_t out_stride, addend_stride; /* elements */
    int32_t out_type, addend_type;     /* fmk_dtype */
    int32_t act;                       /* fmk_act; not 0 only with `glu` */
    int32_t up_column;                 /* act: the addend's first column for `up`, n / 2 */
    float alpha, limit;                /* SWIGLU_CLAMP */
};

/* mma kernels: gridDim.x blocks walk over the row blocks, however many there are. */
struct fmk_linear_kernel_args {
    struct fmk_linear_part part[FMK_LAUNCH_PARTS];
    int32_t num_parts;
    int32_t glu; /* part[0] is gate, part[1] is up: a block computes the same rows of both and joins them */
    int32_t k;   /* columns of `in` that are there */
    int32_t k_packed; /* of the weights; columns past k count as 0 */
    const void *in;
    int64_t in_stride;    /* elements, from row to row */
    int64_t plane_stride; /* elements, from plane to plane */
    int32_t planes;       /* the activations are the sum of so many matrices like `in`: 1, 2 or 3 */
    int32_t in_type;      /* fmk_dtype; only few-token and plain kernels look at it */
    int32_t expert;       /* of every row when there are no tiles */
    int32_t m, first_row; /* without tiles: rows first_row .. m-1 */
    const int32_t *m_dev; /* or NULL: the m really there, at most m */
    /* blockIdx.z is added to expert, and so many elements times it to in and out. */
    int64_t expert_in_stride, expert_out_stride;
    const struct fmk_token_tile *tiles; /* [gridDim.y], or NULL: row by row */
    const int32_t *in_rows;             /* row of `in` of each token, or NULL: its number */
    const int32_t *out_rows; /* row of out, addend and weights of each token, or NULL: its number */
    struct fmk_epilogue_args epilogue;
};

#endif
