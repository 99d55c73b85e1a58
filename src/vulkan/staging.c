#include "staging.h"

#include "../error.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2, LEAST_SLOT = 256 << 10, COPY_THREADS = 128, MOST_GROUPS = 65535 };

struct fmk_vk_staging {
    struct fmk_vk_buffer memory; /* of both slots */
    uint64_t slot_bytes;
    int slot;               /* that was taken last */
    struct fmk_queue queue; /* whose ring's command buffers are the slots' */
};

static struct fmk_vk_kernel copy_kernel(void) {
    struct fmk_vk_kernel kernel = {.module = FMK_VK_COPY};
    kernel.constants[FMK_VK_SPEC_THREADS] = COPY_THREADS;
    return kernel;
}

/* ---- the pair ---- */

static void staging_free(struct fmk_context *ctx, struct fmk_vk_staging *staging) {
    if (staging->queue.device)
        fmk_vk_queue_close(&staging->queue);
    fmk_vk_buffer_free(ctx, &staging->memory);
    free(staging);
}

static fmk_status staging_new(struct fmk_context *ctx, struct fmk_vk_staging **out) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    struct fmk_vk_staging *staging = calloc(1, sizeof *staging);
    if (!staging)
        return fmk_no_memory(sizeof *staging, "staging");
    staging->queue.ctx = ctx;
    staging->slot_bytes = vulkan->staging_bytes / SLOTS / 4096 * 4096;
    if (staging->slot_bytes < LEAST_SLOT)
        staging->slot_bytes = LEAST_SLOT;
    struct fmk_vk_kernel kernel = copy_kernel();
    fmk_status status = fmk_vk_buffer_make(ctx, SLOTS * staging->slot_bytes, true,
                                           "staging (staging_bytes of host memory)", &staging->memory);
    if (!status)
        status = fmk_vk_queue_open(&staging->queue);
    if (!status)
        status = fmk_vk_pipeline_make(ctx, &kernel);
    if (status) {
        char sentence[512];
        snprintf(sentence, sizeof sentence, "%s", fmk_last_error());
        staging_free(ctx, staging);
        return fmk_fail(status, "%s", sentence);
    }
    *out = staging;
    return FMK_OK;
}

fmk_status fmk_vk_stage_begin(struct fmk_context *ctx, struct fmk_vk_stage *stage) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    stage->ctx = ctx;
    stage->staging = NULL;
    fmk_status status = fmk_vk_check_device(ctx);
    if (status)
        return status;
    pthread_mutex_lock(&vulkan->staging_lock);
    if (!vulkan->staging)
        status = staging_new(ctx, &vulkan->staging);
    stage->staging = vulkan->staging;
    if (status)
        pthread_mutex_unlock(&vulkan->staging_lock);
    return status;
}

fmk_status fmk_vk_stage_end(struct fmk_vk_stage *stage, fmk_status status) {
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", fmk_last_error());
    fmk_status last = fmk_vk_queue_wait(&stage->staging->queue); /* copies must not outlive what they write */
    pthread_mutex_unlock(&fmk_vulkan_of(stage->ctx)->staging_lock);
    if (status && last)
        return fmk_fail(status, "%s", sentence);
    return status ? status : last;
}

void fmk_vk_staging_close(struct fmk_context *ctx) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    if (!vulkan->staging)
        return;
    if (fmk_context_alive(ctx)) { /* a forked child: the driver is the parent's */
        free(vulkan->staging->queue.device);
        free(vulkan->staging);
    } else {
        staging_free(ctx, vulkan->staging);
    }
    vulkan->staging = NULL;
}

/* ---- copies ---- */

static uint32_t unit_of(uint64_t places) {
    return places % 16 == 0 ? 16 : places % 4 == 0 ? 4 : 1;
}

static fmk_status copy_rows(struct fmk_vk_stage *stage, uint64_t to, uint64_t to_stride, uint64_t from,
                            uint64_t from_stride, uint64_t bytes, uint64_t rows) {
    struct fmk_vk_kernel kernel = copy_kernel();
    struct fmk_vk_copy_args args = {
        .from = from,
        .to = to,
        .from_stride = from_stride,
        .to_stride = to_stride,
        .bytes = bytes,
        .rows = (uint32_t)rows,
        .unit = unit_of(from | to | bytes | (rows > 1 ? from_stride | to_stride : 0)),
    };
    uint64_t groups = (bytes / args.unit + COPY_THREADS - 1) / COPY_THREADS;
    struct fmk_vk_order order;
    fmk_status status = fmk_vk_begin(&stage->staging->queue, false, &order);
    if (!status)
        status = fmk_vk_dispatch(&order, &kernel, (uint32_t)(groups < MOST_GROUPS ? groups : MOST_GROUPS),
                                 (uint32_t)(rows < MOST_GROUPS ? rows : MOST_GROUPS), &args, sizeof args);
    return fmk_vk_end(&order, status);
}

uint64_t fmk_vk_stage_size(const struct fmk_vk_stage *stage) {
    return stage->staging->slot_bytes;
}

static uint64_t slot_offset(const struct fmk_vk_stage *stage) {
    return (uint64_t)stage->staging->slot * stage->staging->slot_bytes;
}

fmk_status fmk_vk_stage_take(struct fmk_vk_stage *stage, uint8_t **host) {
    struct fmk_vk_staging *staging = stage->staging;
    staging->slot = (staging->slot + 1) % SLOTS;
    *host = (uint8_t *)staging->memory.mapped + slot_offset(stage);
    return fmk_vk_queue_wait_but(&staging->queue, SLOTS - 1);
}

fmk_status fmk_vk_stage_send(struct fmk_vk_stage *stage, uint64_t to, uint64_t bytes) {
    return copy_rows(stage, to, bytes, stage->staging->memory.address + slot_offset(stage), bytes, bytes, 1);
}

fmk_status fmk_vk_stage_upload(struct fmk_vk_stage *stage, uint64_t to, const void *from, uint64_t bytes) {
    fmk_status status = FMK_OK;
    for (uint64_t done = 0, count; done < bytes && !status; done += count) {
        uint8_t *host;
        count = bytes - done < fmk_vk_stage_size(stage) ? bytes - done : fmk_vk_stage_size(stage);
        status = fmk_vk_stage_take(stage, &host);
        if (status)
            break;
        memcpy(host, (const uint8_t *)from + done, count);
        status = fmk_vk_stage_send(stage, to + done, count);
    }
    return status;
}

static fmk_status download(struct fmk_vk_stage *stage, uint8_t *to, uint64_t from, uint64_t width,
                           uint64_t stride, uint64_t rows) {
    uint8_t *host;
    fmk_status status = fmk_vk_stage_take(stage, &host);
    if (!status)
        status = copy_rows(stage, stage->staging->memory.address + slot_offset(stage), width, from, stride,
                           width, rows);
    if (!status)
        status = fmk_vk_queue_wait(&stage->staging->queue);
    if (!status)
        memcpy(to, host, width * rows);
    return status;
}

fmk_status fmk_vk_stage_download(struct fmk_vk_stage *stage, void *to, uint64_t from, uint64_t width,
                                 uint64_t stride, uint64_t rows) {
    uint64_t size = fmk_vk_stage_size(stage), at_once = size / width;
    fmk_status status = FMK_OK;
    if (stride == width) { /* one long row, in pieces */
        width *= rows;
        rows = 1;
        at_once = size / width;
    }
    for (uint64_t row = 0, count; row < rows && !status; row += count) {
        count = at_once < rows - row ? at_once : rows - row;
        uint8_t *out = (uint8_t *)to + row * width;
        if (count) {
            status = download(stage, out, from + row * stride, width, stride, count);
            continue;
        }
        count = 1;
        for (uint64_t done = 0, piece; done < width && !status; done += piece) {
            piece = width - done < size ? width - done : size;
            status = download(stage, out + done, from + row * stride + done, piece, piece, 1);
        }
    }
    return status;
}

fmk_status fmk_vk_stage_move(struct fmk_vk_stage *stage, uint64_t to, uint64_t from, uint64_t bytes) {
    return copy_rows(stage, to, bytes, from, bytes, bytes, 1);
}
