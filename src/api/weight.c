/* Making weights, and what one can ask of them: info, export, the numbers in them. */
#include "../abi.h"
#include "../error.h"
#include "../packed.h"

#include <stdlib.h>

fmk_status fmk_weight_create(fmk_weight **out, fmk_queue *queue, const fmk_weight_desc *desc) {
    if (!out)
        return fmk_fail(FMK_EINVAL, "out is NULL");
    *out = NULL;
    if (!queue)
        return fmk_fail(FMK_EINVAL, "queue is NULL");
    fmk_weight_desc d;
    fmk_part first;
    fmk_status status = fmk_context_alive(queue->ctx);
    if (status || (status = fmk_weight_desc_read(queue->ctx, desc, &d, &first)))
        return status;
    if (queue->ctx->backend->check_queue && (status = queue->ctx->backend->check_queue(queue)))
        return status;
    return first.format == FMK_FORMAT_PACKED ? fmk_packed_read(out, queue, &d, &first)
                                             : fmk_weight_pack(out, queue, &d);
}

fmk_status fmk_weight_storage(fmk_context *ctx, const fmk_weight_desc *desc, uint64_t *size,
                              uint64_t *align) {
    if (!ctx || !size || !align)
        return fmk_fail(FMK_EINVAL, "%s is NULL", !ctx ? "ctx" : !size ? "size" : "align");
    *size = 0;
    *align = ctx->backend->storage_align;
    fmk_weight_desc d;
    fmk_part first;
    fmk_status status = fmk_context_alive(ctx);
    if (status || (status = fmk_weight_desc_read(ctx, desc, &d, &first)))
        return status;
    if (first.format == FMK_FORMAT_PACKED)
        return fmk_packed_storage(ctx, &d, &first, size);
    struct fmk_projection shape;
    status = fmk_weight_shape(ctx, &d, true, &shape, size);
    free(shape.parts);
    return status;
}

fmk_status fmk_weight_info(const fmk_weight *weight, fmk_weight_info_t *out) {
    if (!weight)
        return fmk_fail(FMK_EINVAL, "weight is NULL");
    const struct fmk_projection *p = &weight->projection;
    fmk_weight_info_t info = {
        .glu = p->glu,
        .borrowed = weight->borrowed,
        .num_parts = p->num_parts,
        .num_experts = p->num_experts,
        .n = p->n,
        .k = p->k,
        .packed_size = fmk_packed_size(weight),
        .layout_id = fmk_packed_layout_id(p),
    };
    for (int32_t i = 0; i < p->num_parts; i++) {
        const struct fmk_packed *part = &p->parts[i];
        info.act_order |= weight->infos[i].act_order;
        info.bytes += part->bytes;
        info.bytes += part->k_index ? (uint64_t)(part->experts * part->k_packed) * 4 : 0;
        info.bytes += part->bias ? (uint64_t)(part->experts * part->n) * 4 : 0;
    }
    return fmk_struct_out(out, &info, sizeof info, "out");
}

fmk_status fmk_weight_part_info(const fmk_weight *weight, int32_t part, fmk_part_info *out) {
    if (!weight)
        return fmk_fail(FMK_EINVAL, "weight is NULL");
    if (part < 0 || part >= weight->projection.num_parts)
        return fmk_fail(FMK_EINVAL, "part %d is not in 0..%d", part, weight->projection.num_parts - 1);
    return fmk_struct_out(out, &weight->infos[part], sizeof *out, "out");
}

fmk_status fmk_weight_export(fmk_weight *weight, void *host, uint64_t capacity, uint64_t *size) {
    if (!weight || !size)
        return fmk_fail(FMK_EINVAL, "%s is NULL", weight ? "size" : "weight");
    *size = fmk_packed_size(weight);
    if (!host)
        return FMK_OK;
    if (capacity < *size)
        return fmk_fail(FMK_EINVAL, "capacity %llu is less than the %llu packed bytes",
                        (unsigned long long)capacity, (unsigned long long)*size);
    fmk_status status = fmk_weight_ready(weight, 1);
    return status ? status : fmk_packed_write(weight, host);
}

/* Checks [rows][k] of out_type at `out` and fills in the stride. */
static fmk_status check_rows(const struct fmk_projection *w, const char *name, const fmk_buffer *out,
                             fmk_dtype type, int64_t rows, int64_t *stride) {
    if (type != FMK_F16 && type != FMK_BF16 && type != FMK_F32)
        return fmk_fail(FMK_EINVAL, "out_type %d is none of F16 1, BF16 2, F32 3", type);
    if (!*stride)
        *stride = w->k;
    if (*stride < w->k)
        return fmk_fail(FMK_EINVAL, "out_stride %lld is less than k %lld", (long long)*stride,
                        (long long)w->k);
    int64_t bytes = 0;
    if (rows && (!fmk_mul(rows - 1, *stride, &bytes) || !fmk_add(bytes, w->k, &bytes) ||
                 !fmk_mul(bytes, fmk_dtype_size(type), &bytes)))
        return fmk_fail(FMK_EINVAL, "out_stride %lld: %lld rows of it do not fit in memory",
                        (long long)*stride, (long long)rows);
    if (!out->handle)
        return fmk_fail(FMK_EINVAL, "%s is absent", name);
    if ((out->handle + out->offset) % (uint64_t)fmk_dtype_size(type))
        return fmk_fail(FMK_EINVAL, "%s is at address 0x%llx, which is not a multiple of %lld", name,
                        (unsigned long long)(out->handle + out->offset), (long long)fmk_dtype_size(type));
    if (out->size && out->size < (uint64_t)bytes)
        return fmk_fail(FMK_EINVAL, "%s.size %llu is less than the %lld bytes that the call writes", name,
                        (unsigned long long)out->size, (long long)bytes);
    return FMK_OK;
}

static fmk_status check_expert(const struct fmk_projection *w, int32_t expert) {
    int32_t experts = w->num_experts ? w->num_experts : 1;
    return expert >= 0 && expert < experts
               ? FMK_OK
               : fmk_fail(FMK_EINVAL, "expert %d is not in 0..%d", expert, experts - 1);
}

fmk_status fmk_weight_dequantize(fmk_queue *queue, const fmk_weight *weight, int32_t expert,
                                 const fmk_buffer *out, fmk_dtype out_type, int64_t out_stride) {
    fmk_status status = fmk_weight_check(queue, weight);
    if (status)
        return status;
    const struct fmk_projection *w = &weight->projection;
    fmk_buffer to = out ? *out : (fmk_buffer){0};
    fmk_context_resolve(queue->ctx, &to);
    if ((status = check_expert(w, expert)) ||
        (status = check_rows(w, "out", &to, out_type, w->n, &out_stride)))
        return status;
    return queue->ctx->backend->dequantize(queue, w, expert, fmk_pointer(to), out_type, out_stride);
}

fmk_status fmk_rows(fmk_queue *queue, const fmk_weight *weight, const fmk_rows_args *args) {
    fmk_rows_args a;
    fmk_status status = fmk_weight_check(queue, weight);
    if (status || (status = fmk_struct_in(&a, sizeof a, args, "args")))
        return status;
    const struct fmk_projection *w = &weight->projection;
    if (a.reserved)
        return fmk_fail(FMK_EINVAL, "reserved %d: accepted is 0", a.reserved);
    if (a.m < 0 || a.m > INT32_MAX)
        return fmk_fail(FMK_EINVAL, "m %lld is not in 0..%d", (long long)a.m, INT32_MAX);
    if (!a.m)
        return FMK_OK;
    fmk_context_resolve(queue->ctx, &a.ids);
    fmk_context_resolve(queue->ctx, &a.out);
    if (!a.ids.handle || (a.ids.handle + a.ids.offset) % 4)
        return fmk_fail(FMK_EINVAL, "ids is %s; i32 [m] is required", a.ids.handle ? "misaligned" : "absent");
    if (a.ids.size && a.ids.size / 4 < (uint64_t)a.m)
        return fmk_fail(FMK_EINVAL, "ids.size %llu is less than that of m %lld ids",
                        (unsigned long long)a.ids.size, (long long)a.m);
    if ((status = check_expert(w, a.expert)) ||
        (status = check_rows(w, "out", &a.out, a.out_type, a.m, &a.out_stride)))
        return status;
    return queue->ctx->backend->rows(queue, w, &a);
}
