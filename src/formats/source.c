/* Checks a part against itself, whatever its format, and finds rows, codes, scales and zero points in it. */
#include "source.h"

#include "../abi.h"
#include "../error.h"
#include "../floats.h"
#include "format.h"

#include <stdlib.h>

/* Indices along n and k are i32 in g_idx, n_order and in the packed layouts. */
static const int64_t max_extent = INT32_MAX;

static const struct fmk_format_ops *find_ops(fmk_format format) {
    switch (format) {
    case FMK_FORMAT_DENSE:
        return &fmk_dense_ops;
    case FMK_FORMAT_GPTQ:
    case FMK_FORMAT_GPTQ_V2: /* the same but for zero_declared */
        return &fmk_gptq_ops;
    case FMK_FORMAT_MARLIN:
        return &fmk_marlin_ops;
    case FMK_FORMAT_Q4_K:
        return &fmk_q4k_ops;
    case FMK_FORMAT_Q6_K:
        return &fmk_q6k_ops;
    default:
        return NULL;
    }
}

const char *fmk_format_name(fmk_format format) {
    const struct fmk_format_ops *ops = find_ops(format);
    switch (format) {
    case FMK_FORMAT_GPTQ_V2:
        return "GPTQ_V2";
    case FMK_FORMAT_AWQ:
        return "AWQ";
    case FMK_FORMAT_PACKED:
        return "PACKED";
    default:
        return ops ? ops->name : "unknown format";
    }
}

const char *fmk_dtype_name(fmk_dtype dtype) {
    static const char *const names[] = {
        [FMK_F16] = "F16", [FMK_BF16] = "BF16", [FMK_F32] = "F32", [FMK_I32] = "I32", [FMK_U8] = "U8"};
    return dtype >= FMK_F16 && dtype <= FMK_U8 ? names[dtype] : "unknown type";
}

int64_t fmk_dtype_size(fmk_dtype dtype) {
    static const int64_t sizes[] = {
        [FMK_F16] = 2, [FMK_BF16] = 2, [FMK_F32] = 4, [FMK_I32] = 4, [FMK_U8] = 1};
    return dtype >= FMK_F16 && dtype <= FMK_U8 ? sizes[dtype] : 0;
}

/* ---- checks ---- */

static fmk_status check_format(const fmk_part *part) {
    if (find_ops(part->format))
        return FMK_OK;
    if (part->format == FMK_FORMAT_AWQ)
        return fmk_fail(
            FMK_EUNSUPPORTED,
            "format AWQ is not supported: accepted are DENSE, GPTQ, GPTQ_V2, MARLIN, Q4_K and Q6_K");
    if (part->format == FMK_FORMAT_PACKED)
        return fmk_fail(FMK_EINVAL, "format PACKED is not a file's: accepted here are DENSE, GPTQ, GPTQ_V2, "
                                    "MARLIN, Q4_K and Q6_K");
    return fmk_fail(
        FMK_EINVAL,
        "format %d is unknown: accepted are DENSE (1), GPTQ (2), GPTQ_V2 (3), MARLIN (4), Q4_K (5), "
        "Q6_K (6) and PACKED (8)",
        part->format);
}

static fmk_status check_extents(fmk_part *part, const struct fmk_format_ops *ops) {
    if (part->n < 1 || part->n > max_extent)
        return fmk_fail(FMK_EINVAL, "n %lld: accepted are 1 to %lld", (long long)part->n,
                        (long long)max_extent);
    if (part->k < 1 || part->k > max_extent)
        return fmk_fail(FMK_EINVAL, "k %lld: accepted are 1 to %lld", (long long)part->k,
                        (long long)max_extent);
    if (part->k % ops->k_multiple)
        return fmk_fail(FMK_EINVAL, "k %lld is not a multiple of %lld, %s", (long long)part->k,
                        (long long)ops->k_multiple, ops->unit);
    if (part->n % ops->n_multiple)
        return fmk_fail(FMK_EINVAL, "n %lld is not a multiple of %lld, the columns of %s", (long long)part->n,
                        (long long)ops->n_multiple, ops->unit);
    if (!part->n_end)
        part->n_end = part->n;
    if (!part->k_end)
        part->k_end = part->k;
    if (part->n_end < 1 || part->n_end > part->n)
        return fmk_fail(FMK_EINVAL, "n_end %lld: accepted are 1 to n %lld, and 0 for n",
                        (long long)part->n_end, (long long)part->n);
    if (part->n_begin < 0 || part->n_begin >= part->n_end)
        return fmk_fail(FMK_EINVAL, "n_begin %lld: accepted are 0 to %lld, one less than n_end",
                        (long long)part->n_begin, (long long)part->n_end - 1);
    if (part->k_end < 1 || part->k_end > part->k)
        return fmk_fail(FMK_EINVAL, "k_end %lld: accepted are 1 to k %lld, and 0 for k",
                        (long long)part->k_end, (long long)part->k);
    if (part->k_begin < 0 || part->k_begin >= part->k_end)
        return fmk_fail(FMK_EINVAL, "k_begin %lld: accepted are 0 to %lld, one less than k_end",
                        (long long)part->k_begin, (long long)part->k_end - 1);
    if (part->k_begin % ops->k_cut)
        return fmk_fail(FMK_EINVAL, "k_begin %lld cuts %s: accepted are multiples of %lld",
                        (long long)part->k_begin, ops->unit, (long long)ops->k_cut);
    if (part->k_end % ops->k_cut)
        return fmk_fail(FMK_EINVAL, "k_end %lld cuts %s: accepted are multiples of %lld",
                        (long long)part->k_end, ops->unit, (long long)ops->k_cut);
    return FMK_OK;
}

static fmk_status check_numbers(struct fmk_source *source, const struct fmk_format_ops *ops) {
    fmk_part *part = &source->part;
    if (part->reserved)
        return fmk_fail(FMK_EINVAL, "reserved %d: accepted is 0", part->reserved);
    if (part->zero_point < 0 || part->zero_point > 2)
        return fmk_fail(FMK_EINVAL,
                        "zero_point %d: accepted are 0 (from the data), 1 (stored + 1) and 2 (as stored)",
                        part->zero_point);
    if (part->symmetric < -1 || part->symmetric > 1)
        return fmk_fail(FMK_EINVAL, "symmetric %d: accepted are 1 (yes), -1 (no) and 0 (not told)",
                        part->symmetric);
    if (!ops->scales) {
        if (part->group_size)
            return fmk_fail(FMK_EINVAL, "group_size %d: %s has none, accepted is 0", part->group_size,
                            ops->name);
        return FMK_OK;
    }
    if (part->group_size != -1 && part->group_size < 8)
        return fmk_fail(FMK_EINVAL, "group_size %d: accepted are -1 (one group) or 8 and more",
                        part->group_size);
    if (part->group_size == -1)
        part->group_size = (int32_t)part->k;
    source->groups = (part->k + part->group_size - 1) / part->group_size;
    return FMK_OK;
}

/* Where a tensor of `bytes` bytes an expert lies. */
static fmk_status check_place(const struct fmk_source *source, const fmk_tensor *tensor, const char *name,
                              int64_t bytes, const char *shape, int32_t num_experts) {
    if (tensor->memory == FMK_MEM_DEVICE && !source->accepts_device)
        return fmk_fail(FMK_EUNSUPPORTED, "%s.memory DEVICE: accepted are HOST and HOST_PINNED", name);
    if (tensor->memory < FMK_MEM_HOST || tensor->memory > FMK_MEM_DEVICE)
        return fmk_fail(FMK_EINVAL, "%s.memory %d: accepted are HOST (0)%s HOST_PINNED (1)%s", name,
                        tensor->memory, source->accepts_device ? "," : " and",
                        source->accepts_device ? " and DEVICE (2)" : "");
    if (!num_experts && tensor->expert_stride)
        return fmk_fail(FMK_EINVAL, "%s.expert_stride %llu: without experts accepted is 0", name,
                        (unsigned long long)tensor->expert_stride);
    if (num_experts && tensor->expert_stride < (uint64_t)bytes)
        return fmk_fail(FMK_EINVAL, "%s.expert_stride %llu is less than the %lld bytes of %s", name,
                        (unsigned long long)tensor->expert_stride, (long long)bytes, shape);
    int64_t span;
    if (tensor->expert_stride > INT64_MAX ||
        !fmk_mul((int64_t)tensor->expert_stride, fmk_max(num_experts, 1) - 1, &span) ||
        !fmk_add(span, bytes, &span))
        return fmk_fail(FMK_EINVAL, "%s.expert_stride %llu times %d experts is more than memory can hold",
                        name, (unsigned long long)tensor->expert_stride, num_experts);
    uint64_t end;
    if (__builtin_add_overflow(tensor->data.handle, tensor->data.offset, &end) ||
        __builtin_add_overflow(end, (uint64_t)span, &end))
        return fmk_fail(FMK_EINVAL, "%s.data.offset %llu leaves the address space", name,
                        (unsigned long long)tensor->data.offset);
    if (tensor->data.size && tensor->data.size < (uint64_t)span)
        return fmk_fail(FMK_EINVAL, "%s.data.size %llu is less than the %lld bytes of %s%s", name,
                        (unsigned long long)tensor->data.size, (long long)span, shape,
                        num_experts ? " times the experts" : "");
    return FMK_OK;
}

/* `accepted`: a bit per dtype. A dtype of 0 becomes the prescribed one. */
static fmk_status check_dtype(fmk_tensor *tensor, const char *name, fmk_dtype prescribed, uint32_t accepted,
                              const char *words) {
    if (!tensor->dtype)
        tensor->dtype = prescribed;
    if (tensor->dtype < 1 || tensor->dtype > FMK_U8 || !(accepted >> tensor->dtype & 1))
        return fmk_fail(FMK_EINVAL, "%s.dtype %d (%s): accepted %s", name, tensor->dtype,
                        fmk_dtype_name(tensor->dtype), words);
    return FMK_OK;
}

static fmk_status refuse_tensor(const fmk_tensor *tensor, const char *name,
                                const struct fmk_format_ops *ops) {
    if (!tensor->data.handle)
        return FMK_OK;
    return fmk_fail(FMK_EINVAL, "%s is given, but %s has none: accepted is handle 0", name, ops->name);
}

static fmk_status check_product(bool fits, const fmk_part *part, const char *name) {
    if (fits)
        return FMK_OK;
    return fmk_fail(FMK_EINVAL, "n %lld and k %lld: the bytes of %s are more than memory can hold",
                    (long long)part->n, (long long)part->k, name);
}

enum { HALVES = 1 << FMK_F16 | 1 << FMK_BF16, FLOATS = HALVES | 1 << FMK_F32 };

static fmk_status check_qweight(struct fmk_source *source, const struct fmk_format_ops *ops,
                                int32_t num_experts) {
    fmk_part *part = &source->part;
    fmk_dtype prescribed = ops->qweight_dtype;
    fmk_status status = prescribed
                            ? check_dtype(&part->qweight, "qweight", prescribed, 1u << prescribed,
                                          prescribed == FMK_I32 ? "is I32" : "is U8")
                            : check_dtype(&part->qweight, "qweight", 0, FLOATS, "are F32, F16 and BF16");
    if (status)
        return status;
    int64_t bytes = 0;
    status = check_product(ops->bytes(source, &bytes), part, "qweight");
    if (status)
        return status;
    if (!part->qweight.data.handle)
        return source->has_data
                   ? fmk_fail(FMK_EINVAL, "qweight.data.handle 0: the tensor %s is required", ops->shape)
                   : FMK_OK;
    return check_place(source, &part->qweight, "qweight", bytes, ops->shape, num_experts);
}

static fmk_status check_scales(struct fmk_source *source, const struct fmk_format_ops *ops,
                               int32_t num_experts) {
    fmk_part *part = &source->part;
    if (!ops->scales)
        return refuse_tensor(&part->scales, "scales", ops);
    fmk_status status = ops->zeros
                            ? check_dtype(&part->scales, "scales", FMK_F16, FLOATS, "are F16, BF16 and F32")
                            : check_dtype(&part->scales, "scales", FMK_F16, HALVES, "are F16 and BF16");
    if (status)
        return status;
    int64_t bytes = 0;
    status = check_product(fmk_mul(source->groups, part->n, &bytes) &&
                               fmk_mul(bytes, fmk_dtype_size(part->scales.dtype), &bytes),
                           part, "scales");
    if (status)
        return status;
    if (!part->scales.data.handle)
        return source->has_data
                   ? fmk_fail(FMK_EINVAL, "scales.data.handle 0: the tensor [groups][n] is required")
                   : FMK_OK;
    return check_place(source, &part->scales, "scales", bytes, "[groups][n]", num_experts);
}

/* An optional tensor of i32: [rows][columns]. */
static fmk_status check_integers(struct fmk_source *source, fmk_tensor *tensor, const char *name,
                                 int64_t rows, int64_t columns, const char *shape, int32_t num_experts) {
    const fmk_part *part = &source->part;
    if (!tensor->data.handle)
        return FMK_OK;
    int64_t bytes = 0;
    fmk_status status = check_dtype(tensor, name, FMK_I32, 1u << FMK_I32, "is I32");
    if (!status)
        status = check_product(fmk_mul(rows, columns, &bytes) && fmk_mul(bytes, 4, &bytes), part, name);
    return status ? status : check_place(source, tensor, name, bytes, shape, num_experts);
}

static fmk_status check_zeros(struct fmk_source *source, const struct fmk_format_ops *ops,
                              int32_t num_experts) {
    fmk_part *part = &source->part;
    if (!ops->zeros) {
        fmk_status status = refuse_tensor(&part->qzeros, "qzeros", ops);
        return status ? status : refuse_tensor(&part->g_idx, "g_idx", ops);
    }
    fmk_status status = check_integers(source, &part->qzeros, "qzeros", source->groups, (part->n + 7) / 8,
                                       "i32 [groups][n/8]", num_experts);
    return status ? status
                  : check_integers(source, &part->g_idx, "g_idx", 1, part->k, "i32 [k]", num_experts);
}

static fmk_status check_bias(struct fmk_source *source, const struct fmk_format_ops *ops,
                             int32_t num_experts) {
    fmk_part *part = &source->part;
    if (!part->bias.data.handle)
        return FMK_OK;
    fmk_dtype prescribed = ops->bias_dtype ? ops->bias_dtype : part->qweight.dtype;
    fmk_status status = check_dtype(&part->bias, "bias", prescribed, FLOATS, "are F32, F16 and BF16");
    if (status)
        return status;
    return check_place(source, &part->bias, "bias", part->n * fmk_dtype_size(part->bias.dtype), "[n]",
                       num_experts);
}

static fmk_status read_order(const struct fmk_source *source) {
    if (!source->part.n_order.data.handle)
        return FMK_OK;
    size_t size = (size_t)(source->n + 7) / 8;
    uint8_t *seen = malloc(size);
    if (!seen)
        return fmk_no_memory(size, "checking n_order");
    fmk_status status = FMK_OK;
    for (int64_t e = 0; e < source->experts && !status; e++) {
        const uint8_t *order = fmk_tensor_data(&source->part.n_order, e);
        memset(seen, 0, size);
        for (int64_t j = 0; j < source->n && !status; j++) {
            int32_t row = fmk_load_i32(order + 4 * j);
            if (row < 0 || row >= source->n)
                status =
                    fmk_fail(FMK_EINVAL, "n_order[%lld] %d: accepted are 0 to %lld, the rows of the shard",
                             (long long)j, row, (long long)source->n - 1);
            else if (seen[row / 8] >> row % 8 & 1)
                status =
                    fmk_fail(FMK_EINVAL, "n_order[%lld] %d comes a second time: accepted is a permutation",
                             (long long)j, row);
            else
                seen[row / 8] |= (uint8_t)(1 << row % 8);
        }
    }
    free(seen);
    return status;
}

fmk_status fmk_source_init(struct fmk_source *source, const fmk_part *part, int32_t num_experts,
                           uint32_t flags) {
    *source = (struct fmk_source){.part = *part,
                                  .experts = num_experts ? num_experts : 1,
                                  .has_data = flags & FMK_SOURCE_READ,
                                  .accepts_device = flags & FMK_SOURCE_DEVICE};
    fmk_part *own = &source->part;
    fmk_status status = check_format(own);
    if (status)
        return status;
    if (num_experts < 0)
        return fmk_fail(FMK_EINVAL, "num_experts %d: accepted are 0 (dense) and more", num_experts);
    const struct fmk_format_ops *ops = find_ops(own->format);
    source->family = ops->family;
    if ((status = check_extents(own, ops)) || (status = check_numbers(source, ops)))
        return status;
    source->n = own->n_end - own->n_begin;
    source->k = own->k_end - own->k_begin;
    if ((status = check_qweight(source, ops, num_experts)) ||
        (status = check_scales(source, ops, num_experts)) ||
        (status = check_zeros(source, ops, num_experts)) || (status = check_bias(source, ops, num_experts)))
        return status;
    status =
        check_integers(source, &own->n_order, "n_order", 1, source->n, "i32 [n_end - n_begin]", num_experts);
    if (status)
        return status;
    if (ops->zeros) {
        source->zero_declared = own->format == FMK_FORMAT_GPTQ_V2 ? 2 : 1;
        source->zero_used = own->zero_point ? own->zero_point : source->zero_declared;
        source->symmetric = own->symmetric > 0 || !own->qzeros.data.handle;
    } else if (ops->scales) {
        source->symmetric = true;
    }
    if (!source->has_data)
        return FMK_OK;
    if (ops->read && (status = ops->read(source)))
        return status;
    return read_order(source);
}

void fmk_source_tensors(struct fmk_source *source, struct fmk_source_tensor out[FMK_SOURCE_TENSORS]) {
    fmk_part *part = &source->part;
    int64_t qweight = 0;
    find_ops(part->format)->bytes(source, &qweight);
    struct fmk_source_tensor own[FMK_SOURCE_TENSORS] = {
        {"qweight", &part->qweight, qweight},
        {"scales", &part->scales, source->groups * part->n * fmk_dtype_size(part->scales.dtype)},
        {"qzeros", &part->qzeros, source->groups * ((part->n + 7) / 8) * 4},
        {"g_idx", &part->g_idx, part->k * 4},
        {"bias", &part->bias, part->n * fmk_dtype_size(part->bias.dtype)},
        {"n_order", &part->n_order, source->n * 4},
    };
    memcpy(out, own, sizeof own);
}

/* ---- what the packers read ---- */

int64_t fmk_source_file_row(const struct fmk_source *source, int64_t expert, int64_t row) {
    const uint8_t *order = fmk_tensor_data(&source->part.n_order, expert);
    return source->part.n_begin + (order ? fmk_load_i32(order + 4 * row) : row);
}

const uint8_t *fmk_source_row(const struct fmk_source *source, int64_t expert, int64_t row) {
    const fmk_part *part = &source->part;
    const struct fmk_format_ops *ops = find_ops(part->format);
    return fmk_tensor_data(&part->qweight, expert) +
           fmk_source_file_row(source, expert, row) * ops->row_bytes(source, part->k) +
           ops->row_bytes(source, part->k_begin);
}

void fmk_source_bias(const struct fmk_source *source, int64_t expert, float *out) {
    const fmk_tensor *bias = &source->part.bias;
    const uint8_t *from = fmk_tensor_data(bias, expert);
    for (int64_t row = 0; row < source->n; row++)
        fmk_load_floats(from, bias->dtype, fmk_source_file_row(source, expert, row), 1, out + row);
}

int32_t fmk_int4_group(const struct fmk_source *source, int64_t expert, int64_t k) {
    const uint8_t *g_idx = fmk_tensor_data(&source->part.g_idx, expert);
    k += source->part.k_begin;
    if (!g_idx)
        return (int32_t)(k / source->part.group_size);
    int32_t group = fmk_load_i32(g_idx + 4 * k);
    return group < 0 ? group + (int32_t)source->groups : group;
}

void fmk_int4_codes(const struct fmk_source *source, int64_t expert, int64_t row, int32_t rows,
                    const int32_t *k, int64_t count, uint8_t *out) {
    enum { RUN = 256 };
    int64_t column[8];
    for (int32_t r = 0; r < rows; r++)
        column[r] = fmk_source_file_row(source, expert, row + r);
    int32_t k_begin = (int32_t)source->part.k_begin, in_file[RUN];
    for (int64_t done = 0; done < count; done += RUN) {
        int64_t now = fmk_min(RUN, count - done);
        for (int64_t i = 0; i < now; i++)
            in_file[i] = k[done + i] < 0 ? -1 : k[done + i] + k_begin;
        find_ops(source->part.format)->codes(source, expert, column, rows, in_file, now, out + 8 * done);
    }
}

const uint8_t *fmk_int4_words(const struct fmk_source *source, int64_t expert, int64_t row, int64_t k,
                              int64_t *stride) {
    const fmk_part *part = &source->part;
    k += part->k_begin;
    if (find_ops(part->format) != &fmk_gptq_ops || part->n_order.data.handle || k % 8)
        return NULL;
    *stride = 4 * part->n;
    return fmk_tensor_data(&part->qweight, expert) + k / 8 * *stride + 4 * (part->n_begin + row);
}

void fmk_int4_scale_bits(const struct fmk_source *source, int64_t expert, int64_t row, int32_t rows,
                         int64_t group, uint32_t *out) {
    const fmk_part *part = &source->part;
    const struct fmk_format_ops *ops = find_ops(part->format);
    int64_t size = fmk_dtype_size(part->scales.dtype);
    const uint8_t *scales = fmk_tensor_data(&part->scales, expert) + group * part->n * size;
    for (int32_t r = 0; r < rows; r++) {
        int64_t column = ops->scale_column(source, fmk_source_file_row(source, expert, row + r));
        out[r] = 0;
        memcpy(&out[r], scales + column * size, (size_t)size);
    }
}

void fmk_int4_scales(const struct fmk_source *source, int64_t expert, int64_t row, int64_t rows,
                     int64_t group, void *out) {
    const fmk_part *part = &source->part;
    const struct fmk_format_ops *ops = find_ops(part->format);
    int64_t size = fmk_dtype_size(part->scales.dtype);
    const uint8_t *scales = fmk_tensor_data(&part->scales, expert) + group * part->n * size;
    if (ops == &fmk_gptq_ops && !part->n_order.data.handle) {
        memcpy(out, scales + (part->n_begin + row) * size, (size_t)(rows * size));
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t column = ops->scale_column(source, fmk_source_file_row(source, expert, row + r));
        memcpy((uint8_t *)out + r * size, scales + column * size, (size_t)size);
    }
}

void fmk_int4_zeros(const struct fmk_source *source, int64_t expert, int64_t row, int32_t rows, int64_t group,
                    uint8_t *out) {
    const struct fmk_format_ops *ops = find_ops(source->part.format);
    for (int32_t r = 0; r < rows; r++)
        out[r] = ops->zero(source, expert, fmk_source_file_row(source, expert, row + r), group);
}
