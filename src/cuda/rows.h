/* The launches around a product: see kernels/rows.h. */
#ifndef FMK_CUDA_ROWS_H
#define FMK_CUDA_ROWS_H

#include "../../kernels/rows.h"
#include "../context.h"

/* Kernels of one call, in their order on the stream. */
struct fmk_cuda_order {
    struct fmk_queue *queue;
    bool early; /* the next one may start before the one in front of it has ended */
};

/* `tiles` are looked at where args->rows has such; experts of BATCH. args->rows.block is set here. */
fmk_status fmk_cuda_gather_rows(struct fmk_cuda_order *order, struct fmk_gather_args *args, uint32_t tiles,
                                uint32_t experts);
fmk_status fmk_cuda_finish_rows(struct fmk_cuda_order *order, struct fmk_finish_args *args, uint32_t tiles,
                                uint32_t experts);
fmk_status fmk_cuda_reduce_rows(struct fmk_cuda_order *order, const struct fmk_reduce_args *args);
/* `small`: at most FMK_ROUTE_SMALL_PAIRS entries are looked at, and one kernel does it. */
fmk_status fmk_cuda_route_rows(struct fmk_cuda_order *order, const struct fmk_route_args *args, bool small);

/* A kernel of any module; the next may start early. */
fmk_status fmk_cuda_enqueue(struct fmk_cuda_order *order, int32_t module, int32_t kernel, uint32_t x,
                            uint32_t y, uint32_t z, uint32_t threads, const void *args);

#endif
