/* Packed bytes: what fmk_weight_export writes and format PACKED reads.
 *
 *     header    magic, version, sizes, the weight's shape
 *     record    one per part: layout, numbers, where its sections begin, what its info says
 *     sections  k_index, bias, range, data of each part, each aligned to 128 bytes
 *
 * in the byte order of the machine that wrote them. The bytes may come from a file, so nothing in them is
 * believed: numbers must be ones that the layout could have made, sections must lie where this code would
 * place them, and indices must be in range. */
#include "packed.h"

#include "abi.h"
#include "checkpoint/checkpoint.h"
#include "error.h"
#include "plan/fill.h"

#include <assert.h>
#include <string.h>

enum { VERSION = 3 }; /* of header, records and every layout's bytes: raise it when any of them changes */

static const char magic[8] = {'f', 'e', 'r', 'r', 'u', 'm', 'k', '\n'};

struct header {
    char magic[8];
    uint32_t version, record_size;
    uint64_t size, layout_id;
    int32_t num_parts, num_experts, glu, reserved;
};

struct record {
    int32_t layout, dtype, chunks, has_index;
    int64_t n, k, k_packed;
    uint64_t stride, expert_stride, bytes;
    int32_t format, group_size, act_order, symmetric, zero_declared, zero_detected, zero_used, has_bias;
    int32_t has_zeros, reserved;
};

static_assert(sizeof(struct header) == 48 && sizeof(struct record) == 104, "no padding in the file");

/* FNV-1a over what decides how the packed bytes are read. */
uint64_t fmk_packed_layout_id(const struct fmk_projection *projection) {
    uint64_t hash = 0xcbf29ce484222325u;
    int32_t words[2 * FMK_MAX_PARTS + 2] = {VERSION, projection->glu}, count = 2;
    for (int32_t i = 0; i < projection->num_parts; i++) {
        words[count++] = (int32_t)projection->parts[i].layout->id;
        words[count++] = projection->parts[i].dtype;
    }
    for (int32_t i = 0; i < count; i++)
        for (int shift = 0; shift < 32; shift += 8)
            hash = (hash ^ ((uint32_t)words[i] >> shift & 255)) * 0x100000001b3u;
    return hash;
}

static int64_t front(int32_t num_parts) {
    return fmk_round_up((int64_t)sizeof(struct header) + num_parts * (int64_t)sizeof(struct record),
                        FMK_STORAGE_ALIGN);
}

static uint64_t panels(const struct fmk_packed *part) {
    return (uint64_t)((part->n + part->layout->panel_rows - 1) / part->layout->panel_rows);
}

/* The part as it is in packed bytes, where every row lies next to the one before. */
static struct fmk_packed compact(const struct fmk_packed *part) {
    struct fmk_packed own = *part;
    own.stride = part->run;
    own.expert_stride = panels(part) * part->run;
    own.bytes = own.expert_stride * (uint64_t)part->experts;
    return own;
}

uint64_t fmk_packed_size(const struct fmk_weight *weight) {
    int64_t at = front(weight->projection.num_parts);
    struct fmk_sections sections;
    for (int32_t i = 0; i < weight->projection.num_parts; i++) {
        struct fmk_packed own = compact(&weight->projection.parts[i]);
        fmk_weight_sections(&own, own.k_index, own.bias, true, &at, &sections);
    }
    return (uint64_t)at;
}

static fmk_status write_part(struct fmk_context *ctx, const struct fmk_packed *part,
                             const fmk_part_info *info, int64_t *at, uint8_t *out, struct record *record) {
    struct fmk_packed own = compact(part);
    struct fmk_sections sections;
    fmk_weight_sections(&own, own.k_index, own.bias, true, at, &sections);
    *record = (struct record){
        .layout = (int32_t)own.layout->id,
        .dtype = own.dtype,
        .chunks = own.chunks,
        .has_index = own.k_index != NULL,
        .n = own.n,
        .k = own.k,
        .k_packed = own.k_packed,
        .stride = own.stride,
        .expert_stride = own.expert_stride,
        .bytes = own.bytes,
        .format = info->format,
        .group_size = info->group_size,
        .act_order = info->act_order,
        .symmetric = info->symmetric,
        .zero_declared = info->zero_declared,
        .zero_detected = info->zero_detected,
        .zero_used = info->zero_used,
        .has_bias = own.bias != NULL,
        .has_zeros = own.has_zeros,
    };
    const struct {
        const void *from;
        int64_t at;
        uint64_t bytes;
    } runs[] = {
        {own.k_index, sections.index, (uint64_t)(own.experts * own.k_packed) * 4},
        {own.bias, sections.bias, (uint64_t)(own.experts * own.n) * 4},
        {own.range, sections.range, sizeof *own.range},
    };
    fmk_status status = FMK_OK;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0] && !status; i++)
        if (runs[i].from)
            status = ctx->backend->read(ctx, NULL, out + runs[i].at, (uint64_t)(uintptr_t)runs[i].from,
                                        runs[i].bytes, runs[i].bytes, 1);
    for (int32_t e = 0; e < own.experts && !status; e++)
        status = ctx->backend->read(ctx, NULL, out + sections.data + (uint64_t)e * own.expert_stride,
                                    (uint64_t)(uintptr_t)part->data + (uint64_t)e * part->expert_stride,
                                    part->run, part->stride, panels(part));
    return status;
}

fmk_status fmk_packed_write(const struct fmk_weight *weight, uint8_t *out) {
    const struct fmk_projection *projection = &weight->projection;
    struct header header = {
        .version = VERSION,
        .record_size = sizeof(struct record),
        .size = fmk_packed_size(weight),
        .layout_id = fmk_packed_layout_id(projection),
        .num_parts = projection->num_parts,
        .num_experts = projection->num_experts,
        .glu = projection->glu,
    };
    memcpy(header.magic, magic, sizeof magic);
    memset(out, 0, header.size);
    memcpy(out, &header, sizeof header);
    int64_t at = front(projection->num_parts);
    fmk_status status = FMK_OK;
    for (int32_t i = 0; i < projection->num_parts && !status; i++) {
        struct record record;
        status = write_part(weight->ctx, &projection->parts[i], &weight->infos[i], &at, out, &record);
        memcpy(out + sizeof header + (size_t)i * sizeof record, &record, sizeof record);
    }
    return status;
}

/* ---- reading ---- */

/* Packed bytes, wherever they lie. */
struct origin {
    struct fmk_context *ctx;
    void *native; /* the queue's; NULL where there is none */
    const fmk_tensor *tensor;
};

static fmk_status look(const struct origin *origin, uint64_t offset, uint64_t bytes, void *out) {
    const fmk_buffer *data = &origin->tensor->data;
    if (origin->tensor->memory == FMK_MEM_DEVICE)
        return origin->ctx->backend->read(origin->ctx, origin->native, out,
                                          data->handle + data->offset + offset, bytes, bytes, 1);
    memcpy(out, (const uint8_t *)fmk_pointer(*data) + offset, bytes);
    return FMK_OK;
}

static fmk_status check_origin(const struct origin *origin) {
    const fmk_tensor *tensor = origin->tensor;
    const struct fmk_backend_row *backend = origin->ctx->backend;
    if (!tensor->data.handle)
        return fmk_fail(FMK_EINVAL, "parts[0].qweight is absent");
    if (tensor->memory == FMK_MEM_DEVICE && !backend->check_tensor)
        return fmk_fail(FMK_EUNSUPPORTED,
                        "parts[0].qweight.memory DEVICE: accepted are HOST and HOST_PINNED");
    return backend->check_tensor ? backend->check_tensor(origin->ctx, "parts[0].qweight", tensor) : FMK_OK;
}

static fmk_status read_header(const struct origin *origin, struct header *header) {
    uint64_t size = origin->tensor->data.size;
    fmk_status status = check_origin(origin);
    if (status)
        return status;
    if (size < sizeof *header)
        return fmk_fail(FMK_EINVAL, "parts[0].qweight.size %llu is less than the header of packed bytes, %zu",
                        (unsigned long long)size, sizeof *header);
    status = look(origin, 0, sizeof *header, header);
    if (status)
        return status;
    if (memcmp(header->magic, magic, sizeof magic))
        return fmk_fail(FMK_EFORMAT, "parts[0].qweight does not begin as packed bytes do");
    if (header->version != VERSION || header->record_size != sizeof(struct record))
        return fmk_fail(FMK_EUNSUPPORTED,
                        "parts[0].qweight: packed bytes of version %u; this library reads %d",
                        header->version, VERSION);
    if (header->size > size)
        return fmk_fail(FMK_EFORMAT,
                        "parts[0].qweight.size %llu is less than the %llu bytes that its header "
                        "tells of",
                        (unsigned long long)size, (unsigned long long)header->size);
    if (header->num_parts < 1 || header->num_parts > FMK_MAX_PARTS || header->num_experts < 0 ||
        header->num_experts > FMK_MAX_EXPERTS || (header->glu != 0 && header->glu != 1) ||
        (header->glu && header->num_parts != 2) || header->size < (uint64_t)front(header->num_parts) ||
        header->size > INT64_MAX / 2)
        return fmk_fail(FMK_EFORMAT, "parts[0].qweight: the header of the packed bytes contradicts itself");
    return FMK_OK;
}

/* A record's part, its pointers into packed bytes at `base`. */
static fmk_status read_record(const struct fmk_context *ctx, const struct header *header,
                              const struct record *record, int32_t i, uint64_t base, int64_t *at,
                              struct fmk_packed *part, struct fmk_sections *sections) {
    *part = (struct fmk_packed){
        .layout = fmk_layout_by_id(record->layout),
        .n = record->n,
        .k = record->k,
        .k_packed = record->k_packed,
        .dtype = record->dtype,
        .chunks = record->chunks,
        .has_zeros = record->has_zeros,
        .experts = header->num_experts ? header->num_experts : 1,
        .stride = record->stride,
        .expert_stride = record->expert_stride,
        .bytes = record->bytes,
        .run = record->stride,
    };
    if (!part->layout)
        return fmk_fail(FMK_EUNSUPPORTED,
                        "parts[0].qweight: part %d is in layout %d, which this library does "
                        "not know",
                        i, record->layout);
    if (!(part->layout->backends >> ctx->backend->id & 1))
        return fmk_fail(
            FMK_EUNSUPPORTED,
            "parts[0].qweight: part %d is in layout %s, which is another backend's; create the weight "
            "from its checkpoint",
            i, part->layout->name);
    bool flags = (uint32_t)(record->has_index | record->has_bias | record->act_order | record->symmetric |
                            record->has_zeros) < 2;
    if (!flags || record->reserved || part->n < 1 || part->n > INT32_MAX || part->k < 1 ||
        part->k > INT32_MAX || part->k_packed < 1 || part->k_packed > INT32_MAX ||
        (!record->has_index && part->k_packed < part->k) || !part->layout->valid(part) ||
        part->bytes > INT64_MAX / 2 ||
        !fmk_weight_sections(part, record->has_index, record->has_bias, true, at, sections) ||
        (uint64_t)*at > header->size)
        return fmk_fail(FMK_EFORMAT, "parts[0].qweight: part %d's numbers contradict each other or the size",
                        i);
    part->data = (const uint8_t *)(uintptr_t)(base + (uint64_t)sections->data);
    if (record->has_bias)
        part->bias = (const float *)(uintptr_t)(base + (uint64_t)sections->bias);
    if (record->has_index)
        part->k_index = (const int32_t *)(uintptr_t)(base + (uint64_t)sections->index);
    if (sections->range >= 0)
        part->range = (const struct fmk_range *)(uintptr_t)(base + (uint64_t)sections->range);
    return FMK_OK;
}

static fmk_status check_index(const struct origin *origin, const struct fmk_packed *part, int64_t at,
                              int32_t i) {
    enum { RUN = 4096 };
    int32_t k[RUN];
    int64_t all = part->k_index ? part->experts * part->k_packed : 0;
    for (int64_t done = 0, count; done < all; done += count) {
        count = fmk_min(RUN, all - done);
        fmk_status status = look(origin, (uint64_t)(at + 4 * done), (uint64_t)(4 * count), k);
        if (status)
            return status;
        for (int64_t j = 0; j < count; j++)
            if (k[j] < -1 || k[j] >= part->k)
                return fmk_fail(FMK_EFORMAT,
                                "parts[0].qweight: part %d's k_index[%lld] is %d; it must be in "
                                "-1..%lld",
                                i, (long long)(done + j), k[j], (long long)part->k - 1);
    }
    return FMK_OK;
}

static fmk_part_info info_of(const struct record *record, const struct fmk_packed *part, int64_t n_offset) {
    return (fmk_part_info){
        .struct_size = sizeof(fmk_part_info),
        .format = record->format,
        .n_offset = n_offset,
        .n = part->n,
        .k = part->k,
        .group_size = record->group_size,
        .act_order = record->act_order,
        .symmetric = record->symmetric,
        .zero_declared = record->zero_declared,
        .zero_detected = record->zero_detected,
        .zero_used = record->zero_used,
        .zero_conflict = record->zero_declared != record->zero_used,
        .has_bias = record->has_bias,
        .layout = part->layout->name,
    };
}

static fmk_status read_parts(struct fmk_weight *weight, const struct origin *origin,
                             const struct header *header, uint64_t base) {
    struct fmk_projection *projection = &weight->projection;
    int64_t at = front(header->num_parts);
    for (int32_t i = 0; i < header->num_parts; i++) {
        struct record record;
        struct fmk_sections sections;
        struct fmk_packed *part = &projection->parts[i];
        fmk_status status =
            look(origin, sizeof *header + (uint64_t)i * sizeof record, sizeof record, &record);
        if (!status)
            status = read_record(weight->ctx, header, &record, i, base, &at, part, &sections);
        if (!status)
            status = check_index(origin, part, sections.index, i);
        if (status)
            return status;
        weight->infos[i] = info_of(&record, part, projection->n);
        projection->n += part->n;
    }
    projection->k = projection->parts[0].k;
    for (int32_t i = 1; i < header->num_parts; i++)
        if (projection->parts[i].k != projection->k ||
            (projection->glu && projection->parts[i].n != projection->parts[0].n))
            return fmk_fail(FMK_EFORMAT, "parts[0].qweight: part %d's shape does not go with part 0's", i);
    if (projection->n > INT32_MAX)
        return fmk_fail(FMK_EFORMAT, "parts[0].qweight: n %lld in all is more than %d",
                        (long long)projection->n, INT32_MAX);
    return FMK_OK;
}

static fmk_status check_told(const fmk_weight_desc *desc, const fmk_part *part,
                             const struct fmk_projection *projection) {
    const struct {
        const char *name;
        int64_t told, packed;
    } rows[] = {
        {"parts[0].n", part->n, projection->n},
        {"parts[0].k", part->k, projection->k},
        {"num_experts", desc->num_experts, projection->num_experts},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].told && rows[i].told != rows[i].packed)
            return fmk_fail(FMK_EINVAL, "%s is %lld, and %lld in the packed bytes", rows[i].name,
                            (long long)rows[i].told, (long long)rows[i].packed);
    const struct {
        const char *name;
        fmk_tensor tensor;
    } tensors[] = {{"scales", part->scales},
                   {"qzeros", part->qzeros},
                   {"g_idx", part->g_idx},
                   {"bias", part->bias},
                   {"n_order", part->n_order}};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        if (tensors[i].tensor.data.handle)
            return fmk_fail(FMK_EINVAL,
                            "parts[0].%s is given, but packed bytes hold all there is: leave it absent",
                            tensors[i].name);
    if (desc->flags & FMK_WEIGHT_GLU && !projection->glu)
        return fmk_fail(FMK_EINVAL, "flags: GLU, but the packed bytes are not of gate and up");
    if (part->n_begin || part->n_end || part->k_begin || part->k_end)
        return fmk_fail(FMK_EINVAL, "parts[0]: packed bytes hold one shard and cannot be cut again");
    return FMK_OK;
}

/* Bytes in host memory are no use to a device: BORROW copies them. */
static bool borrows(struct fmk_context *ctx, const fmk_weight_desc *desc, const fmk_part *part) {
    return desc->flags & FMK_WEIGHT_BORROW && ctx->backend->borrows(ctx, &part->qweight);
}

fmk_status fmk_packed_storage(struct fmk_context *ctx, const fmk_weight_desc *desc, const fmk_part *part,
                              uint64_t *size) {
    struct header header;
    fmk_status status = read_header(&(struct origin){ctx, NULL, &part->qweight}, &header);
    if (!status)
        *size = borrows(ctx, desc, part) ? 0 : header.size;
    return status;
}

/* Checks the parts as they will lie at `base`, before anything is copied there. */
static fmk_status check_parts(struct fmk_weight *weight, const struct origin *origin,
                              const struct header *header, const fmk_weight_desc *desc, const fmk_part *part,
                              uint64_t base) {
    fmk_status status = read_parts(weight, origin, header, base);
    if (!status)
        status = check_told(desc, part, &weight->projection);
    if (!status && header->layout_id != fmk_packed_layout_id(&weight->projection))
        status = fmk_fail(FMK_EFORMAT, "parts[0].qweight: its layout_id does not go with its parts");
    return status;
}

fmk_status fmk_packed_read(struct fmk_weight **out, struct fmk_queue *queue, const fmk_weight_desc *desc,
                           const fmk_part *part) {
    struct origin origin = {queue->ctx, queue->native, &part->qweight};
    struct header header;
    fmk_status status = read_header(&origin, &header);
    if (status)
        return status;
    bool borrow = borrows(queue->ctx, desc, part);
    uint64_t base = part->qweight.data.handle + part->qweight.data.offset;
    if (borrow && base % FMK_STORAGE_ALIGN)
        return fmk_fail(FMK_EINVAL,
                        "parts[0].qweight is at address 0x%llx, which is not a multiple of %d; copy or "
                        "move it",
                        (unsigned long long)base, FMK_STORAGE_ALIGN);
    struct fmk_weight *weight;
    status = fmk_weight_new(&weight, queue->ctx, header.num_parts, header.num_experts, header.glu);
    if (status)
        return status;
    if (borrow && queue->ctx->backend->borrow && part->qweight.memory != FMK_MEM_DEVICE)
        status = queue->ctx->backend->borrow(queue->ctx, base, header.size, &base, &weight->held[0]);
    if (!borrow) {
        status = fmk_weight_give_storage(weight, queue, desc, header.size);
        base = weight->storage;
    }
    if (!status)
        status = check_parts(weight, &origin, &header, desc, part, base);
    if (!status && !borrow) {
        struct fmk_progress progress = {desc, 0, header.size};
        status = queue->ctx->backend->write(queue, base, &part->qweight, header.size, &progress);
    }
    weight->borrowed = borrow;
    if (!status && borrow && desc->source) {
        weight->source = desc->source;
        fmk_checkpoint_retain(desc->source);
    }
    return fmk_weight_finish(weight, queue, status, out);
}
