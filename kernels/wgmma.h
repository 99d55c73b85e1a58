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
};

/* A block computes 64 r weight rows of each of its `groups` warpgroups by `tokens` tokens. Bytes of shared
 * memory: a stage of the ring, what a block has besides, the stages that fit, and the sum. */
#define FMK_WGMMA_STAGE(groups, r, tokens) ((tokens)*2 * FMK_WGMMA_K + (groups) * (r)*FMK_WGMMA_UNIT)
#define FMK_WGMMA_OUT(groups, r, tokens) ((groups) * (tokens) * (128 * (r) + 16))
#define FMK_WGMMA_REST(groups, r, tokens) (FMK_WGMMA_OUT(groups, r, tokens) + FMK_WGMMA_MOST_STAGES * 16 + 8)
#define FMK_WGMMA_FIT(groups, r, tokens)                                                                     \
    ((FMK_WGMMA_MOST_SHARED - FMK_WGMMA_REST(groups, r, tokens)) / FMK_WGMMA_STAGE(groups, r, tokens))
#define FMK_WGMMA_STAGES(groups, r, tokens)                                                                  \
    (FMK_WGMMA_FIT(groups, r, tokens) < FMK_WGMMA_MOST_STAGES ? FMK_WGMMA_FIT(groups, r, tokens)             \
                                                              : FMK_WGMMA_MOST_STAGES)
#define FMK_WGMMA_SHARED(groups, r, tokens)                                                                  \
    (FMK_WGMMA_STAGES(groups, r, tokens) * FMK_WGMMA_STAGE(groups, r, tokens) +                              \
     FMK_WGMMA_REST(groups, r, tokens))

/* Wide tiles (wgmma_wide.cuh), of so many warpgroups: bytes of a block's shared memory. Stages have 64 k of
 * activations, units 128 k of 64 rows for each warpgroup. */
enum {
    FMK_WIDE_UNITS = 3,
    FMK_WIDE_OUT_TOKENS = 32, /* of outputs on their way */
    FMK_WIDE_OUT_PITCH = 144, /* of a token's, for each warpgroup */
    FMK_WIDE_MOST_STAGES = 8,
};
#define FMK_WIDE_WEIGHTS(groups) ((groups)*FMK_WGMMA_UNIT)
#define FMK_WIDE_OUT(groups) ((groups)*FMK_WIDE_OUT_TOKENS * FMK_WIDE_OUT_PITCH)
#define FMK_WIDE_REST(groups)                                                                                \
    (FMK_WIDE_UNITS * (FMK_WIDE_WEIGHTS(groups) + 16) + FMK_WIDE_OUT(groups) + FMK_WIDE_MOST_STAGES * 16)
#define FMK_WIDE_ACTS(tokens) ((tokens)*2 * FMK_WGMMA_BOX)
#define FMK_WIDE_FIT(groups, tokens) ((FMK_WGMMA_MOST_SHARED - FMK_WIDE_REST(groups)) / FMK_WIDE_ACTS(tokens))
#define FMK_WIDE_STAGES(groups, tokens)                                                                      \
    (FMK_WIDE_FIT(groups, tokens) < FMK_WIDE_MOST_STAGES ? FMK_WIDE_FIT(groups, tokens)                      \
                                                         : FMK_WIDE_MOST_STAGES)
#define FMK_WIDE_SHARED(groups, tokens)                                                                      \
    (FMK_WIDE_STAGES(groups, tokens) * FMK_WIDE_ACTS(tokens) + FMK_WIDE_REST(groups))

/* Where units of K are dealt out (wgmma_deal.cuh): bytes of the workspace, for so many blocks. */
enum {
    FMK_WIDE_FLAGS = 4096,
    FMK_WIDE_MOST_BLOCKS = FMK_WIDE_FLAGS / 8,
    FMK_WIDE_SUMS = 128 * 256 * 4 /* of a block, at most */
};
#define FMK_WIDE_ROOM(blocks) (FMK_WIDE_FLAGS + (blocks)*FMK_WIDE_SUMS)

/* The kernels of each type of activations, by the rows and tokens of a tile. */
enum {
    FMK_WGMMA_128X16,
    FMK_WGMMA_256X16,
    FMK_WGMMA_512X16,
    FMK_WGMMA_128X32,
    FMK_WGMMA_256X32,
    FMK_WGMMA_128X64,
    FMK_WGMMA_256X64,
    FMK_WGMMA_128X128,
    FMK_WGMMA_256X128,
    FMK_WGMMA_WIDE, /* from here on wgmma_wide.cuh */
    FMK_WGMMA_WIDE_128X128 = FMK_WGMMA_WIDE,
    FMK_WGMMA_WIDE_128X144,
    FMK_WGMMA_WIDE_128X160,
    FMK_WGMMA_WIDE_128X192,
    FMK_WGMMA_WIDE_128X224,
    FMK_WGMMA_WIDE_128X256,
    FMK_WGMMA_WIDE_256X256, /* of two blocks */
    FMK_WGMMA_WIDE_192X64,
    FMK_WGMMA_WIDE_192X128,
    FMK_WGMMA_VARIANTS
};

/* A CUtensorMap. */
struct fmk_tensor_map {
    uint64_t words[16];
} __attribute__((aligned(64)));

/* linear.in, in_rows, tiles, planes and blockIdx.z are not looked at. */
struct fmk_wgmma_args {
    struct fmk_tensor_map in; /* [experts][m - first_row][k] */
    struct fmk_linear_kernel_args linear;
    const float
        *range[FMK_LAUNCH_PARTS]; /* struct fmk_range of each part, or NULL: scales go in as they are */
    void *room;      /* FMK_WIDE_ROOM bytes, of any content, where units of K are dealt out; or NULL */
    uint64_t nonce;  /* that no other launch has */
    int32_t experts; /* of BATCH from linear.expert on, else 1 */
};

#endif
