/* What every context has: a reference count, the process that it belongs to, memory, a log. */
#include "context.h"

#include "error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

fmk_status fmk_context_new(struct fmk_context **out) {
    pthread_once(&fork_once, watch_forks);
    if (!fork_watched)
        return fmk_no_memory(0, "the fork handler");
    struct fmk_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return fmk_no_memory(sizeof *ctx, "a context");
    atomic_init(&ctx->references, 1);
    atomic_flag_clear(&ctx->pool_busy);
    ctx->fork_epoch = atomic_load(&fork_epoch);
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

void fmk_context_resolve(const struct fmk_context *ctx, fmk_buffer *buffer) {
    if (ctx->backend->address && buffer->handle)
        buffer->handle = ctx->backend->address(ctx, buffer->handle);
}

fmk_status fmk_context_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align,
                             uint64_t *out) {
    if (!ctx->allocator.alloc)
        return ctx->backend->alloc(ctx, native, size, align, out);
    *out = ctx->allocator.alloc(ctx->allocator.user, native, size, align, ctx->backend->memory);
    return *out ? FMK_OK : fmk_no_memory(size, "packed weights");
}

void fmk_context_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size) {
    if (ctx->allocator.release)
        ctx->allocator.release(ctx->allocator.user, native, handle, size, ctx->backend->memory);
    else
        ctx->backend->release(ctx, native, handle, size);
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
