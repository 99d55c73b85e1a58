/* One device, its contexts, errors, modules, and cuGetProcAddress. */
#include "driver.h"

#include <dlfcn.h>
#include <map>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>

namespace emulator {

/* ---- kernels ---- */

static std::map<std::string, const Kernel *> &kernels() {
    static std::map<std::string, const Kernel *> all;
    return all;
}

void add_kernels(const Kernel *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!kernels().emplace(list[i].name, &list[i]).second) {
            fprintf(stderr, "emulator: there are two kernels %s\n", list[i].name);
            abort();
        }
}

const Kernel *find_kernel(const char *name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : found->second;
}

/* ---- failures to order ---- */

struct Order {
    CUresult result;
    int skip, times;
};

static std::mutex orders_lock;
static std::map<std::string, Order> orders;

CUresult ordered(const char *function) {
    std::lock_guard<std::mutex> held(orders_lock);
    auto found = orders.find(function);
    if (found == orders.end() || found->second.skip-- > 0)
        return CUDA_SUCCESS;
    CUresult result = found->second.result;
    if (!--found->second.times)
        orders.erase(found);
    return result;
}

/* ---- the thread's stack of contexts; not thread_local: that is the kernels' shared memory ---- */

static std::vector<CUcontext> *contexts() {
    static pthread_key_t key = [] {
        pthread_key_t made;
        pthread_key_create(&made, [](void *it) { delete static_cast<std::vector<CUcontext> *>(it); });
        return made;
    }();
    void *it = pthread_getspecific(key);
    if (!it) {
        it = new std::vector<CUcontext>;
        pthread_setspecific(key, it);
    }
    return static_cast<std::vector<CUcontext> *>(it);
}

CUcontext current_context() {
    return contexts()->empty() ? nullptr : contexts()->back();
}

static std::mutex primary_lock;
static CUcontext primary;
static bool initialized;

} // namespace emulator

using namespace emulator;

/* For tests: of the calls of `function` (its name without _v2), `skip` go well, then `times` answer `result`.
 * times 0 takes the order back. */
extern "C" void fmk_emulated_fail(const char *function, int result, int skip, int times) {
    std::lock_guard<std::mutex> held(orders_lock);
    if (times)
        orders[function] = Order{static_cast<CUresult>(result), skip, times};
    else
        orders.erase(function);
}

CUresult cuInit(unsigned flags) {
    if (CUresult result = ordered("cuInit"))
        return result;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (getenv("FMK_EMULATED_NO_DEVICE"))
        return CUDA_ERROR_NO_DEVICE;
    initialized = true;
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version) {
    const char *wanted = getenv("FMK_EMULATED_VERSION");
    *version = wanted ? atoi(wanted) : CUDA_VERSION;
    return CUDA_SUCCESS;
}

/* ---- errors ---- */

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_INVALID_CLUSTER_SIZE, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "invalid cluster size"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
};

CUresult cuGetErrorName(CUresult error, const char **text) {
    for (const auto &row : errors)
        if (row.code == error)
            return *text = row.name, CUDA_SUCCESS;
    return *text = nullptr, CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
    for (const auto &row : errors)
        if (row.code == error)
            return *text = row.text, CUDA_SUCCESS;
    return *text = nullptr, CUDA_ERROR_INVALID_VALUE;
}

/* ---- device ---- */

CUresult cuDeviceGetCount(int *count) {
    *count = initialized;
    return initialized ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    if (!initialized)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (ordinal)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    if (device || length <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, static_cast<size_t>(length), "FMK emulated GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    memset(uuid, 0x0f, sizeof *uuid);
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

constexpr int MOST_SHARED = 227 << 10, MOST_SHARED_SM80 = 99 << 10; /* of a block that asks for it */

static int capability() {
    const char *wanted = getenv("FMK_EMULATED_CAPABILITY");
    return wanted ? atoi(wanted) : 90;
}

/* Few multiprocessors: grids that are as large as the device stay small. */
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    if (device)
        return CUDA_ERROR_INVALID_DEVICE;
    switch (static_cast<int>(attribute)) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        return *value = capability() / 10, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        return *value = capability() % 10, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        return *value = 3, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
        return *value = WARP, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        return *value = MOST_THREADS, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
        return *value = 2048, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
        return *value = 48 << 10, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        return *value = capability() >= 90 ? MOST_SHARED : MOST_SHARED_SM80, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        return *value = 32 << 20, CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
        return *value = 1, CUDA_SUCCESS;
    default:
        return *value = 0, CUDA_SUCCESS;
    }
}

/* ---- contexts ---- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    if (CUresult result = ordered("cuDevicePrimaryCtxRetain"))
        return result;
    if (!initialized || device)
        return initialized ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_NOT_INITIALIZED;
    std::lock_guard<std::mutex> held(primary_lock);
    if (!primary)
        primary = new CUctx_st{true, false, 0, nullptr};
    primary->references++;
    *context = primary;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    std::lock_guard<std::mutex> held(primary_lock);
    if (device || !primary || !primary->references)
        return CUDA_ERROR_INVALID_CONTEXT;
    primary->references--;
    return CUDA_SUCCESS;
}

static CUresult create_context(CUcontext *context, CUdevice device) {
    if (!initialized || device)
        return initialized ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_NOT_INITIALIZED;
    *context = new CUctx_st{false, false, 1, nullptr};
    contexts()->push_back(*context);
    return CUDA_SUCCESS;
}

#undef cuCtxCreate
extern "C" CUresult cuCtxCreate_v2(CUcontext *context, unsigned, CUdevice device) {
    return create_context(context, device);
}

extern "C" CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *, unsigned, CUdevice device) {
    return create_context(context, device);
}

/* Not freed: handles to it may still be shown to us. */
CUresult cuCtxDestroy(CUcontext context) {
    if (!context || context->primary || context->destroyed)
        return CUDA_ERROR_INVALID_CONTEXT;
    finish_all(context);
    context->destroyed = true;
    if (current_context() == context)
        contexts()->pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = current_context();
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    if (context && context->destroyed)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (!contexts()->empty())
        contexts()->pop_back();
    if (context)
        contexts()->push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
    if (CUresult result = ordered("cuCtxPushCurrent"))
        return result;
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context->destroyed)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    contexts()->push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context) {
    if (contexts()->empty())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context)
        *context = contexts()->back();
    contexts()->pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    *device = 0;
    return current_context() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSynchronize() {
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (CUresult result = refuse_while_capturing())
        return result;
    finish_all(current_context());
    return CUDA_SUCCESS;
}

/* ---- modules ---- */

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    if (CUresult result = ordered("cuModuleLoadData"))
        return result;
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!image)
        return CUDA_ERROR_INVALID_VALUE;
    if (CUresult result = refuse_while_capturing())
        return result;
    *module = new CUmod_st{current_context(), {}};
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned, CUjit_option *, void **) {
    return cuModuleLoadData(module, image);
}

CUresult cuModuleUnload(CUmodule module) {
    delete module;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    if (CUresult result = ordered("cuModuleGetFunction"))
        return result;
    const Kernel *kernel = find_kernel(name);
    if (!kernel)
        return CUDA_ERROR_NOT_FOUND;
    module->functions.push_back(std::make_unique<CUfunc_st>(CUfunc_st{module, kernel, 48 << 10}));
    *function = module->functions.back().get();
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (CUresult result = ordered("cuFuncSetAttribute"))
        return result;
    if (!function)
        return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
        return CUDA_SUCCESS;
    if (value < 0 || value > (capability() >= 90 ? MOST_SHARED : MOST_SHARED_SM80))
        return CUDA_ERROR_INVALID_VALUE;
    function->dynamic_shared = static_cast<unsigned>(value);
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? static_cast<int>(MOST_THREADS) : 0;
    return function ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int, size_t) {
    *blocks = 1;
    return function ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- functions by name ---- */

/* The newest that is here, of those that the wanted version of CUDA has. */
static void *find_function(const char *name, int version) {
    Dl_info info;
    if (!dladdr(reinterpret_cast<const void *>(find_function), &info))
        return nullptr;
    void *library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return nullptr;
    void *found = nullptr;
    static const struct {
        const char *suffix;
        int since;
    } spellings[] = {{"_v4", 13000}, {"_v2", 0}, {"", 0}};
    for (const auto &spelling : spellings)
        if (!found && version >= spelling.since)
            found = dlsym(library, (std::string(name) + spelling.suffix).c_str());
    dlclose(library);
    return found;
}

#undef cuGetProcAddress
extern "C" CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t,
                                        CUdriverProcAddressQueryResult *status) {
    const char *without = getenv("FMK_EMULATED_WITHOUT"); /* one function of an old driver */
    bool missing = without && !strcmp(without, name);
    *function = missing ? nullptr : find_function(name, version);
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

extern "C" CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
