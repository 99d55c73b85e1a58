/* What a call records: into the caller's command buffer, or into one of the queue's own, which is submitted
 * at its end. Or nothing: fmk_prepare goes through the same steps and makes the pipelines that they want. */
#ifndef FMK_VULKAN_COMMANDS_H
#define FMK_VULKAN_COMMANDS_H

#include "pipelines.h"

struct fmk_vk_order {
    struct fmk_queue *queue;
    bool prepare;             /* make pipelines, record nothing */
    VkCommandBuffer commands; /* not with `prepare` */
    struct fmk_vk_slot *slot; /* the queue's own, or NULL */
    bool wrote;               /* something is recorded that a barrier would be for */
};

/* The queue's part that is ours (fmk_queue.device), and its end, which waits for what is in flight. */
fmk_status fmk_vk_queue_open(struct fmk_queue *queue);
void fmk_vk_queue_close(struct fmk_queue *queue);
/* Waits for all that the queue submitted; of what was recorded into the caller's command buffers it knows
 * nothing. */
fmk_status fmk_vk_queue_wait(struct fmk_queue *queue);
/* Likewise, but for its last few submissions. */
fmk_status fmk_vk_queue_wait_but(struct fmk_queue *queue, int32_t last);

/* Begins a call: what was recorded or submitted before it is visible to it. */
fmk_status fmk_vk_begin(struct fmk_queue *queue, bool prepare, struct fmk_vk_order *order);
/* What was dispatched so far is visible to what comes. */
void fmk_vk_barrier(struct fmk_vk_order *order);
fmk_status fmk_vk_dispatch(struct fmk_vk_order *order, const struct fmk_vk_kernel *kernel, uint32_t x,
                           uint32_t y, const void *args, size_t args_size);
/* Ends it, and where the command buffer is the queue's own submits it, unless `status` is a failure: then
 * nothing of it runs. Answers `status`, or what went wrong now. */
fmk_status fmk_vk_end(struct fmk_vk_order *order, fmk_status status);

#endif
