/* Contexts and queues: which backend, and what the caller brings. */
#include "../abi.h"
#include "../context.h"
#include "../error.h"

#include <stdio.h>
#include <stdlib.h>

/* Best first: AUTO takes the first that opens. */
static const struct fmk_backend_row *const present[] = {
#ifdef FERRUMK_CUDA
    &fmk_cuda_backend,
#endif
#ifdef FERRUMK_VULKAN
    &fmk_vulkan_backend,
#endif
    &fmk_cpu_backend,
};
enum { BACKENDS = sizeof present / sizeof present[0] };

static fmk_status open_only(struct fmk_context *ctx, const fmk_context_desc *desc) {
    for (int i = 0; i < BACKENDS; i++)
        if (desc->backend == present[i]->id) {
            ctx->backend = present[i];
            return present[i]->open(ctx, desc);
        }
    if (desc->backend == FMK_BACKEND_CUDA || desc->backend == FMK_BACKEND_VULKAN)
        return fmk_fail(FMK_ENODEVICE, "backend %s: this library was built without it",
                        desc->backend == FMK_BACKEND_CUDA ? "CUDA" : "VULKAN");
    return fmk_fail(FMK_EINVAL, "backend %d is none of AUTO 0, CPU 1, CUDA 2, VULKAN 3", desc->backend);
}

/* The first backend whose device is there. One that is absent is no failure: the sentence of this thread's
 * last failed call stays as it was. */
static fmk_status open_first(struct fmk_context *ctx, const fmk_context_desc *desc) {
    char before[512];
    snprintf(before, sizeof before, "%s", fmk_last_error());
    fmk_status status = FMK_ENODEVICE;
    for (int i = 0; i < BACKENDS && status == FMK_ENODEVICE; i++) {
        ctx->backend = present[i];
        status = present[i]->open(ctx, desc);
        if (status == FMK_ENODEVICE && i + 1 < BACKENDS)
            fmk_log(ctx, 0, "AUTO goes on to the next backend: %s", fmk_last_error());
    }
    return status ? status : fmk_fail(FMK_OK, "%s", before);
}

fmk_status fmk_context_create(fmk_context **out, const fmk_context_desc *desc) {
    if (!out)
        return fmk_fail(FMK_EINVAL, "out is NULL");
    *out = NULL;
    fmk_context_desc d = {.struct_size = sizeof d};
    fmk_status status = desc ? fmk_struct_in(&d, sizeof d, desc, "desc") : FMK_OK;
    if (status)
        return status;
    if (!d.allocator.alloc != !d.allocator.release)
        return fmk_fail(FMK_EINVAL, "allocator.%s is NULL; give both callbacks or neither",
                        d.allocator.alloc ? "release" : "alloc");
    if (d.cpu_threads < 0 || d.cpu_threads > 4096)
        return fmk_fail(FMK_EINVAL, "cpu_threads %d is not in 0..4096", d.cpu_threads);
    struct fmk_context *ctx;
    status = fmk_context_new(&ctx);
    if (status)
        return status;
    ctx->allocator = d.allocator;
    ctx->parallel_for = d.parallel_for;
    ctx->parallel_user = d.parallel_user;
    ctx->log = d.log;
    ctx->log_user = d.log_user;
    status = d.backend == FMK_BACKEND_AUTO ? open_first(ctx, &d) : open_only(ctx, &d);
    if (status) {
        free(ctx);
        return status;
    }
    *out = ctx;
    return FMK_OK;
}

fmk_status fmk_context_status(fmk_context *ctx) {
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    fmk_status status = fmk_context_alive(ctx);
    return !status && ctx->backend->check_device ? ctx->backend->check_device(ctx) : status;
}

fmk_status fmk_context_info(fmk_context *ctx, fmk_context_info_t *out) {
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    return fmk_struct_out(out, &ctx->info, sizeof ctx->info, "out");
}

fmk_status fmk_context_vulkan(fmk_context *ctx, fmk_vulkan_device *out) {
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    if (!ctx->backend->vulkan)
        return fmk_fail(FMK_EUNSUPPORTED, "ctx is of backend %d; VULKAN 3 has handles", ctx->backend->id);
    return fmk_struct_out(out, ctx->backend->vulkan(ctx), sizeof *out, "out");
}

fmk_status fmk_context_pipeline_cache(fmk_context *ctx, void *data, uint64_t capacity, uint64_t *size) {
    if (!ctx || !size)
        return fmk_fail(FMK_EINVAL, "%s is NULL", ctx ? "size" : "ctx");
    *size = 0;
    fmk_status status = fmk_context_alive(ctx);
    if (!status && !ctx->backend->pipeline_cache)
        status = fmk_fail(FMK_EUNSUPPORTED, "ctx is of backend %d; VULKAN 3 has a pipeline cache",
                          ctx->backend->id);
    return status ? status : ctx->backend->pipeline_cache(ctx, data, capacity, size);
}

fmk_status fmk_queue_create(fmk_queue **out, fmk_context *ctx, void *native) {
    if (!out)
        return fmk_fail(FMK_EINVAL, "out is NULL");
    *out = NULL;
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    fmk_status status = fmk_context_alive(ctx);
    if (!status)
        status = ctx->backend->check_native(ctx, native);
    if (status)
        return status;
    struct fmk_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return fmk_no_memory(sizeof *queue, "a queue");
    queue->ctx = ctx;
    queue->native = native;
    if (ctx->backend->queue_open && (status = ctx->backend->queue_open(queue))) {
        free(queue);
        return status;
    }
    fmk_context_retain(ctx);
    *out = queue;
    return FMK_OK;
}

fmk_status fmk_queue_rebind(fmk_queue *queue, void *native) {
    if (!queue)
        return fmk_fail(FMK_EINVAL, "queue is NULL");
    fmk_status status = fmk_context_alive(queue->ctx);
    if (!status)
        status = queue->ctx->backend->check_native(queue->ctx, native);
    if (!status)
        queue->native = native;
    return status;
}

fmk_status fmk_queue_wait(fmk_queue *queue) {
    if (!queue)
        return fmk_fail(FMK_EINVAL, "queue is NULL");
    fmk_status status = fmk_context_alive(queue->ctx);
    return !status && queue->ctx->backend->queue_wait ? queue->ctx->backend->queue_wait(queue) : status;
}

void fmk_queue_destroy(fmk_queue *queue) {
    if (!queue)
        return;
    if (queue->ctx->backend->queue_close)
        queue->ctx->backend->queue_close(queue);
    fmk_context_destroy(queue->ctx);
    free(queue);
}
