#include "rows.h"

#include "../abi.h"
#include "../error.h"
#include "commands.h"

enum { DECODE_THREADS = 128, SORT_THREADS = 128, MOST_GROUPS = 65535 };

static fmk_status check_stride(int64_t stride) {
    return stride <= UINT32_MAX
               ? FMK_OK
               : fmk_fail(FMK_EUNSUPPORTED, "out_stride %lld is more than %u", (long long)stride, UINT32_MAX);
}

static struct fmk_vk_kernel decode_kernel(const struct fmk_packed *part) {
    struct fmk_vk_kernel kernel = {.module = FMK_VK_DECODE};
    kernel.constants[FMK_VK_SPEC_THREADS] = DECODE_THREADS;
    kernel.constants[FMK_VK_SPEC_FAMILY] = (uint32_t)part->layout->family;
    return kernel;
}

/* Of all parts, which are nobody's to prepare: here, a pipeline may be made. */
static fmk_status make_pipelines(struct fmk_context *ctx, const struct fmk_projection *w) {
    fmk_status status = FMK_OK;
    for (int32_t p = 0; p < w->num_parts && !status; p++) {
        struct fmk_vk_kernel kernel = decode_kernel(&w->parts[p]);
        if (!fmk_vk_pipeline_find(ctx, &kernel))
            status = fmk_vk_pipeline_make(ctx, &kernel);
    }
    return status;
}

static struct fmk_vk_decode_args args_of(const struct fmk_packed *part, int32_t expert, fmk_dtype type,
                                         int64_t stride) {
    return (struct fmk_vk_decode_args){
        .data = (uint64_t)(uintptr_t)part->data + (uint64_t)expert * part->expert_stride,
        .k_index = part->k_index ? (uint64_t)(uintptr_t)(part->k_index + expert * part->k_packed) : 0,
        .n = (uint32_t)part->n,
        .k = (uint32_t)part->k,
        .k_packed = (uint32_t)part->k_packed,
        .stride = (uint32_t)part->stride,
        .chunks = (uint32_t)part->chunks,
        .types = FMK_VK_TYPES((uint32_t)type, 0u, 0u, 0u, (uint32_t)part->dtype),
        .out_stride = (uint32_t)stride,
    };
}

static fmk_status decode(struct fmk_vk_order *order, const struct fmk_packed *part,
                         const struct fmk_vk_decode_args *args) {
    struct fmk_vk_kernel kernel = decode_kernel(part);
    return fmk_vk_dispatch(order, &kernel, args->m < MOST_GROUPS ? args->m : MOST_GROUPS, 1, args,
                           sizeof *args);
}

fmk_status fmk_vk_dequantize(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                             void *out, fmk_dtype out_type, int64_t out_stride) {
    struct fmk_vk_order order;
    uint64_t to = (uint64_t)(uintptr_t)out;
    fmk_status status = check_stride(out_stride);
    if (!status)
        status = make_pipelines(queue->ctx, w);
    if (status || (status = fmk_vk_begin(queue, false, &order)))
        return status;
    for (int32_t p = 0; p < w->num_parts && !status; p++) {
        struct fmk_vk_decode_args args = args_of(&w->parts[p], expert, out_type, out_stride);
        args.to = to;
        args.m = args.n;
        status = decode(&order, &w->parts[p], &args);
        to += (uint64_t)(w->parts[p].n * out_stride * fmk_dtype_size(out_type));
    }
    return fmk_vk_end(&order, status);
}

fmk_status fmk_vk_rows(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *a) {
    struct fmk_vk_order order;
    int64_t first = 0;
    fmk_status status = check_stride(a->out_stride);
    if (!status)
        status = make_pipelines(queue->ctx, w);
    if (status || (status = fmk_vk_begin(queue, false, &order)))
        return status;
    for (int32_t p = 0; p < w->num_parts && !status; p++) {
        struct fmk_vk_decode_args args = args_of(&w->parts[p], a->expert, a->out_type, a->out_stride);
        args.to = a->out.handle + a->out.offset;
        args.ids = a->ids.handle + a->ids.offset;
        args.m = (uint32_t)a->m;
        args.first = (int32_t)first;
        args.total = (int32_t)w->n;
        args.zeroes = p == 0;
        status = decode(&order, &w->parts[p], &args);
        first += w->parts[p].n;
    }
    return fmk_vk_end(&order, status);
}

fmk_status fmk_vk_route_sort(struct fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                             const fmk_routing *out) {
    struct fmk_vk_kernel kernel = {.module = FMK_VK_ROUTE_SORT};
    kernel.constants[FMK_VK_SPEC_THREADS] = SORT_THREADS;
    struct fmk_vk_route_sort_args args = {
        .ids = (uint64_t)(uintptr_t)fmk_pointer(ids->ids),
        .offsets = (uint64_t)(uintptr_t)fmk_pointer(out->offsets),
        .pairs = (uint64_t)(uintptr_t)fmk_pointer(out->pairs),
        .expert_base = ids->expert_base,
        .experts = num_experts,
        .count = (int32_t)(m * ids->top_k),
    };
    struct fmk_vk_order order;
    fmk_status status = fmk_vk_pipeline_make(queue->ctx, &kernel);
    if (status || (status = fmk_vk_begin(queue, false, &order)))
        return status;
    status = fmk_vk_dispatch(&order, &kernel, 1, 1, &args, sizeof args);
    return fmk_vk_end(&order, status);
}
