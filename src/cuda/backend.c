/* CUDA as a backend: contexts, queues, memory. */
#include "../error.h"
#include "../threads/threads.h"
#include "cublas.h"
#include "decode.h"
#include "device.h"
#include "features.h"
#include "linear.h"
#include "staging.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_CAPABILITY = 80, STAGING_BYTES = 64 << 20, MEMORY_ALIGN = 256 /* of cuMemAlloc */ };

/* ---- open ---- */

/* The driver was started when the table of its functions was filled. */
static fmk_status started_before_fork(void) {
    return fmk_fail(FMK_ENODEVICE, "CUDA was started before fork() and does not work in the child");
}

static fmk_status find_device(struct fmk_context *ctx, int32_t index) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    int count = 0;
    CUresult result = cuda->driver->DeviceGetCount(&count);
    if (result == CUDA_ERROR_NOT_INITIALIZED)
        return started_before_fork();
    fmk_status status = fmk_cuda_check(ctx, result, "counting CUDA devices");
    if (!status && (index < 0 || index >= count))
        return count ? fmk_fail(FMK_ENODEVICE, "device %d is not in 0..%d, the CUDA devices here", index,
                                count - 1)
                     : fmk_fail(FMK_ENODEVICE, "the NVIDIA driver has no device");
    return status ? status
                  : fmk_cuda_check(ctx, cuda->driver->DeviceGet(&cuda->device, index), "opening the device");
}

/* The device of a context that the caller gave. */
static fmk_status find_device_of(struct fmk_context *ctx, CUcontext native) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    CUcontext before;
    cuda->context = native;
    fmk_status status = fmk_cuda_enter(ctx, &before);
    if (status)
        return fmk_fail_in(status, "native is not a CUcontext that can be used");
    status = fmk_cuda_check(ctx, cuda->driver->CtxGetDevice(&cuda->device), "asking native for its device");
    fmk_cuda_leave(ctx, before);
    return status;
}

static fmk_status describe_device(struct fmk_context *ctx) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    const struct fmk_driver *driver = cuda->driver;
    int major = 0, minor = 0, cache = 0;
    size_t memory = 0;
    fmk_context_info_t *info = &ctx->info;
    const struct {
        CUdevice_attribute attribute;
        int *value;
    } wanted[] = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &cuda->multiprocessors},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &cuda->shared_bytes},
        {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, &cache},
    };
    CUresult result = driver->DeviceTotalMem(&memory, cuda->device);
    if (!result)
        result = driver->DeviceGetName(info->name, sizeof info->name, cuda->device);
    for (size_t i = 0; !result && i < sizeof wanted / sizeof wanted[0]; i++)
        result = driver->DeviceGetAttribute(wanted[i].value, wanted[i].attribute, cuda->device);
    if (result)
        return fmk_cuda_check(ctx, result, "asking the device what it is");
    cuda->capability = 10 * major + minor;
    if (cuda->capability < OLDEST_CAPABILITY)
        return fmk_fail(FMK_ENODEVICE,
                        "device %d, %s, has compute capability %d.%d; the kernels need 8.0 or later",
                        cuda->device, info->name, major, minor);
    info->struct_size = sizeof *info;
    info->backend = FMK_BACKEND_CUDA;
    info->device = cuda->device;
    info->memory = memory;
    info->last_level_cache = cache > 0 ? (uint64_t)cache : 0;
    return FMK_OK;
}

static void choose_features(struct fmk_context *ctx, const char *disable) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    uint32_t off = fmk_cuda_features_of(disable);
    if (cuda->capability >= 90)
        ctx->features |= FMK_CUDA_SM90;
    if (cuda->capability == 90 && !(off & FMK_CUDA_SM90))
        ctx->features |= FMK_CUDA_SM90A;
    if (cuda->capability >= 90 && cuda->capability < 120)
        ctx->features |= FMK_CUDA_FAST_GEMM;
    if (!(off & FMK_CUDA_CUBLAS) && (cuda->cublas = fmk_cublas_open()))
        ctx->features |= FMK_CUDA_CUBLAS;
    else if (!(off & FMK_CUDA_CUBLAS))
        fmk_log(ctx, 0, "no libcublas that this driver serves was found: the library's own kernels multiply");
    ctx->features &= ~off;
    fmk_cuda_feature_names(ctx->features, ctx->info.features, sizeof ctx->info.features);
}

static fmk_status retain_primary(struct fmk_context *ctx) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    CUresult result = cuda->driver->DevicePrimaryCtxRetain(&cuda->context, cuda->device);
    cuda->primary = result == CUDA_SUCCESS;
    if (result == CUDA_ERROR_NOT_INITIALIZED)
        return started_before_fork();
    if (result == CUDA_ERROR_DEVICE_UNAVAILABLE)
        return fmk_fail(FMK_ENODEVICE, "device %d is in use by another process that has it for itself",
                        cuda->device);
    return fmk_cuda_check(ctx, result, "retaining the device's primary context");
}

static void release(struct fmk_context *ctx) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    if (cuda->primary)
        cuda->driver->DevicePrimaryCtxRelease(cuda->device);
    pthread_mutex_destroy(&cuda->lock);
    free(cuda);
    ctx->device = NULL;
}

static fmk_status cuda_open(struct fmk_context *ctx, const fmk_context_desc *desc) {
    const struct fmk_driver *driver;
    fmk_status status = fmk_driver_open(&driver);
    if (status)
        return status;
    struct fmk_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return fmk_no_memory(sizeof *cuda, "a CUDA context");
    ctx->device = cuda;
    cuda->driver = driver;
    cuda->staging_bytes = desc->staging_bytes ? desc->staging_bytes : STAGING_BYTES;
    pthread_mutex_init(&cuda->lock, NULL);
    CUcontext native = (CUcontext)desc->native;
    status = native ? find_device_of(ctx, native) : find_device(ctx, desc->device);
    if (!status)
        status = describe_device(ctx);
    if (!status && !native)
        status = retain_primary(ctx);
    if (!status)
        status = fmk_threads_open(ctx, desc->cpu_threads);
    if (status) {
        release(ctx);
        return status;
    }
    choose_features(ctx, desc->disable);
    return FMK_OK;
}

/* ---- close ---- */

static void cuda_close(struct fmk_context *ctx) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    CUcontext before;
    fmk_threads_close(ctx);
    if (fmk_context_alive(ctx)) { /* a forked child: the driver is the parent's */
        cuda->primary = false;
    } else if (!fmk_cuda_enter(ctx, &before)) {
        fmk_staging_close(ctx);
        for (int i = 0; i < FMK_MODULES; i++)
            if (cuda->module[i])
                cuda->driver->ModuleUnload(cuda->module[i]);
        fmk_cuda_leave(ctx, before);
    }
    release(ctx);
}

/* ---- queues ---- */

static fmk_status check_native(struct fmk_context *ctx, void *native) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    if (!native || native == CU_STREAM_LEGACY || native == CU_STREAM_PER_THREAD)
        return fmk_fail(FMK_EINVAL, "native is %s: give a CUstream; the default stream is not used",
                        native ? "the default stream" : "NULL");
    CUcontext before, owner = NULL;
    fmk_status status = fmk_cuda_enter(ctx, &before);
    if (status)
        return status;
    status =
        fmk_cuda_check(ctx, cuda->driver->StreamGetCtx(native, &owner), "asking native for its CUcontext");
    fmk_cuda_leave(ctx, before);
    if (!status && owner != cuda->context)
        return fmk_fail(FMK_EINVAL,
                        "native is a stream of another CUcontext than ctx works in (%s of device %d)",
                        cuda->primary ? "the primary one" : "the one given", cuda->device);
    return status;
}

/* What fmk_rows, fmk_weight_dequantize and fmk_route_sort launch, for which there is no fmk_prepare. */
static fmk_status queue_open(struct fmk_queue *queue) {
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    status = fmk_cuda_load(queue->ctx, FMK_MODULE_DECODE);
    if (!status)
        status = fmk_cuda_load(queue->ctx, FMK_MODULE_ROWS);
    fmk_cuda_leave(queue->ctx, before);
    return status;
}

static void queue_close(struct fmk_queue *queue) {
    CUcontext before;
    if (!queue->device)
        return;
    if (fmk_context_alive(queue->ctx) || fmk_cuda_enter(queue->ctx, &before)) {
        fmk_cublas_abandon(queue);
        return;
    }
    fmk_cublas_forget(queue);
    fmk_cuda_leave(queue->ctx, before);
}

static fmk_status queue_wait(struct fmk_queue *queue) {
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    status = fmk_cuda_check(queue->ctx, fmk_cuda_of(queue->ctx)->driver->StreamSynchronize(queue->native),
                            "waiting for the queue's stream");
    fmk_cuda_leave(queue->ctx, before);
    return status;
}

/* ---- memory ---- */

static fmk_status device_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align,
                               uint64_t *out) {
    (void)native, (void)align; /* it is MEMORY_ALIGN */
    CUcontext before;
    CUdeviceptr address = 0;
    fmk_status status = fmk_cuda_enter(ctx, &before);
    if (status)
        return status;
    CUresult result = fmk_cuda_of(ctx)->driver->MemAlloc(&address, size);
    status = result == CUDA_ERROR_OUT_OF_MEMORY ? fmk_no_memory(size, "packed weights on the device")
                                                : fmk_cuda_check(ctx, result, "allocating packed weights");
    if (!status)
        *out = address;
    fmk_cuda_leave(ctx, before);
    return status;
}

static void device_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size) {
    (void)native, (void)size;
    CUcontext before;
    if (fmk_context_alive(ctx) || fmk_cuda_enter(ctx, &before))
        return;
    fmk_cuda_of(ctx)->driver->MemFree(handle);
    fmk_cuda_leave(ctx, before);
}

const struct fmk_backend_row fmk_cuda_backend = {
    .id = FMK_BACKEND_CUDA,
    .open = cuda_open,
    .close = cuda_close,
    .check_device = fmk_cuda_check_device,
    .check_native = check_native,
    .queue_open = queue_open,
    .queue_close = queue_close,
    .queue_wait = queue_wait,
    .memory = FMK_MEM_DEVICE,
    .alloc = device_alloc,
    .release = device_release,
    .storage_align = MEMORY_ALIGN,
    .borrows = fmk_cuda_borrows,
    .check_tensor = fmk_cuda_check_tensor,
    .check_queue = fmk_cuda_check_queue,
    .fill = fmk_cuda_fill,
    .write = fmk_cuda_write,
    .read = fmk_cuda_read,
    .finish = fmk_cuda_weight_finish,
    .ready = fmk_cuda_weight_ready,
    .retire = fmk_cuda_weight_retire,
    .prepare = fmk_cuda_prepare,
    .workspace = fmk_cuda_workspace,
    .linear = fmk_cuda_linear,
    .rows = fmk_cuda_rows,
    .dequantize = fmk_cuda_dequantize,
    .route_sort = fmk_cuda_route_sort,
};
