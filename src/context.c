/* Contexts and queues: creation, reference counts, fork, memory. */
#include "context.h"

#include "abi.h"
#include "error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Best first: AUTO takes the first that opens. */
static const struct fmk_backend_row *const backends[] = {
    &fmk_cpu_backend,
};
enum { BACKENDS = sizeof backends / sizeof backends[0] };

/* Threads do not survive fork(): a child must know a context of its parent. */
static atomic_uint fork_epoch;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_watched;

static void forked(void) {
    atomic_fetch_add(&fork_epoch, 1);
}

static void watch_forks(void) {
    fork_watched = pthread_atfork(NULL, NULL, forked) == 0;
}

static const char *backend_name(fmk_backend id) {
    switch (id) {
    case FMK_BACKEND_CUDA:
        return "CUDA";
    case FMK_BACKEND_VULKAN:
        return "Vulkan";
    default:
        return "unknown";
    }
}

static fmk_status open_backend(struct fmk_context *ctx, const fmk_context_desc *desc) {
    fmk_status status = FMK_ENODEVICE;
    for (int i = 0; i < BACKENDS; i++) {
        if (desc->backend != FMK_BACKEND_AUTO && desc->backend != backends[i]->id)
            continue;
        ctx->backend = backends[i];
        status = backends[i]->open(ctx, desc);
        if (!status || desc->backend != FMK_BACKEND_AUTO)
            return status;
    }
    if (desc->backend == FMK_BACKEND_AUTO)
        return status;
    if (desc->backend == FMK_BACKEND_CUDA || desc->backend == FMK_BACKEND_VULKAN)
        return fmk_fail(FMK_ENODEVICE, "backend %d: this library was built without %s", desc->backend,
                        backend_name(desc->backend));
    return fmk_fail(FMK_EINVAL, "backend %d is none of AUTO 0, CPU 1, CUDA 2, VULKAN 3", desc->backend);
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
    pthread_once(&fork_once, watch_forks);
    if (!fork_watched)
        return fmk_no_memory(0, "the fork handler");

    struct fmk_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return fmk_no_memory(sizeof *ctx, "a context");
    atomic_init(&ctx->references, 1);
    atomic_flag_clear(&ctx->pool_busy);
    ctx->fork_epoch = atomic_load(&fork_epoch);
    ctx->allocator = d.allocator;
    ctx->parallel_for = d.parallel_for;
    ctx->parallel_user = d.parallel_user;
    ctx->log = d.log;
    ctx->log_user = d.log_user;
    status = open_backend(ctx, &d);
    if (status) {
        free(ctx);
        return status;
    }
    *out = ctx;
    return FMK_OK;
}

void fmk_context_retain(struct fmk_context *ctx) {
    atomic_fetch_add(&ctx->references, 1);
}

void fmk_context_destroy(fmk_context *ctx) {
    if (!ctx || atomic_fetch_sub(&ctx->references, 1) > 1)
        return;
    ctx->backend->close(ctx);
    free(ctx);
}

fmk_status fmk_context_alive(const struct fmk_context *ctx) {
    if (ctx->fork_epoch != atomic_load_explicit(&fork_epoch, memory_order_relaxed))
        return fmk_fail(FMK_EFORKED, "the context was made before fork() and its threads are not in this "
                                     "process; make a context after fork()");
    return FMK_OK;
}

fmk_status fmk_context_status(fmk_context *ctx) {
    return ctx ? fmk_context_alive(ctx) : fmk_fail(FMK_EINVAL, "ctx is NULL");
}

fmk_status fmk_context_info(fmk_context *ctx, fmk_context_info_t *out) {
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    return fmk_struct_out(out, &ctx->info, sizeof ctx->info, "out");
}

uint64_t fmk_context_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align) {
    if (ctx->allocator.alloc)
        return ctx->allocator.alloc(ctx->allocator.user, native, size, align, FMK_MEM_HOST);
    void *memory = NULL;
    return posix_memalign(&memory, align, size) ? 0 : (uint64_t)(uintptr_t)memory;
}

void fmk_context_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size) {
    if (ctx->allocator.release)
        ctx->allocator.release(ctx->allocator.user, native, handle, size, FMK_MEM_HOST);
    else
        free((void *)(uintptr_t)handle);
}

void fmk_log(struct fmk_context *ctx, int32_t level, const char *format, ...) {
    if (!ctx->log)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ctx->log(ctx->log_user, level, text);
}

fmk_status fmk_queue_create(fmk_queue **out, fmk_context *ctx, void *native) {
    if (!out)
        return fmk_fail(FMK_EINVAL, "out is NULL");
    *out = NULL;
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    fmk_status status = fmk_context_alive(ctx);
    if (!status)
        status = ctx->backend->check_native(native);
    if (status)
        return status;
    struct fmk_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return fmk_no_memory(sizeof *queue, "a queue");
    queue->ctx = ctx;
    queue->native = native;
    fmk_context_retain(ctx);
    *out = queue;
    return FMK_OK;
}

fmk_status fmk_queue_rebind(fmk_queue *queue, void *native) {
    if (!queue)
        return fmk_fail(FMK_EINVAL, "queue is NULL");
    fmk_status status = fmk_context_alive(queue->ctx);
    if (!status)
        status = queue->ctx->backend->check_native(native);
    if (!status)
        queue->native = native;
    return status;
}

void fmk_queue_destroy(fmk_queue *queue) {
    if (!queue)
        return;
    fmk_context_destroy(queue->ctx);
    free(queue);
}
