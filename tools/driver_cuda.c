/* A CUDA device through its driver: see driver.h. libcuda is opened at run time. One device at a time, by one
 * thread, to which its primary context is made current. */
#include "driver.h"
#include "tool.h"

#include <dlfcn.h>
#include <string.h>

/* The driver's functions without "cu" and version. cuda.h is not needed: a CUresult is an int, a CUdeviceptr
 * has 64 bits, and every handle is a pointer. */
static struct {
    int (*Init)(unsigned flags);
    int (*DeviceGet)(int *device, int index);
    int (*DevicePrimaryCtxRetain)(void **context, int device);
    int (*DevicePrimaryCtxRelease)(int device);
    int (*CtxSetCurrent)(void *context);
    int (*GetErrorName)(int error, const char **name);
    int (*StreamCreate)(void **stream, unsigned flags);
    int (*StreamDestroy)(void *stream);
    int (*StreamSynchronize)(void *stream);
    int (*MemAlloc)(uint64_t *memory, size_t bytes);
    int (*MemFree)(uint64_t memory);
    int (*MemcpyHtoDAsync)(uint64_t to, const void *from, size_t bytes, void *stream);
    int (*MemcpyDtoHAsync)(void *to, uint64_t from, size_t bytes, void *stream);
    int (*EventCreate)(void **event, unsigned flags);
    int (*EventDestroy)(void *event);
    int (*EventRecord)(void *event, void *stream);
    int (*EventElapsedTime)(float *milliseconds, void *from, void *to);
} cuda;

static int device;
static void *stream, *events[DRIVER_MARKS];

static void must(int result, const char *what) {
    if (!result)
        return;
    const char *name = NULL;
    cuda.GetErrorName(result, &name);
    quit(EXIT_REFUSED, "%s: the CUDA driver answered %s", what, name ? name : "an unknown error");
}

static void open_functions(void) {
    const struct {
        const char *name;
        void *function;
    } names[] = {
        {"cuInit", &cuda.Init},
        {"cuDeviceGet", &cuda.DeviceGet},
        {"cuDevicePrimaryCtxRetain", &cuda.DevicePrimaryCtxRetain},
        {"cuDevicePrimaryCtxRelease_v2", &cuda.DevicePrimaryCtxRelease},
        {"cuCtxSetCurrent", &cuda.CtxSetCurrent},
        {"cuGetErrorName", &cuda.GetErrorName},
        {"cuStreamCreate", &cuda.StreamCreate},
        {"cuStreamDestroy_v2", &cuda.StreamDestroy},
        {"cuStreamSynchronize", &cuda.StreamSynchronize},
        {"cuMemAlloc_v2", &cuda.MemAlloc},
        {"cuMemFree_v2", &cuda.MemFree},
        {"cuMemcpyHtoDAsync_v2", &cuda.MemcpyHtoDAsync},
        {"cuMemcpyDtoHAsync_v2", &cuda.MemcpyDtoHAsync},
        {"cuEventCreate", &cuda.EventCreate},
        {"cuEventDestroy_v2", &cuda.EventDestroy},
        {"cuEventRecord", &cuda.EventRecord},
        {"cuEventElapsedTime", &cuda.EventElapsedTime},
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        quit(EXIT_REFUSED, "there is no CUDA driver here: %s", dlerror());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i].name);
        if (!function)
            quit(EXIT_REFUSED, "the CUDA driver has no %s", names[i].name);
        memcpy(names[i].function, &function, sizeof function);
    }
}

static void cuda_open(fmk_context *context_of_library, int32_t index) {
    (void)context_of_library;
    enum { NON_BLOCKING = 1 }; /* apart from the default stream */
    void *context;
    open_functions();
    must(cuda.Init(0), "starting CUDA");
    must(cuda.DeviceGet(&device, index), "opening the device");
    must(cuda.DevicePrimaryCtxRetain(&context, device), "the primary context");
    must(cuda.CtxSetCurrent(context), "the primary context");
    must(cuda.StreamCreate(&stream, NON_BLOCKING), "a stream");
    for (int i = 0; i < DRIVER_MARKS; i++)
        must(cuda.EventCreate(&events[i], 0), "an event");
}

static void cuda_close(void) {
    for (int i = 0; i < DRIVER_MARKS; i++)
        must(cuda.EventDestroy(events[i]), "destroying an event");
    must(cuda.StreamDestroy(stream), "destroying a stream");
    must(cuda.CtxSetCurrent(NULL), "leaving the primary context");
    must(cuda.DevicePrimaryCtxRelease(device), "releasing the primary context");
    stream = NULL;
}

static void *cuda_stream(void) {
    return stream;
}

static void cuda_wait(void) {
    must(cuda.StreamSynchronize(stream), "waiting for the device");
}

static uint64_t cuda_allocate(uint64_t bytes) {
    uint64_t memory;
    if (cuda.MemAlloc(&memory, bytes ? bytes : 1))
        quit(EXIT_REFUSED, "no device memory for %s", human_bytes(bytes).text);
    return memory;
}

static void cuda_free(uint64_t memory) {
    must(cuda.MemFree(memory), "freeing device memory");
}

static void cuda_write(uint64_t to, const void *from, uint64_t bytes) {
    must(cuda.MemcpyHtoDAsync(to, from, bytes, stream), "a copy to the device");
    cuda_wait();
}

static void cuda_read(void *to, uint64_t from, uint64_t bytes) {
    must(cuda.MemcpyDtoHAsync(to, from, bytes, stream), "a copy from the device");
    cuda_wait();
}

static void cuda_mark(int i) {
    must(cuda.EventRecord(events[i], stream), "an event");
}

static double cuda_seconds(int from, int to) {
    float milliseconds;
    must(cuda.EventElapsedTime(&milliseconds, events[from], events[to]), "the time between two events");
    return 1e-3 * (double)milliseconds;
}

static fmk_buffer cuda_buffer(uint64_t memory) {
    return (fmk_buffer){.handle = memory};
}

const struct driver cuda_driver = {
    .open = cuda_open,
    .close = cuda_close,
    .stream = cuda_stream,
    .wait = cuda_wait,
    .allocate = cuda_allocate,
    .free = cuda_free,
    .write = cuda_write,
    .read = cuda_read,
    .buffer = cuda_buffer,
    .mark = cuda_mark,
    .seconds = cuda_seconds,
};
