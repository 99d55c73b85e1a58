/* Working on the device: its context made current and put back, and what the driver's errors mean. */
#include "device.h"

#include "../error.h"

/* After these every call on the CUDA context fails, ours and everybody else's. */
static bool is_sticky(CUresult result) {
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_EXTERNAL_DEVICE:
        return true;
    default:
        return false;
    }
}

static bool is_of_capture(CUresult result) {
    return result >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED &&
           result <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
}

static const char *name_of(const struct fmk_driver *driver, CUresult result) {
    const char *name = NULL;
    driver->GetErrorName(result, &name);
    return name ? name : "an unknown error";
}

static fmk_status is_lost(const struct fmk_cuda *cuda, CUresult result, const char *what) {
    const char *name = name_of(cuda->driver, result);
    if (cuda->primary)
        return fmk_fail(
            FMK_ELOST,
            "%s: %s: the primary CUDA context of device %d is dead, and with it everything that this "
            "process does there: destroy this context, have the host reset the device "
            "(cuDevicePrimaryCtxReset) or restart the process, and make another",
            what, name, cuda->device);
    return fmk_fail(
        FMK_ELOST,
        "%s: %s: the CUcontext that was given is dead, and with it everything that was made in it: "
        "destroy this context and that one, and make new ones",
        what, name);
}

fmk_status fmk_cuda_check(const struct fmk_context *ctx, CUresult result, const char *what) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    if (result == CUDA_SUCCESS)
        return FMK_OK;
    const char *name = name_of(cuda->driver, result);
    if (is_sticky(result)) {
        atomic_store(&cuda->lost, (int)result);
        return is_lost(cuda, result, what);
    }
    if (is_of_capture(result))
        return fmk_fail(FMK_EDEVICE, "%s: %s: not possible while a stream is captured into a graph", what,
                        name);
    switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
        return fmk_fail(FMK_ENOMEM, "%s: no memory on the device (%s)", what, name);
    case CUDA_ERROR_NOT_READY:
        return fmk_fail(FMK_EAGAIN, "%s: not ready yet", what);
    case CUDA_ERROR_DEINITIALIZED: /* the process ends */
        return fmk_fail(FMK_EDEVICE, "%s: the process is ending and the driver has gone", what);
    default:
        return fmk_fail(FMK_EDEVICE, "%s: the driver answered %s (%d)", what, name, (int)result);
    }
}

fmk_status fmk_cuda_check_device(const struct fmk_context *ctx) {
    const struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    int lost = atomic_load(&cuda->lost);
    return lost ? is_lost(cuda, (CUresult)lost, "an earlier call") : FMK_OK;
}

fmk_status fmk_cuda_enter(const struct fmk_context *ctx, CUcontext *before) {
    const struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    *before = cuda->context;
    if (atomic_load_explicit(&cuda->lost, memory_order_relaxed))
        return fmk_cuda_check_device(ctx);
    CUresult result = cuda->driver->CtxGetCurrent(before);
    if (!result && *before != cuda->context)
        result = cuda->driver->CtxSetCurrent(cuda->context);
    return fmk_cuda_check(ctx, result, "making the CUDA context current");
}

void fmk_cuda_leave(const struct fmk_context *ctx, CUcontext before) {
    const struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    if (before != cuda->context)
        cuda->driver->CtxSetCurrent(before);
}
