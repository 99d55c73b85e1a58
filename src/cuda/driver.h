/* libcuda, opened at run time: a table of its functions, and what its errors mean here. */
#ifndef FMK_CUDA_DRIVER_H
#define FMK_CUDA_DRIVER_H

#include "ferrumk.h"

#include <cuda.h> /* types alone: nothing of it is linked */
#include <stdbool.h>
#include <stddef.h>

/* Fields are named as the functions, without "cu". None is one of the per-thread default stream's. */
struct fmk_driver {
    int version; /* 12040 is CUDA 12.4 */

    CUresult (*Init)(unsigned flags);
    CUresult (*DriverGetVersion)(int *version);
    CUresult (*GetErrorName)(CUresult error, const char **text);

    CUresult (*DeviceGet)(CUdevice *device, int ordinal);
    CUresult (*DeviceGetCount)(int *count);
    CUresult (*DeviceGetName)(char *name, int length, CUdevice device);
    CUresult (*DeviceGetAttribute)(int *value, CUdevice_attribute attribute, CUdevice device);
    CUresult (*DeviceTotalMem)(size_t *bytes, CUdevice device);
    CUresult (*DevicePrimaryCtxRetain)(CUcontext *context, CUdevice device);
    CUresult (*DevicePrimaryCtxRelease)(CUdevice device);

    CUresult (*CtxGetCurrent)(CUcontext *context);
    CUresult (*CtxSetCurrent)(CUcontext context);
    CUresult (*CtxGetDevice)(CUdevice *device);

    CUresult (*StreamCreate)(CUstream *stream, unsigned flags);
    CUresult (*StreamDestroy)(CUstream stream);
    CUresult (*StreamGetCtx)(CUstream stream, CUcontext *context);
    CUresult (*StreamIsCapturing)(CUstream stream, CUstreamCaptureStatus *status);
    CUresult (*StreamSynchronize)(CUstream stream);
    CUresult (*StreamWaitEvent)(CUstream stream, CUevent event, unsigned flags);
    CUresult (*EventCreate)(CUevent *event, unsigned flags);
    CUresult (*EventRecord)(CUevent event, CUstream stream);
    CUresult (*EventQuery)(CUevent event);
    CUresult (*EventSynchronize)(CUevent event);
    CUresult (*EventDestroy)(CUevent event);

    CUresult (*MemAlloc)(CUdeviceptr *address, size_t bytes);
    CUresult (*MemFree)(CUdeviceptr address);
    CUresult (*MemHostAlloc)(void **address, size_t bytes, unsigned flags);
    CUresult (*MemFreeHost)(void *address);
    CUresult (*MemcpyHtoDAsync)(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
    CUresult (*MemcpyDtoHAsync)(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
    CUresult (*MemcpyDtoDAsync)(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
    CUresult (*Memcpy2DAsync)(const CUDA_MEMCPY2D *copy, CUstream stream);
    CUresult (*MemsetD8Async)(CUdeviceptr to, unsigned char value, size_t count, CUstream stream);
    CUresult (*PointerGetAttributes)(unsigned count, CUpointer_attribute *attributes, void **values,
                                     CUdeviceptr address);

    CUresult (*ModuleLoadData)(CUmodule *module, const void *image);
    CUresult (*ModuleGetFunction)(CUfunction *function, CUmodule module, const char *name);
    CUresult (*ModuleUnload)(CUmodule module);
    CUresult (*FuncSetAttribute)(CUfunction function, CUfunction_attribute attribute, int value);
    CUresult (*TensorMapEncodeTiled)(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                     void *address, const cuuint64_t *sizes, const cuuint64_t *strides,
                                     const cuuint32_t *box, const cuuint32_t *element_strides,
                                     CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                     CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill);
    CUresult (*LaunchKernel)(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                             CUstream stream, void **params, void **extra);
    CUresult (*LaunchKernelEx)(const CUlaunchConfig *config, CUfunction function, void **params,
                               void **extra);
};

/* The process's table, opened on first use; ENODEVICE with a sentence where there is no (new enough) driver.
 */
fmk_status fmk_driver_open(const struct fmk_driver **out);

#endif
