/* cuBLAS, opened at run time: one product, in the words of this library. A machine may be without it. */
#ifndef FMK_CUDA_CUBLAS_H
#define FMK_CUDA_CUBLAS_H

#include "../context.h"

struct fmk_cublas; /* the library: its table of functions */

/* out[m][n] = alpha * in[m][k] . W[n][k]^T, sums in float. Addresses are of the device. */
struct fmk_cublas_product {
    uint64_t in, weights, out;
    fmk_dtype in_type;  /* of `in` and of the weights: F16, BF16 or F32 (true float, no TF32) */
    fmk_dtype out_type; /* in_type or F32 */
    int64_t m, n, k;    /* each at most INT32_MAX, m and n and k at least 1 */
    int64_t in_stride, weight_stride, out_stride; /* elements, from row to row; at most INT32_MAX */
    uint64_t alpha, zero; /* addresses of a float, and of a float 0, on the device; alpha 0 = 1 and neither */
    uint64_t workspace;   /* aligned to 256, not used by anything else meanwhile */
    uint64_t workspace_bytes; /* at least FMK_CUBLAS_LEAST */
};

/* Bytes of workspace with which every product works. Without any, cuBLAS would use memory of the handle,
 * which two graphs of one queue must not share. */
enum { FMK_CUBLAS_LEAST = 64 << 10 };

/* The process's libcublas, opened on first use; NULL where there is none. */
const struct fmk_cublas *fmk_cublas_open(void);

/* Makes the queue's handle unless it has one. For fmk_prepare: allocates; the caller has entered. FMK_OK also
 * where the context has no cuBLAS: then there is nothing to make. */
fmk_status fmk_cublas_prepare(struct fmk_queue *queue);
/* Enqueues the product. FMK_ENOTPREPARED without a handle. For fmk_linear; the caller has entered. Which
 * kernel cuBLAS chooses depends on the shape and the workspace's size alone. */
fmk_status fmk_cublas_gemm(struct fmk_queue *queue, const struct fmk_cublas_product *product);
/* Drops the queue's handle. The caller has entered. */
void fmk_cublas_forget(struct fmk_queue *queue);
/* Likewise where the device cannot be reached: after a fork, or when it is lost. */
void fmk_cublas_abandon(struct fmk_queue *queue);

#endif
