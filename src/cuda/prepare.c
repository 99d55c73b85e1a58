/* Everything that a linear call needs of the host, ahead of it. */
#include "../abi.h"
#include "../error.h"
#include "cublas.h"
#include "device.h"
#include "linear.h"
#include "plan.h"

/* Memory that the device can reach: a call does not ask, and a wrong address would be the end of the context.
 */
static fmk_status check_memory(const struct fmk_context *ctx, const char *name, fmk_buffer buffer) {
    const struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    if (!buffer.handle)
        return FMK_OK;
    unsigned type = 0, managed = 0;
    int ordinal = -1;
    CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void *values[] = {&type, &managed, &ordinal};
    uint64_t address = buffer.handle + buffer.offset;
    CUresult result = cuda->driver->PointerGetAttributes(3, wanted, values, address);
    if (result)
        return fmk_cuda_check(ctx, result, "asking what memory a buffer is");
    if (!type)
        return fmk_fail(FMK_EINVAL, "%s is at address 0x%llx, which is not memory of a CUDA device", name,
                        (unsigned long long)address);
    if (type == CU_MEMORYTYPE_DEVICE && !managed && ordinal != cuda->device)
        return fmk_fail(FMK_EINVAL, "%s is memory of device %d; this context's is %d", name, ordinal,
                        cuda->device);
    return FMK_OK;
}

static fmk_status check_buffers(const struct fmk_context *ctx, const struct fmk_call *call) {
    const fmk_linear_args *a = &call->args;
    const fmk_routing *r = &call->routing;
    const struct {
        const char *name;
        fmk_buffer buffer;
    } buffers[] = {
        {"in", a->in},
        {"out", a->out},
        {"addend", a->addend},
        {"in_rows", a->in_rows},
        {"m_dev", a->m_dev},
        {"workspace", a->workspace},
        {"routing.ids", r->ids},
        {"routing.offsets", r->offsets},
        {"routing.pairs", r->pairs},
        {"routing.pair_weights", r->pair_weights},
    };
    fmk_status status = FMK_OK;
    for (size_t i = 0; !status && i < sizeof buffers / sizeof buffers[0]; i++)
        status = check_memory(ctx, buffers[i].name, buffers[i].buffer);
    return status;
}

static fmk_status load(struct fmk_queue *queue, const struct fmk_packed *part, enum fmk_cuda_path path) {
    static const enum fmk_cuda_module mma[] = {
        [FMK_FAMILY_DENSE] = FMK_MODULE_DENSE_MMA,
        [FMK_FAMILY_INT4] = FMK_MODULE_INT4_MMA,
        [FMK_FAMILY_Q4_K] = FMK_MODULE_Q4K_MMA,
        [FMK_FAMILY_Q6_K] = FMK_MODULE_Q6K_MMA,
    };
    struct fmk_context *ctx = queue->ctx;
    if (path == FMK_CUDA_ONE)
        return fmk_cuda_load(ctx, FMK_MODULE_DENSE_ONE);
    if (path == FMK_CUDA_MMA)
        return fmk_cuda_load(ctx, mma[part->layout->family]);
    if (path == FMK_CUDA_MANY)
        return fmk_cuda_load(ctx, FMK_MODULE_INT4_MANY);
    if (path == FMK_CUDA_WGMMA)
        return fmk_cuda_load(ctx, FMK_MODULE_INT4_WGMMA);
    if (path == FMK_CUDA_FEW) {
        fmk_status status = fmk_cuda_load(ctx, FMK_MODULE_INT4_ONCE);
        return status ? status : fmk_cuda_load(ctx, FMK_MODULE_INT4_FEW);
    }
    if (path >= FMK_CUDA_PLAIN)
        return fmk_cuda_load(ctx, FMK_MODULE_PLAIN);
    fmk_status status = path == FMK_CUDA_DECODE_GEMM ? fmk_cuda_load(ctx, FMK_MODULE_DECODE) : FMK_OK;
    return status ? status : fmk_cublas_prepare(queue);
}

static fmk_status load_part(struct fmk_queue *queue, const struct fmk_projection *w,
                            const struct fmk_call *call, int32_t p) {
    uint32_t paths = fmk_cuda_paths(queue->ctx, w, call, p);
    fmk_status status = FMK_OK;
    for (int path = FMK_CUDA_GEMM; !status && path <= FMK_CUDA_DOUBLE; path++)
        if (paths >> path & 1)
            status = load(queue, &w->parts[p], (enum fmk_cuda_path)path);
    return status;
}

fmk_status fmk_cuda_prepare(struct fmk_queue *queue, const struct fmk_projection *w,
                            const struct fmk_call *call) {
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    status = check_buffers(queue->ctx, call);
    if (!status)
        status = fmk_cuda_load(queue->ctx, FMK_MODULE_ROWS);
    for (int32_t p = 0; !status && p < w->num_parts; p++)
        status = load_part(queue, w, call, p);
    fmk_cuda_leave(queue->ctx, before);
    return status;
}
