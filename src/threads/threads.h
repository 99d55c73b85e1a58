/* A context's threads; src/parallel.h is how work is given to it. */
#ifndef FMK_THREADS_H
#define FMK_THREADS_H

#include "../context.h"

/* threads 0 = one per core that this process may run on. */
fmk_status fmk_threads_open(struct fmk_context *ctx, int32_t threads);
void fmk_threads_close(struct fmk_context *ctx);

#endif
