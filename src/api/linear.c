/* The linear call, and what one can ask about it beforehand. */
#include "../abi.h"
#include "../error.h"
#include "../plan/call.h"
#include "../plan/kernels.h"
#include "../weight.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

fmk_status fmk_linear(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *args) {
    struct fmk_call call;
    fmk_status status = fmk_weight_check(queue, weight);
    if (status || (status = fmk_call_check(queue->ctx, &weight->projection, args, true, &call)))
        return status;
    return queue->ctx->backend->linear(queue, &weight->projection, &call);
}

fmk_status fmk_prepare(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *max) {
    struct fmk_call call;
    fmk_status status = fmk_weight_check(queue, weight);
    if (!status && !max)
        status = fmk_fail(FMK_EINVAL, "max is NULL");
    if (status || (status = fmk_call_check(queue->ctx, &weight->projection, max, false, &call)))
        return status;
    const struct fmk_backend_row *backend = queue->ctx->backend;
    return backend->prepare ? backend->prepare(queue, &weight->projection, &call) : FMK_OK;
}

fmk_status fmk_workspace_size(const fmk_weight *weight, const fmk_linear_args *args, uint64_t *least,
                              uint64_t *best) {
    if (!weight || !least || !best)
        return fmk_fail(FMK_EINVAL, "%s is NULL", !weight ? "weight" : !least ? "least" : "best");
    struct fmk_call call;
    *least = *best = 0;
    fmk_status status = fmk_call_check(weight->ctx, &weight->projection, args, false, &call);
    if (!status)
        weight->ctx->backend->workspace(weight->ctx, &weight->projection, &call, least, best);
    return status;
}

fmk_status fmk_can_run(fmk_context *ctx, const fmk_weight_desc *desc, const fmk_linear_args *args) {
    if (!ctx)
        return fmk_fail(FMK_EINVAL, "ctx is NULL");
    fmk_weight_desc d;
    fmk_part first;
    fmk_status status = fmk_context_alive(ctx);
    if (status || (status = fmk_weight_desc_read(ctx, desc, &d, &first)))
        return status;
    if (first.format == FMK_FORMAT_PACKED)
        return fmk_fail(FMK_EINVAL,
                        "parts[0].format PACKED: what it holds is known once it is read; describe "
                        "the weight that was packed");
    struct fmk_projection shape;
    struct fmk_call call;
    uint64_t storage;
    status = fmk_weight_shape(ctx, &d, false, &shape, &storage);
    if (!status)
        status = fmk_call_check(ctx, &shape, args, false, &call);
    free(shape.parts);
    return status;
}

/* ---- explain ---- */

/* Text that grows past what there is room for, and counts on. */
struct text {
    char *at;
    size_t cap, needed;
};

static void say(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    size_t room = text->needed < text->cap ? text->cap - text->needed : 0;
    int wrote = vsnprintf(room ? text->at + text->needed : NULL, room, format, args);
    va_end(args);
    text->needed += wrote > 0 ? (size_t)wrote : 0;
}

static void explain_part(struct text *text, const struct fmk_query *query, const fmk_part_info *info,
                         int32_t i) {
    const struct fmk_kernel *chosen = fmk_kernel_choose(query), *row;
    say(text, "part %d: %s, columns %lld..%lld, k %lld, layout %s: %s\n", i, fmk_format_name(info->format),
        (long long)info->n_offset, (long long)(info->n_offset + info->n - 1), (long long)info->k,
        info->layout, chosen->name);
    for (int32_t r = 0; (row = fmk_kernel_row(r)) != chosen; r++) {
        char objection[128];
        const struct fmk_layout *layout = fmk_layout_by_id(row->layout);
        if (row->backend != query->backend || (layout && layout->family != query->part->layout->family))
            continue; /* not a candidate: it multiplies other weights, or elsewhere */
        if (fmk_kernel_objects(row, query, objection, sizeof objection))
            say(text, "    not %s: %s\n", row->name, objection);
    }
}

fmk_status fmk_explain(const fmk_weight *weight, const fmk_linear_args *args, char *out, size_t cap,
                       size_t *needed) {
    if (!weight || (!out && cap))
        return fmk_fail(FMK_EINVAL, "%s is NULL", weight ? "text" : "weight");
    struct fmk_call call;
    fmk_status status = fmk_call_check(weight->ctx, &weight->projection, args, false, &call);
    if (status)
        return status;
    struct text text = {out, cap, 0};
    for (int32_t i = 0; i < weight->projection.num_parts; i++) {
        uint64_t workspace = call.args.workspace.handle ? call.args.workspace.size : UINT64_MAX;
        struct fmk_query query = fmk_kernel_query(weight->ctx, &weight->projection, &call, i, workspace);
        explain_part(&text, &query, &weight->infos[i], i);
    }
    if (needed)
        *needed = text.needed + 1;
    return FMK_OK;
}

/* ---- routing ---- */

static fmk_status check_sort_ids(const fmk_routing *ids, int64_t m, int32_t num_experts) {
    if (ids->kind != FMK_ROUTE_NONE && ids->kind != FMK_ROUTE_IDS)
        return fmk_fail(FMK_EINVAL, "ids.kind %d is neither IDS 2 nor 0", ids->kind);
    if (ids->top_k < 1 || ids->top_k > 4096)
        return fmk_fail(FMK_EINVAL, "ids.top_k %d is not in 1..4096", ids->top_k);
    if (m < 0 || m > INT32_MAX / ids->top_k)
        return fmk_fail(FMK_EINVAL, "m %lld is not in 0..%d", (long long)m, INT32_MAX / ids->top_k);
    if (num_experts < 1 || num_experts > FMK_MAX_EXPERTS)
        return fmk_fail(FMK_EINVAL, "num_experts %d is not in 1..%d", num_experts, FMK_MAX_EXPERTS);
    return FMK_OK;
}

static fmk_status check_integers(const char *name, const fmk_buffer *buffer, int64_t count) {
    if (!count)
        return FMK_OK;
    if (!buffer->handle)
        return fmk_fail(FMK_EINVAL, "%s is absent; i32 [%lld] is required", name, (long long)count);
    if ((buffer->handle + buffer->offset) % 4)
        return fmk_fail(FMK_EINVAL, "%s is at address 0x%llx, which is not a multiple of 4", name,
                        (unsigned long long)(buffer->handle + buffer->offset));
    if (buffer->size && buffer->size / 4 < (uint64_t)count)
        return fmk_fail(FMK_EINVAL, "%s.size %llu is less than that of %lld integers", name,
                        (unsigned long long)buffer->size, (long long)count);
    return FMK_OK;
}

fmk_status fmk_route_sort(fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                          const fmk_routing *out) {
    if (!queue)
        return fmk_fail(FMK_EINVAL, "queue is NULL");
    fmk_routing from, to;
    fmk_status status = fmk_context_alive(queue->ctx);
    if (status || (status = fmk_struct_in(&from, sizeof from, ids, "ids")) ||
        (status = fmk_struct_in(&to, sizeof to, out, "out")) ||
        (status = check_sort_ids(&from, m, num_experts)))
        return status;
    fmk_context_resolve(queue->ctx, &from.ids);
    fmk_context_resolve(queue->ctx, &to.offsets);
    fmk_context_resolve(queue->ctx, &to.pairs);
    if ((status = check_integers("ids.ids", &from.ids, m * from.top_k)) ||
        (status = check_integers("out.offsets", &to.offsets, num_experts + 1)) ||
        (status = check_integers("out.pairs", &to.pairs, m * from.top_k)))
        return status;
    uint64_t pairs = 4 * (uint64_t)(m * from.top_k), offsets = 4 * ((uint64_t)num_experts + 1);
    if (fmk_meet(from.ids, pairs, to.offsets, offsets) || fmk_meet(from.ids, pairs, to.pairs, pairs) ||
        fmk_meet(to.offsets, offsets, to.pairs, pairs))
        return fmk_fail(FMK_EINVAL, "ids.ids, out.offsets and out.pairs overlap; they must be apart");
    return queue->ctx->backend->route_sort(queue, &from, m, num_experts, &to);
}
