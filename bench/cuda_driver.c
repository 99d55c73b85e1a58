/* A CUDA device as the benchmark sees it: see cuda_driver.h. */
#include "cuda_driver.h"

#include <dlfcn.h>
#include <stdlib.h>

/* ---- opening ---- */

static const struct {
    const char *name;
    size_t field;
} functions[] = {
    {"cuInit", offsetof(struct cuda_driver, Init)},
    {"cuDriverGetVersion", offsetof(struct cuda_driver, DriverGetVersion)},
    {"cuDeviceGet", offsetof(struct cuda_driver, DeviceGet)},
    {"cuDeviceGetAttribute", offsetof(struct cuda_driver, DeviceGetAttribute)},
    {"cuDevicePrimaryCtxRetain", offsetof(struct cuda_driver, DevicePrimaryCtxRetain)},
    {"cuCtxSetCurrent", offsetof(struct cuda_driver, CtxSetCurrent)},
    {"cuCtxSynchronize", offsetof(struct cuda_driver, CtxSynchronize)},
    {"cuGetErrorName", offsetof(struct cuda_driver, GetErrorName)},
    {"cuMemAlloc_v2", offsetof(struct cuda_driver, MemAlloc)},
    {"cuMemFree_v2", offsetof(struct cuda_driver, MemFree)},
    {"cuMemAllocHost_v2", offsetof(struct cuda_driver, MemAllocHost)},
    {"cuMemFreeHost", offsetof(struct cuda_driver, MemFreeHost)},
    {"cuMemGetInfo_v2", offsetof(struct cuda_driver, MemGetInfo)},
    {"cuMemcpyHtoD_v2", offsetof(struct cuda_driver, MemcpyHtoD)},
    {"cuMemcpyDtoH_v2", offsetof(struct cuda_driver, MemcpyDtoH)},
    {"cuMemcpyHtoDAsync_v2", offsetof(struct cuda_driver, MemcpyHtoDAsync)},
    {"cuMemcpyDtoDAsync_v2", offsetof(struct cuda_driver, MemcpyDtoDAsync)},
    {"cuMemsetD8Async", offsetof(struct cuda_driver, MemsetD8Async)},
    {"cuStreamCreate", offsetof(struct cuda_driver, StreamCreate)},
    {"cuStreamSynchronize", offsetof(struct cuda_driver, StreamSynchronize)},
    {"cuStreamBeginCapture_v2", offsetof(struct cuda_driver, StreamBeginCapture)},
    {"cuStreamEndCapture", offsetof(struct cuda_driver, StreamEndCapture)},
    {"cuGraphInstantiateWithFlags", offsetof(struct cuda_driver, GraphInstantiate)},
    {"cuGraphLaunch", offsetof(struct cuda_driver, GraphLaunch)},
    {"cuGraphExecDestroy", offsetof(struct cuda_driver, GraphExecDestroy)},
    {"cuGraphDestroy", offsetof(struct cuda_driver, GraphDestroy)},
    {"cuEventCreate", offsetof(struct cuda_driver, EventCreate)},
    {"cuEventRecord", offsetof(struct cuda_driver, EventRecord)},
    {"cuEventElapsedTime", offsetof(struct cuda_driver, EventElapsedTime)},
    {"cuModuleLoadData", offsetof(struct cuda_driver, ModuleLoadData)},
    {"cuModuleGetFunction", offsetof(struct cuda_driver, ModuleGetFunction)},
    {"cuLaunchKernelEx", offsetof(struct cuda_driver, LaunchKernelEx)},
};

void gpu_check(const struct gpu *gpu, CUresult result, const char *what) {
    if (result == CUDA_SUCCESS)
        return;
    const char *name = NULL;
    gpu->driver.GetErrorName(result, &name);
    quit(EXIT_REFUSED, "%s: the driver answered %s", what, name ? name : "an unknown error");
}

static void open_driver(struct cuda_driver *driver) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        quit(EXIT_REFUSED, "there is no CUDA driver here: %s", dlerror());
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            quit(EXIT_REFUSED, "the CUDA driver has no %s: it is older than 12.0", functions[i].name);
        *(void **)((char *)driver + functions[i].field) = function;
    }
}

static void open_cublas(struct gpu *gpu) {
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    int (*create)(void **handle) = (int (*)(void **))dlsym(library, "cublasCreate_v2");
    int (*set_stream)(void *handle, CUstream stream) =
        (int (*)(void *, CUstream))dlsym(library, "cublasSetStream_v2");
    int (*set_workspace)(void *handle, void *workspace, size_t bytes) =
        (int (*)(void *, void *, size_t))dlsym(library, "cublasSetWorkspace_v2");
    gpu->cublas_math = (int (*)(void *, int))dlsym(library, "cublasSetMathMode");
    gpu->gemm = (cublas_gemm *)dlsym(library, "cublasGemmEx");
    gpu->cublas_workspace = gpu_allocate(gpu, CUBLAS_WORKSPACE);
    if (!create || !set_stream || !set_workspace || !gpu->cublas_math || !gpu->gemm || create(&gpu->cublas) ||
        set_stream(gpu->cublas, gpu->stream) ||
        set_workspace(gpu->cublas, (void *)(uintptr_t)gpu->cublas_workspace, CUBLAS_WORKSPACE))
        quit(EXIT_REFUSED, "cuBLAS is there, but refuses to start");
}

static int attribute(const struct gpu *gpu, CUdevice_attribute which) {
    int value;
    gpu_check(gpu, gpu->driver.DeviceGetAttribute(&value, which, gpu->device), "an attribute of the device");
    return value;
}

void gpu_open(struct gpu *gpu, int device) {
    *gpu = (struct gpu){0};
    const struct cuda_driver *driver = &gpu->driver;
    open_driver(&gpu->driver);
    gpu_check(gpu, driver->Init(0), "cuInit");
    gpu_check(gpu, driver->DriverGetVersion(&gpu->driver_version), "the driver's version");
    gpu_check(gpu, driver->DeviceGet(&gpu->device, device), "--device");
    gpu_check(gpu, driver->DevicePrimaryCtxRetain(&gpu->context, gpu->device), "the primary context");
    gpu_check(gpu, driver->CtxSetCurrent(gpu->context), "the primary context");
    gpu_check(gpu, driver->StreamCreate(&gpu->stream, CU_STREAM_NON_BLOCKING), "a stream");
    for (int i = 0; i < GPU_EVENTS; i++)
        gpu_check(gpu, driver->EventCreate(&gpu->events[i], CU_EVENT_DEFAULT), "an event");
    gpu->capability = 10 * attribute(gpu, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                      attribute(gpu, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    gpu->multiprocessors = attribute(gpu, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    gpu->l2_bytes = attribute(gpu, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    open_cublas(gpu);
}

/* ---- memory ---- */

uint64_t gpu_allocate(const struct gpu *gpu, uint64_t bytes) {
    CUdeviceptr address;
    CUresult result = gpu->driver.MemAlloc(&address, bytes);
    if (result != CUDA_SUCCESS)
        gpu_check(gpu, result, text_of("%s of device memory", human_bytes(bytes).text));
    return address;
}

void gpu_free(const struct gpu *gpu, uint64_t address) {
    gpu_check(gpu, gpu->driver.MemFree(address), "freeing device memory");
}

void gpu_upload(const struct gpu *gpu, uint64_t address, const void *host, uint64_t bytes) {
    gpu_check(gpu, gpu->driver.MemcpyHtoD(address, host, bytes), "a copy to the device");
    /* From pageable memory the copy goes on after the call, and our stream does not wait for it. */
    gpu_check(gpu, gpu->driver.CtxSynchronize(), "a copy to the device");
}

void gpu_download(const struct gpu *gpu, void *host, uint64_t address, uint64_t bytes) {
    gpu_check(gpu, gpu->driver.MemcpyDtoH(host, address, bytes), "a copy from the device");
}

void gpu_wait(const struct gpu *gpu) {
    gpu_check(gpu, gpu->driver.StreamSynchronize(gpu->stream), "waiting for the stream");
}

/* ---- time ---- */

void gpu_graph_make(struct gpu_graph *graph, const struct gpu *gpu, void (*call)(void *user, int i),
                    void *user, int calls) {
    const struct cuda_driver *driver = &gpu->driver;
    CUgraph captured;
    gpu_check(gpu, driver->StreamBeginCapture(gpu->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "capturing");
    for (int i = 0; i < calls; i++)
        call(user, i);
    gpu_check(gpu, driver->StreamEndCapture(gpu->stream, &captured), "the end of capturing");
    gpu_check(gpu, driver->GraphInstantiate(&graph->executable, captured, 0), "instantiating a graph");
    gpu_check(gpu, driver->GraphDestroy(captured), "destroying a graph");
    graph->calls = calls;
}

void gpu_graph_free(struct gpu_graph *graph, const struct gpu *gpu) {
    gpu_check(gpu, gpu->driver.GraphExecDestroy(graph->executable), "destroying a graph");
    *graph = (struct gpu_graph){0};
}

static void launch(const struct gpu *gpu, const struct gpu_graph *graph, CUevent behind) {
    gpu_check(gpu, gpu->driver.GraphLaunch(graph->executable, gpu->stream), "a graph's launch");
    gpu_check(gpu, gpu->driver.EventRecord(behind, gpu->stream), "an event");
}

void gpu_graphs_time(const struct gpu *gpu, const struct gpu_graph *graphs, int count, int rounds,
                     double *samples) {
    for (int done = 0; done < count * rounds;) {
        int left = count * rounds - done, batch = left < GPU_EVENTS - 1 ? left : GPU_EVENTS - 1;
        /* These are not counted: they bring the graphs to the device, and while they run, the next ones are
         * enqueued, so that none waits for the host. */
        for (int g = 0; g < count; g++)
            launch(gpu, &graphs[g], gpu->events[0]);
        for (int i = 0; i < batch; i++)
            launch(gpu, &graphs[(done + i) % count], gpu->events[i + 1]);
        gpu_wait(gpu);
        for (int i = 0; i < batch; i++) {
            int graph = (done + i) % count, round = (done + i) / count;
            float milliseconds;
            gpu_check(gpu, gpu->driver.EventElapsedTime(&milliseconds, gpu->events[i], gpu->events[i + 1]),
                      "the time between two events");
            samples[graph * rounds + round] = 1e-3 * milliseconds / graphs[graph].calls;
        }
        done += batch;
    }
}

struct timing gpu_time(const struct gpu *gpu, void (*call)(void *user, int i), void *user, int calls) {
    enum { MANY = 30, FEW = 5 };
    struct gpu_graph graph;
    double samples[MANY];
    gpu_graph_make(&graph, gpu, call, user, calls);
    gpu_graphs_time(gpu, &graph, 1, 1, samples);
    int rounds = samples[0] * calls < 0.1 ? MANY : FEW;
    /* The first rounds are not counted: the clock is still what the work before made of it. */
    for (int i = 0; i < 2; i++)
        gpu_graphs_time(gpu, &graph, 1, rounds, samples);
    gpu_graph_free(&graph, gpu);
    return timing_of(samples, rounds);
}

/* ---- cuBLAS ---- */

void gpu_cublas_sums(const struct gpu *gpu, bool fp32) {
    enum { DEFAULT_MATH = 0, DISALLOW_REDUCED_PRECISION_REDUCTION = 16 }; /* cublas_api.h */
    if (gpu->cublas)
        gpu->cublas_math(gpu->cublas, fp32 ? DISALLOW_REDUCED_PRECISION_REDUCTION : DEFAULT_MATH);
}

void gpu_cublas(const struct gpu *gpu, uint64_t in, uint64_t weights, uint64_t out, int64_t m, int64_t n,
                int64_t k) {
    /* cublas_api.h and library_types.h: CUBLAS_OP_N, _OP_T, CUDA_R_16F, CUBLAS_COMPUTE_32F, the default
     * choice. To cuBLAS, whose matrices are column-major, `weights` is [k][n]^T. */
    enum { OP_N = 0, OP_T = 1, R_16F = 2, COMPUTE_32F = 68, DEFAULT = -1 };
    const float one = 1, zero = 0;
    int status = gpu->gemm(gpu->cublas, OP_T, OP_N, (int)n, (int)m, (int)k, &one, (void *)(uintptr_t)weights,
                           R_16F, (int)k, (void *)(uintptr_t)in, R_16F, (int)k, &zero, (void *)(uintptr_t)out,
                           R_16F, (int)n, COMPUTE_32F, DEFAULT);
    if (status)
        quit(EXIT_REFUSED, "cublasGemmEx of %lld x %lld x %lld answered %d", (long long)m, (long long)n,
             (long long)k, status);
}
