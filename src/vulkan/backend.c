/* Vulkan as a backend: contexts, queues, memory. */
#include "../error.h"
#include "../threads/threads.h"
#include "commands.h"
#include "linear.h"
#include "memory.h"
#include "plan.h"
#include "rows.h"
#include "staging.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING_BYTES = 64 << 20, MEMORY_ALIGN = 256 };

/* ---- open and close ---- */

static void release_all(struct fmk_context *ctx) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    fmk_vk_staging_close(ctx);
    fmk_vk_pipelines_close(ctx);
    fmk_vk_device_close(ctx);
    pthread_mutex_destroy(&vulkan->submit);
    pthread_mutex_destroy(&vulkan->staging_lock);
    pthread_mutex_destroy(&vulkan->blocks_lock);
    free(vulkan);
    ctx->device = NULL;
}

static fmk_status vulkan_open(struct fmk_context *ctx, const fmk_context_desc *desc) {
    struct fmk_vulkan *vulkan = calloc(1, sizeof *vulkan);
    if (!vulkan)
        return fmk_no_memory(sizeof *vulkan, "a Vulkan context");
    ctx->device = vulkan;
    vulkan->staging_bytes = desc->staging_bytes ? desc->staging_bytes : STAGING_BYTES;
    pthread_mutex_init(&vulkan->submit, NULL);
    pthread_mutex_init(&vulkan->staging_lock, NULL);
    pthread_mutex_init(&vulkan->blocks_lock, NULL);
    fmk_status status = fmk_vk_device_open(ctx, desc);
    if (!status)
        status = fmk_vk_pipelines_open(ctx, desc->pipeline_cache, desc->pipeline_cache_size);
    if (!status)
        status = fmk_threads_open(ctx, desc->cpu_threads);
    if (status)
        release_all(ctx);
    return status;
}

static void vulkan_close(struct fmk_context *ctx) {
    fmk_threads_close(ctx);
    release_all(ctx);
}

static const fmk_vulkan_device *handles(struct fmk_context *ctx) {
    return &fmk_vulkan_of(ctx)->handles;
}

/* ---- queues ---- */

static fmk_status check_native(struct fmk_context *ctx, void *native) {
    (void)native; /* a VkCommandBuffer tells nothing */
    return fmk_vk_check_device(ctx);
}

/* ---- memory ---- */

/* What the library has allocated, by the VkBuffer that stands for it. */
struct fmk_vk_block {
    struct fmk_vk_buffer buffer;
    struct fmk_vk_block *next;
};

static uint64_t handle_of(const struct fmk_vk_buffer *buffer) {
    uint64_t handle = 0;
    memcpy(&handle, &buffer->buffer, sizeof buffer->buffer); /* a pointer on some machines, else a number */
    return handle;
}

static fmk_status device_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align,
                               uint64_t *out) {
    (void)native, (void)align; /* memory of its own begins at more than MEMORY_ALIGN */
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    struct fmk_vk_block *block = calloc(1, sizeof *block);
    if (!block)
        return fmk_no_memory(sizeof *block, "packed weights");
    fmk_status status = fmk_vk_buffer_make(ctx, size, false, "packed weights on the device", &block->buffer);
    if (status) {
        free(block);
        return status;
    }
    pthread_mutex_lock(&vulkan->blocks_lock);
    block->next = vulkan->blocks;
    vulkan->blocks = block;
    pthread_mutex_unlock(&vulkan->blocks_lock);
    *out = handle_of(&block->buffer);
    return FMK_OK;
}

static void device_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size) {
    (void)native, (void)size;
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    pthread_mutex_lock(&vulkan->blocks_lock);
    struct fmk_vk_block **at = &vulkan->blocks;
    while (*at && handle_of(&(*at)->buffer) != handle)
        at = &(*at)->next;
    struct fmk_vk_block *block = *at;
    if (block)
        *at = block->next;
    pthread_mutex_unlock(&vulkan->blocks_lock);
    if (block && !fmk_context_alive(ctx)) /* else a forked child: the driver is the parent's */
        fmk_vk_buffer_free(ctx, &block->buffer);
    free(block);
}

const struct fmk_backend_row fmk_vulkan_backend = {
    .id = FMK_BACKEND_VULKAN,
    .open = vulkan_open,
    .close = vulkan_close,
    .check_device = fmk_vk_check_device,
    .check_native = check_native,
    .queue_open = fmk_vk_queue_open,
    .queue_close = fmk_vk_queue_close,
    .vulkan = handles,
    .pipeline_cache = fmk_vk_pipelines_save,
    .queue_wait = fmk_vk_queue_wait,
    .address = fmk_vk_address,
    .memory = FMK_MEM_DEVICE,
    .alloc = device_alloc,
    .release = device_release,
    .storage_align = MEMORY_ALIGN,
    .borrows = fmk_vk_borrows,
    .borrow = fmk_vk_borrow,
    .unborrow = fmk_vk_unborrow,
    .check_tensor = fmk_vk_check_tensor,
    .fill = fmk_vk_fill,
    .write = fmk_vk_write,
    .read = fmk_vk_read,
    .retire = fmk_vk_retire,
    .prepare = fmk_vk_prepare,
    .workspace = fmk_vk_workspace,
    .linear = fmk_vk_linear,
    .rows = fmk_vk_rows,
    .dequantize = fmk_vk_dequantize,
    .route_sort = fmk_vk_route_sort,
};
