/* Weights: checks a descriptor, chooses each part's layout, then has the backend pack it. */
#include "weight.h"

#include "abi.h"
#include "checkpoint/checkpoint.h"
#include "error.h"
#include "formats/format.h"
#include "plan/fill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool adds_bias(const fmk_weight_desc *desc, const struct fmk_source *source) {
    return source->part.bias.data.handle && desc->apply_bias >= 0 &&
           (desc->apply_bias > 0 || source->part.k_begin == 0);
}

static bool may_borrow(struct fmk_context *ctx, const fmk_weight_desc *desc,
                       const struct fmk_source *source) {
    return desc->flags & FMK_WEIGHT_BORROW && !source->part.n_order.data.handle &&
           ctx->backend->borrows(ctx, &source->part.qweight);
}

/* Everything that one creation needs while it lasts. */
struct build {
    struct fmk_context *ctx;
    void *native; /* the queue's; NULL where there is none */
    const fmk_weight_desc *desc;
    struct fmk_source *sources;
    struct fmk_sections *sections;
    bool *index;                            /* the part needs a k_index */
    bool *borrowed;                         /* its data stays where it is */
    uint8_t *(*copies)[FMK_SOURCE_TENSORS]; /* of tensors in device memory; or NULL */
};

/* ---- shape ---- */

static fmk_status check_numbers(const fmk_weight_desc *desc) {
    if (desc->flags & ~(uint32_t)(FMK_WEIGHT_BORROW | FMK_WEIGHT_GLU))
        return fmk_fail(FMK_EINVAL, "flags 0x%x has bits that are none of BORROW 1, GLU 2", desc->flags);
    if (!desc->parts)
        return fmk_fail(FMK_EINVAL, "parts is NULL");
    if (desc->num_parts < 1 || desc->num_parts > FMK_MAX_PARTS)
        return fmk_fail(FMK_EINVAL, "num_parts %d is not in 1..%d", desc->num_parts, FMK_MAX_PARTS);
    if (desc->num_experts < 0 || desc->num_experts > FMK_MAX_EXPERTS)
        return fmk_fail(FMK_EINVAL, "num_experts %d is not in 0..%d", desc->num_experts, FMK_MAX_EXPERTS);
    if (desc->apply_bias < -1 || desc->apply_bias > 1)
        return fmk_fail(FMK_EINVAL, "apply_bias %d is none of -1, 0, 1", desc->apply_bias);
    if (desc->reserved)
        return fmk_fail(FMK_EINVAL, "reserved %d: accepted is 0", desc->reserved);
    return FMK_OK;
}

/* What lies in device memory is given by a handle, and from here on by its address. */
static void resolve(const struct fmk_context *ctx, fmk_part *part) {
    fmk_tensor *tensors[] = {&part->qweight, &part->scales, &part->qzeros,
                             &part->g_idx,   &part->bias,   &part->n_order};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        if (tensors[i]->memory == FMK_MEM_DEVICE)
            fmk_context_resolve(ctx, &tensors[i]->data);
}

static fmk_status read_part(const struct fmk_context *ctx, const fmk_weight_desc *desc, int32_t i,
                            fmk_part *part) {
    uint32_t stride;
    memcpy(&stride, desc->parts, sizeof stride);
    const char *from = (const char *)desc->parts + (size_t)i * stride;
    fmk_status status = fmk_struct_in(part, sizeof *part, from, "part");
    if (!status && part->struct_size != stride)
        status = fmk_fail(FMK_EINVAL, "struct_size is %u, and that of parts[0] %u; they must agree",
                          part->struct_size, stride);
    if (status)
        return fmk_fail_in(status, "parts[%d]", i);
    resolve(ctx, part);
    return FMK_OK;
}

fmk_status fmk_weight_desc_read(const struct fmk_context *ctx, const fmk_weight_desc *given,
                                fmk_weight_desc *desc, fmk_part *first) {
    fmk_status status = fmk_struct_in(desc, sizeof *desc, given, "desc");
    if (status || (status = check_numbers(desc)) || (status = read_part(ctx, desc, 0, first)))
        return status;
    if (first->format == FMK_FORMAT_PACKED && desc->num_parts != 1)
        return fmk_fail(FMK_EINVAL, "num_parts %d: a part of format PACKED stands alone", desc->num_parts);
    return FMK_OK;
}

/* Copies what the host must read and the device has. */
static fmk_status fetch_small(struct build *build, int32_t i, struct fmk_source *source) {
    const struct fmk_backend_row *backend = build->ctx->backend;
    struct fmk_source_tensor tensors[FMK_SOURCE_TENSORS];
    fmk_source_tensors(source, tensors);
    for (int t = 0; t < FMK_SOURCE_TENSORS; t++) {
        fmk_tensor *tensor = tensors[t].tensor;
        if (!tensor->data.handle)
            continue;
        fmk_status status = backend->check_tensor(build->ctx, tensors[t].name, tensor);
        if (status)
            return status;
        if (t == 0 || tensor->memory != FMK_MEM_DEVICE)
            continue;
        uint64_t bytes = (uint64_t)tensors[t].bytes, all = bytes * (uint64_t)source->experts;
        uint8_t *copy = build->copies[i][t] = malloc(all);
        if (!copy)
            return fmk_no_memory(all, tensors[t].name);
        status =
            backend->read(build->ctx, build->native, copy, tensor->data.handle + tensor->data.offset, bytes,
                          source->experts > 1 ? tensor->expert_stride : bytes, (uint64_t)source->experts);
        if (status)
            return status;
        *tensor = (fmk_tensor){.data = {.handle = (uint64_t)(uintptr_t)copy, .size = all},
                               .expert_stride = tensor->expert_stride ? bytes : 0,
                               .dtype = tensor->dtype};
    }
    return FMK_OK;
}

static fmk_status init_source(struct build *build, int32_t i, const fmk_part *part, bool read_data) {
    struct fmk_source *source = &build->sources[i];
    int32_t experts = build->desc->num_experts;
    if (!build->ctx->backend->check_tensor)
        return fmk_source_init(source, part, experts, read_data ? FMK_SOURCE_READ : 0);
    fmk_status status = fmk_source_init(source, part, experts, FMK_SOURCE_DEVICE);
    if (status || !read_data)
        return status;
    status = fetch_small(build, i, source);
    if (status)
        return status;
    fmk_part local = source->part;
    return fmk_source_init(source, &local, experts, FMK_SOURCE_DEVICE | FMK_SOURCE_READ);
}

/* One part's layout and numbers. */
static fmk_status shape_part(struct build *build, int32_t i, struct fmk_packed *packed) {
    const struct fmk_source *source = &build->sources[i];
    bool borrow = may_borrow(build->ctx, build->desc, source);
    *packed = (struct fmk_packed){
        .layout = fmk_layout_choose(build->ctx->backend->id, build->ctx->features, source, borrow),
        .n = source->n,
        .k = source->k,
        .experts = source->experts,
    };
    if (!packed->layout->shape(source, packed, &build->index[i]) || packed->bytes > INT64_MAX / 2)
        return fmk_fail(FMK_EINVAL, "n %lld and k %lld: the packed bytes are more than memory can hold",
                        (long long)source->n, (long long)source->k);
    packed->run = packed->stride;
    build->borrowed[i] = borrow && packed->layout->in_place;
    return FMK_OK;
}

/* Checks every part and fills in its source and its numbers; the pointers of shape->parts stay NULL. */
static fmk_status make_shape(struct build *build, bool read_data, struct fmk_projection *shape) {
    const fmk_weight_desc *desc = build->desc;
    const struct fmk_source *sources = build->sources;
    shape->num_parts = desc->num_parts;
    shape->num_experts = desc->num_experts;
    shape->glu = desc->flags & FMK_WEIGHT_GLU;
    shape->n = 0;
    for (int32_t i = 0; i < desc->num_parts; i++) {
        fmk_part part;
        fmk_status status = read_part(build->ctx, desc, i, &part);
        if (!status) {
            status = init_source(build, i, &part, read_data);
            if (!status)
                status = shape_part(build, i, &shape->parts[i]);
            if (status)
                return fmk_fail_in(status, "parts[%d]", i);
        }
        if (status)
            return status;
        if (sources[i].k != sources[0].k)
            return fmk_fail(FMK_EINVAL, "parts[%d] keeps %lld of k, parts[0] %lld; they must agree", i,
                            (long long)sources[i].k, (long long)sources[0].k);
        shape->n += sources[i].n;
    }
    shape->k = sources[0].k;
    if (shape->n > INT32_MAX)
        return fmk_fail(FMK_EINVAL, "parts: n %lld in all is more than %d", (long long)shape->n, INT32_MAX);
    if (shape->glu && (desc->num_parts != 2 || sources[0].n != sources[1].n))
        return fmk_fail(FMK_EINVAL,
                        "flags: GLU needs two parts of equal n, gate and up; there are %d, of n "
                        "%lld and %lld",
                        desc->num_parts, (long long)sources[0].n, (long long)sources[desc->num_parts > 1].n);
    return FMK_OK;
}

/* ---- storage ---- */

/* A section of `bytes` bytes at *at; false when it does not fit in an address space. */
static bool reserve(int64_t bytes, int64_t *at, int64_t *section) {
    *section = *at;
    if (!fmk_add(*at, bytes, at) || *at > INT64_MAX - FMK_STORAGE_ALIGN)
        return false;
    *at = fmk_round_up(*at, FMK_STORAGE_ALIGN);
    return true;
}

bool fmk_weight_sections(const struct fmk_packed *packed, bool index, bool bias, bool data, int64_t *at,
                         struct fmk_sections *out) {
    int64_t positions, biases;
    *out = (struct fmk_sections){-1, -1, -1, -1};
    bool range = data && packed->layout->range;
    if (!fmk_mul(packed->experts, packed->k_packed, &positions) || !fmk_mul(positions, 4, &positions) ||
        !fmk_mul(packed->experts, packed->n, &biases) || !fmk_mul(biases, 4, &biases))
        return false;
    return (!index || reserve(positions, at, &out->index)) && (!bias || reserve(biases, at, &out->bias)) &&
           (!range || reserve(sizeof(struct fmk_range), at, &out->range)) &&
           (!data || reserve((int64_t)packed->bytes, at, &out->data));
}

static fmk_status place_all(const struct build *build, const struct fmk_projection *shape, uint64_t *size) {
    int64_t at = 0;
    for (int32_t i = 0; i < shape->num_parts; i++)
        if (!fmk_weight_sections(&shape->parts[i], build->index[i],
                                 adds_bias(build->desc, &build->sources[i]), !build->borrowed[i], &at,
                                 &build->sections[i]))
            return fmk_fail(FMK_EINVAL, "parts: the packed bytes are more than memory can hold");
    *size = (uint64_t)at;
    return FMK_OK;
}

fmk_status fmk_weight_new(struct fmk_weight **out, struct fmk_context *ctx, int32_t num_parts,
                          int32_t num_experts, bool glu) {
    struct fmk_weight *weight = calloc(1, sizeof *weight);
    struct fmk_packed *parts = calloc((size_t)num_parts, sizeof *parts);
    fmk_part_info *infos = calloc((size_t)num_parts, sizeof *infos);
    void **held = calloc((size_t)num_parts, sizeof *held);
    if (!weight || !parts || !infos || !held) {
        free(weight);
        free(parts);
        free(infos);
        free(held);
        return fmk_no_memory(sizeof *weight, "a weight");
    }
    atomic_init(&weight->references, 1);
    weight->ctx = ctx;
    weight->projection.num_parts = num_parts;
    weight->projection.num_experts = num_experts;
    weight->projection.glu = glu;
    weight->projection.parts = parts;
    weight->infos = infos;
    weight->held = held;
    fmk_context_retain(ctx);
    *out = weight;
    return FMK_OK;
}

fmk_status fmk_weight_give_storage(struct fmk_weight *weight, struct fmk_queue *queue,
                                   const fmk_weight_desc *desc, uint64_t size) {
    if (!size)
        return FMK_OK;
    weight->native = queue->native;
    uint32_t align = weight->ctx->backend->storage_align;
    if (desc->storage.handle) {
        fmk_buffer given = desc->storage;
        fmk_context_resolve(weight->ctx, &given);
        uint64_t address = given.handle + given.offset;
        if (address % align)
            return fmk_fail(FMK_EINVAL, "storage is at address 0x%llx, which is not a multiple of %u",
                            (unsigned long long)address, align);
        if (desc->storage.size && desc->storage.size < size)
            return fmk_fail(FMK_EINVAL, "storage.size %llu is less than the %llu bytes that the weight needs",
                            (unsigned long long)desc->storage.size, (unsigned long long)size);
        weight->storage = address;
    } else {
        fmk_buffer made = {.size = size};
        fmk_status status = fmk_context_alloc(weight->ctx, queue->native, size, align, &made.handle);
        if (status)
            return status;
        weight->storage_handle = made.handle;
        weight->owns_storage = true;
        fmk_context_resolve(weight->ctx, &made);
        weight->storage = made.handle;
        if (weight->storage % align)
            return fmk_fail(FMK_EINVAL,
                            "allocator.alloc answered address 0x%llx, which is not a multiple of %u",
                            (unsigned long long)weight->storage, align);
    }
    weight->storage_size = size;
    return FMK_OK;
}

/* ---- packing ---- */

/* Points the part into the storage, or at its source. */
static void attach(const struct fmk_weight *weight, const struct fmk_source *source,
                   const struct fmk_sections *at, struct fmk_packed *packed) {
    uint8_t *storage = (uint8_t *)(uintptr_t)weight->storage;
    if (at->index >= 0)
        packed->k_index = (const int32_t *)(storage + at->index);
    if (at->bias >= 0)
        packed->bias = (const float *)(storage + at->bias);
    if (at->range >= 0)
        packed->range = (const struct fmk_range *)(storage + at->range);
    if (at->data >= 0) {
        packed->data = storage + at->data;
        return;
    }
    packed->data = fmk_source_row(source, 0, 0);
    if (packed->n > 1)
        packed->stride = (uint64_t)(fmk_source_row(source, 0, 1) - packed->data);
    packed->expert_stride = source->part.qweight.expert_stride;
}

/* Brings what is borrowed from the host within the device's reach. */
static fmk_status hold(struct fmk_weight *weight, int32_t i, struct fmk_source *source) {
    struct fmk_source_tensor tensors[FMK_SOURCE_TENSORS];
    fmk_source_tensors(source, tensors);
    const fmk_tensor *tensor = tensors[0].tensor;
    if (!weight->ctx->backend->borrow || tensor->memory == FMK_MEM_DEVICE)
        return FMK_OK;
    uint64_t begin = tensor->data.handle + tensor->data.offset, address;
    uint64_t size = (uint64_t)tensors[0].bytes + (uint64_t)(source->experts - 1) * tensor->expert_stride;
    fmk_status status = weight->ctx->backend->borrow(weight->ctx, begin, size, &address, &weight->held[i]);
    struct fmk_packed *packed = &weight->projection.parts[i];
    if (!status)
        packed->data = (const uint8_t *)((uintptr_t)packed->data - begin + address);
    return status ? fmk_fail_in(status, "parts[%d].qweight", i) : FMK_OK;
}

static void describe(struct fmk_weight *weight, int32_t i, const struct fmk_source *source,
                     int64_t n_offset) {
    const struct fmk_packed *packed = &weight->projection.parts[i];
    bool int4 = source->family == FMK_FAMILY_INT4;
    weight->infos[i] = (fmk_part_info){
        .struct_size = sizeof(fmk_part_info),
        .format = source->part.format,
        .n_offset = n_offset,
        .n = packed->n,
        .k = packed->k,
        .group_size = int4 ? source->part.group_size : 0,
        .act_order = source->act_order,
        .symmetric = source->symmetric,
        .zero_declared = source->zero_declared,
        .zero_detected = source->zero_detected,
        .zero_used = source->zero_used,
        .zero_conflict = source->zero_declared != source->zero_used,
        .has_bias = packed->bias != NULL,
        .layout = packed->layout->name,
    };
    if (weight->infos[i].zero_conflict)
        fmk_log(weight->ctx, 1,
                "parts[%d]: the format declares zero points of version %d; version %d is used (%s)", i,
                source->zero_declared, source->zero_used,
                source->part.zero_point ? "zero_point overrides" : "every stored zero point says so");
}

static fmk_status fill(struct fmk_weight *weight, struct fmk_queue *queue, const struct build *build) {
    const fmk_weight_desc *desc = build->desc;
    struct fmk_projection *projection = &weight->projection;
    struct fmk_progress progress = {.desc = desc};
    for (int32_t i = 0; i < projection->num_parts; i++) {
        attach(weight, &build->sources[i], &build->sections[i], &projection->parts[i]);
        if (build->borrowed[i])
            weight->borrowed = true;
        else
            progress.total += projection->parts[i].bytes;
    }
    int64_t n_offset = 0;
    for (int32_t i = 0; i < projection->num_parts; i++) {
        const struct fmk_packed *packed = &projection->parts[i];
        struct fmk_fill part = {&build->sources[i], packed, !build->borrowed[i], &progress};
        fmk_status status = build->borrowed[i] ? hold(weight, i, &build->sources[i]) : FMK_OK;
        if (!status)
            status = weight->ctx->backend->fill(queue, &part);
        if (status)
            return status;
        describe(weight, i, &build->sources[i], n_offset);
        n_offset += packed->n;
    }
    if (weight->borrowed && desc->source) {
        weight->source = desc->source;
        fmk_checkpoint_retain(desc->source);
    }
    return FMK_OK;
}

fmk_status fmk_weight_finish(struct fmk_weight *weight, struct fmk_queue *queue, fmk_status status,
                             struct fmk_weight **out) {
    const struct fmk_backend_row *backend = weight->ctx->backend;
    if (backend->finish && weight->storage) {
        char sentence[512];
        snprintf(sentence, sizeof sentence, "%s", fmk_last_error());
        fmk_status last = backend->finish(queue, &weight->pending);
        if (status)
            fmk_fail(status, "%s", sentence);
        else
            status = last;
    }
    if (status)
        fmk_weight_destroy(weight, queue);
    else
        *out = weight;
    return status;
}

static void build_free(struct build *build) {
    for (int32_t i = 0; build->copies && i < build->desc->num_parts; i++)
        for (int t = 0; t < FMK_SOURCE_TENSORS; t++)
            free(build->copies[i][t]);
    free(build->copies);
    free(build->sources);
    free(build->sections);
    free(build->index);
    free(build->borrowed);
}

static fmk_status build_new(struct build *build, struct fmk_context *ctx, void *native,
                            const fmk_weight_desc *desc) {
    size_t count = (size_t)desc->num_parts;
    *build = (struct build){
        .ctx = ctx,
        .native = native,
        .desc = desc,
        .sources = calloc(count, sizeof *build->sources),
        .sections = calloc(count, sizeof *build->sections),
        .index = calloc(count, sizeof *build->index),
        .borrowed = calloc(count, sizeof *build->borrowed),
        .copies = calloc(count, sizeof *build->copies),
    };
    if (build->sources && build->sections && build->index && build->borrowed && build->copies)
        return FMK_OK;
    build_free(build);
    return fmk_no_memory(count * sizeof *build->sources, "the parts of a weight");
}

fmk_status fmk_weight_pack(struct fmk_weight **out, struct fmk_queue *queue, const fmk_weight_desc *desc) {
    struct build build;
    struct fmk_weight *weight = NULL;
    uint64_t size;
    fmk_status status = build_new(&build, queue->ctx, queue->native, desc);
    if (status)
        return status;
    status =
        fmk_weight_new(&weight, queue->ctx, desc->num_parts, desc->num_experts, desc->flags & FMK_WEIGHT_GLU);
    if (!status) {
        status = make_shape(&build, true, &weight->projection);
        if (!status)
            status = place_all(&build, &weight->projection, &size);
        if (!status)
            status = fmk_weight_give_storage(weight, queue, desc, size);
        if (!status)
            status = fill(weight, queue, &build);
        status = fmk_weight_finish(weight, queue, status, out);
    }
    build_free(&build);
    return status;
}

fmk_status fmk_weight_shape(struct fmk_context *ctx, const fmk_weight_desc *desc, bool read_data,
                            struct fmk_projection *shape, uint64_t *size) {
    struct build build;
    shape->parts = calloc((size_t)desc->num_parts, sizeof *shape->parts);
    if (!shape->parts)
        return fmk_no_memory(sizeof *shape->parts, "the parts of a weight");
    fmk_status status = build_new(&build, ctx, NULL, desc);
    if (status)
        return status;
    status = make_shape(&build, read_data, shape);
    if (!status)
        status = place_all(&build, shape, size);
    build_free(&build);
    return status;
}

fmk_status fmk_weight_check(const fmk_queue *queue, const fmk_weight *weight) {
    if (!queue || !weight)
        return fmk_fail(FMK_EINVAL, "%s is NULL", queue ? "weight" : "queue");
    if (queue->ctx != weight->ctx)
        return fmk_fail(FMK_EINVAL, "queue is of another context than the weight");
    return fmk_context_alive(queue->ctx);
}

fmk_status fmk_weight_retain(fmk_weight *weight) {
    if (!weight)
        return fmk_fail(FMK_EINVAL, "weight is NULL");
    atomic_fetch_add(&weight->references, 1);
    return FMK_OK;
}

void fmk_weight_destroy(fmk_weight *weight, fmk_queue *queue) {
    if (!weight || atomic_fetch_sub(&weight->references, 1) > 1)
        return;
    struct fmk_context *ctx = weight->ctx;
    /* A caller's allocator knows of streams; our own memory goes back when nothing uses it any more. */
    bool wait =
        (weight->owns_storage && !ctx->allocator.release) || (weight->borrowed && ctx->backend->unborrow);
    if (ctx->backend->retire)
        ctx->backend->retire(ctx, wait ? queue : NULL, weight->pending);
    if (weight->owns_storage)
        fmk_context_release(ctx, queue ? queue->native : weight->native, weight->storage_handle,
                            weight->storage_size);
    for (int32_t i = 0; i < weight->projection.num_parts; i++)
        if (weight->held[i])
            ctx->backend->unborrow(ctx, weight->held[i]);
    fmk_checkpoint_release(weight->source);
    fmk_context_destroy(ctx);
    free(weight->held);
    free(weight->projection.parts);
    free(weight->infos);
    free(weight);
}

fmk_status fmk_weight_ready(fmk_weight *weight, int32_t wait) {
    if (!weight)
        return fmk_fail(FMK_EINVAL, "weight is NULL");
    fmk_status status = fmk_context_alive(weight->ctx);
    return status || !weight->pending ? status
                                      : weight->ctx->backend->ready(weight->ctx, weight->pending, wait);
}
