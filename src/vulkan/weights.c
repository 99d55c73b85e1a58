#include "weights.h"

#include "../abi.h"
#include "../error.h"
#include "../parallel.h"
#include "memory.h"
#include "staging.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_TASK = 64 }; /* a multiple of every layout's panel */

/* What the kernels can read where it lies: see kernels/vulkan/args.h. */
bool fmk_vk_borrows(struct fmk_context *ctx, const fmk_tensor *tensor) {
    uint64_t size = (uint64_t)fmk_max(4, fmk_dtype_size(tensor->dtype));
    uint64_t address = tensor->data.handle + tensor->data.offset;
    if (address % size || tensor->expert_stride % size)
        return false;
    if (tensor->memory == FMK_MEM_DEVICE)
        return true;
    if (!address || !(ctx->features & FMK_VK_IMPORT))
        return false;
    char before[512]; /* to be told no is no failure */
    snprintf(before, sizeof before, "%s", fmk_last_error());
    struct fmk_vk_buffer probe; /* a page of it: not every driver takes the pages of a mapped file */
    bool taken = !fmk_vk_buffer_import(ctx, (const void *)(uintptr_t)address, 1, &probe);
    if (taken)
        fmk_vk_buffer_free(ctx, &probe);
    else
        fmk_log(ctx, 0, "BORROW: the bytes are copied: %s", fmk_last_error());
    fmk_fail(FMK_OK, "%s", before);
    return taken;
}

fmk_status fmk_vk_borrow(struct fmk_context *ctx, uint64_t at, uint64_t size, uint64_t *address,
                         void **held) {
    struct fmk_vk_buffer *buffer = malloc(sizeof *buffer);
    if (!buffer)
        return fmk_no_memory(sizeof *buffer, "a buffer of host memory");
    fmk_status status = fmk_vk_buffer_import(ctx, (const void *)(uintptr_t)at, size, buffer);
    if (status) {
        free(buffer);
        return status;
    }
    *address = buffer->address;
    *held = buffer;
    return FMK_OK;
}

void fmk_vk_unborrow(struct fmk_context *ctx, void *held) {
    if (!fmk_context_alive(ctx)) /* else a forked child: the driver is the parent's */
        fmk_vk_buffer_free(ctx, held);
    free(held);
}

fmk_status fmk_vk_check_tensor(struct fmk_context *ctx, const char *name, const fmk_tensor *tensor) {
    (void)ctx, (void)name, (void)tensor; /* Vulkan does not tell what a buffer is */
    return FMK_OK;
}

/* ---- fill ---- */

struct pack {
    struct fmk_vk_stage stage;
    const struct fmk_fill *fill;
    struct fmk_source source; /* with qweight in host memory */
    const int32_t *k_index;   /* of the expert at hand, in host memory; or NULL */
    int64_t expert;
    int64_t row, rows; /* of the slice at hand */
    uint8_t *slot;     /* where its first row goes */
};

static uint64_t panel_of(const struct fmk_packed *packed, int64_t row) {
    return (uint64_t)((row + packed->layout->panel_rows - 1) / packed->layout->panel_rows);
}

static void pack_task(void *arg, int64_t i) {
    const struct pack *p = arg;
    const struct fmk_packed *packed = p->fill->packed;
    int64_t row = p->row + i * ROWS_PER_TASK, end = fmk_min(row + ROWS_PER_TASK, p->row + p->rows);
    uintptr_t expert = (uintptr_t)p->slot - panel_of(packed, p->row) * packed->stride;
    packed->layout->pack(&p->source, packed, p->k_index, p->expert, row, end - row, (uint8_t *)expert);
}

/* One expert, slice by slice: packed by threads, copied by the device. */
static fmk_status fill_data(struct pack *p) {
    const struct fmk_packed *packed = p->fill->packed;
    uint64_t to = (uint64_t)(uintptr_t)packed->data + (uint64_t)p->expert * packed->expert_stride;
    uint64_t panels = fmk_vk_stage_size(&p->stage) / packed->stride;
    int64_t at_once = (int64_t)panels * packed->layout->panel_rows;
    if (!panels)
        return fmk_fail(
            FMK_EUNSUPPORTED,
            "k %lld: %d rows take %llu bytes, and half of staging_bytes is %llu; give the context "
            "more",
            (long long)packed->k, packed->layout->panel_rows, (unsigned long long)packed->stride,
            (unsigned long long)fmk_vk_stage_size(&p->stage));
    fmk_status status = FMK_OK;
    for (p->row = 0; p->row < packed->n && !status; p->row += p->rows) {
        p->rows = fmk_min(at_once, packed->n - p->row);
        status = fmk_vk_stage_take(&p->stage, &p->slot);
        if (status)
            break;
        fmk_parallel(p->stage.ctx, pack_task, p, (p->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK);
        uint64_t begin = panel_of(packed, p->row), end = panel_of(packed, p->row + p->rows);
        status = fmk_vk_stage_send(&p->stage, to + begin * packed->stride, (end - begin) * packed->stride);
        if (!status)
            status = fmk_progress(p->fill->progress, (end - begin) * packed->stride);
    }
    return status;
}

static fmk_status fill_experts(struct pack *p, void *room) {
    const struct fmk_packed *packed = p->fill->packed;
    fmk_status status = FMK_OK;
    for (int64_t e = 0; e < packed->experts && !status; e++) {
        p->expert = e;
        if (packed->bias) {
            fmk_source_bias(&p->source, e, room);
            status = fmk_vk_stage_upload(&p->stage, (uint64_t)(uintptr_t)(packed->bias + e * packed->n), room,
                                         (uint64_t)packed->n * 4);
        }
        if (!status && packed->k_index) {
            packed->layout->index(&p->source, packed, e, room);
            p->k_index = room;
            status =
                fmk_vk_stage_upload(&p->stage, (uint64_t)(uintptr_t)(packed->k_index + e * packed->k_packed),
                                    room, (uint64_t)packed->k_packed * 4);
        }
        if (!status && p->fill->data)
            status = fill_data(p);
    }
    return status;
}

/* qweight in device memory comes to the host first: threads pack it. */
static fmk_status fetch(struct pack *p, uint8_t **copy) {
    struct fmk_source_tensor tensors[FMK_SOURCE_TENSORS];
    fmk_source_tensors(&p->source, tensors);
    fmk_tensor *tensor = tensors[0].tensor;
    if (!p->fill->data || tensor->memory != FMK_MEM_DEVICE)
        return FMK_OK;
    uint64_t bytes = (uint64_t)tensors[0].bytes, experts = (uint64_t)p->source.experts;
    *copy = malloc(bytes * experts);
    if (!*copy)
        return fmk_no_memory(bytes * experts, "a copy of qweight");
    fmk_status status = fmk_vk_stage_download(&p->stage, *copy, tensor->data.handle + tensor->data.offset,
                                              bytes, experts > 1 ? tensor->expert_stride : bytes, experts);
    *tensor = (fmk_tensor){.data = {.handle = (uint64_t)(uintptr_t)*copy, .size = bytes * experts},
                           .expert_stride = tensor->expert_stride ? bytes : 0,
                           .dtype = tensor->dtype};
    return status;
}

fmk_status fmk_vk_fill(struct fmk_queue *queue, const struct fmk_fill *fill) {
    const struct fmk_packed *packed = fill->packed;
    if (!fill->data && !packed->bias && !packed->k_index)
        return FMK_OK;
    struct pack pack = {.fill = fill, .source = *fill->source};
    size_t size = (size_t)fmk_max(packed->n, packed->k_packed) * 4;
    uint8_t *copy = NULL;
    void *room = malloc(size);
    if (!room)
        return fmk_no_memory(size, "the index of a weight");
    fmk_status status = fmk_vk_stage_begin(queue->ctx, &pack.stage);
    if (!status) {
        status = fetch(&pack, &copy);
        if (!status)
            status = fill_experts(&pack, room);
        status = fmk_vk_stage_end(&pack.stage, status);
    }
    free(copy);
    free(room);
    return status;
}

/* ---- bytes as they are ---- */

fmk_status fmk_vk_write(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                        struct fmk_progress *progress) {
    enum { RUN = 64 << 20 }; /* between two calls of progress */
    uint64_t address = from->data.handle + from->data.offset;
    struct fmk_vk_stage stage;
    fmk_status status = fmk_vk_stage_begin(queue->ctx, &stage);
    if (status)
        return status;
    for (uint64_t done = 0, count; done < size && !status; done += count) {
        count = size - done < RUN ? size - done : RUN;
        if (from->memory == FMK_MEM_DEVICE)
            status = fmk_vk_stage_move(&stage, to + done, address + done, count);
        else
            status =
                fmk_vk_stage_upload(&stage, to + done, (const uint8_t *)(uintptr_t)address + done, count);
        if (!status)
            status = fmk_progress(progress, count);
    }
    return fmk_vk_stage_end(&stage, status);
}

fmk_status fmk_vk_read(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                       uint64_t stride, uint64_t rows) {
    (void)native;
    struct fmk_vk_stage stage;
    fmk_status status = fmk_vk_stage_begin(ctx, &stage);
    if (status)
        return status;
    status = fmk_vk_stage_download(&stage, to, from, width, stride, rows);
    return fmk_vk_stage_end(&stage, status);
}

void fmk_vk_retire(struct fmk_context *ctx, struct fmk_queue *queue, void *pending) {
    (void)pending;
    if (queue && !fmk_context_alive(ctx))
        fmk_vk_queue_wait(queue);
}
