/* Streams, events, graphs and launches. Work is done when it is enqueued; or, with FMK_EMULATED_ASYNC set, as
 * late as CUDA allows: when somebody waits for it. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <unordered_set>
#include <vector>

namespace emulator {

static std::recursive_mutex lock; /* of streams, events and captures */
using Held = std::lock_guard<std::recursive_mutex>;

static std::unordered_set<CUstream> &streams() {
    static std::unordered_set<CUstream> all;
    return all;
}
static std::unordered_set<CUevent> &events() {
    static std::unordered_set<CUevent> all;
    return all;
}
static std::unordered_set<Capture *> captures; /* under way */

static bool late() {
    static const bool wanted = getenv("FMK_EMULATED_ASYNC") != nullptr;
    return wanted;
}

CUstream stream_of(CUstream stream) {
    Held held(lock);
    if (stream)
        return streams().count(stream) ? stream : nullptr;
    CUcontext context = current_context();
    if (!context)
        return nullptr;
    if (!context->default_stream) {
        context->default_stream = new CUstream_st{context, 0, {}, nullptr};
        streams().insert(context->default_stream);
    }
    return context->default_stream;
}

/* Until the event has reached a generation, or until nothing waits. */
static void advance(CUstream stream, CUevent event, uint64_t generation) {
    while (!stream->waiting.empty() && !(event && event->reached >= generation)) {
        Operation next = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        if (next.wait && next.wait->reached < next.generation)
            advance(next.wait->stream, next.wait, next.generation);
        if (next.run)
            next.run();
        if (next.record && next.record->reached < next.generation)
            next.record->reached = next.generation;
    }
}

void finish(CUstream stream) {
    if (!late())
        return;
    Held held(lock);
    advance(stream, nullptr, 0);
}

void finish_all(CUcontext context) {
    if (!late())
        return;
    Held held(lock);
    for (CUstream stream : streams())
        if (stream->context == context)
            advance(stream, nullptr, 0);
}

CUresult enqueue(CUstream stream, std::function<void()> run) {
    stream = stream_of(stream);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream->context->destroyed)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    {
        Held held(lock);
        if (stream->capture) {
            if (stream->capture->invalid)
                return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
            stream->capture->nodes.push_back(std::move(run));
            return CUDA_SUCCESS;
        }
        if (late()) {
            stream->waiting.push_back(Operation{std::move(run), nullptr, nullptr, 0});
            return CUDA_SUCCESS;
        }
    }
    run();
    return CUDA_SUCCESS;
}

CUresult refuse_while_capturing() {
    Held held(lock);
    for (Capture *capture : captures)
        if (capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
            (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
             pthread_equal(capture->thread, pthread_self()))) {
            capture->invalid = true;
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    return CUDA_SUCCESS;
}

bool is_capturing(CUstream stream) {
    Held held(lock);
    stream = stream_of(stream);
    return stream && stream->capture;
}

/* ---- launches ---- */

/* Aligned as a kernel's parameters may want to be. */
struct alignas(64) Aligned {
    char bytes[64];
};

struct Launch {
    const Kernel *kernel;
    Dim blocks, threads;
    unsigned cluster, shared_bytes;
    std::vector<Aligned> args;
};

static void run_kernel(const Launch &launch) {
    run(Grid{launch.kernel->name, launch.blocks, launch.threads, launch.kernel->run, launch.args.data(),
             launch.cluster, launch.shared_bytes});
    check_fences(launch.kernel->name);
}

/* A kernel's one parameter: among `params`, or in the bytes that `extra` tells of. These are all of the space
 * of parameters, which begins at 0x210 of a constant bank, while a parameter begins where its type may. */
static const char *argument_of(void **params, void **extra, const Kernel &kernel) {
    if (params)
        return static_cast<const char *>(params[0]);
    const size_t begin = 0x210, at = (begin + kernel.args_align - 1) / kernel.args_align * kernel.args_align;
    const char *bytes = nullptr;
    size_t given = 0;
    for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2)
        if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            bytes = static_cast<const char *>(extra[1]);
        else if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            given = *static_cast<size_t *>(extra[1]);
    return given == at - begin + kernel.args_size ? bytes + (at - begin) : nullptr;
}

static CUresult launch(CUfunction function, Dim blocks, Dim threads, Dim cluster, unsigned shared_bytes,
                       CUstream stream, void **params, void **extra) {
    if (CUresult result = ordered("cuLaunchKernel"))
        return result;
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    CUstream on = stream_of(stream);
    if (!function || !on || on->context != function->module->context)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t count = uint64_t(threads.x) * threads.y * threads.z;
    if (!blocks.x || !blocks.y || !blocks.z || blocks.x > 0x7fffffff || blocks.y > 65535 ||
        blocks.z > 65535 || !count || count > MOST_THREADS || shared_bytes > function->dynamic_shared)
        return CUDA_ERROR_INVALID_VALUE;
    if (!cluster.x || cluster.x > MOST_BLOCKS || blocks.x % cluster.x || cluster.y != 1 || cluster.z != 1)
        return CUDA_ERROR_INVALID_CLUSTER_SIZE;
    const char *argument = argument_of(params, extra, *function->kernel);
    if (!argument)
        return CUDA_ERROR_INVALID_VALUE;
    size_t size = function->kernel->args_size;
    Launch it = {function->kernel, blocks,       threads,
                 cluster.x,        shared_bytes, std::vector<Aligned>(size / sizeof(Aligned) + 1)};
    memcpy(it.args.data(), argument, size);
    return enqueue(stream, [it = std::move(it)] { run_kernel(it); });
}

} // namespace emulator

using namespace emulator;

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                        CUstream stream, void **params, void **extra) {
    return launch(function, Dim{grid_x, grid_y, grid_z}, Dim{block_x, block_y, block_z}, Dim{1, 1, 1},
                  shared_bytes, stream, params, extra);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction function, void **params, void **extra) {
    Dim cluster = {1, 1, 1};
    for (unsigned i = 0; i < c->numAttrs; i++)
        if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
            const auto &wanted = c->attrs[i].value.clusterDim;
            cluster = Dim{wanted.x, wanted.y, wanted.z};
        }
    return launch(function, Dim{c->gridDimX, c->gridDimY, c->gridDimZ},
                  Dim{c->blockDimX, c->blockDimY, c->blockDimZ}, cluster, c->sharedMemBytes, c->hStream,
                  params, extra);
}

/* For cublas.cpp, which is a library of its own. */
extern "C" CUresult fmk_emulated_enqueue(CUstream stream, void (*run)(const void *), const void *args,
                                         size_t size) {
    std::string copy(static_cast<const char *>(args), size);
    return enqueue(stream, [run, copy = std::move(copy)] {
        run(copy.data());
        check_fences("cublasGemmEx");
    });
}

/* ---- streams ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    Held held(lock);
    *stream = new CUstream_st{current_context(), flags, {}, nullptr};
    streams().insert(*stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) {
    return cuStreamCreate(stream, flags);
}

CUresult cuStreamDestroy(CUstream stream) {
    Held held(lock);
    if (!streams().count(stream))
        return CUDA_ERROR_INVALID_HANDLE;
    finish(stream);
    streams().erase(stream);
    for (CUevent event : events())
        if (event->stream == stream)
            event->stream = nullptr;
    delete stream;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext *context) {
    stream = stream_of(stream);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    *context = stream->context;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetFlags(CUstream stream, unsigned *flags) {
    stream = stream_of(stream);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    *flags = stream->flags;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    if (CUresult result = ordered("cuStreamSynchronize"))
        return result;
    stream = stream_of(stream);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        stream->capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    if (CUresult result = refuse_while_capturing())
        return result;
    finish(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream stream) {
    stream = stream_of(stream);
    return !stream                   ? CUDA_ERROR_INVALID_HANDLE
           : stream->waiting.empty() ? CUDA_SUCCESS
                                     : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    Held held(lock);
    stream = stream_of(stream);
    if (!stream || !events().count(event))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture && !event->capture->ended) {
        if (stream->capture && stream->capture != event->capture)
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        stream->capture = event->capture;
        return CUDA_SUCCESS;
    }
    if (stream->capture) {
        stream->capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    if (event->reached < event->recorded)
        stream->waiting.push_back(Operation{nullptr, event, nullptr, event->recorded});
    return CUDA_SUCCESS;
}

/* ---- events ---- */

CUresult cuEventCreate(CUevent *event, unsigned) {
    if (CUresult result = ordered("cuEventCreate"))
        return result;
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    Held held(lock);
    *event = new CUevent_st{current_context(), 0, 0, nullptr, nullptr};
    events().insert(*event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    Held held(lock);
    stream = stream_of(stream);
    if (!stream || !events().count(event) || stream->context != event->context)
        return CUDA_ERROR_INVALID_HANDLE;
    event->capture = stream->capture;
    if (event->capture)
        return CUDA_SUCCESS;
    event->stream = stream;
    event->recorded++;
    if (stream->waiting.empty())
        event->reached = event->recorded;
    else
        stream->waiting.push_back(Operation{nullptr, nullptr, event, event->recorded});
    return CUDA_SUCCESS;
}

/* Shows an event as not ready the first time that it is asked, when work is done late. */
CUresult cuEventQuery(CUevent event) {
    Held held(lock);
    if (!events().count(event))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture && !event->capture->ended)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (event->reached >= event->recorded)
        return CUDA_SUCCESS;
    advance(event->stream, event, event->recorded);
    return CUDA_ERROR_NOT_READY;
}

CUresult cuEventSynchronize(CUevent event) {
    Held held(lock);
    if (!events().count(event))
        return CUDA_ERROR_INVALID_HANDLE;
    if (CUresult result = refuse_while_capturing())
        return result;
    if (event->reached < event->recorded)
        advance(event->stream, event, event->recorded);
    return CUDA_SUCCESS;
}

#undef cuEventElapsedTime
extern "C" CUresult cuEventElapsedTime(float *milliseconds, CUevent, CUevent) {
    *milliseconds = 1;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    Held held(lock);
    if (!events().count(event))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->stream && event->reached < event->recorded)
        advance(event->stream, event, event->recorded);
    for (CUstream stream : streams()) /* waits of older generations */
        for (Operation &operation : stream->waiting) {
            if (operation.wait == event)
                operation.wait = nullptr;
            if (operation.record == event)
                operation.record = nullptr;
        }
    events().erase(event);
    delete event;
    return CUDA_SUCCESS;
}

/* ---- graphs ---- */

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    Held held(lock);
    stream = stream_of(stream);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    *status = !stream->capture           ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                         : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    Held held(lock);
    if (!stream || !streams().count(stream) || stream->capture)
        return CUDA_ERROR_INVALID_VALUE;
    stream->capture = std::make_shared<Capture>();
    stream->capture->mode = mode;
    stream->capture->thread = pthread_self();
    stream->capture->origin = stream;
    captures.insert(stream->capture.get());
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    Held held(lock);
    if (!streams().count(stream) || !stream->capture || stream->capture->origin != stream)
        return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Capture> capture = stream->capture;
    for (CUstream other : streams())
        if (other->capture == capture)
            other->capture = nullptr;
    capture->ended = true;
    captures.erase(capture.get());
    *graph = nullptr;
    if (capture->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *graph = new CUgraph_st{capture->nodes};
    return CUDA_SUCCESS;
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    *mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *, size_t *count) {
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long) {
    *exec = new CUgraphExec_st{graph->nodes};
    return CUDA_SUCCESS;
}

#undef cuGraphInstantiate
extern "C" CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *, char *, size_t) {
    return cuGraphInstantiateWithFlags(exec, graph, 0);
}
extern "C" CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    return cuGraphInstantiateWithFlags(exec, graph, flags);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    for (const auto &node : exec->nodes)
        if (CUresult result = enqueue(stream, node))
            return result;
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    delete exec;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    delete graph;
    return CUDA_SUCCESS;
}
