/* The CPU backend's operations, for backend.c. */
#ifndef FMK_CPU_LINEAR_H
#define FMK_CPU_LINEAR_H

#include "../plan/kernels.h"
#include "../plan/call.h"

struct fmk_context;
struct fmk_queue;

void fmk_cpu_workspace(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                       uint64_t *least, uint64_t *best);
fmk_status fmk_cpu_linear(struct fmk_queue *queue, const struct fmk_projection *w,
                          const struct fmk_call *call);

/* The chosen rows of W, or all of it, as f32, f16 or bf16. */
fmk_status fmk_cpu_rows(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *args);
fmk_status fmk_cpu_dequantize(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                              void *out, fmk_dtype out_type, int64_t out_stride);

#endif
