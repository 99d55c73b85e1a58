/* The emulated driver's own objects, and what its files share. */
#ifndef FMK_EMULATOR_DRIVER_H
#define FMK_EMULATOR_DRIVER_H

#include "fibers.h"
#include "kernel.h"

#include <cuda.h>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

/* ---- handles ---- */

struct CUctx_st {
    bool primary, destroyed;
    int references;
    CUstream default_stream;
};

struct CUmod_st {
    CUcontext context;
    std::vector<std::unique_ptr<CUfunc_st>> functions;
};

struct CUfunc_st {
    CUmodule module;
    const emulator::Kernel *kernel;
    unsigned dynamic_shared; /* bytes that a launch may ask for */
};

namespace emulator {

struct Operation {
    std::function<void()> run; /* or none */
    CUevent wait;              /* first until `generation` of it has been reached; or NULL */
    CUevent record;            /* afterwards; or NULL */
    uint64_t generation;
};

/* What a stream is recording. Streams that wait for one another's events record together. */
struct Capture {
    std::vector<std::function<void()>> nodes;
    CUstreamCaptureMode mode;
    pthread_t thread;
    CUstream origin;
    bool invalid = false, ended = false;
};

} // namespace emulator

struct CUstream_st {
    CUcontext context;
    unsigned flags;
    std::deque<emulator::Operation> waiting;
    std::shared_ptr<emulator::Capture> capture;
};

struct CUevent_st {
    CUcontext context;
    uint64_t recorded, reached; /* generations */
    CUstream stream;            /* of the last record */
    std::shared_ptr<emulator::Capture> capture;
};

struct CUgraph_st {
    std::vector<std::function<void()>> nodes;
};

struct CUgraphExec_st {
    std::vector<std::function<void()>> nodes;
};

namespace emulator {

/* ---- context.cpp ---- */

CUcontext current_context(); /* or NULL */
/* What fmk_emulated_fail ordered for this call of `function`; else CUDA_SUCCESS. */
CUresult ordered(const char *function);

/* ---- stream.cpp ---- */

/* The stream itself, or the current context's default for NULL; NULL when there is none. */
CUstream stream_of(CUstream stream);
/* Does it now, later, or as part of a graph, as the stream is. */
CUresult enqueue(CUstream stream, std::function<void()> run);
/* Does everything that waits on a stream, or on all of a context. */
void finish(CUstream stream);
void finish_all(CUcontext context);
/* For calls that are not allowed while a stream is captured: an error, and the capture is void. */
CUresult refuse_while_capturing();
bool is_capturing(CUstream stream);

/* ---- memory.cpp ---- */

/* Whether all of it lies in one live allocation on the device. */
bool on_device(CUdeviceptr address, size_t bytes);
bool is_pinned(const void *address, size_t bytes);
/* Aborts, naming `after`, when something was written next to an allocation. */
void check_fences(const char *after);

} // namespace emulator

#endif
