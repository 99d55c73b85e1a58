/* Arguments of the wgmma kernels, and what host and kernels agree on. */
#ifndef FMK_KERNELS_WGMMA_H
#define FMK_KERNELS_WGMMA_H

#include "args.h"
#include "layout.h"

enum {
    FMK_WGMMA_K = FMK_INT4_UNIT_K, /* of a stage of the ring */
    FMK_WGMMA_BOX = 64,            /* k of a box of activations: 128 bytes, as many as a swizzle spans */
    FMK_WGMMA_BOX_TOKENS = 32,     /* of it, where a tile has more */
    FMK_WGMMA_UNIT = FMK_T64_UNIT(1, 1), /* room for the largest unit of weights */
    FMK_WGMMA_MOST_STAGES = 16,
    FMK_WGMMA_MOST_SHARED = 227 << 10, /* bytes that a block of compute capability 9.0 may have */
    FMK_WGMMA_MOST_CLUSTER = 8,        /* blocks */
    FMK_WGMMA_FETCHING = 128,          /* threads that fetch, and store */
    FMK_WGMMA_TOGETHER = 16,           /* tiles of tokens that take turns with the same weights */
    FMK_WGMMA_PIECE = 512,             /* bytes of 16 rows by 8 tokens of sums */
    FMK_WGMMA_BARRIERS = 16 * FMK_WGMMA_MOST_STAGES + 16, /* bytes */
    FMK_WGMMA_OVER_RING = 128, /* tokens of a tile from which on shared sums lie over the ring */
};

/* A block's warpgroups, `groups` of them, compute 64 r weight rows each by `tokens` tokens; or the same 64 r
 * rows, of which each takes every so-manieth unit of K. Bytes of shared memory: a stage of the ring, of
 * `units` units of weights; outputs on their way; the sums that meet in a block where some are shared, a
 * piece of 16 r rows by 8 tokens from each of `sources` of a block (they lie over the ring where tiles are
 * large); both, which are never there at once, and barriers; the stages that fit, and the sum. */
#define FMK_WGMMA_STAGE(units, tokens) ((tokens)*2 * FMK_WGMMA_K + (units)*FMK_WGMMA_UNIT)
#define FMK_WGMMA_OUT(groups, r, tokens) ((groups) * (tokens) * (128 * (r) + 16))
#define FMK_WGMMA_SUMS(warps, sources, r, tokens)                                                            \
    (((warps) * (tokens) / 8 + FMK_WGMMA_MOST_CLUSTER - 1) * (sources) * (r)*FMK_WGMMA_PIECE)
#define FMK_WGMMA_LARGER(a, b) ((a) > (b) ? (a) : (b))
#define FMK_WGMMA_FIT(rest, units, tokens) ((FMK_WGMMA_MOST_SHARED - (rest)) / FMK_WGMMA_STAGE(units, tokens))
#define FMK_WGMMA_STAGES(rest, units, tokens)                                                                \
    (FMK_WGMMA_FIT(rest, units, tokens) < FMK_WGMMA_MOST_STAGES ? FMK_WGMMA_FIT(rest, units, tokens)         \
                                                                : FMK_WGMMA_MOST_STAGES)
#define FMK_WGMMA_REST(groups, r, tokens)                                                                    \
    (FMK_WGMMA_BARRIERS +                                                                                    \
     ((tokens) >= FMK_WGMMA_OVER_RING                                                                        \
          ? FMK_WGMMA_OUT(groups, r, tokens)                                                                 \
          : FMK_WGMMA_LARGER(FMK_WGMMA_OUT(groups, r, tokens), FMK_WGMMA_SUMS(4 * (groups), 1, r, tokens))))
#define FMK_WGMMA_REST_DEEP(groups, r, tokens) (FMK_WGMMA_BARRIERS + FMK_WGMMA_SUMS(4, groups, r, tokens))
#define FMK_WGMMA_SIZE(rest, units, tokens)                                                                  \
    (FMK_WGMMA_STAGES(rest, units, tokens) * FMK_WGMMA_STAGE(units, tokens) + (rest))
#define FMK_WGMMA_SHARED(groups, r, tokens)                                                                  \
    FMK_WGMMA_SIZE(FMK_WGMMA_REST(groups, r, tokens), (groups) * (r), tokens)
#define FMK_WGMMA_SHARED_DEEP(groups, r, tokens)                                                             \
    FMK_WGMMA_SIZE(FMK_WGMMA_REST_DEEP(groups, r, tokens), r, tokens)

/* The kernels of each type of activations, by the rows and tokens of a tile. */
enum {
    FMK_WGMMA_64X16,   /* its warpgroups share K */
    FMK_WGMMA_64X16_4, /* four of them */
    FMK_WGMMA_128X16,
    FMK_WGMMA_256X16,
    FMK_WGMMA_512X16,
    FMK_WGMMA_128X32,
    FMK_WGMMA_256X32,
    FMK_WGMMA_128X64,
    FMK_WGMMA_256X64,
    FMK_WGMMA_128X128,
    FMK_WGMMA_256X128,
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

/* What is wanted before the first copy, in a line of constants. */
struct fmk_wgmma_start {
    const uint8_t *data; /* of the first part's first expert */
    uint64_t stride;     /* as in struct fmk_linear_part */
    int32_t bytes;       /* of its units */
    int32_t last;        /* block of 64 of its rows */
    int32_t row_tiles;   /* of it */
    int32_t early_tiles; /* as many, if it is certain that they are wanted; else 0 */
    struct fmk_wgmma_walk walk;
    int32_t units, share; /* of K; what a block of a cluster takes of them */
    float per_block;      /* of blocks of a cluster 1 */
} __attribute__((aligned(64)));

/* linear.in, in_rows, tiles, planes and blockIdx.z are not looked at. */
struct fmk_wgmma_args {
    struct fmk_wgmma_start start;
    struct fmk_tensor_map in; /* [experts][m - first_row][k] */
    struct fmk_linear_kernel_args linear;
    const float
        *range[FMK_LAUNCH_PARTS]; /* struct fmk_range of each part, or NULL: scales go in as they are */
    int32_t experts;              /* of BATCH from linear.expert on, else 1 */
};

#endif
