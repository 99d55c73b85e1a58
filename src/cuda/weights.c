/* Weights into a device's memory, and out of it. All but `read` only enqueue on the queue's stream. */
#include "weights.h"

#include "../../kernels/pack.h"
#include "../abi.h"
#include "../error.h"
#include "pack.h"

#include <stdlib.h>

/* ---- where tensors are ---- */

bool fmk_cuda_borrows(struct fmk_context *ctx, const fmk_tensor *tensor) {
    (void)ctx;
    uint64_t size = (uint64_t)fmk_max(1, fmk_dtype_size(tensor->dtype));
    return tensor->memory == FMK_MEM_DEVICE && (tensor->data.handle + tensor->data.offset) % size == 0 &&
           tensor->expert_stride % size == 0;
}

fmk_status fmk_cuda_check_tensor(struct fmk_context *ctx, const char *name, const fmk_tensor *tensor) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    CUcontext before;
    unsigned type = 0, managed = 0;
    int device = -1;
    CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void *answers[] = {&type, &managed, &device};
    uint64_t address = tensor->data.handle + tensor->data.offset;
    fmk_status status = fmk_cuda_enter(ctx, &before);
    if (status)
        return status;
    /* Memory that CUDA does not know is no error: its type is 0. */
    CUresult result = cuda->driver->PointerGetAttributes(3, asked, answers, address);
    fmk_cuda_leave(ctx, before);
    if (result)
        return fmk_cuda_check(ctx, result, "asking what memory a tensor is");
    bool known = type == CU_MEMORYTYPE_DEVICE;
    if (tensor->memory != FMK_MEM_DEVICE)
        return !known || managed
                   ? FMK_OK
                   : fmk_fail(FMK_EINVAL,
                              "%s.memory %s: address 0x%llx is in the memory of device %d; say DEVICE", name,
                              tensor->memory == FMK_MEM_HOST ? "HOST" : "HOST_PINNED",
                              (unsigned long long)address, device);
    if (!known)
        return fmk_fail(FMK_EINVAL, "%s.memory DEVICE: address 0x%llx is not in a device's memory", name,
                        (unsigned long long)address);
    if (device != cuda->device && !managed)
        return fmk_fail(FMK_EINVAL, "%s: address 0x%llx is in the memory of device %d, the context's is %d",
                        name, (unsigned long long)address, device, cuda->device);
    return FMK_OK;
}

/* What is enqueued on a stream that is being captured does not run, and asking for its end spoils the
 * capture. */
static bool captures(struct fmk_context *ctx, CUstream stream) {
    CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
    return fmk_cuda_of(ctx)->driver->StreamIsCapturing(stream, &capture) || capture;
}

fmk_status fmk_cuda_check_queue(struct fmk_queue *queue) {
    CUcontext before;
    CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (!status)
        status = fmk_cuda_check(queue->ctx,
                                fmk_cuda_of(queue->ctx)->driver->StreamIsCapturing(queue->native, &capture),
                                "asking about the queue's stream");
    if (!status && capture)
        status = fmk_fail(FMK_EINVAL,
                          "queue: its stream is being captured into a graph; make weights before or after");
    fmk_cuda_leave(queue->ctx, before);
    return status;
}

/* ---- fill ---- */

static fmk_status fill_index(struct fmk_pack *pack, int64_t expert, int32_t *k_index) {
    const struct fmk_packed *packed = pack->fill->packed;
    packed->layout->index(pack->fill->source, packed, expert, k_index);
    pack->k_index = k_index;
    return fmk_stage_upload(&pack->stage, (uint64_t)(uintptr_t)(packed->k_index + expert * packed->k_packed),
                            k_index, (uint64_t)packed->k_packed * 4);
}

static fmk_status fill_bias(struct fmk_pack *pack, int64_t expert, float *bias) {
    const struct fmk_packed *packed = pack->fill->packed;
    fmk_source_bias(pack->fill->source, expert, bias);
    return fmk_stage_upload(&pack->stage, (uint64_t)(uintptr_t)(packed->bias + expert * packed->n), bias,
                            (uint64_t)packed->n * 4);
}

static fmk_status fill_data(struct fmk_pack *pack, int64_t expert) {
    switch (pack->fill->source->family) {
    case FMK_FAMILY_DENSE:
        return fmk_pack_dense(pack, expert);
    case FMK_FAMILY_INT4:
        return fmk_pack_int4(pack, expert);
    default:
        return fmk_pack_k_quant(pack, expert);
    }
}

static fmk_status clear_range(struct fmk_pack *pack) {
    struct fmk_queue *queue = pack->stage.queue;
    const struct fmk_driver *driver = fmk_cuda_of(queue->ctx)->driver;
    CUdeviceptr range = (uint64_t)(uintptr_t)pack->fill->packed->range;
    return fmk_cuda_check(queue->ctx,
                          driver->MemsetD8Async(range, 0, sizeof(struct fmk_range), queue->native),
                          "clearing a weight's range");
}

static fmk_status complete_range(struct fmk_pack *pack) {
    struct fmk_pack_range_args args = {(float *)(uintptr_t)pack->fill->packed->range};
    struct fmk_cuda_grid grid = {1, 1, 1, 32, 0, 0};
    return fmk_cuda_launch(pack->stage.queue, FMK_MODULE_PACK, FMK_PACK_RANGE, grid, &args, false);
}

/* `room` is host memory for one expert's k_index or bias. */
static fmk_status fill_experts(struct fmk_pack *pack, void *room) {
    const struct fmk_packed *packed = pack->fill->packed;
    fmk_status status = packed->range ? clear_range(pack) : FMK_OK;
    for (int64_t e = 0; e < packed->experts && !status; e++) {
        if (packed->bias)
            status = fill_bias(pack, e, room);
        if (!status && packed->k_index)
            status = fill_index(pack, e, room);
        if (!status && pack->fill->data)
            status = fill_data(pack, e);
    }
    return status || !packed->range ? status : complete_range(pack);
}

fmk_status fmk_cuda_fill(struct fmk_queue *queue, const struct fmk_fill *fill) {
    const struct fmk_packed *packed = fill->packed;
    if (!fill->data && !packed->bias && !packed->k_index)
        return FMK_OK;
    size_t size = (size_t)fmk_max(packed->n, packed->k_packed) * 4;
    void *room = malloc(size);
    if (!room)
        return fmk_no_memory(size, "the index of a weight");
    struct fmk_pack pack = {.fill = fill};
    fmk_status status = fmk_cuda_enter(queue->ctx, &pack.before);
    if (!status) {
        status = fmk_stage_begin(queue, &pack.stage);
        if (!status && fill->data)
            status = fmk_cuda_load(queue->ctx, FMK_MODULE_PACK);
        if (!status)
            status = fill_experts(&pack, room);
        fmk_status last = fmk_stage_end(&pack.stage);
        status = status ? status : last;
        fmk_cuda_leave(queue->ctx, pack.before);
    }
    free(room);
    return status;
}

/* ---- bytes as they are ---- */

fmk_status fmk_cuda_write(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                          struct fmk_progress *progress) {
    enum { RUN = 64 << 20 }; /* between two calls of progress */
    const struct fmk_driver *driver = fmk_cuda_of(queue->ctx)->driver;
    uint64_t address = from->data.handle + from->data.offset;
    CUcontext before;
    struct fmk_stage stage;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    status = fmk_stage_begin(queue, &stage);
    for (uint64_t done = 0, count; done < size && !status; done += count) {
        count = size - done < RUN ? size - done : RUN;
        if (from->memory == FMK_MEM_DEVICE)
            status = fmk_cuda_check(queue->ctx,
                                    driver->MemcpyDtoDAsync(to + done, address + done, count, queue->native),
                                    "copying packed bytes");
        else if (from->memory == FMK_MEM_HOST_PINNED)
            status = fmk_stage_direct(&stage, to + done, (const uint8_t *)(uintptr_t)address + done, count);
        else
            status = fmk_stage_upload(&stage, to + done, (const uint8_t *)(uintptr_t)address + done, count);
        if (!status) {
            fmk_cuda_leave(queue->ctx, before);
            status = fmk_progress(progress, count);
            CUcontext again;
            if (!status)
                status = fmk_cuda_enter(queue->ctx, &again);
        }
    }
    fmk_status last = fmk_stage_end(&stage);
    fmk_cuda_leave(queue->ctx, before);
    return status ? status : last;
}

fmk_status fmk_cuda_read(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                         uint64_t stride, uint64_t rows) {
    const struct fmk_driver *driver = fmk_cuda_of(ctx)->driver;
    CUcontext before;
    CUstream stream = native;
    fmk_status status = fmk_cuda_enter(ctx, &before);
    if (status)
        return status;
    if (!stream)
        status = fmk_staging_stream(ctx, &stream);
    if (!status) {
        CUresult result = CUDA_SUCCESS;
        if (width == stride || rows == 1) {
            result = driver->MemcpyDtoHAsync(to, from, width * rows, stream);
        } else if (stride > INT32_MAX) { /* more than the driver takes for a pitch */
            for (uint64_t row = 0; row < rows && !result; row++)
                result =
                    driver->MemcpyDtoHAsync((uint8_t *)to + row * width, from + row * stride, width, stream);
        } else {
            CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                                  .srcDevice = from,
                                  .srcPitch = stride,
                                  .dstMemoryType = CU_MEMORYTYPE_HOST,
                                  .dstHost = to,
                                  .dstPitch = width,
                                  .WidthInBytes = width,
                                  .Height = rows};
            result = driver->Memcpy2DAsync(&copy, stream);
        }
        CUresult done = driver->StreamSynchronize(stream);
        status = fmk_cuda_check(ctx, result ? result : done, "reading from the device");
    }
    fmk_cuda_leave(ctx, before);
    return status;
}

/* ---- what is in flight ---- */

fmk_status fmk_cuda_weight_finish(struct fmk_queue *queue, void **pending) {
    const struct fmk_driver *driver = fmk_cuda_of(queue->ctx)->driver;
    CUcontext before;
    CUevent event = NULL;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    CUresult result = driver->EventCreate(&event, CU_EVENT_DISABLE_TIMING);
    if (!result)
        result = driver->EventRecord(event, queue->native);
    if (result) {
        if (event)
            driver->EventDestroy(event);
        driver->StreamSynchronize(queue->native);
    } else {
        *pending = event;
    }
    status = fmk_cuda_check(queue->ctx, result, "recording the end of packing");
    fmk_cuda_leave(queue->ctx, before);
    return status;
}

fmk_status fmk_cuda_weight_ready(struct fmk_context *ctx, void *pending, bool wait) {
    const struct fmk_driver *driver = fmk_cuda_of(ctx)->driver;
    CUcontext before;
    fmk_status status = fmk_cuda_enter(ctx, &before);
    if (status)
        return status;
    CUresult result = wait ? driver->EventSynchronize(pending) : driver->EventQuery(pending);
    status = result == CUDA_ERROR_NOT_READY ? fmk_fail(FMK_EAGAIN, "the weight is still being packed")
                                            : fmk_cuda_check(ctx, result, "packing the weight");
    fmk_cuda_leave(ctx, before);
    return status;
}

void fmk_cuda_weight_retire(struct fmk_context *ctx, struct fmk_queue *queue, void *pending) {
    const struct fmk_driver *driver = fmk_cuda_of(ctx)->driver;
    CUcontext before;
    if ((!queue && !pending) || fmk_context_alive(ctx) || fmk_cuda_enter(ctx, &before))
        return;
    if (pending) {
        driver->EventSynchronize(pending);
        driver->EventDestroy(pending);
    }
    if (queue && !captures(ctx, queue->native))
        driver->StreamSynchronize(queue->native);
    fmk_cuda_leave(ctx, before);
}
