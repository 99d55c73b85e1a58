/* Weights into the memory of the CPU, and out of it: the functions of fmk_backend_row. */
#ifndef FMK_CPU_WEIGHTS_H
#define FMK_CPU_WEIGHTS_H

#include "../context.h"

bool fmk_cpu_borrows(struct fmk_context *ctx, const fmk_tensor *tensor);
fmk_status fmk_cpu_fill(struct fmk_queue *queue, const struct fmk_fill *fill);
fmk_status fmk_cpu_write(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                         struct fmk_progress *progress);
fmk_status fmk_cpu_read(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                        uint64_t stride, uint64_t rows);

#endif
