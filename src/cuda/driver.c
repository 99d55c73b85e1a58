/* Opens libcuda once per process and fills in the table. Nothing happens before the first context is made. */
#include "driver.h"

#include "../error.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    OLDEST_DRIVER = 12000,                    /* R525. It answers for every function below */
    NEEDED_DRIVER = 1000 * FERRUMK_NVCC_MAJOR /* a driver reads what nvcc of its own major version writes */
};
_Static_assert((int)NEEDED_DRIVER >= (int)OLDEST_DRIVER,
               "cmake/find_nvcc.cmake looks for nvcc 12.0 or later");

/* Each function, and the CUDA version whose signature of it driver.h declares. */
static const struct {
    const char *name;
    int version;
    size_t offset;
} functions[] = {
    {"cuInit", 2000, offsetof(struct fmk_driver, Init)},
    {"cuDriverGetVersion", 2020, offsetof(struct fmk_driver, DriverGetVersion)},
    {"cuGetErrorName", 6000, offsetof(struct fmk_driver, GetErrorName)},
    {"cuDeviceGet", 2000, offsetof(struct fmk_driver, DeviceGet)},
    {"cuDeviceGetCount", 2000, offsetof(struct fmk_driver, DeviceGetCount)},
    {"cuDeviceGetName", 2000, offsetof(struct fmk_driver, DeviceGetName)},
    {"cuDeviceGetAttribute", 2000, offsetof(struct fmk_driver, DeviceGetAttribute)},
    {"cuDeviceTotalMem", 3020, offsetof(struct fmk_driver, DeviceTotalMem)},
    {"cuDevicePrimaryCtxRetain", 7000, offsetof(struct fmk_driver, DevicePrimaryCtxRetain)},
    {"cuDevicePrimaryCtxRelease", 11000, offsetof(struct fmk_driver, DevicePrimaryCtxRelease)},
    {"cuCtxGetCurrent", 4000, offsetof(struct fmk_driver, CtxGetCurrent)},
    {"cuCtxSetCurrent", 4000, offsetof(struct fmk_driver, CtxSetCurrent)},
    {"cuCtxGetDevice", 2000, offsetof(struct fmk_driver, CtxGetDevice)},
    {"cuStreamCreate", 2000, offsetof(struct fmk_driver, StreamCreate)},
    {"cuStreamDestroy", 4000, offsetof(struct fmk_driver, StreamDestroy)},
    {"cuStreamGetCtx", 9020, offsetof(struct fmk_driver, StreamGetCtx)},
    {"cuStreamIsCapturing", 10000, offsetof(struct fmk_driver, StreamIsCapturing)},
    {"cuStreamSynchronize", 2000, offsetof(struct fmk_driver, StreamSynchronize)},
    {"cuStreamWaitEvent", 3020, offsetof(struct fmk_driver, StreamWaitEvent)},
    {"cuEventCreate", 2000, offsetof(struct fmk_driver, EventCreate)},
    {"cuEventRecord", 2000, offsetof(struct fmk_driver, EventRecord)},
    {"cuEventQuery", 2000, offsetof(struct fmk_driver, EventQuery)},
    {"cuEventSynchronize", 2000, offsetof(struct fmk_driver, EventSynchronize)},
    {"cuEventDestroy", 4000, offsetof(struct fmk_driver, EventDestroy)},
    {"cuMemAlloc", 3020, offsetof(struct fmk_driver, MemAlloc)},
    {"cuMemFree", 3020, offsetof(struct fmk_driver, MemFree)},
    {"cuMemHostAlloc", 2020, offsetof(struct fmk_driver, MemHostAlloc)},
    {"cuMemFreeHost", 2000, offsetof(struct fmk_driver, MemFreeHost)},
    {"cuMemcpyHtoDAsync", 3020, offsetof(struct fmk_driver, MemcpyHtoDAsync)},
    {"cuMemcpyDtoHAsync", 3020, offsetof(struct fmk_driver, MemcpyDtoHAsync)},
    {"cuMemcpyDtoDAsync", 3020, offsetof(struct fmk_driver, MemcpyDtoDAsync)},
    {"cuMemcpy2DAsync", 3020, offsetof(struct fmk_driver, Memcpy2DAsync)},
    {"cuMemsetD8Async", 3020, offsetof(struct fmk_driver, MemsetD8Async)},
    {"cuPointerGetAttributes", 7000, offsetof(struct fmk_driver, PointerGetAttributes)},
    {"cuModuleLoadData", 2000, offsetof(struct fmk_driver, ModuleLoadData)},
    {"cuModuleGetFunction", 2000, offsetof(struct fmk_driver, ModuleGetFunction)},
    {"cuModuleUnload", 2000, offsetof(struct fmk_driver, ModuleUnload)},
    {"cuFuncSetAttribute", 9000, offsetof(struct fmk_driver, FuncSetAttribute)},
    {"cuTensorMapEncodeTiled", 12000, offsetof(struct fmk_driver, TensorMapEncodeTiled)},
    {"cuLaunchKernel", 4000, offsetof(struct fmk_driver, LaunchKernel)},
    {"cuLaunchKernelEx", 11060, offsetof(struct fmk_driver, LaunchKernelEx)},
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

/* cuGetProcAddress of CUDA 11.3 and of 12.0, which also tells why there is no such function. */
typedef CUresult get_address_v1(const char *name, void **function, int version, cuuint64_t flags);
typedef CUresult get_address_v2(const char *name, void **function, int version, cuuint64_t flags,
                                CUdriverProcAddressQueryResult *found);

static struct fmk_driver driver;
static char why_not[256]; /* "" = the table is complete */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *lookup(void *library, const char *name, int version) {
    void *address = NULL;
    get_address_v2 *v2;
    get_address_v1 *v1;
    *(void **)&v2 = dlsym(library, "cuGetProcAddress_v2");
    if (v2) {
        CUdriverProcAddressQueryResult found;
        return v2(name, &address, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &found) ? NULL : address;
    }
    *(void **)&v1 = dlsym(library, "cuGetProcAddress");
    return v1 && !v1(name, &address, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM) ? address : NULL;
}

static void say_version(char *text, size_t cap) {
    int version = 0;
    if (driver.DriverGetVersion && !driver.DriverGetVersion(&version))
        snprintf(text, cap, "CUDA %d.%d", version / 1000, version % 1000 / 10);
    else
        snprintf(text, cap, "an unknown version");
}

static void start(void) {
    CUresult result = driver.Init(0);
    if (result) {
        const char *name = NULL;
        driver.GetErrorName(result, &name);
        snprintf(why_not, sizeof why_not, "the NVIDIA driver does not start: %s%s",
                 name ? name : "unknown error",
                 result == CUDA_ERROR_NO_DEVICE ? " (or CUDA_VISIBLE_DEVICES hides them all)" : "");
        return;
    }
    driver.DriverGetVersion(&driver.version);
    if (driver.version < NEEDED_DRIVER)
        snprintf(why_not, sizeof why_not,
                 "the NVIDIA driver serves CUDA %d.%d; this library, whose kernels were compiled by nvcc %s, "
                 "needs one for CUDA %d.0 or later%s",
                 driver.version / 1000, driver.version % 1000 / 10, FERRUMK_NVCC_VERSION, FERRUMK_NVCC_MAJOR,
                 FERRUMK_NVCC_MAJOR == 12   ? " (R525)"
                 : FERRUMK_NVCC_MAJOR == 13 ? " (R580)"
                                            : "");
}

static void open_once(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(why_not, sizeof why_not, "no NVIDIA driver here: %s", error ? error : "libcuda.so.1");
        return;
    }
    for (int i = 0; i < FUNCTIONS; i++) {
        void *function = lookup(library, functions[i].name, functions[i].version);
        if (!function) {
            char version[32];
            say_version(version, sizeof version);
            snprintf(why_not, sizeof why_not,
                     "the NVIDIA driver is of %s and has no %s; needed is one for CUDA 12.0 (R525) or later",
                     version, functions[i].name);
            return;
        }
        memcpy((char *)&driver + functions[i].offset, &function, sizeof function);
    }
    start();
}

fmk_status fmk_driver_open(const struct fmk_driver **out) {
    pthread_once(&once, open_once);
    *out = &driver;
    return why_not[0] ? fmk_fail(FMK_ENODEVICE, "%s", why_not) : FMK_OK;
}
