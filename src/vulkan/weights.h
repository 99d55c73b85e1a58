/* Weights into a device's memory, and out of it: the functions of fmk_backend_row. All of them wait. */
#ifndef FMK_VULKAN_WEIGHTS_H
#define FMK_VULKAN_WEIGHTS_H

#include "../context.h"
#include "../plan/fill.h"

bool fmk_vk_borrows(struct fmk_context *ctx, const fmk_tensor *tensor);
fmk_status fmk_vk_borrow(struct fmk_context *ctx, uint64_t at, uint64_t size, uint64_t *address, void **held);
void fmk_vk_unborrow(struct fmk_context *ctx, void *held);
fmk_status fmk_vk_check_tensor(struct fmk_context *ctx, const char *name, const fmk_tensor *tensor);
fmk_status fmk_vk_fill(struct fmk_queue *queue, const struct fmk_fill *fill);
fmk_status fmk_vk_write(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                        struct fmk_progress *progress);
fmk_status fmk_vk_read(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                       uint64_t stride, uint64_t rows);
void fmk_vk_retire(struct fmk_context *ctx, struct fmk_queue *queue, void *pending);

#endif
