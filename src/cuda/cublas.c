/* libcublas through a table of the few functions that are needed. Types and numbers are written down here:
 * its headers may be absent where this is compiled. */
#include "cublas.h"

#include "../error.h"
#include "device.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct cublas_handle *handle_t;

/* Of cublas_api.h and library_types.h. */
enum {
    STATUS_NOT_INITIALIZED = 1,
    STATUS_ALLOC_FAILED = 3,
    OP_N = 0,
    OP_T = 1,
    POINTER_MODE_HOST = 0,
    POINTER_MODE_DEVICE = 1,
    MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16, /* with DEFAULT_MATH 0: no TF32 */
    COMPUTE_32F = 68,
    GEMM_DEFAULT = -1,
    TYPE_R_32F = 0,
    TYPE_R_16F = 2,
    TYPE_R_16BF = 14
};

struct fmk_cublas {
    int (*create)(handle_t *handle);
    int (*destroy)(handle_t handle);
    int (*set_stream)(handle_t handle, CUstream stream);
    int (*set_workspace)(handle_t handle, void *workspace, size_t bytes);
    int (*set_pointer_mode)(handle_t handle, int mode);
    int (*set_math_mode)(handle_t handle, int mode);
    /* Column-major: c = alpha op(a) op(b) + beta c. */
    int (*gemm)(handle_t handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                int type_a, int stride_a, const void *b, int type_b, int stride_b, const void *beta, void *c,
                int type_c, int stride_c, int compute, int algorithm);
};

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
    {"cublasCreate_v2", offsetof(struct fmk_cublas, create)},
    {"cublasDestroy_v2", offsetof(struct fmk_cublas, destroy)},
    {"cublasSetStream_v2", offsetof(struct fmk_cublas, set_stream)},
    {"cublasSetWorkspace_v2", offsetof(struct fmk_cublas, set_workspace)},
    {"cublasSetPointerMode_v2", offsetof(struct fmk_cublas, set_pointer_mode)},
    {"cublasSetMathMode", offsetof(struct fmk_cublas, set_math_mode)},
    {"cublasGemmEx", offsetof(struct fmk_cublas, gemm)},
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

/* Newest first, each with the CUDA version that the driver must serve for it. */
static const struct {
    const char *name;
    int driver;
} libraries[] = {
    {"libcublas.so.13", 13000},
    {"libcublas.so.12", 12000},
    {"libcublas.so.11", 11000},
};
enum { LIBRARIES = sizeof libraries / sizeof libraries[0] };

static struct fmk_cublas cublas;
static bool complete;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *open_library(int mode) {
    const struct fmk_driver *driver;
    if (fmk_driver_open(&driver))
        return NULL;
    for (int i = 0; i < LIBRARIES; i++) {
        void *library = driver->version >= libraries[i].driver
                            ? dlopen(libraries[i].name, RTLD_NOW | RTLD_LOCAL | mode)
                            : NULL;
        if (library)
            return library;
    }
    return NULL;
}

static void open_once(void) {
    /* One that the process has already is better than a second one beside it. */
    void *library = open_library(RTLD_NOLOAD);
    if (!library)
        library = open_library(0);
    if (!library)
        return;
    for (int i = 0; i < FUNCTIONS; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            return;
        memcpy((char *)&cublas + functions[i].offset, &function, sizeof function);
    }
    complete = true;
}

const struct fmk_cublas *fmk_cublas_open(void) {
    pthread_once(&once, open_once);
    return complete ? &cublas : NULL;
}

/* ---- a queue's handle ---- */

/* fmk_queue.device. The handle is told of what has changed since the call before, and of nothing else. */
struct handle {
    handle_t handle;
    CUstream stream;
    uint64_t workspace, workspace_bytes;
    int pointer_mode;
};

static fmk_status check(int result, const char *what) {
    if (!result)
        return FMK_OK;
    if (result == STATUS_NOT_INITIALIZED || result == STATUS_ALLOC_FAILED)
        return fmk_fail(FMK_ENOMEM, "%s: cuBLAS answered %d, as it does when the device's memory is full",
                        what, result);
    return fmk_fail(FMK_EDEVICE, "%s: cuBLAS answered %d", what, result);
}

fmk_status fmk_cublas_prepare(struct fmk_queue *queue) {
    const struct fmk_cublas *library = fmk_cuda_of(queue->ctx)->cublas;
    if (!library || queue->device)
        return FMK_OK;
    struct handle *made = calloc(1, sizeof *made);
    if (!made)
        return fmk_no_memory(sizeof *made, "a cuBLAS handle");
    fmk_status status = check(library->create(&made->handle), "making a cuBLAS handle");
    if (!status) {
        status = check(library->set_math_mode(made->handle, MATH_DISALLOW_REDUCED_PRECISION_REDUCTION),
                       "setting cuBLAS's math mode");
        if (status)
            library->destroy(made->handle);
    }
    if (status) {
        free(made);
        return status;
    }
    made->pointer_mode = POINTER_MODE_HOST;
    queue->device = made;
    return FMK_OK;
}

void fmk_cublas_abandon(struct fmk_queue *queue) {
    free(queue->device);
    queue->device = NULL;
}

void fmk_cublas_forget(struct fmk_queue *queue) {
    struct handle *handle = queue->device;
    if (handle)
        fmk_cuda_of(queue->ctx)->cublas->destroy(handle->handle);
    fmk_cublas_abandon(queue);
}

/* ---- the product ---- */

static int type_of(fmk_dtype type) {
    return type == FMK_F16 ? TYPE_R_16F : type == FMK_BF16 ? TYPE_R_16BF : TYPE_R_32F;
}

static int follow(const struct fmk_cublas *library, struct handle *handle, CUstream stream,
                  const struct fmk_cublas_product *p) {
    int result = 0, mode = p->alpha ? POINTER_MODE_DEVICE : POINTER_MODE_HOST;
    if (handle->stream != stream) {
        result = library->set_stream(handle->handle, stream);
        handle->stream = result ? NULL : stream;
        handle->workspace = 0; /* a new stream takes it back */
    }
    if (!result && (handle->workspace != p->workspace || handle->workspace_bytes != p->workspace_bytes)) {
        result = library->set_workspace(handle->handle, (void *)(uintptr_t)p->workspace, p->workspace_bytes);
        handle->workspace = result ? 0 : p->workspace;
        handle->workspace_bytes = p->workspace_bytes;
    }
    if (!result && handle->pointer_mode != mode) {
        result = library->set_pointer_mode(handle->handle, mode);
        handle->pointer_mode = result ? -1 : mode;
    }
    return result;
}

fmk_status fmk_cublas_gemm(struct fmk_queue *queue, const struct fmk_cublas_product *p) {
    static const float one = 1.0f, none = 0.0f;
    const struct fmk_cublas *library = fmk_cuda_of(queue->ctx)->cublas;
    struct handle *handle = queue->device;
    if (!library || !handle)
        return fmk_fail(FMK_ENOTPREPARED, "this queue has no cuBLAS handle; call fmk_prepare with it, this "
                                          "weight and these arguments first");
    int result = follow(library, handle, queue->native, p);
    /* Row-major as column-major: out^T [n][m] = (W^T)^T in^T. */
    if (!result)
        result = library->gemm(
            handle->handle, OP_T, OP_N, (int)p->n, (int)p->m, (int)p->k,
            p->alpha ? (const void *)(uintptr_t)p->alpha : &one, (const void *)(uintptr_t)p->weights,
            type_of(p->in_type), (int)p->weight_stride, (const void *)(uintptr_t)p->in, type_of(p->in_type),
            (int)p->in_stride, p->alpha ? (const void *)(uintptr_t)p->zero : &none, (void *)(uintptr_t)p->out,
            type_of(p->out_type), (int)p->out_stride, COMPUTE_32F, GEMM_DEFAULT);
    if (!result)
        return FMK_OK;
    /* It does not tell that the device is lost; any call of the driver does. */
    CUstreamCaptureStatus capture;
    CUresult lost = fmk_cuda_of(queue->ctx)->driver->StreamIsCapturing(queue->native, &capture);
    fmk_status status = fmk_cuda_check(queue->ctx, lost, "cublasGemmEx");
    return status ? status : check(result, "cublasGemmEx");
}
