/* Products by the wgmma kernels (kernels/wgmma.cuh): how one is cut, as a pure function, and its launch. */
#ifndef FMK_CUDA_WGMMA_H
#define FMK_CUDA_WGMMA_H

#include "../../kernels/wgmma.h"
#include "rows.h"

enum { FMK_WGMMA_DEAL_M = 65 /* with fewer tokens, tiles are small enough as they are */ };

struct fmk_wgmma_problem {
    const struct fmk_linear_part *parts;
    int32_t num_parts;
    bool glu;              /* gate and up meet in the kernel */
    int64_t k, m, experts; /* k in packed order; m and experts of one launch */
    int32_t multiprocessors;
    bool room; /* there is FMK_WIDE_ROOM to deal units of K out */
};

/* How it is cut. */
struct fmk_wgmma_cut {
    int32_t variant; /* FMK_WGMMA_64X16 .. */
    int32_t cluster; /* blocks that share K */
    bool dealt;      /* units of K are dealt out */
    uint32_t blocks;
    double clocks; /* that it takes, as far as the model goes */
};

/* The candidate that the model takes to be the fastest. */
struct fmk_wgmma_cut fmk_wgmma_choose(const struct fmk_wgmma_problem *problem);

/* Bytes of workspace with which products by so many tokens are faster, or 0. */
uint64_t fmk_wgmma_room(int64_t m, int32_t multiprocessors);

/* Rows first_row .. m-1 of a call; of `args` linear, range, experts and room are filled in. The caller has
 * entered. */
fmk_status fmk_wgmma_launch(struct fmk_cuda_order *order, struct fmk_wgmma_args *args);
/* The same, cut so. */
fmk_status fmk_wgmma_launch_cut(struct fmk_cuda_order *order, struct fmk_wgmma_args *args,
                                const struct fmk_wgmma_cut *cut);

#endif
