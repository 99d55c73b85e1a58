/* Arguments of the kernels that turn weights into numbers. */
#ifndef FMK_KERNELS_DECODE_H
#define FMK_KERNELS_DECODE_H

#include "args.h"

/* Kernels of decode.cu, in the order in which the host numbers them. */
enum {
    FMK_DECODE_INT4, /* rows in packed order, whole vectors: struct fmk_decode_args */
    FMK_DECODE_Q4K,
    FMK_DECODE_Q6K,
    FMK_ROWS_DENSE, /* any rows, either order, any alignment: struct fmk_lookup_args */
    FMK_ROWS_INT4,
    FMK_ROWS_Q4K,
    FMK_ROWS_Q6K,
    FMK_DECODE_INT4_T64,
    FMK_ROWS_INT4_T64
};

enum {
    FMK_DECODE_WARPS = 8,    /* of a block, and so many units of one panel that it decodes */
    FMK_LOOKUP_THREADS = 256 /* of a block, which writes one row */
};

/* Grid: panels * blocks_per_panel blocks. */
struct fmk_decode_args {
    struct fmk_linear_part part; /* data: the first block of the rows; n: so many rows. bias, k_index,
                                    column and expert_stride are not looked at */
    void *out;                   /* [n][width], aligned to 16 bytes, as is its stride */
    int64_t stride;              /* elements */
    int32_t type;                /* fmk_dtype */
    int32_t width;               /* columns to write, a multiple of 8; at most the packed k */
    int32_t units;               /* of a panel of 16 rows */
    int32_t blocks_per_panel;
    const float *factor; /* what weights are multiplied by before they are rounded, or NULL */
};

/* Grid: m blocks. Where ids is NULL, row i of the output is row i of the part. */
struct fmk_lookup_args {
    struct fmk_linear_part part; /* data: of the expert, k_index too, or NULL: packed order */
    const int32_t *ids;
    int32_t first;  /* id of the part's row 0 */
    int32_t total;  /* ids outside 0 .. total-1 make rows of zeros, */
    int32_t zeroes; /* which this launch writes, or else another one */
    int32_t k_packed;
    int32_t width; /* columns to write */
    int32_t type;  /* fmk_dtype of out */
    void *out;
    int64_t stride; /* elements */
    const float *factor;
};

#endif
