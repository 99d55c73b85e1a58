/* Arguments of the kernels around a product (rows.cu): rows are gathered in front of it, routed to experts,
 * finished and summed behind it. */
#ifndef FMK_KERNELS_ROWS_H
#define FMK_KERNELS_ROWS_H

#include "args.h"

/* Kernels of rows.cu, in the order in which the host numbers them. */
enum {
    FMK_ROWS_GATHER,      /* struct fmk_gather_args; grid: column blocks, tiles or row blocks, experts */
    FMK_ROWS_FINISH,      /* struct fmk_finish_args; the same grid */
    FMK_ROWS_REDUCE,      /* struct fmk_reduce_args; grid: column blocks, tokens */
    FMK_ROWS_ROUTE_SMALL, /* struct fmk_route_args, all of it at once; one block */
    FMK_ROWS_ROUTE_CLEAR, /* or step by step: any number of blocks */
    FMK_ROWS_ROUTE_COUNT, /* IDS: any number of blocks; SORTED: likewise, each takes experts in turn */
    FMK_ROWS_ROUTE_SCAN,  /* one block */
    FMK_ROWS_ROUTE_PLACE, /* any number of blocks, each takes experts in turn */
    FMK_ROWS_KERNELS
};

enum {
    FMK_ROWS_THREADS = 256,
    FMK_ROWS_SCAN_THREADS = 1024,
    FMK_ROWS_BLOCK = 8,           /* rows of a block, at most, where there are no tiles */
    FMK_GATHER_COLUMNS = 8,       /* of a thread */
    FMK_ROUTE_SMALL_PAIRS = 1024, /* at most, */
    FMK_ROUTE_SMALL_EXPERTS = 512 /* likewise, for one block to be quick */
};

/* The rows that a launch is about. With tiles: those of tile blockIdx.y. Without: `block` rows, from first +
 * block * blockIdx.y on, less than m; blockIdx.z counts experts. */
struct fmk_rows_set {
    const struct fmk_token_tile *tiles;
    int32_t expert, first, m;
    int32_t block;
    const int32_t *m_dev; /* or NULL: the m really there */
};

/* in -> out: rows and columns in the order, the type and at the distance that a product's kernel wants. */
struct fmk_gather_args {
    struct fmk_rows_set rows;
    const void *in;
    int64_t in_stride, expert_in_stride; /* elements */
    int32_t in_type;                     /* fmk_dtype */
    int32_t k;                           /* columns of in */
    const int32_t *in_rows;              /* row of in of each row, or NULL: its number */
    int64_t in_limit;                    /* a row of in outside 0 .. in_limit-1 counts as zeros */
    const int32_t *k_index;              /* [experts][k_packed]: column of in, or -1; NULL: its number */
    int32_t k_packed;
    int32_t width; /* of out, a multiple of 8: columns past k, or k_packed, are zeros */
    void *out;     /* rows by number; aligned to 16 bytes, as are the strides */
    int64_t out_stride, expert_out_stride, plane_stride; /* elements */
    int32_t out_type;
    int32_t planes;    /* 1; or 2, 3: bf16 matrices whose sum is the row, to 16 or 24 bits */
    int32_t zero_rest; /* rows *m_dev .. m-1 are zeros; else they are left as they are */
    int32_t reserved;
};

/* Sums of floats -> out: bias, addend, activation, weight, type. */
struct fmk_finish_args {
    struct fmk_rows_set rows;
    const float *sums; /* rows by number */
    int64_t stride, expert_stride;
    int32_t n;      /* columns of the sums; with an activation those of gate */
    int32_t up;     /* with an activation: the column of the sums where up begins */
    int32_t column; /* of out and addend, that column 0 is */
    int32_t reserved;
    const float *bias, *up_bias; /* of column 0 of expert 0, or NULL */
    int64_t bias_stride;         /* from expert to expert */
    const int32_t *out_rows;     /* row of out of each row, or NULL: its number */
    int64_t expert_out_stride;   /* elements */
    struct fmk_epilogue_args epilogue;
};

/* Sums each token's pairs, in the order of the slots. */
struct fmk_reduce_args {
    const float *pairs;     /* [pair][width] */
    const uint8_t *present; /* [pair]: whether there is one */
    int32_t width, top_k;
    int32_t first, m; /* tokens */
    const int32_t *m_dev;
    void *out;
    const void *addend; /* or NULL */
    int64_t out_stride, addend_stride;
    int32_t out_type, addend_type;
};

/* Pairs -> lists grouped by expert, stable, and the tiles that the products' blocks take. Whatever the arrays
 * hold, nothing past their ends is touched. */
struct fmk_route_args {
    const int32_t *ids;     /* IDS: [m * top_k]; else NULL */
    const int32_t *offsets; /* SORTED: [experts + 1] */
    const int32_t *pairs;   /* SORTED: or NULL: the sorted row's own number */
    int32_t expert_base, experts;
    int32_t top_k, in_per_pair;
    int32_t begin, end;           /* the pairs to take */
    int32_t sorted_limit;         /* entries that `pairs` has at most */
    int32_t capacity;             /* entries of the lists */
    const int32_t *m_dev;         /* or NULL: only pairs of the first *m_dev tokens */
    int32_t *first;               /* [experts + 1]: where each expert's entries begin */
    int32_t *out_rows;            /* [capacity]: the pair */
    int32_t *in_rows;             /* [capacity], or NULL: the row of in */
    uint8_t *present;             /* [end - begin], or NULL */
    int32_t *first_tile;          /* [experts + 1]; with tiles, and more than the small kernel's pairs */
    struct fmk_token_tile *tiles; /* [num_tiles], or NULL */
    int32_t num_tiles, tile;      /* tile: entries of one */
};

#endif
