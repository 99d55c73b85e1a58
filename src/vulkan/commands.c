#include "commands.h"

#include "../error.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- command buffers and their fences, one after the other ---- */

enum { RING = 32 };

struct fmk_vk_slot {
    VkCommandBuffer commands;
    VkFence fence;
    bool submitted; /* the fence has been, or will be, signalled */
};

struct ring {
    VkCommandPool pool;
    int32_t next;
    struct fmk_vk_slot slots[RING];
};

static fmk_status ring_open(struct fmk_context *ctx, struct ring *ring) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                    .queueFamilyIndex = vulkan->handles.queue_family};
    VkCommandBuffer commands[RING];
    VkResult result = vulkan->vk.CreateCommandPool(vulkan->device, &pool, NULL, &ring->pool);
    if (!result) {
        VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                                .commandPool = ring->pool,
                                                .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                                .commandBufferCount = RING};
        result = vulkan->vk.AllocateCommandBuffers(vulkan->device, &allocate, commands);
    }
    for (int i = 0; !result && i < RING; i++) {
        VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        ring->slots[i].commands = commands[i];
        result = vulkan->vk.CreateFence(vulkan->device, &fence, NULL, &ring->slots[i].fence);
    }
    return fmk_vk_check(ctx, result, "making command buffers");
}

static fmk_status wait(struct fmk_context *ctx, struct fmk_vk_slot *slot) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    if (!slot->submitted)
        return FMK_OK;
    VkResult result = vulkan->vk.WaitForFences(vulkan->device, 1, &slot->fence, VK_TRUE, UINT64_MAX);
    if (!result)
        result = vulkan->vk.ResetFences(vulkan->device, 1, &slot->fence);
    slot->submitted = result != VK_SUCCESS && result != VK_ERROR_DEVICE_LOST;
    return fmk_vk_check(ctx, result, "waiting for the device");
}

/* For all but the last few. */
static fmk_status ring_wait(struct fmk_context *ctx, struct ring *ring, int32_t last) {
    fmk_status status = FMK_OK;
    for (int32_t i = 0; i < RING - last; i++) {
        fmk_status one = wait(ctx, &ring->slots[(ring->next + i) % RING]);
        status = status ? status : one;
    }
    return status;
}

static void ring_close(struct fmk_context *ctx, struct ring *ring) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    ring_wait(ctx, ring, 0);
    for (int i = 0; i < RING; i++)
        if (ring->slots[i].fence)
            vulkan->vk.DestroyFence(vulkan->device, ring->slots[i].fence, NULL);
    if (ring->pool)
        vulkan->vk.DestroyCommandPool(vulkan->device, ring->pool, NULL);
}

/* ---- queues ---- */

static struct ring *ring_of(const struct fmk_queue *queue) {
    return queue->device;
}

fmk_status fmk_vk_queue_open(struct fmk_queue *queue) {
    fmk_status status = fmk_vk_check_device(queue->ctx);
    if (status)
        return status;
    struct ring *ring = calloc(1, sizeof *ring);
    if (!ring)
        return fmk_no_memory(sizeof *ring, "a queue");
    queue->device = ring;
    status = ring_open(queue->ctx, ring);
    if (status) {
        char sentence[256];
        snprintf(sentence, sizeof sentence, "%s", fmk_last_error());
        fmk_vk_queue_close(queue);
        return fmk_fail(status, "%s", sentence);
    }
    return FMK_OK;
}

void fmk_vk_queue_close(struct fmk_queue *queue) {
    struct ring *ring = ring_of(queue);
    if (!fmk_context_alive(queue->ctx)) /* else a forked child: the driver is the parent's */
        ring_close(queue->ctx, ring);
    free(ring);
    queue->device = NULL;
}

fmk_status fmk_vk_queue_wait_but(struct fmk_queue *queue, int32_t last) {
    return ring_wait(queue->ctx, ring_of(queue), last);
}

fmk_status fmk_vk_queue_wait(struct fmk_queue *queue) {
    return fmk_vk_queue_wait_but(queue, 0);
}

/* ---- recording ---- */

static void barrier(const struct fmk_vk_order *order, VkPipelineStageFlags from, VkAccessFlags written,
                    VkPipelineStageFlags to, VkAccessFlags wanted) {
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = written, .dstAccessMask = wanted};
    fmk_vulkan_of(order->queue->ctx)
        ->vk.CmdPipelineBarrier(order->commands, from, to, 0, 1, &memory, 0, NULL, 0, NULL);
}

static fmk_status take_slot(struct fmk_vk_order *order) {
    struct fmk_context *ctx = order->queue->ctx;
    struct ring *ring = ring_of(order->queue);
    struct fmk_vk_slot *slot = &ring->slots[ring->next];
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    fmk_status status = wait(ctx, slot);
    if (!status)
        status = fmk_vk_check(ctx, fmk_vulkan_of(ctx)->vk.BeginCommandBuffer(slot->commands, &begin),
                              "beginning a command buffer");
    if (status)
        return status;
    ring->next = (ring->next + 1) % RING;
    order->slot = slot;
    order->commands = slot->commands;
    return FMK_OK;
}

fmk_status fmk_vk_begin(struct fmk_queue *queue, bool prepare, struct fmk_vk_order *order) {
    *order = (struct fmk_vk_order){.queue = queue, .prepare = prepare, .commands = queue->native};
    fmk_status status = fmk_vk_check_device(queue->ctx);
    if (!status && !prepare && !queue->native)
        status = take_slot(order);
    if (!status && !prepare)
        barrier(order, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_ACCESS_MEMORY_WRITE_BIT,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    return status;
}

void fmk_vk_barrier(struct fmk_vk_order *order) {
    if (order->wrote && !order->prepare)
        barrier(order, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    order->wrote = false;
}

fmk_status fmk_vk_dispatch(struct fmk_vk_order *order, const struct fmk_vk_kernel *kernel, uint32_t x,
                           uint32_t y, const void *args, size_t args_size) {
    struct fmk_context *ctx = order->queue->ctx;
    const struct fmk_vk_functions *vk = &fmk_vulkan_of(ctx)->vk;
    if (order->prepare)
        return fmk_vk_pipeline_make(ctx, kernel);
    VkPipeline pipeline = fmk_vk_pipeline_find(ctx, kernel);
    if (!pipeline)
        return fmk_fail(FMK_ENOTPREPARED,
                        "the pipeline %s has not been made; call fmk_prepare with this weight and arguments "
                        "first",
                        fmk_vk_module_name(kernel->module));
    vk->CmdBindPipeline(order->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    vk->CmdPushConstants(order->commands, fmk_vk_pipeline_layout(ctx), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         (uint32_t)args_size, args);
    vk->CmdDispatch(order->commands, x, y, 1);
    order->wrote = true;
    return FMK_OK;
}

fmk_status fmk_vk_end(struct fmk_vk_order *order, fmk_status status) {
    struct fmk_context *ctx = order->queue->ctx;
    if (order->prepare || !order->commands)
        return status;
    barrier(order, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT,
            VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_READ_BIT);
    if (!order->slot)
        return status;
    VkResult result = fmk_vulkan_of(ctx)->vk.EndCommandBuffer(order->commands);
    if (status)
        return status;
    status = fmk_vk_check(ctx, result, "ending a command buffer");
    if (!status)
        status = fmk_vk_submit(ctx, order->commands, order->slot->fence);
    order->slot->submitted = !status;
    return status;
}
