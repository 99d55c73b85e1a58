/* The context's threads: a pool, or the caller's parallel_for. A pool serves one call at a time; a call
 * that finds it busy runs on its own thread alone, so that engines calling from many threads neither wait for
 * each other nor run more threads than cores. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "threads.h"

#include "../context.h"
#include "../error.h"
#include "../parallel.h"
#include "pool.h"

#include <sched.h>
#include <unistd.h>

static int available_cores(void) {
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set))
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

fmk_status fmk_threads_open(struct fmk_context *ctx, int32_t threads) {
    if (ctx->parallel_for) {
        ctx->info.threads = threads ? threads : available_cores();
        return FMK_OK;
    }
    ctx->info.threads = threads ? threads : available_cores();
    if (ctx->info.threads == 1)
        return FMK_OK;
    ctx->pool = fmk_pool_open(ctx->info.threads);
    return ctx->pool ? FMK_OK : fmk_fail(FMK_ENOMEM, "no memory for a pool of %d threads", ctx->info.threads);
}

void fmk_threads_close(struct fmk_context *ctx) {
    /* In a forked child the pool's threads do not exist, and joining them would wait forever. */
    if (ctx->pool && !fmk_context_alive(ctx))
        fmk_pool_close(ctx->pool);
}

void fmk_parallel(struct fmk_context *ctx, void (*body)(void *arg, int64_t i), void *arg, int64_t count) {
    if (count > 1 && ctx->parallel_for) {
        ctx->parallel_for(ctx->parallel_user, body, arg, count);
        return;
    }
    if (count > 1 && ctx->pool && !atomic_flag_test_and_set_explicit(&ctx->pool_busy, memory_order_acquire)) {
        fmk_pool_run(ctx->pool, body, arg, count);
        atomic_flag_clear_explicit(&ctx->pool_busy, memory_order_release);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        body(arg, i);
}
