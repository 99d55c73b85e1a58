/* ferrumk quantize to GPTQ: a directory of model.safetensors and its configs, as AutoGPTQ lays them out
 * (4 bits, groups along K, stored zero points one less than the real ones, no act-order). */
#include "quantize.h"
#include "safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool quantized(const struct source *source, int32_t index) {
    const fmk_entry *entry = &source->entries[index];
    enum tensor_role role = source->names[index].role;
    return entry->kind == FMK_ENTRY_MATRIX && role != ROLE_EMBEDDING && role != ROLE_HEAD &&
           entry->n % 8 == 0 && entry->k % 8 == 0;
}

static fmk_quantize_args quantize_args(const fmk_entry *entry, int32_t group_size, bool symmetric) {
    return (fmk_quantize_args){.struct_size = sizeof(fmk_quantize_args),
                               .format = FMK_FORMAT_GPTQ,
                               .n = entry->n,
                               .k = entry->k,
                               .group_size = group_size,
                               .symmetric = symmetric,
                               .in_type = entry->dtype};
}

/* ---- declaring and writing, in the same order ---- */

static uint64_t put(struct safetensors_writer *w, const struct source *source, int32_t index,
                    const char *tail, const char *dtype, uint64_t element_size, int64_t rows,
                    int64_t columns) {
    int64_t dims[2] = {rows, columns};
    char *name = output_name(source, index, HABIT_HF, tail);
    uint64_t size = safetensors_put(w, name, dtype, element_size, columns ? dims : &rows, columns ? 2 : 1);
    free(name);
    return size;
}

static void declare_quantized(struct safetensors_writer *w, const struct source *source, int32_t index,
                              int32_t group_size, bool symmetric) {
    const fmk_entry *entry = &source->entries[index];
    fmk_quantize_args args = quantize_args(entry, group_size, symmetric);
    uint64_t qweight, scales, qzeros;
    check(fmk_quantize_size(&args, &qweight, &scales, &qzeros), entry->name);
    int64_t groups = (int64_t)(scales / 2) / entry->n;
    uint64_t declared = put(w, source, index, ".qweight", "I32", 4, entry->k / 8, entry->n);
    declared += put(w, source, index, ".scales", "F16", 2, groups, entry->n);
    declared += put(w, source, index, ".qzeros", "I32", 4, groups, entry->n / 8);
    put(w, source, index, ".g_idx", "I32", 4, entry->k, 0);
    if (declared != qweight + scales + qzeros)
        quit(EXIT_REFUSED, "%s: the quantizer asks for %" PRIu64 " bytes where the format has %" PRIu64,
             entry->name, qweight + scales + qzeros, declared);
}

static void write_quantized(struct output *output, struct source *source, int32_t index, int32_t group_size,
                            bool symmetric) {
    const fmk_entry *entry = &source->entries[index];
    struct rows rows = rows_of(source, index, 0, HABIT_HF);
    fmk_quantize_args args = quantize_args(entry, group_size, symmetric);
    uint64_t qweight, scales, qzeros;
    check(fmk_quantize_size(&args, &qweight, &scales, &qzeros), entry->name);
    args.in = rows.data;
    args.qweight = allocate_aligned(qweight);
    args.scales = allocate_aligned(scales);
    args.qzeros = allocate_aligned(qzeros);
    check(fmk_quantize(source->device.context, &args), entry->name);
    int32_t *g_idx = allocate((size_t)entry->k, sizeof *g_idx);
    for (int64_t k = 0; k < entry->k; k++)
        g_idx[k] = group_size > 0 ? (int32_t)(k / group_size) : 0;
    output_write(output, args.qweight, qweight);
    output_write(output, args.scales, scales);
    output_write(output, args.qzeros, qzeros);
    output_write(output, g_idx, (uint64_t)entry->k * sizeof *g_idx);
    free(g_idx);
    free(args.qweight);
    free(args.scales);
    free(args.qzeros);
    rows_free(&rows);
}

static const char *dtype_name(fmk_dtype dtype) {
    return dtype == FMK_BF16 ? "BF16" : "F16";
}

/* Everything that is not quantized: 16-bit floats, BF16 where the source has it. */
static fmk_dtype half_type(fmk_dtype dtype) {
    return dtype == FMK_BF16 ? FMK_BF16 : FMK_F16;
}

static void write_half(struct output *output, struct source *source, const void *in, fmk_dtype in_type,
                       fmk_dtype out_type, int64_t n, int64_t k) {
    uint64_t size = (uint64_t)(n * k) * dtype_size(out_type);
    void *out = allocate_aligned(size);
    convert(&source->device, in, in_type, out, out_type, n, k);
    output_write(output, out, size);
    free(out);
}

static fmk_dtype bias_type(const struct source *source, int32_t index) {
    if (source->entries[index].kind != FMK_ENTRY_MATRIX)
        return 0;
    fmk_part part = {.struct_size = sizeof part};
    check(fmk_checkpoint_find(source->checkpoint, source->entries[index].name, &part, NULL), NULL);
    return part.bias.data.handle ? half_type(part.bias.dtype) : 0;
}

static void declare_plain(struct safetensors_writer *w, const struct source *source, int32_t index) {
    const fmk_entry *entry = &source->entries[index];
    fmk_dtype bias = bias_type(source, index);
    if (!quantized(source, index))
        put(w, source, index, ".weight", dtype_name(entry->dtype), 2, entry->n,
            entry->kind == FMK_ENTRY_MATRIX ? entry->k : 0);
    if (bias)
        put(w, source, index, ".bias", dtype_name(bias), 2, entry->n, 0);
}

static void write_plain(struct output *output, struct source *source, int32_t index) {
    const fmk_entry *entry = &source->entries[index];
    fmk_dtype type = half_type(entry->dtype), bias = bias_type(source, index);
    if (entry->kind == FMK_ENTRY_VECTOR) {
        float *values = vector_of(source, index, HABIT_HF);
        write_half(output, source, values, FMK_F32, type, 1, entry->n);
        free(values);
        return;
    }
    struct rows rows = rows_of(source, index, 0, HABIT_HF);
    if (!quantized(source, index))
        write_half(output, source, rows.data, entry->dtype, type, entry->n, entry->k);
    if (bias)
        write_half(output, source, rows.bias, rows.part.bias.dtype, bias, 1, entry->n);
    rows_free(&rows);
}

/* ---- the directory ---- */

static void write_json(const char *directory, const char *name, json_t *value) {
    char *path = text_of("%s/%s", directory, name), *text = json_dumps(value, JSON_INDENT(2));
    if (!text)
        quit(EXIT_REFUSED, "no memory for %s", path);
    struct output output;
    output_begin(&output, path);
    output_write(&output, text, strlen(text));
    output_write(&output, "\n", 1);
    output_commit(&output);
    free(text);
    free(path);
}

static void write_configs(const struct source *source, const char *directory, int32_t group_size,
                          bool symmetric) {
    json_t *quantization = json_pack("{s:s, s:i, s:i, s:b, s:b, s:b, s:s, s:s}", "quant_method", "gptq",
                                     "bits", 4, "group_size", group_size, "desc_act", 0, "sym", symmetric,
                                     "lm_head", 0, "checkpoint_format", "gptq", "pack_dtype", "int32");
    if (!quantization)
        quit(EXIT_REFUSED, "no memory for the configuration");
    write_json(directory, "quantize_config.json", quantization);
    if (source->config) {
        json_t *config = json_copy(source->config);
        json_put(config, "quantization_config", json_incref(quantization));
        write_json(directory, "config.json", config);
        json_decref(config);
    }
    json_decref(quantization);
}

void write_gptq(struct source *source, const char *directory, int32_t group_size, bool symmetric) {
    for (int32_t i = 0; i < source->count; i++)
        if (source->entries[i].num_experts)
            quit(EXIT_REFUSED, "%s: %s is a stack of %d experts; gptq has no such tensors", source->path,
                 source->entries[i].name, source->entries[i].num_experts);
    if (mkdir(directory, 0777) && errno != EEXIST)
        quit(EXIT_USAGE, "cannot make the directory %s: %s", directory, strerror(errno));

    struct safetensors_writer writer;
    struct output output;
    char *path = text_of("%s/model.safetensors", directory);
    safetensors_begin(&writer);
    for (int32_t i = 0; i < source->count; i++)
        if (quantized(source, i))
            declare_quantized(&writer, source, i, group_size, symmetric);
    for (int32_t i = 0; i < source->count; i++)
        declare_plain(&writer, source, i);
    output_begin(&output, path);
    safetensors_write_header(&writer, &output);
    for (int32_t i = 0; i < source->count; i++)
        if (quantized(source, i)) {
            write_quantized(&output, source, i, group_size, symmetric);
            source_step(source, i);
        }
    for (int32_t i = 0; i < source->count; i++) {
        write_plain(&output, source, i);
        if (!quantized(source, i))
            source_step(source, i);
    }
    output_commit(&output);
    write_configs(source, directory, group_size, symmetric);
    free(path);
}
