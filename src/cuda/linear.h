/* One linear call on CUDA: the functions of fmk_backend_row. All of them only enqueue, but for prepare. */
#ifndef FMK_CUDA_LINEAR_H
#define FMK_CUDA_LINEAR_H

#include "../context.h"
#include "../plan/call.h"

/* Loads every module, and makes the cuBLAS handle, that a call of any m up to call's may want. */
fmk_status fmk_cuda_prepare(struct fmk_queue *queue, const struct fmk_projection *w,
                            const struct fmk_call *call);
void fmk_cuda_workspace(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                        uint64_t *least, uint64_t *best);
fmk_status fmk_cuda_linear(struct fmk_queue *queue, const struct fmk_projection *w,
                           const struct fmk_call *call);
fmk_status fmk_cuda_route_sort(struct fmk_queue *queue, const fmk_routing *ids, int64_t m,
                               int32_t num_experts, const fmk_routing *out);

#endif
