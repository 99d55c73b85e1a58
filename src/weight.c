/* Weights: checks a descriptor, chooses each part's layout, then packs on the context's threads. */
#include "weight.h"

#include "abi.h"
#include "checkpoint/checkpoint.h"
#include "error.h"
#include "formats/format.h"
#include "floats.h"
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

enum {
    ROWS_PER_TASK = 64,   /* a multiple of every layout's panel */
    TASKS_PER_BATCH = 128 /* between two calls of progress */
};

static bool adds_bias(const fmk_weight_desc *desc, const struct fmk_source *source) {
    return source->part.bias.data.handle && desc->apply_bias >= 0 &&
           (desc->apply_bias > 0 || source->part.k_begin == 0);
}

static bool borrows(const fmk_weight_desc *desc, const struct fmk_source *source,
                    const struct fmk_packed *packed) {
    return desc->flags & FMK_WEIGHT_BORROW && packed->layout->in_place && !source->part.n_order.data.handle;
}

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

static fmk_status read_part(const fmk_weight_desc *desc, int32_t i, fmk_part *part) {
    uint32_t stride;
    memcpy(&stride, desc->parts, sizeof stride);
    const char *from = (const char *)desc->parts + (size_t)i * stride;
    fmk_status status = fmk_struct_in(part, sizeof *part, from, "part");
    if (!status && part->struct_size != stride)
        status = fmk_fail(FMK_EINVAL, "struct_size is %u, and that of parts[0] %u; they must agree",
                          part->struct_size, stride);
    return status ? fmk_fail_in(status, "parts[%d]", i) : FMK_OK;
}

fmk_status fmk_weight_desc_read(const fmk_weight_desc *given, fmk_weight_desc *desc, fmk_part *first) {
    fmk_status status = fmk_struct_in(desc, sizeof *desc, given, "desc");
    if (status || (status = check_numbers(desc)) || (status = read_part(desc, 0, first)))
        return status;
    if (first->format == FMK_FORMAT_PACKED && desc->num_parts != 1)
        return fmk_fail(FMK_EINVAL, "num_parts %d: a part of format PACKED stands alone", desc->num_parts);
    return FMK_OK;
}

/* One part's layout and numbers. */
static fmk_status shape_part(const fmk_weight_desc *desc, const struct fmk_source *source,
                             struct fmk_packed *packed, bool *index) {
    bool borrow = desc->flags & FMK_WEIGHT_BORROW && !source->part.n_order.data.handle;
    *packed = (struct fmk_packed){
        .layout = fmk_layout_choose(source->family, borrow),
        .n = source->n,
        .k = source->k,
        .experts = source->experts,
    };
    if (!packed->layout->shape(source, packed, index) || packed->bytes > INT64_MAX / 2)
        return fmk_fail(FMK_EINVAL, "n %lld and k %lld: the packed bytes are more than memory can hold",
                        (long long)source->n, (long long)source->k);
    packed->run = packed->stride;
    return FMK_OK;
}

/* Checks every part and fills in its source and its numbers; the pointers of shape->parts stay NULL.
 * index[i]: the part needs a k_index. */
static fmk_status make_shape(const fmk_weight_desc *desc, bool read_data, struct fmk_source *sources,
                             struct fmk_projection *shape, bool *index) {
    shape->num_parts = desc->num_parts;
    shape->num_experts = desc->num_experts;
    shape->glu = desc->flags & FMK_WEIGHT_GLU;
    shape->n = 0;
    for (int32_t i = 0; i < desc->num_parts; i++) {
        fmk_part part;
        fmk_status status = read_part(desc, i, &part);
        if (!status) {
            status = fmk_source_init(&sources[i], &part, desc->num_experts, read_data);
            if (!status)
                status = shape_part(desc, &sources[i], &shape->parts[i], &index[i]);
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
    *out = (struct fmk_sections){-1, -1, -1};
    if (!fmk_mul(packed->experts, packed->k_packed, &positions) || !fmk_mul(positions, 4, &positions) ||
        !fmk_mul(packed->experts, packed->n, &biases) || !fmk_mul(biases, 4, &biases))
        return false;
    return (!index || reserve(positions, at, &out->index)) && (!bias || reserve(biases, at, &out->bias)) &&
           (!data || reserve((int64_t)packed->bytes, at, &out->data));
}

static fmk_status place_all(const fmk_weight_desc *desc, const struct fmk_source *sources,
                            const struct fmk_projection *shape, const bool *index,
                            struct fmk_sections *sections, uint64_t *size) {
    int64_t at = 0;
    for (int32_t i = 0; i < shape->num_parts; i++)
        if (!fmk_weight_sections(&shape->parts[i], index[i], adds_bias(desc, &sources[i]),
                                 !borrows(desc, &sources[i], &shape->parts[i]), &at, &sections[i]))
            return fmk_fail(FMK_EINVAL, "parts: the packed bytes are more than memory can hold");
    *size = (uint64_t)at;
    return FMK_OK;
}

fmk_status fmk_weight_new(struct fmk_weight **out, struct fmk_context *ctx, int32_t num_parts,
                          int32_t num_experts, bool glu) {
    struct fmk_weight *weight = calloc(1, sizeof *weight);
    struct fmk_packed *parts = calloc((size_t)num_parts, sizeof *parts);
    fmk_part_info *infos = calloc((size_t)num_parts, sizeof *infos);
    if (!weight || !parts || !infos) {
        free(weight);
        free(parts);
        free(infos);
        return fmk_no_memory(sizeof *weight, "a weight");
    }
    atomic_init(&weight->references, 1);
    weight->ctx = ctx;
    weight->projection.num_parts = num_parts;
    weight->projection.num_experts = num_experts;
    weight->projection.glu = glu;
    weight->projection.parts = parts;
    weight->infos = infos;
    fmk_context_retain(ctx);
    *out = weight;
    return FMK_OK;
}

fmk_status fmk_weight_give_storage(struct fmk_weight *weight, struct fmk_queue *queue,
                                   const fmk_weight_desc *desc, uint64_t size) {
    if (!size)
        return FMK_OK;
    weight->native = queue->native;
    if (desc->storage.handle) {
        uint64_t address = desc->storage.handle + desc->storage.offset;
        if (address % FMK_STORAGE_ALIGN)
            return fmk_fail(FMK_EINVAL, "storage is at address 0x%llx, which is not a multiple of %d",
                            (unsigned long long)address, FMK_STORAGE_ALIGN);
        if (desc->storage.size && desc->storage.size < size)
            return fmk_fail(FMK_EINVAL, "storage.size %llu is less than the %llu bytes that the weight needs",
                            (unsigned long long)desc->storage.size, (unsigned long long)size);
        weight->storage = address;
    } else {
        weight->storage = fmk_context_alloc(weight->ctx, queue->native, size, FMK_STORAGE_ALIGN);
        if (!weight->storage)
            return fmk_no_memory(size, "packed weights");
        weight->owns_storage = true;
        if (weight->storage % FMK_STORAGE_ALIGN)
            return fmk_fail(FMK_EINVAL,
                            "allocator.alloc answered address 0x%llx, which is not a multiple of %d",
                            (unsigned long long)weight->storage, FMK_STORAGE_ALIGN);
    }
    weight->storage_size = size;
    return FMK_OK;
}

/* ---- packing ---- */

fmk_status fmk_weight_progress(const fmk_weight_desc *desc, uint64_t done, uint64_t total) {
    if (desc->progress && desc->progress(desc->progress_user, done, total))
        return fmk_fail(FMK_ECANCELED, "progress answered non-zero after %llu of %llu bytes",
                        (unsigned long long)done, (unsigned long long)total);
    return FMK_OK;
}

struct pack {
    const struct fmk_source *source;
    const struct fmk_packed *packed;
    int64_t chunks; /* tasks per expert */
    int64_t first;  /* task of this batch */
};

static void pack_task(void *arg, int64_t i) {
    const struct pack *p = arg;
    int64_t expert = (p->first + i) / p->chunks, row = (p->first + i) % p->chunks * ROWS_PER_TASK;
    const struct fmk_packed *packed = p->packed;
    const int32_t *index = packed->k_index ? packed->k_index + expert * packed->k_packed : NULL;
    packed->layout->pack(p->source, packed, index, expert, row, fmk_min(ROWS_PER_TASK, packed->n - row),
                         (uint8_t *)packed->data + (uint64_t)expert * packed->expert_stride);
}

static void read_bias(const struct fmk_source *source, float *out) {
    const fmk_tensor *bias = &source->part.bias;
    for (int64_t e = 0; e < source->experts; e++) {
        const uint8_t *from = fmk_tensor_data(bias, e), *order = NULL;
        if (source->part.n_order.data.handle)
            order = fmk_tensor_data(&source->part.n_order, e);
        for (int64_t row = 0; row < source->n; row++) {
            int64_t at = source->part.n_begin + (order ? fmk_load_i32(order + 4 * row) : row);
            fmk_load_floats(from, bias->dtype, at, 1, out++);
        }
    }
}

/* Points the part into the storage, or at its source. */
static void attach(const struct fmk_weight *weight, const struct fmk_source *source,
                   const struct fmk_sections *at, struct fmk_packed *packed) {
    uint8_t *storage = (uint8_t *)(uintptr_t)weight->storage;
    if (at->index >= 0)
        packed->k_index = (const int32_t *)(storage + at->index);
    if (at->bias >= 0)
        packed->bias = (const float *)(storage + at->bias);
    if (at->data >= 0) {
        packed->data = storage + at->data;
        return;
    }
    packed->data = fmk_source_row(source, 0, 0);
    if (packed->n > 1)
        packed->stride = (uint64_t)(fmk_source_row(source, 0, 1) - packed->data);
    packed->expert_stride = source->part.qweight.expert_stride;
}

struct progress {
    const fmk_weight_desc *desc;
    uint64_t done, total;
};

static fmk_status advance(struct progress *progress, uint64_t bytes) {
    progress->done += bytes;
    return fmk_weight_progress(progress->desc, progress->done, progress->total);
}

static fmk_status pack_part(struct fmk_weight *weight, const struct fmk_source *source,
                            struct fmk_packed *packed, bool owned, struct progress *progress) {
    if (packed->k_index)
        for (int64_t e = 0; e < packed->experts; e++)
            packed->layout->index(source, packed, e, (int32_t *)packed->k_index + e * packed->k_packed);
    if (packed->bias)
        read_bias(source, (float *)packed->bias);
    if (!owned)
        return FMK_OK;
    struct pack pack = {source, packed, (packed->n + ROWS_PER_TASK - 1) / ROWS_PER_TASK, 0};
    int64_t tasks = pack.chunks * packed->experts;
    uint64_t before = 0;
    for (; pack.first < tasks; pack.first += TASKS_PER_BATCH) {
        int64_t batch = fmk_min(TASKS_PER_BATCH, tasks - pack.first);
        fmk_parallel(weight->ctx, pack_task, &pack, batch);
        uint64_t after = (uint64_t)((double)packed->bytes * (double)(pack.first + batch) / (double)tasks);
        if (pack.first + batch == tasks)
            after = packed->bytes;
        fmk_status status = advance(progress, after - before);
        if (status)
            return status;
        before = after;
    }
    return FMK_OK;
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

static fmk_status fill(struct fmk_weight *weight, const fmk_weight_desc *desc,
                       const struct fmk_source *sources, const struct fmk_sections *sections) {
    struct fmk_projection *projection = &weight->projection;
    struct progress progress = {.desc = desc};
    for (int32_t i = 0; i < projection->num_parts; i++) {
        attach(weight, &sources[i], &sections[i], &projection->parts[i]);
        if (sections[i].data >= 0)
            progress.total += projection->parts[i].bytes;
        else
            weight->borrowed = true;
    }
    int64_t n_offset = 0;
    for (int32_t i = 0; i < projection->num_parts; i++) {
        fmk_status status =
            pack_part(weight, &sources[i], &projection->parts[i], sections[i].data >= 0, &progress);
        if (status)
            return status;
        describe(weight, i, &sources[i], n_offset);
        n_offset += projection->parts[i].n;
    }
    if (weight->borrowed && desc->source) {
        weight->source = desc->source;
        fmk_checkpoint_retain(desc->source);
    }
    return FMK_OK;
}

/* Everything that one creation needs while it lasts. */
struct build {
    struct fmk_source *sources;
    struct fmk_sections *sections;
    bool *index;
};

static void build_free(struct build *build) {
    free(build->sources);
    free(build->sections);
    free(build->index);
}

static fmk_status build_new(struct build *build, int32_t num_parts) {
    size_t count = (size_t)num_parts;
    build->sources = calloc(count, sizeof *build->sources);
    build->sections = calloc(count, sizeof *build->sections);
    build->index = calloc(count, sizeof *build->index);
    if (build->sources && build->sections && build->index)
        return FMK_OK;
    build_free(build);
    return fmk_no_memory(count * sizeof *build->sources, "the parts of a weight");
}

fmk_status fmk_weight_pack(struct fmk_weight **out, struct fmk_queue *queue, const fmk_weight_desc *desc) {
    struct build build;
    struct fmk_weight *weight = NULL;
    uint64_t size;
    fmk_status status = build_new(&build, desc->num_parts);
    if (status)
        return status;
    status =
        fmk_weight_new(&weight, queue->ctx, desc->num_parts, desc->num_experts, desc->flags & FMK_WEIGHT_GLU);
    if (!status)
        status = make_shape(desc, true, build.sources, &weight->projection, build.index);
    if (!status)
        status = place_all(desc, build.sources, &weight->projection, build.index, build.sections, &size);
    if (!status)
        status = fmk_weight_give_storage(weight, queue, desc, size);
    if (!status)
        status = fill(weight, desc, build.sources, build.sections);
    build_free(&build);
    if (status)
        fmk_weight_destroy(weight, queue);
    else
        *out = weight;
    return status;
}

fmk_status fmk_weight_shape(const fmk_weight_desc *desc, bool read_data, struct fmk_projection *shape,
                            uint64_t *size) {
    struct build build;
    shape->parts = calloc((size_t)desc->num_parts, sizeof *shape->parts);
    if (!shape->parts)
        return fmk_no_memory(sizeof *shape->parts, "the parts of a weight");
    fmk_status status = build_new(&build, desc->num_parts);
    if (status)
        return status;
    status = make_shape(desc, read_data, build.sources, shape, build.index);
    if (!status)
        status = place_all(desc, build.sources, shape, build.index, build.sections, size);
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
    (void)queue; /* on the CPU nothing is in flight after a call returned */
    if (!weight || atomic_fetch_sub(&weight->references, 1) > 1)
        return;
    if (weight->owns_storage)
        fmk_context_release(weight->ctx, weight->native, weight->storage, weight->storage_size);
    fmk_checkpoint_release(weight->source);
    fmk_context_destroy(weight->ctx);
    free(weight->projection.parts);
    free(weight->infos);
    free(weight);
}

fmk_status fmk_weight_ready(fmk_weight *weight, int32_t wait) {
    (void)wait;
    return weight ? fmk_context_alive(weight->ctx) : fmk_fail(FMK_EINVAL, "weight is NULL");
}
