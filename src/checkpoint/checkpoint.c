/* The life of a checkpoint, and its entries as the API hands them out. */
#include "store.h"

#include "../abi.h"
#include "../error.h"
#include "../formats/source.h"
#include "../floats.h"
#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fmk_checkpoint_retain(fmk_checkpoint *c) {
    atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
}

void fmk_checkpoint_release(fmk_checkpoint *c) {
    if (!c || atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) != 1)
        return;
    for (int32_t i = 0; i < c->num_files; i++)
        fmk_map_close(&c->maps[i]);
    fmk_quant_config_free(&c->quant);
    fmk_strings_free(&c->strings);
    free(c->maps);
    free(c->settings.items);
    free(c->tensors.items);
    free(c->by_name);
    free(c->entries);
    free(c->entries_by_name);
    free(c);
}

fmk_status fmk_checkpoint_open_path(fmk_checkpoint **out, const char *path) {
    fmk_checkpoint *c = calloc(1, sizeof *c);
    if (!c)
        return fmk_no_memory(sizeof *c, "a checkpoint");
    atomic_init(&c->references, 1);
    fmk_status status = fmk_store_read(c, path);
    if (!status && (status = fmk_store_group(c)))
        fmk_fail_in(status, "%s", path);
    if (status) {
        fmk_checkpoint_release(c);
        return status;
    }
    *out = c;
    return FMK_OK;
}

const struct fmk_setting *fmk_checkpoint_setting(const fmk_checkpoint *c, const char *key) {
    static const struct fmk_setting absent;
    const struct fmk_setting *setting = fmk_settings_find(&c->settings, key);
    return setting ? setting : &absent;
}

void fmk_checkpoint_describe(const fmk_checkpoint *c, fmk_checkpoint_info_t *out) {
    bool gguf = c->container == FMK_CONTAINER_GGUF;
    const struct fmk_setting *name = fmk_checkpoint_setting(c, gguf ? "general.architecture" : "model_type");
    const struct fmk_setting *type = fmk_checkpoint_setting(c, "general.file_type");
    *out = (fmk_checkpoint_info_t){.struct_size = sizeof *out,
                                   .container = c->container,
                                   .num_files = c->num_files,
                                   .num_entries = c->num_entries,
                                   .architecture = name->kind == FMK_SETTING_STRING ? name->string : "",
                                   .quantization = c->quant.name};
    if (gguf)
        out->quantization = type->kind == FMK_SETTING_INTEGER ? fmk_gguf_file_type(type->integer) : "";
    for (int32_t i = 0; i < c->num_files; i++)
        out->bytes += c->maps[i].size;
}

fmk_status fmk_checkpoint_entry_at(const fmk_checkpoint *c, int32_t index, fmk_entry *out) {
    const struct fmk_store_entry *entry = &c->entries[index];
    char sentence[512]; /* what is refused here is no failure of this call: the caller's stays */
    snprintf(sentence, sizeof sentence, "%s", fmk_last_error());
    struct fmk_described d;
    fmk_status status = fmk_store_describe(c, entry, &d);
    if (status == FMK_ENOMEM)
        return status;
    *out = (fmk_entry){.struct_size = sizeof *out,
                       .kind = d.kind,
                       .format = d.part.format,
                       .dtype = d.dtype,
                       .name = entry->name,
                       .format_name = d.format_name,
                       .n = d.part.n,
                       .k = d.part.k,
                       .num_experts = d.num_experts,
                       .group_size = d.part.group_size,
                       .bytes = d.bytes};
    struct fmk_source source;
    if (!status && d.kind == FMK_ENTRY_MATRIX &&
        (status = fmk_source_init(&source, &d.part, d.num_experts, FMK_SOURCE_READ)) == FMK_OK &&
        source.family == FMK_FAMILY_INT4) {
        out->act_order = source.act_order;
        out->symmetric = source.symmetric;
        out->zero_declared = source.zero_declared;
        out->zero_detected = source.zero_detected;
    }
    if (status == FMK_ENOMEM)
        return status;
    fmk_fail(FMK_OK, "%s", sentence);
    return FMK_OK;
}

/* FMK_ENOTFOUND, or the entry of that name. */
static fmk_status find(const fmk_checkpoint *c, const char *name, const struct fmk_store_entry **entry) {
    int32_t index = fmk_checkpoint_index(c, name);
    if (index < 0)
        return fmk_fail(FMK_ENOTFOUND, "the checkpoint's %d entries have no \"%.64s\"", c->num_entries, name);
    *entry = &c->entries[index];
    return FMK_OK;
}

fmk_status fmk_checkpoint_part(const fmk_checkpoint *c, const char *name, fmk_part *part,
                               int32_t *num_experts, uint64_t *bytes) {
    const struct fmk_store_entry *entry = NULL;
    struct fmk_described d;
    fmk_status status = find(c, name, &entry);
    if (!status)
        status = fmk_store_describe(c, entry, &d);
    if (status)
        return status;
    if (d.kind != FMK_ENTRY_MATRIX)
        return fmk_fail(FMK_ENOTFOUND, "%.64s is a vector, not a matrix", name);
    *part = d.part;
    if (num_experts)
        *num_experts = d.num_experts;
    if (bytes)
        *bytes = d.bytes;
    return FMK_OK;
}

fmk_status fmk_checkpoint_floats(const fmk_checkpoint *c, const char *name, float *out, int64_t capacity,
                                 int64_t *count) {
    const struct fmk_store_entry *entry = NULL;
    struct fmk_described d;
    fmk_status status = find(c, name, &entry);
    if (!status)
        status = fmk_store_describe(c, entry, &d);
    if (status)
        return status;
    if (d.kind != FMK_ENTRY_VECTOR)
        return fmk_fail(FMK_ENOTFOUND, "%.64s is a matrix, not a vector", name);
    *count = d.part.n;
    if (out && capacity < d.part.n)
        return fmk_fail(FMK_EINVAL, "capacity %lld is less than the %lld values of %.64s",
                        (long long)capacity, (long long)d.part.n, name);
    if (out)
        fmk_load_floats(entry->anchor->data, d.dtype, 0, d.part.n, out);
    return FMK_OK;
}
