/* Memory and streams of a CUDA device, for device.c and the tests of the CUDA backend. */
#include "device.h"
#include "device_gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the driver ---- */

struct cuda_functions cuda;
static void *primary, *stream; /* of the tests' queues */

void cuda_ok(int result, const char *call, const char *file, int line) {
    if (!result)
        return;
    const char *name = "unknown error";
    cuda.GetErrorName(result, &name);
    fprintf(stderr, "%s:%d: cu%s: %d %s\n", file, line, call, result, name);
    exit(1);
}

static void open_functions(void) {
    const struct {
        const char *name;
        void *function;
    } names[] = {
        {"cuGetErrorName", &cuda.GetErrorName},
        {"cuDeviceGetCount", &cuda.DeviceGetCount},
        {"cuDevicePrimaryCtxRetain", &cuda.DevicePrimaryCtxRetain},
        {"cuCtxCreate_v4", &cuda.CtxCreate},
        {"cuCtxDestroy_v2", &cuda.CtxDestroy},
        {"cuCtxGetCurrent", &cuda.CtxGetCurrent},
        {"cuCtxSetCurrent", &cuda.CtxSetCurrent},
        {"cuCtxSynchronize", &cuda.CtxSynchronize},
        {"cuStreamCreate", &cuda.StreamCreate},
        {"cuStreamDestroy_v2", &cuda.StreamDestroy},
        {"cuStreamSynchronize", &cuda.StreamSynchronize},
        {"cuStreamBeginCapture_v2", &cuda.StreamBeginCapture},
        {"cuStreamEndCapture", &cuda.StreamEndCapture},
        {"cuGraphInstantiateWithFlags", &cuda.GraphInstantiate},
        {"cuGraphLaunch", &cuda.GraphLaunch},
        {"cuGraphExecDestroy", &cuda.GraphExecDestroy},
        {"cuGraphDestroy", &cuda.GraphDestroy},
        {"cuMemAlloc_v2", &cuda.MemAlloc},
        {"cuMemFree_v2", &cuda.MemFree},
        {"cuMemGetInfo_v2", &cuda.MemGetInfo},
        {"cuMemcpyHtoDAsync_v2", &cuda.MemcpyHtoDAsync},
        {"cuMemcpyDtoHAsync_v2", &cuda.MemcpyDtoHAsync},
        {"cuMemsetD8Async", &cuda.MemsetD8Async},
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "libcuda.so.1, which the library has opened: %s\n", dlerror());
        exit(1);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *found = dlsym(library, names[i].name);
        memcpy(names[i].function, &found, sizeof found);
        if (!found && strcmp(names[i].name, "cuCtxCreate_v4")) {
            fprintf(stderr, "libcuda.so.1 has no %s\n", names[i].name);
            exit(1);
        }
    }
}

/* What the library says of the device; it has initialized the driver then. */
static void *cuda_open(void) {
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_CUDA};
    fmk_context *probe;
    fmk_status status = fmk_context_create(&probe, &desc);
    if (status == FMK_ENODEVICE || status == FMK_EUNSUPPORTED) {
        printf("SKIPPED: no CUDA device: %s\n", fmk_last_error());
        exit(77);
    }
    if (status) {
        fprintf(stderr, "no context of the CUDA backend: %s: %s\n", fmk_status_name(status),
                fmk_last_error());
        exit(1);
    }
    open_functions();
    CUDA(DevicePrimaryCtxRetain(&primary, 0));
    fmk_context_destroy(probe);
    stream = gpu_stream();
    return stream;
}

void *primary_context(void) {
    return primary;
}

/* ---- memory, whatever context is current ---- */

static void *enter(void) {
    void *before;
    CUDA(CtxGetCurrent(&before));
    CUDA(CtxSetCurrent(primary));
    return before;
}

static void leave(void *before) {
    CUDA(CtxSetCurrent(before));
}

static uint64_t cuda_alloc(size_t size) {
    void *before = enter();
    uint64_t memory;
    CUDA(MemAlloc(&memory, size ? size : 1));
    leave(before);
    return memory;
}

static void cuda_free(uint64_t memory) {
    void *before = enter();
    CUDA(MemFree(memory));
    leave(before);
}

static void cuda_write(uint64_t to, const void *from, size_t size) {
    void *before = enter();
    if (size)
        CUDA(MemcpyHtoDAsync(to, from, size, stream));
    CUDA(StreamSynchronize(stream));
    leave(before);
}

static void cuda_read(void *to, uint64_t from, size_t size) {
    void *before = enter();
    if (size)
        CUDA(MemcpyDtoHAsync(to, from, size, stream));
    CUDA(StreamSynchronize(stream));
    leave(before);
}

static void cuda_fill(uint64_t to, unsigned char value, size_t size) {
    void *before = enter();
    if (size)
        CUDA(MemsetD8Async(to, value, size, stream));
    CUDA(StreamSynchronize(stream));
    leave(before);
}

enum { NON_BLOCKING = 1 }; /* apart from the default stream, which the library must not need */

void *gpu_stream(void) {
    void *before = enter(), *made;
    CUDA(StreamCreate(&made, NON_BLOCKING));
    leave(before);
    return made;
}

void gpu_stream_free(void *made) {
    void *before = enter();
    CUDA(StreamDestroy(made));
    leave(before);
}

void gpu_wait(void *on) {
    void *before = enter();
    CUDA(StreamSynchronize(on));
    leave(before);
}

size_t gpu_memory_unused(void) {
    void *before = enter();
    size_t unused, total;
    CUDA(MemGetInfo(&unused, &total));
    leave(before);
    return unused;
}

/* ---- for device.c ---- */

static void *current_context(void) {
    void *context;
    CUDA(CtxGetCurrent(&context));
    return context;
}

static void cuda_wait(fmk_queue *queue) {
    (void)queue;
    gpu_wait(stream);
}

static fmk_buffer cuda_buffer(uint64_t memory, size_t size) {
    return (fmk_buffer){.handle = memory, .size = size};
}

static uint64_t cuda_memory(uint64_t handle) {
    return handle;
}

static const void *cuda_native(void) {
    return NULL;
}

const struct gpu gpu_cuda = {
    .name = "cuda",
    .backend = FMK_BACKEND_CUDA,
    .open = cuda_open,
    .native = cuda_native,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .write = cuda_write,
    .read = cuda_read,
    .fill = cuda_fill,
    .wait = cuda_wait,
    .buffer = cuda_buffer,
    .memory = cuda_memory,
    .current = current_context,
};
