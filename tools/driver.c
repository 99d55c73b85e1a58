/* A CUDA device through its driver: see driver.h. */
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

void driver_open(int32_t index) {
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

void driver_close(void) {
    for (int i = 0; i < DRIVER_MARKS; i++)
        must(cuda.EventDestroy(events[i]), "destroying an event");
    must(cuda.StreamDestroy(stream), "destroying a stream");
    must(cuda.CtxSetCurrent(NULL), "leaving the primary context");
    must(cuda.DevicePrimaryCtxRelease(device), "releasing the primary context");
    stream = NULL;
}

void *driver_stream(void) {
    return stream;
}

void driver_wait(void) {
    must(cuda.StreamSynchronize(stream), "waiting for the device");
}

uint64_t driver_allocate(uint64_t bytes) {
    uint64_t memory;
    if (cuda.MemAlloc(&memory, bytes ? bytes : 1))
        quit(EXIT_REFUSED, "no device memory for %s", human_bytes(bytes).text);
    return memory;
}

void driver_free(uint64_t memory) {
    must(cuda.MemFree(memory), "freeing device memory");
}

void driver_write(uint64_t to, const void *from, uint64_t bytes) {
    must(cuda.MemcpyHtoDAsync(to, from, bytes, stream), "a copy to the device");
    driver_wait();
}

void driver_read(void *to, uint64_t from, uint64_t bytes) {
    must(cuda.MemcpyDtoHAsync(to, from, bytes, stream), "a copy from the device");
    driver_wait();
}

void driver_mark(int i) {
    must(cuda.EventRecord(events[i], stream), "an event");
}

double driver_seconds(int from, int to) {
    float milliseconds;
    must(cuda.EventElapsedTime(&milliseconds, events[from], events[to]), "the time between two events");
    return 1e-3 * (double)milliseconds;
}
