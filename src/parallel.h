/* Runs body(arg, 0) .. body(arg, count - 1) on the context's threads, or the caller's parallel_for, and
 * returns when all are done. Any order; bodies must not depend on it. Safe from many threads at once. */
#ifndef FMK_PARALLEL_H
#define FMK_PARALLEL_H

#include "ferrumk.h"

void fmk_parallel(struct fmk_context *ctx, void (*body)(void *arg, int64_t i), void *arg, int64_t count);

#endif
