/* For tests that run on the CPU and on a GPU alike, as FERRUMK_TEST_BACKEND says: "cuda", "vulkan", or
 * nothing for the CPU. On the CPU every run_ function is the library's own. On a GPU its buffers are still
 * host memory: they are moved to twins in the device's, where the call finds them between fences, and moved
 * back when it is done. */
#ifndef DEVICE_H
#define DEVICE_H

#include "ferrumk.h"

#include <stdbool.h>
#include <stddef.h>

/* The run is on a GPU. Where there is none, the first question ends the program: it prints "SKIPPED: " and
 * why, and exits with status 77. */
bool on_gpu(void);
fmk_backend test_backend(void);
/* fmk_context_desc.native of the tests' contexts. */
const void *test_native(void);
/* FERRUMK_TEST_QUICK=1: fewer shapes, for runs under a sanitizer or on an emulator. */
bool quick(void);
/* The stream of the tests' queues; NULL on the CPU. */
void *test_stream(void);

/* Prepared, run, and done when they answer. What a call only reads must be the same after it, nothing outside
 * of the twins may be written, and a refused call must leave all of them alone: else the test fails. */
fmk_status run_linear(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *args);
fmk_status run_rows(fmk_queue *queue, const fmk_weight *weight, const fmk_rows_args *args);
fmk_status run_dequantize(fmk_queue *queue, const fmk_weight *weight, int32_t expert, const fmk_buffer *out,
                          fmk_dtype out_type, int64_t out_stride);
fmk_status run_route_sort(fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                          const fmk_routing *out);

/* fmk_weight_create and, on a GPU, the wait for it. FERRUMK_TEST_SOURCES=device: tensors are given as device
 * memory; it is overwritten at once unless the weight borrows, else it lives until forget_sources. */
fmk_status run_create(fmk_weight **out, fmk_queue *queue, const fmk_weight_desc *desc);
bool sources_on_gpu(void);
void free_borrowed_sources(void);

/* Memory for a weight's storage between fences: of the device, not to be touched by the test, or of the host.
 */
void *storage_alloc(size_t size);
void storage_free(void *storage, size_t size); /* fails the test where a fence was written over */

/* The GPU's memory: numbers that grow byte by byte, and how the library is told of them. Work that is asked
 * for is done when they answer. */
uint64_t gpu_alloc(size_t size);
void gpu_free(uint64_t memory);
void gpu_write(uint64_t to, const void *from, size_t size);
void gpu_read(void *to, uint64_t from, size_t size);
void gpu_fill(uint64_t to, unsigned char value, size_t size);
fmk_buffer gpu_buffer(uint64_t memory, size_t size);
uint64_t gpu_memory(uint64_t handle); /* of a gpu_buffer */

/* ---- for tests of the CUDA backend alone ---- */

/* libcuda's functions, without "cu" and version; a CUresult is an int, any handle void *. */
struct cuda_functions {
    int (*GetErrorName)(int error, const char **name);
    int (*DeviceGetCount)(int *count);
    int (*DevicePrimaryCtxRetain)(void **context, int device);
    int (*CtxCreate)(void **context, void *params, unsigned flags, int device); /* NULL: not in this driver */
    int (*CtxDestroy)(void *context);
    int (*CtxGetCurrent)(void **context);
    int (*CtxSetCurrent)(void *context);
    int (*CtxSynchronize)(void);
    int (*StreamCreate)(void **stream, unsigned flags);
    int (*StreamDestroy)(void *stream);
    int (*StreamSynchronize)(void *stream);
    int (*StreamBeginCapture)(void *stream, int mode);
    int (*StreamEndCapture)(void *stream, void **graph);
    int (*GraphInstantiate)(void **instance, void *graph, unsigned long long flags);
    int (*GraphLaunch)(void *instance, void *stream);
    int (*GraphExecDestroy)(void *instance);
    int (*GraphDestroy)(void *graph);
    int (*MemAlloc)(uint64_t *memory, size_t size);
    int (*MemFree)(uint64_t memory);
    int (*MemGetInfo)(size_t *unused, size_t *total);
    int (*MemcpyHtoDAsync)(uint64_t to, const void *from, size_t size, void *stream);
    int (*MemcpyDtoHAsync)(void *to, uint64_t from, size_t size, void *stream);
    int (*MemsetD8Async)(uint64_t to, unsigned char value, size_t size, void *stream);
};

/* Opened by the first on_gpu(). */
extern struct cuda_functions cuda;
/* Ends the program where `result` is not 0: after most errors of the driver nothing else works. */
void cuda_ok(int result, const char *call, const char *file, int line);
#define CUDA(call) cuda_ok(cuda.call, #call, __FILE__, __LINE__)

/* The device's primary context, which the tests share with the library's; left current by nobody. */
void *primary_context(void);
/* With the primary context current while they work. */
void *gpu_stream(void); /* a new one */
void gpu_stream_free(void *stream);
void gpu_wait(void *stream);
size_t gpu_memory_unused(void);

#endif
