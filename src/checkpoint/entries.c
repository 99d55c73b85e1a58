/* Groups tensors into entries: the tensors of one quantized matrix are one entry, a matrix and its bias are
 * one, and what is left are entries of their own. Lookups are binary searches, so that a file with very many
 * tensors is no trap. */
#include "store.h"

#include "../error.h"

#include <stdlib.h>
#include <string.h>

/* stem + suffix, without putting them together */
struct key {
    const char *stem;
    size_t size;
    const char *suffix;
};

static int compare_key(const struct key *key, const char *name) {
    int order = strncmp(key->stem, name, key->size);
    return order ? order : strcmp(key->suffix, name + key->size);
}

static int find_tensor(const void *key, const void *item) {
    return compare_key(key, (*(const struct fmk_file_tensor *const *)item)->name);
}

static int find_entry(const void *key, const void *item) {
    return compare_key(key, (*(const struct fmk_store_entry *const *)item)->name);
}

static int tensor_order(const void *a, const void *b) {
    return strcmp((*(const struct fmk_file_tensor *const *)a)->name,
                  (*(const struct fmk_file_tensor *const *)b)->name);
}

static int entry_order(const void *a, const void *b) {
    return strcmp((*(const struct fmk_store_entry *const *)a)->name,
                  (*(const struct fmk_store_entry *const *)b)->name);
}

const struct fmk_file_tensor *fmk_store_tensor(const struct fmk_checkpoint *c, const char *stem, size_t size,
                                               const char *suffix) {
    struct key key = {stem, size, suffix};
    const struct fmk_file_tensor **found =
        c->tensors.count ? bsearch(&key, c->by_name, c->tensors.count, sizeof *c->by_name, find_tensor)
                         : NULL;
    return found ? *found : NULL;
}

/* Bytes before `suffix`, if the name ends in it and has something before it; else 0. */
static size_t stem_of(const char *name, const char *suffix) {
    size_t size = strlen(name), end = strlen(suffix);
    return size > end && strcmp(name + size - end, suffix) == 0 ? size - end : 0;
}

static const char *const endings[] = {".weight", ".qweight", ".B"};

static bool has(const struct fmk_checkpoint *c, const char *name, size_t stem, const char *suffix) {
    return fmk_store_tensor(c, name, stem, suffix);
}

/* X.B is Marlin's where X.s is there, or where the config says that it must be: other X.B exist (LoRA). */
static bool is_marlin(const struct fmk_checkpoint *c, const char *name, size_t stem) {
    return has(c, name, stem, ".B") && (has(c, name, stem, ".s") || c->quant.method == FMK_QUANT_MARLIN);
}

/* Whether the tensor belongs to the entry of another one. */
static bool is_member(const struct fmk_checkpoint *c, const struct fmk_file_tensor *tensor) {
    static const char *const gptq[] = {".scales", ".qzeros", ".g_idx"};
    static const char *const marlin[] = {".s", ".workspace"};
    const char *name = tensor->name;
    if (c->container == FMK_CONTAINER_SAFETENSORS) {
        for (size_t i = 0; i < sizeof gptq / sizeof gptq[0]; i++) {
            size_t stem = stem_of(name, gptq[i]);
            if (stem && has(c, name, stem, ".qweight"))
                return true;
        }
        for (size_t i = 0; i < sizeof marlin / sizeof marlin[0]; i++) {
            size_t stem = stem_of(name, marlin[i]);
            if (stem && is_marlin(c, name, stem))
                return true;
        }
    }
    size_t stem = stem_of(name, ".bias");
    if (!stem)
        return false;
    const struct fmk_file_tensor *matrix = fmk_store_tensor(c, name, stem, ".weight");
    if (matrix && matrix->num_dims >= 2)
        return true;
    return c->container == FMK_CONTAINER_SAFETENSORS &&
           (has(c, name, stem, ".qweight") || is_marlin(c, name, stem));
}

static fmk_status add_entry(struct fmk_checkpoint *c, const struct fmk_file_tensor *tensor) {
    struct fmk_store_entry *entry = &c->entries[c->num_entries];
    *entry = (struct fmk_store_entry){.name = tensor->name, .anchor = tensor};
    size_t stem = stem_of(tensor->name, ".weight");
    if (c->container == FMK_CONTAINER_SAFETENSORS && !stem) {
        if ((stem = stem_of(tensor->name, ".qweight")))
            entry->group = FMK_GROUP_GPTQ;
        else if ((stem = stem_of(tensor->name, ".B")) && is_marlin(c, tensor->name, stem))
            entry->group = FMK_GROUP_MARLIN;
        else
            stem = 0;
    }
    if (stem && !(entry->name = fmk_strings_add(&c->strings, tensor->name, stem)))
        return fmk_no_memory(stem + 1, "an entry's name");
    c->num_entries++;
    return FMK_OK;
}

static fmk_status sort_tensors(struct fmk_checkpoint *c) {
    size_t count = c->tensors.count;
    c->by_name = malloc((count + 1) * sizeof *c->by_name);
    if (!c->by_name)
        return fmk_no_memory((count + 1) * sizeof *c->by_name, "the list of tensors");
    for (size_t i = 0; i < count; i++)
        c->by_name[i] = &c->tensors.items[i];
    qsort(c->by_name, count, sizeof *c->by_name, tensor_order);
    for (size_t i = 1; i < count; i++)
        if (strcmp(c->by_name[i - 1]->name, c->by_name[i]->name) == 0)
            return fmk_fail(FMK_EFORMAT, "tensor %.64s is there twice", c->by_name[i]->name);
    return FMK_OK;
}

static fmk_status sort_entries(struct fmk_checkpoint *c) {
    size_t count = (size_t)c->num_entries;
    c->entries_by_name = malloc((count + 1) * sizeof *c->entries_by_name);
    if (!c->entries_by_name)
        return fmk_no_memory((count + 1) * sizeof *c->entries_by_name, "the list of entries");
    for (size_t i = 0; i < count; i++)
        c->entries_by_name[i] = &c->entries[i];
    qsort(c->entries_by_name, count, sizeof *c->entries_by_name, entry_order);
    for (size_t i = 1; i < count; i++) {
        const struct fmk_store_entry *a = c->entries_by_name[i - 1], *b = c->entries_by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return fmk_fail(FMK_EFORMAT, "%.64s is there twice, as tensor %.64s and as %.64s", a->name,
                            a->anchor->name, b->anchor->name);
    }
    return FMK_OK;
}

fmk_status fmk_store_group(struct fmk_checkpoint *c) {
    size_t count = c->tensors.count;
    if (count > INT32_MAX)
        return fmk_fail(FMK_EFORMAT, "the checkpoint has %zu tensors; 2147483647 is the most", count);
    fmk_status status = sort_tensors(c);
    if (status)
        return status;
    c->entries = malloc((count + 1) * sizeof *c->entries);
    if (!c->entries)
        return fmk_no_memory((count + 1) * sizeof *c->entries, "the list of entries");
    for (size_t i = 0; i < count; i++)
        if (!is_member(c, &c->tensors.items[i]) && (status = add_entry(c, &c->tensors.items[i])))
            return status;
    return sort_entries(c);
}

static const struct fmk_store_entry *find_by_name(const struct fmk_checkpoint *c, const char *name,
                                                  size_t size) {
    struct key key = {name, size, ""};
    const struct fmk_store_entry **found = c->num_entries
                                               ? bsearch(&key, c->entries_by_name, (size_t)c->num_entries,
                                                         sizeof *c->entries_by_name, find_entry)
                                               : NULL;
    return found ? *found : NULL;
}

int32_t fmk_checkpoint_index(const fmk_checkpoint *c, const char *name) {
    const struct fmk_store_entry *entry = find_by_name(c, name, strlen(name));
    for (size_t i = 0; i < sizeof endings / sizeof endings[0] && !entry; i++) {
        size_t stem = stem_of(name, endings[i]);
        entry = stem ? find_by_name(c, name, stem) : NULL;
        if (entry && strcmp(entry->anchor->name, name) != 0)
            entry = NULL;
    }
    return entry ? (int32_t)(entry - c->entries) : -1;
}
