/* Weights back to numbers, on the device. */
#ifndef FMK_CUDA_DECODE_H
#define FMK_CUDA_DECODE_H

#include "../context.h"
#include "../plan/projection.h"

/* Enqueues rows row .. row+rows-1 (row a multiple of 16) of one part and expert as [rows][k_packed] of F16,
 * BF16 or F32 at `out`, in packed order of K, padding as zeros. `scaled`: multiplied by 2^-e, so that they
 * are in f16's range (struct fmk_range, plan/layout.h); only where part->range is there. For fmk_linear:
 * needs FMK_MODULE_DECODE loaded, neither allocates nor waits. The caller has entered. */
fmk_status fmk_cuda_decode(struct fmk_queue *queue, const struct fmk_packed *part, int32_t expert,
                           int64_t row, int64_t rows, uint64_t out, fmk_dtype type, int64_t stride,
                           bool scaled);

/* The functions of fmk_backend_row. */
fmk_status fmk_cuda_dequantize(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                               void *out, fmk_dtype out_type, int64_t out_stride);
fmk_status fmk_cuda_rows(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *args);

#endif
