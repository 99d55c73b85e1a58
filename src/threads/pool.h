/* A pool of threads that does not wait for threads that have nothing to do.
 *
 * The caller works too, and a call ends when every item is done: a worker that the operating system has not
 * scheduled by then is not waited for, and finds nothing left. That is what keeps a call short on a machine
 * with other work (docs/threads.md has the figures). Workers spin a little while for the next call, then
 * sleep. */
#ifndef FMK_THREADS_POOL_H
#define FMK_THREADS_POOL_H

#include "ferrumk.h"

struct fmk_pool;

/* `threads` counts the caller: one less is started. NULL when memory or threads are short. */
struct fmk_pool *fmk_pool_open(int32_t threads);
/* Not while a call runs. */
void fmk_pool_close(struct fmk_pool *pool);
/* body(arg, 0) .. body(arg, count - 1), in any order. One call at a time. */
void fmk_pool_run(struct fmk_pool *pool, void (*body)(void *arg, int64_t i), void *arg, int64_t count);

#endif
