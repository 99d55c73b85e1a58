/* Weights into a device's memory, and out of it: functions of fmk_backend_row. */
#ifndef FMK_CUDA_WEIGHTS_H
#define FMK_CUDA_WEIGHTS_H

#include "../context.h"

bool fmk_cuda_borrows(struct fmk_context *ctx, const fmk_tensor *tensor);
fmk_status fmk_cuda_check_tensor(struct fmk_context *ctx, const char *name, const fmk_tensor *tensor);
fmk_status fmk_cuda_check_queue(struct fmk_queue *queue);
fmk_status fmk_cuda_fill(struct fmk_queue *queue, const struct fmk_fill *fill);
fmk_status fmk_cuda_write(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                          struct fmk_progress *progress);
fmk_status fmk_cuda_read(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                         uint64_t stride, uint64_t rows);
fmk_status fmk_cuda_weight_finish(struct fmk_queue *queue, void **pending);
fmk_status fmk_cuda_weight_ready(struct fmk_context *ctx, void *pending, bool wait);
void fmk_cuda_weight_retire(struct fmk_context *ctx, struct fmk_queue *queue, void *pending);

#endif
