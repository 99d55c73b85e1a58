/* What the benchmark itself asks of a CUDA device: memory, a stream, graphs and their times. libcuda and
 * libcublas are opened at run time. Everything here ends the program with a sentence when it fails. */
#ifndef BENCH_CUDA_DRIVER_H
#define BENCH_CUDA_DRIVER_H

#include "measure.h"
#include "tool.h"

#include <cuda.h> /* types alone: nothing of it is linked */

/* The driver's functions, named as it does without "cu". */
struct cuda_driver {
    __typeof__(cuInit) *Init;
    __typeof__(cuDriverGetVersion) *DriverGetVersion;
    __typeof__(cuDeviceGet) *DeviceGet;
    __typeof__(cuDeviceGetAttribute) *DeviceGetAttribute;
    __typeof__(cuDevicePrimaryCtxRetain) *DevicePrimaryCtxRetain;
    __typeof__(cuCtxSetCurrent) *CtxSetCurrent;
    __typeof__(cuCtxSynchronize) *CtxSynchronize;
    __typeof__(cuGetErrorName) *GetErrorName;
    __typeof__(cuMemAlloc) *MemAlloc;
    __typeof__(cuMemFree) *MemFree;
    __typeof__(cuMemAllocHost) *MemAllocHost;
    __typeof__(cuMemFreeHost) *MemFreeHost;
    __typeof__(cuMemGetInfo) *MemGetInfo;
    __typeof__(cuMemcpyHtoD) *MemcpyHtoD;
    __typeof__(cuMemcpyDtoH) *MemcpyDtoH;
    __typeof__(cuMemcpyHtoDAsync) *MemcpyHtoDAsync;
    __typeof__(cuMemcpyDtoDAsync) *MemcpyDtoDAsync;
    __typeof__(cuMemsetD8Async) *MemsetD8Async;
    __typeof__(cuStreamCreate) *StreamCreate;
    __typeof__(cuStreamSynchronize) *StreamSynchronize;
    __typeof__(cuStreamBeginCapture) *StreamBeginCapture;
    __typeof__(cuStreamEndCapture) *StreamEndCapture;
    __typeof__(cuGraphInstantiateWithFlags) *GraphInstantiate;
    __typeof__(cuGraphLaunch) *GraphLaunch;
    __typeof__(cuGraphExecDestroy) *GraphExecDestroy;
    __typeof__(cuGraphDestroy) *GraphDestroy;
    __typeof__(cuEventCreate) *EventCreate;
    __typeof__(cuEventRecord) *EventRecord;
    __typeof__(cuEventElapsedTime) *EventElapsedTime;
    __typeof__(cuModuleLoadData) *ModuleLoadData;
    __typeof__(cuModuleGetFunction) *ModuleGetFunction;
    __typeof__(cuLaunchKernelEx) *LaunchKernelEx;
};

/* cublasGemmEx(handle, op, op, rows, columns, depth, alpha, a, type, stride, b, type, stride, beta, c, type,
 * stride, compute type, algorithm). */
typedef int cublas_gemm(void *, int, int, int, int, int, const void *, const void *, int, int, const void *,
                        int, int, const void *, void *, int, int, int, int);

enum { CUBLAS_WORKSPACE = 32 << 20, GPU_EVENTS = 128 };

struct gpu {
    struct cuda_driver driver;
    CUdevice device;
    CUcontext context; /* the device's primary one, current on the thread that opened it */
    CUstream stream;
    int capability, multiprocessors, l2_bytes, driver_version;
    CUevent events[GPU_EVENTS];
    void *cublas; /* its handle; NULL: there is no libcublas */
    int (*cublas_math)(void *handle, int mode);
    cublas_gemm *gemm;
    uint64_t cublas_workspace;
};

void gpu_open(struct gpu *gpu, int device);
/* Ends the program unless result is CUDA_SUCCESS. */
void gpu_check(const struct gpu *gpu, CUresult result, const char *what);

uint64_t gpu_allocate(const struct gpu *gpu, uint64_t bytes);
void gpu_free(const struct gpu *gpu, uint64_t address);
void gpu_upload(const struct gpu *gpu, uint64_t address, const void *host, uint64_t bytes);
void gpu_download(const struct gpu *gpu, void *host, uint64_t address, uint64_t bytes);
void gpu_wait(const struct gpu *gpu);

/* Calls that were captured. */
struct gpu_graph {
    CUgraphExec executable;
    int calls;
};

/* Captures call(user, 0) .. call(user, calls-1), which enqueue on gpu->stream. */
void gpu_graph_make(struct gpu_graph *graph, const struct gpu *gpu, void (*call)(void *user, int i),
                    void *user, int calls);
void gpu_graph_free(struct gpu_graph *graph, const struct gpu *gpu);
/* Replays the graphs in turns, each `rounds` times: samples[g * rounds ...] are the seconds of a call of
 * graph g.
 */
void gpu_graphs_time(const struct gpu *gpu, const struct gpu_graph *graphs, int count, int rounds,
                     double *samples);
/* One graph alone, replayed 30 times, or 5 when a replay takes over 100 ms. */
struct timing gpu_time(const struct gpu *gpu, void (*call)(void *user, int i), void *user, int calls);

/* Whether cuBLAS must add up partial sums as floats (as the library has it), or may do so in f16 (its
 * default). */
void gpu_cublas_sums(const struct gpu *gpu, bool fp32);

/* out[m][n] = in[m][k] . weights[n][k]^T in f16 by cuBLAS with float accumulation, rows without gaps. */
void gpu_cublas(const struct gpu *gpu, uint64_t in, uint64_t weights, uint64_t out, int64_t m, int64_t n,
                int64_t k);

#endif
