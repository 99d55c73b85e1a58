/* The way of bytes between the host and the device: two slots of memory that both reach, each with a command
 * buffer. One is filled while a kernel copies the other. One pair a context, made when it is first needed,
 * and used by one thread at a time. */
#ifndef FMK_VULKAN_STAGING_H
#define FMK_VULKAN_STAGING_H

#include "commands.h"

struct fmk_vk_stage {
    struct fmk_context *ctx;
    struct fmk_vk_staging *staging;
};

/* Takes the pair, makes it unless it is there; and gives it back when all that was sent has arrived. */
fmk_status fmk_vk_stage_begin(struct fmk_context *ctx, struct fmk_vk_stage *stage);
fmk_status fmk_vk_stage_end(struct fmk_vk_stage *stage, fmk_status status);

/* Bytes of a slot. */
uint64_t fmk_vk_stage_size(const struct fmk_vk_stage *stage);
/* The next slot, free to be written. */
fmk_status fmk_vk_stage_take(struct fmk_vk_stage *stage, uint8_t **host);
/* The first `bytes` of the slot to the device. */
fmk_status fmk_vk_stage_send(struct fmk_vk_stage *stage, uint64_t to, uint64_t bytes);
/* Bytes of the host, however many; they are free when it returns. */
fmk_status fmk_vk_stage_upload(struct fmk_vk_stage *stage, uint64_t to, const void *from, uint64_t bytes);
/* Rows of the device to the host, one behind the other; waits. */
fmk_status fmk_vk_stage_download(struct fmk_vk_stage *stage, void *to, uint64_t from, uint64_t width,
                                 uint64_t stride, uint64_t rows);
/* On the device. */
fmk_status fmk_vk_stage_move(struct fmk_vk_stage *stage, uint64_t to, uint64_t from, uint64_t bytes);

/* When the context goes. */
void fmk_vk_staging_close(struct fmk_context *ctx);

#endif
