/* The CUDA side of a context: fmk_context.device. */
#ifndef FMK_CUDA_DEVICE_H
#define FMK_CUDA_DEVICE_H

#include "driver.h"
#include "features.h"
#include "modules.h"

#include <pthread.h>
#include <stdatomic.h>

struct fmk_cublas;  /* cublas.h */
struct fmk_staging; /* staging.h */

struct fmk_cuda {
    const struct fmk_driver *driver;
    CUdevice device;
    CUcontext context;
    bool primary;       /* retained by us, not the caller's */
    int32_t capability; /* 90 */
    int32_t multiprocessors;
    int32_t shared_bytes;            /* that a block can have at most */
    const struct fmk_cublas *cublas; /* NULL: none, or switched off */
    atomic_int lost;                 /* the CUresult of a sticky error, else 0 */
    pthread_mutex_t lock;            /* of what follows; never taken by fmk_linear */
    CUmodule module[FMK_MODULES];
    _Atomic(CUfunction) function[FMK_MODULES][FMK_MODULE_KERNELS]; /* NULL until the module is loaded */
    uint64_t staging_bytes;
    struct fmk_staging *staging; /* made by the first weight that needs it */
};

static inline struct fmk_cuda *fmk_cuda_of(const struct fmk_context *ctx) {
    return (struct fmk_cuda *)ctx->device;
}

/* Makes the context current on this thread; *before is what fmk_cuda_leave puts back. Every function of
 * fmk_backend_row that reaches the driver works between the two. */
fmk_status fmk_cuda_enter(const struct fmk_context *ctx, CUcontext *before);
void fmk_cuda_leave(const struct fmk_context *ctx, CUcontext before);

/* FMK_OK, or the status that a driver's answer means, with a sentence that begins with `what`. A sticky error
 * marks the context as lost. */
fmk_status fmk_cuda_check(const struct fmk_context *ctx, CUresult result, const char *what);

/* FMK_ELOST with its sentence after a sticky error, else FMK_OK. Asks nobody. */
fmk_status fmk_cuda_check_device(const struct fmk_context *ctx);

#endif
