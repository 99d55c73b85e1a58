/* What an entry is: format, shape, group size, and where its tensors lie, each checked against the others. */
#include "store.h"

#include "../abi.h"
#include "../error.h"
#include "../formats/source.h"

#include <string.h>

/* A tensor's bytes as a part has them. */
static fmk_tensor tensor_of(const struct fmk_file_tensor *tensor) {
    return (fmk_tensor){.data = {.handle = (uintptr_t)tensor->data, .size = tensor->size},
                        .dtype = tensor->type->dtype};
}

static bool is_float(const struct fmk_file_tensor *tensor) {
    return tensor->type->format == FMK_FORMAT_DENSE;
}

/* Checks that `tensor` is [rows][cols] of i32, or of floats; rows -1 = any. */
static fmk_status check_matrix(const struct fmk_file_tensor *tensor, bool floats, int64_t rows,
                               int64_t cols) {
    if (floats ? !is_float(tensor) : tensor->type->dtype != FMK_I32)
        return fmk_fail(FMK_EFORMAT, "tensor %.64s has type %s; %s is expected", tensor->name,
                        tensor->type->name, floats ? "F16, BF16 or F32" : "I32");
    if (tensor->num_dims != 2 || tensor->dims[1] != cols || (rows >= 0 && tensor->dims[0] != rows))
        return fmk_fail(
            FMK_EFORMAT, "tensor %.64s has %d dimensions [%lld][%lld]; [%lld][%lld] is expected%s",
            tensor->name, tensor->num_dims, (long long)tensor->dims[0], (long long)tensor->dims[1],
            (long long)rows, (long long)cols, rows < 0 ? " (-1: any)" : "");
    return FMK_OK;
}

/* The bias of an entry, [n] or, of a stack, [experts][n]. */
static fmk_status add_bias(const struct fmk_file_tensor *bias, struct fmk_described *out) {
    if (!bias)
        return FMK_OK;
    int64_t n = out->part.n;
    bool stacked = out->num_experts > 0;
    bool shaped = stacked ? bias->num_dims == 2 && bias->dims[0] == out->num_experts && bias->dims[1] == n
                          : bias->num_dims == 1 && bias->dims[0] == n;
    if (!is_float(bias) || !shaped)
        return fmk_fail(FMK_EFORMAT, "tensor %.64s is not a bias of %lld values of F16, BF16 or F32",
                        bias->name, (long long)n);
    out->part.bias = tensor_of(bias);
    out->part.bias.expert_stride = stacked ? bias->size / (uint64_t)out->num_experts : 0;
    out->bytes += bias->size;
    return FMK_OK;
}

static int64_t groups_of(int64_t k, int64_t group_size) {
    return group_size <= 0 || group_size >= k ? 1 : (k - 1) / group_size + 1;
}

/* The group size of a checkpoint without a config, from what is there: one group, or the one size that
 * divides K into so many groups, or the power of two that does with a shorter last group. */
static fmk_status infer_group_size(int64_t k, int64_t groups, int32_t *out) {
    int64_t exact = groups > 0 && k % groups == 0 ? k / groups : 0, power = 0;
    for (int64_t size = 8; size < k && size <= INT32_MAX && !power; size *= 2)
        power = groups_of(k, size) == groups ? size : 0;
    *out = -1;
    if (groups == 1)
        return FMK_OK;
    int64_t size = exact ? exact : power;
    if (size < 8 || size > INT32_MAX || (power && power != size))
        return fmk_fail(FMK_EFORMAT,
                        "there is no quantization config, and scales of %lld groups over K %lld do not tell "
                        "the group size",
                        (long long)groups, (long long)k);
    *out = (int32_t)size;
    return FMK_OK;
}

static fmk_status check_groups(const struct fmk_file_tensor *scales, int64_t k, int32_t told,
                               int32_t *group_size) {
    int64_t groups = scales->dims[0];
    if (!told)
        return infer_group_size(k, groups, group_size);
    *group_size = told;
    if (groups != groups_of(k, told))
        return fmk_fail(FMK_EFORMAT, "tensor %.64s has %lld rows; group_size %d over K %lld makes %lld",
                        scales->name, (long long)groups, told, (long long)k, (long long)groups_of(k, told));
    return FMK_OK;
}

/* ---- GPTQ ---- */

struct gptq {
    const struct fmk_file_tensor *qweight, *scales, *qzeros, *g_idx, *bias;
};

static struct gptq find_gptq(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry) {
    const char *name = entry->name;
    size_t size = strlen(name);
    return (struct gptq){entry->anchor, fmk_store_tensor(c, name, size, ".scales"),
                         fmk_store_tensor(c, name, size, ".qzeros"),
                         fmk_store_tensor(c, name, size, ".g_idx"), fmk_store_tensor(c, name, size, ".bias")};
}

/* AWQ packs along N: qweight [K][N/8] against scales [groups][N]. */
static bool looks_like_awq(const struct gptq *t) {
    return t->qweight->num_dims == 2 && t->scales && t->scales->num_dims == 2 &&
           t->scales->dims[1] / 8 == t->qweight->dims[1] && t->scales->dims[1] != t->qweight->dims[1];
}

/* Bits of a code without a config, from g_idx, which shows K, or the width of the zero points; 0 = neither
 * is there. Where a small N leaves it open, the usual 4. */
static int32_t infer_bits(const struct gptq *t) {
    static const int32_t candidates[] = {4, 8, 2, 3, 5, 6, 7};
    int64_t words = 0, codes = 0;
    if (t->g_idx && t->g_idx->num_dims == 1 && t->g_idx->elements) {
        words = t->qweight->dims[0];
        codes = t->g_idx->dims[0];
    } else if (t->qzeros && t->qzeros->num_dims == 2) {
        words = t->qzeros->dims[1];
        codes = t->qweight->dims[1];
    }
    for (size_t i = 0; codes && i < sizeof candidates / sizeof candidates[0]; i++) {
        int64_t bits = candidates[i];
        if (words == codes / 32 * bits + (codes % 32 * bits + 31) / 32)
            return candidates[i];
    }
    return 0;
}

static fmk_status check_supported(const struct fmk_checkpoint *c, const struct gptq *t,
                                  struct fmk_quant_numbers *numbers, struct fmk_described *out) {
    static const char *const by_bits[] = {[2] = "GPTQ 2-bit", [3] = "GPTQ 3-bit", [5] = "GPTQ 5-bit",
                                          [6] = "GPTQ 6-bit", [7] = "GPTQ 7-bit", [8] = "GPTQ 8-bit"};
    bool no_config = c->quant.method == FMK_QUANT_NONE;
    const char *refused = NULL;
    if (c->quant.method == FMK_QUANT_AWQ || (no_config && looks_like_awq(t)))
        refused = "AWQ";
    else if (c->quant.method == FMK_QUANT_OTHER)
        refused = c->quant.name;
    if (!refused && !numbers->bits)
        numbers->bits = infer_bits(t);
    if (!refused && numbers->bits && numbers->bits != 4)
        refused = by_bits[numbers->bits];
    if (!refused)
        return FMK_OK;
    out->kind = FMK_ENTRY_UNSUPPORTED;
    out->part.format = 0;
    out->format_name = refused;
    return fmk_fail(FMK_EUNSUPPORTED,
                    "%s is not read here; of quantized safetensors GPTQ 4-bit and Marlin are", refused);
}

static fmk_status check_gptq(const struct gptq *t, const struct fmk_quant_numbers *numbers,
                             struct fmk_described *out) {
    fmk_part *part = &out->part;
    if (!numbers->bits)
        return fmk_fail(FMK_EFORMAT,
                        "there is no quantization config, and neither qzeros nor g_idx tell the bits");
    if (!t->scales)
        return fmk_fail(FMK_EFORMAT, "qweight is there, but scales are missing");
    fmk_status status = check_matrix(t->scales, true, -1, part->n);
    if (!status)
        status = check_groups(t->scales, part->k, numbers->group_size, &part->group_size);
    if (!status && t->qzeros)
        status = check_matrix(t->qzeros, false, t->scales->dims[0], (part->n + 7) / 8);
    if (status)
        return status;
    if (t->g_idx && t->g_idx->elements &&
        (t->g_idx->type->dtype != FMK_I32 || t->g_idx->num_dims != 1 || t->g_idx->dims[0] != part->k))
        return fmk_fail(FMK_EFORMAT, "tensor %.64s is %s with %lld values; I32 with K %lld is expected",
                        t->g_idx->name, t->g_idx->type->name, (long long)t->g_idx->elements,
                        (long long)part->k);
    part->symmetric = numbers->symmetric;
    return FMK_OK;
}

static fmk_status describe_gptq(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry,
                                struct fmk_described *out) {
    struct gptq t = find_gptq(c, entry);
    const struct fmk_file_tensor *others[] = {t.scales, t.qzeros, t.g_idx};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        out->bytes += others[i] ? others[i]->size : 0;
    out->part.format = c->quant.method == FMK_QUANT_GPTQ_V2 ? FMK_FORMAT_GPTQ_V2 : FMK_FORMAT_GPTQ;
    out->format_name = fmk_format_name(out->part.format);
    out->dtype = t.scales ? t.scales->type->dtype : 0;
    if (t.qweight->num_dims == 2) {
        out->part.n = t.qweight->dims[1];
        (void)fmk_mul(t.qweight->dims[0], 8, &out->part.k);
    }
    struct fmk_quant_numbers numbers = {0};
    bool skipped = false;
    fmk_status status = fmk_quant_config_for(&c->quant, entry->name, &numbers, &skipped);
    if (!status)
        status = check_supported(c, &t, &numbers, out);
    if (status)
        return status;
    if (c->quant.method == FMK_QUANT_MARLIN)
        return fmk_fail(FMK_EFORMAT, "the config declares Marlin, but qweight is there in place of B and s");
    if (skipped)
        return fmk_fail(FMK_EFORMAT,
                        "a dynamic rule of the config says that it is not quantized, but qweight is there");
    if ((status = check_matrix(t.qweight, false, -1, out->part.n)))
        return status;
    if ((status = check_gptq(&t, &numbers, out)))
        return status;
    out->part.qweight = tensor_of(t.qweight);
    out->part.scales = tensor_of(t.scales);
    if (t.qzeros)
        out->part.qzeros = tensor_of(t.qzeros);
    if (t.g_idx && t.g_idx->elements)
        out->part.g_idx = tensor_of(t.g_idx);
    return add_bias(t.bias, out);
}

/* ---- Marlin ---- */

static fmk_status describe_marlin(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry,
                                  struct fmk_described *out) {
    const struct fmk_file_tensor *b = entry->anchor;
    const struct fmk_file_tensor *s = fmk_store_tensor(c, entry->name, strlen(entry->name), ".s");
    fmk_part *part = &out->part;
    part->format = FMK_FORMAT_MARLIN;
    out->format_name = fmk_format_name(part->format);
    out->dtype = s ? s->type->dtype : 0;
    out->bytes += s ? s->size : 0;
    if (b->num_dims == 2) {
        part->n = b->dims[1] / 2;
        (void)fmk_mul(b->dims[0], 16, &part->k);
    }
    struct fmk_quant_numbers numbers = {0};
    bool skipped = false;
    fmk_status status = fmk_quant_config_for(&c->quant, entry->name, &numbers, &skipped);
    if (status)
        return status;
    if (!s)
        return fmk_fail(FMK_EFORMAT, "B is there, but s is missing");
    if ((status = check_matrix(b, false, -1, 2 * part->n)))
        return status;
    if ((status = check_matrix(s, true, -1, part->n)))
        return status;
    if ((status = check_groups(s, part->k, numbers.group_size, &part->group_size)))
        return status;
    part->qweight = tensor_of(b);
    part->scales = tensor_of(s);
    return add_bias(fmk_store_tensor(c, entry->name, strlen(entry->name), ".bias"), out);
}

/* ---- plain tensors ---- */

static fmk_status describe_matrix(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry,
                                  struct fmk_described *out) {
    const struct fmk_file_tensor *tensor = entry->anchor;
    const int64_t *dims = tensor->dims;
    out->kind = FMK_ENTRY_MATRIX;
    out->part.format = tensor->type->format;
    out->part.n = dims[tensor->num_dims - 2];
    out->part.k = dims[tensor->num_dims - 1];
    if (tensor->num_dims == 3) {
        if (dims[0] < 1 || dims[0] > INT32_MAX)
            return fmk_fail(FMK_EFORMAT, "it is a stack of %lld experts; 1 to 2147483647 is accepted",
                            (long long)dims[0]);
        out->num_experts = (int32_t)dims[0];
    }
    out->part.qweight = tensor_of(tensor);
    if (out->num_experts)
        out->part.qweight.expert_stride = tensor->size / (uint64_t)out->num_experts;
    return add_bias(fmk_store_tensor(c, entry->name, strlen(entry->name), ".bias"), out);
}

static fmk_status describe_plain(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry,
                                 struct fmk_described *out) {
    const struct fmk_file_tensor *tensor = entry->anchor;
    out->format_name = tensor->type->name;
    out->dtype = tensor->type->dtype;
    bool matrix = tensor->num_dims == 2 || (tensor->num_dims == 3 && c->container == FMK_CONTAINER_GGUF);
    if (matrix && tensor->type->format)
        return describe_matrix(c, entry, out);
    out->part.n = matrix ? tensor->dims[tensor->num_dims - 2] : tensor->elements;
    out->part.k = matrix ? tensor->dims[tensor->num_dims - 1] : 1;
    if (is_float(tensor)) {
        out->kind = FMK_ENTRY_VECTOR;
        out->part.format = FMK_FORMAT_DENSE;
        return FMK_OK;
    }
    out->kind = FMK_ENTRY_UNSUPPORTED;
    return fmk_fail(FMK_EUNSUPPORTED, "a tensor of type %s and %d dimensions is not read here",
                    tensor->type->name, tensor->num_dims);
}

fmk_status fmk_store_describe(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry,
                              struct fmk_described *out) {
    *out = (struct fmk_described){.kind = FMK_ENTRY_MATRIX, .bytes = entry->anchor->size};
    out->part.struct_size = sizeof out->part;
    fmk_status status = entry->group == FMK_GROUP_GPTQ     ? describe_gptq(c, entry, out)
                        : entry->group == FMK_GROUP_MARLIN ? describe_marlin(c, entry, out)
                                                           : describe_plain(c, entry, out);
    return status ? fmk_fail_in(status, "%.64s", entry->name) : FMK_OK;
}
