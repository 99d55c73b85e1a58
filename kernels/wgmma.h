/* Arguments of the wgmma kernels, and what host and kernels agree on. */
#ifndef FMK_KERNELS_WGMMA_H
#define FMK_KERNELS_WGMMA_H

#include "args.h"
#include "layout.h"

enum {
    FMK_WGMMA_K = FMK_INT4_UNIT_K, /* of a stage of the ring */
    FMK_WGMMA_BOX = 64, /* k of a box of activations, or half a box: 128 bytes, as many as a swizzle spans */
    FMK_WGMMA_BOX_TOKENS = 32,           /* of it, where a tile has more */
    FMK_WGMMA_UNIT = FMK_T64_UNIT(1, 1), /* room for the largest unit of weights */
    FMK_WGMMA_MOST_STAGES = 16,
    FMK_WGMMA_SHARED = 227 << 10, /* bytes, all that a block of compute capability 9.0 may have */
    FMK_WGMMA_MOST_CLUSTER = 8,   /* blocks */
    FMK_WGMMA_FETCHING = 128,     /* threads that fetch, and store */
    FMK_WGMMA_TOGETHER = 16,      /* tiles of tokens that take turns with the same weights */
};

/* Where units of K are dealt out (wgmma_deal.cuh): bytes of the workspace, for so many blocks. */
enum {
    FMK_WIDE_FLAGS = 4096,
    FMK_WIDE_MOST_BLOCKS = FMK_WIDE_FLAGS / 8,
    FMK_WIDE_SUMS = 128 * 256 * 4 /* of a block, at most */
};
#define FMK_WIDE_ROOM(blocks) (FMK_WIDE_FLAGS + (blocks)*FMK_WIDE_SUMS)

/* The kernels of each type of activations, by the rows and tokens of a tile. */
enum {
    FMK_WGMMA_64X16,
    FMK_WGMMA_128X16,
    FMK_WGMMA_256X16,
    FMK_WGMMA_512X16,
    FMK_WGMMA_64X32,
    FMK_WGMMA_128X32,
    FMK_WGMMA_256X32,
    FMK_WGMMA_128X64,
    FMK_WGMMA_256X64,
    FMK_WGMMA_128X128,
    FMK_WGMMA_WIDE, /* from here on wgmma_wide.cuh */
    FMK_WGMMA_WIDE_128X128 = FMK_WGMMA_WIDE,
    FMK_WGMMA_WIDE_128X144,
    FMK_WGMMA_WIDE_128X160,
    FMK_WGMMA_WIDE_128X192,
    FMK_WGMMA_WIDE_128X224,
    FMK_WGMMA_WIDE_256X256, /* of two blocks */
    FMK_WGMMA_WIDE_192X128,
    FMK_WGMMA_VARIANTS
};

/* A CUtensorMap. */
struct fmk_tensor_map {
    uint64_t words[16];
} __attribute__((aligned(64)));

/* The tiles of a launch. `per_row`: of tiles of tokens 1, where all of them take turns with a row of weights;
 * 0 where it is not so simple. */
struct fmk_wgmma_walk {
    int32_t row_tiles, token_tiles, tiles, tokens; /* tiles of all experts */
    float per_row;
};

/* struct fmk_wgmma_start's flags. */
enum {
    FMK_WGMMA_EARLY = 1, /* which tiles there are is certain, and the first part's weights begin at `data` */
    FMK_WGMMA_AHEAD = 2, /* the kernel before may still run: weights are fetched before activations can be */
    FMK_WGMMA_PAIRS = 4, /* a box of activations is 128 k: the matrix is [k / 64] of [rows][64] */
    FMK_WGMMA_GLU = 8,   /* the rows of a tile are those of gate, and of up */
};

/* What is wanted before the first copy, in a line of constants. */
struct fmk_wgmma_start {
    const uint8_t *data; /* of the first part's first expert */
    uint64_t stride;     /* as in struct fmk_linear_part */
    int32_t bytes;       /* of its units */
    int32_t last;        /* block of 64 of its rows */
    int32_t row_tiles;   /* of it */
    struct fmk_wgmma_walk walk;
    int32_t units, share; /* of K; what a block of a cluster takes of them */
    float per_block;      /* of blocks of a cluster 1 */
    int32_t flags;
} __attribute__((aligned(64)));

/* linear.in, in_rows, tiles, planes and blockIdx.z are not looked at. */
struct fmk_wgmma_args {
    struct fmk_wgmma_start start;
    struct fmk_tensor_map in; /* [experts][1 or k / 64][m - first_row][k or 64] */
    struct fmk_linear_kernel_args linear;
    const float
        *range[FMK_LAUNCH_PARTS]; /* struct fmk_range of each part, or NULL: scales go in as they are */
    void *room;      /* FMK_WIDE_ROOM bytes, of any content, where units of K are dealt out; or NULL */
    uint64_t nonce;  /* that no other launch has */
    int32_t experts; /* of BATCH from linear.expert on, else 1 */
};

#endif
