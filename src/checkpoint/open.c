/* From a path to mapped files and their tensors: a GGUF file or split set, a safetensors file, an index of
 * several, or a directory that holds one of these; and the configs beside them. */
#include "store.h"

#include "../error.h"
#include "gguf.h"
#include "safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LARGEST_CONFIG = 64 << 20, LARGEST_INDEX = 256 << 20 };

static bool ends_with(const char *text, const char *end) {
    size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

static fmk_status make_maps(struct fmk_checkpoint *c, int64_t count) {
    c->maps = count <= INT32_MAX ? calloc((size_t)count, sizeof *c->maps) : NULL;
    if (!c->maps)
        return fmk_no_memory((uint64_t)count * sizeof *c->maps, "the list of files");
    c->num_files = (int32_t)count;
    return FMK_OK;
}

/* Opens `path` as file number `file` and reads its header. */
static fmk_status read_file(struct fmk_checkpoint *c, int32_t file, const char *path,
                            struct fmk_settings *settings) {
    struct fmk_map *map = &c->maps[file];
    fmk_status status = fmk_map_open(map, path);
    if (status)
        return status;
    struct fmk_reading reading = {&c->tensors, settings, &c->strings, file};
    if (c->container == FMK_CONTAINER_GGUF)
        status = fmk_gguf_read(map->data, map->size, &reading);
    else
        status = fmk_safetensors_read(map->data, map->size, &reading);
    return status ? fmk_fail_in(status, "%s", path) : FMK_OK;
}

/* ---- GGUF ---- */

/* An integer setting; `missing` where there is none of that kind. */
static int64_t integer_of(const struct fmk_settings *settings, const char *key, int64_t missing) {
    const struct fmk_setting *setting = fmk_settings_find(settings, key);
    return setting && setting->kind == FMK_SETTING_INTEGER ? setting->integer : missing;
}

/* Whether `path` ends as files of a split set do, "-00001-of-00003.gguf", and the numbers in it. */
static bool split_name(const char *path, int64_t *number, int64_t *count) {
    enum { TAIL = sizeof "-00001-of-00003.gguf" - 1 };
    size_t size = strlen(path);
    if (size < TAIL)
        return false;
    const char *tail = path + size - TAIL;
    static const char shape[] = "-ddddd-of-ddddd.gguf";
    for (size_t i = 0; i < TAIL; i++)
        if (shape[i] == 'd' ? tail[i] < '0' || tail[i] > '9' : tail[i] != shape[i])
            return false;
    *number = strtol(tail + 1, NULL, 10);
    *count = strtol(tail + 10, NULL, 10);
    return *number >= 1 && *number <= *count;
}

static fmk_status check_shard(const struct fmk_settings *settings, int64_t number, int64_t count) {
    int64_t told_count = integer_of(settings, "split.count", 0), told = integer_of(settings, "split.no", -1);
    if (told_count != count || told != number)
        return fmk_fail(FMK_EFORMAT, "split.no is %lld and split.count %lld; %lld and %lld are expected here",
                        (long long)told, (long long)told_count, (long long)number, (long long)count);
    return FMK_OK;
}

static fmk_status read_shards(struct fmk_checkpoint *c, const char *path, int64_t count) {
    fmk_status status = make_maps(c, count);
    char *name = status ? NULL : strdup(path);
    if (!status && !name)
        status = fmk_no_memory(strlen(path) + 1, "a path");
    if (status)
        return status;
    size_t tail = strlen(path) - (sizeof "00001-of-00003.gguf" - 1);
    for (int32_t i = 0; i < c->num_files && !status; i++) {
        struct fmk_settings own = {0};
        char digits[16];
        snprintf(digits, sizeof digits, "%05d", i + 1);
        memcpy(name + tail, digits, 5);
        struct fmk_settings *settings = i ? &own : &c->settings;
        status = read_file(c, i, name, settings);
        if (!status && (status = check_shard(settings, i, count)))
            fmk_fail_in(status, "%s", name);
        free(own.items);
    }
    free(name);
    int64_t total = integer_of(&c->settings, "split.tensors.count", (int64_t)c->tensors.count);
    if (!status && total != (int64_t)c->tensors.count)
        status = fmk_fail(FMK_EFORMAT, "%s: split.tensors.count is %lld, but the files hold %zu tensors",
                          path, (long long)total, c->tensors.count);
    return status;
}

static fmk_status read_gguf(struct fmk_checkpoint *c, const char *path) {
    c->container = FMK_CONTAINER_GGUF;
    int64_t number = 0, count = 0;
    if (split_name(path, &number, &count) && count > 1)
        return read_shards(c, path, count);
    fmk_status status = make_maps(c, 1);
    if (!status)
        status = read_file(c, 0, path, &c->settings);
    if (status)
        return status;
    count = integer_of(&c->settings, "split.count", 1);
    if (count > 1)
        return fmk_fail(
            FMK_EFORMAT,
            "%s is one of %lld files of a split set; its name must end in -00001-of-%05lld.gguf or the like",
            path, (long long)count, (long long)count);
    return FMK_OK;
}

/* ---- safetensors ---- */

/* The object in dir/name; *out is NULL where there is no such file. */
static fmk_status read_config(const char *dir, size_t dir_size, const char *name, json_t **out) {
    *out = NULL;
    char *path = fmk_path_join(dir, dir_size, name);
    if (!path)
        return fmk_no_memory(dir_size, "a path");
    struct fmk_map map = {0};
    fmk_status status = fmk_map_open_optional(&map, path);
    if (!status && map.size > LARGEST_CONFIG)
        status = fmk_fail(FMK_EFORMAT, "%s has %zu bytes; %d is the most for a config", path, map.size,
                          LARGEST_CONFIG);
    if (!status && map.data)
        status = fmk_json_object(map.data, map.size, path, out);
    fmk_map_close(&map);
    free(path);
    return status;
}

/* The first quantization config there is, in the order in which GPTQ's own tools look. */
static fmk_status read_configs(struct fmk_checkpoint *c, const char *dir, size_t dir_size) {
    static const char *const names[] = {"quantize_config.json", "quant_config.json", "config.json"};
    bool found = false;
    for (size_t i = 0; i < 3; i++) {
        json_t *root = NULL;
        fmk_status status = read_config(dir, dir_size, names[i], &root);
        if (status)
            return status;
        const json_t *quant = root;
        if (root && i == 2) {
            quant = json_object_get(root, "quantization_config");
            status = fmk_json_settings(root, &c->settings, &c->strings);
        }
        if (!status && json_is_object(quant) && !found) {
            found = true;
            status = fmk_quant_config_read(quant, &c->quant);
        }
        json_decref(root);
        if (status)
            return fmk_fail_in(status, "%s", names[i]);
    }
    return FMK_OK;
}

static fmk_status read_safetensors(struct fmk_checkpoint *c, const char *path) {
    c->container = FMK_CONTAINER_SAFETENSORS;
    fmk_status status = make_maps(c, 1);
    if (!status)
        status = read_file(c, 0, path, NULL);
    return status ? status : read_configs(c, path, fmk_path_dir(path));
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const struct fmk_file_tensor *const *)a)->name,
                  (*(const struct fmk_file_tensor *const *)b)->name);
}

/* Every tensor of the map must be in the file that the map names. */
static fmk_status check_index(const struct fmk_checkpoint *c, const struct fmk_index *index) {
    const struct fmk_file_tensor **sorted = malloc((c->tensors.count + 1) * sizeof *sorted);
    if (!sorted)
        return fmk_no_memory(c->tensors.count * sizeof *sorted, "the list of tensors");
    for (size_t i = 0; i < c->tensors.count; i++)
        sorted[i] = &c->tensors.items[i];
    qsort(sorted, c->tensors.count, sizeof *sorted, by_name);
    fmk_status status = FMK_OK;
    const char *name = NULL;
    json_t *file = NULL;
    json_object_foreach((json_t *)(uintptr_t)index->weight_map, name, file) {
        struct fmk_file_tensor wanted = {.name = name};
        const struct fmk_file_tensor *key = &wanted;
        const struct fmk_file_tensor **found =
            bsearch(&key, sorted, c->tensors.count, sizeof *sorted, by_name);
        if (!found || (*found)->file != fmk_index_file(index, json_string_value(file))) {
            status = fmk_fail(FMK_EFORMAT, "weight_map says that %.64s is in %.64s, but it is not there",
                              name, json_string_value(file));
            break;
        }
    }
    free(sorted);
    return status;
}

static fmk_status read_indexed(struct fmk_checkpoint *c, const char *path, const struct fmk_index *index) {
    size_t dir_size = fmk_path_dir(path);
    fmk_status status = make_maps(c, (int64_t)index->num_files);
    for (int32_t i = 0; i < c->num_files && !status; i++) {
        char *name = fmk_path_join(path, dir_size, index->files[i]);
        status = name ? read_file(c, i, name, NULL) : fmk_no_memory(dir_size, "a path");
        free(name);
    }
    if (!status && (status = check_index(c, index)))
        fmk_fail_in(status, "%s", path);
    return status ? status : read_configs(c, path, dir_size);
}

static fmk_status read_index(struct fmk_checkpoint *c, const char *path) {
    c->container = FMK_CONTAINER_SAFETENSORS;
    struct fmk_map map = {0};
    struct fmk_index index = {0};
    fmk_status status = fmk_map_open(&map, path);
    if (!status && map.size > LARGEST_INDEX)
        status = fmk_fail(FMK_EFORMAT, "%s has %zu bytes; %d is the most for an index", path, map.size,
                          LARGEST_INDEX);
    if (!status && (status = fmk_index_read(map.data, map.size, &index)))
        fmk_fail_in(status, "%s", path);
    fmk_map_close(&map);
    if (!status)
        status = read_indexed(c, path, &index);
    fmk_index_free(&index);
    return status;
}

/* ---- directories ---- */

/* What of one kind lies in a directory; a split set counts as its first file. The usual name is taken even
 * where others lie beside it. */
struct candidate {
    const char *usual;
    char *name;
    int count;
};

static bool note(struct candidate *candidate, const char *name) {
    bool is_usual = candidate->usual && strcmp(name, candidate->usual) == 0;
    candidate->count++;
    if (candidate->name && !is_usual)
        return true;
    free(candidate->name);
    candidate->name = strdup(name);
    return candidate->name;
}

static bool is_ambiguous(const struct candidate *candidate) {
    return candidate->count > 1 && !(candidate->usual && strcmp(candidate->name, candidate->usual) == 0);
}

static bool note_file(struct candidate *safetensors, struct candidate *index, struct candidate *gguf,
                      const char *name) {
    int64_t number = 0, count = 0;
    if (*name == '.')
        return true;
    if (ends_with(name, ".safetensors"))
        return note(safetensors, name);
    if (ends_with(name, ".safetensors.index.json"))
        return note(index, name);
    if (ends_with(name, ".gguf") && (!split_name(name, &number, &count) || number == 1))
        return note(gguf, name);
    return true;
}

static fmk_status read_chosen(struct fmk_checkpoint *c, const char *path, const struct candidate *safetensors,
                              const struct candidate *index, const struct candidate *gguf) {
    const struct candidate *chosen = index->count ? index : safetensors->count ? safetensors : gguf;
    if (!chosen->count)
        return fmk_fail(FMK_ENOTFOUND, "%s holds no .gguf, .safetensors or .safetensors.index.json file",
                        path);
    if (is_ambiguous(chosen) || (safetensors->count && gguf->count))
        return fmk_fail(FMK_EINVAL,
                        "%s holds more than one model (%.64s is one of their files); name the file to open",
                        path, chosen->name);
    char *file = fmk_path_join(path, strlen(path), chosen->name);
    if (!file)
        return fmk_no_memory(strlen(path), "a path");
    fmk_status status = chosen == index         ? read_index(c, file)
                        : chosen == safetensors ? read_safetensors(c, file)
                                                : read_gguf(c, file);
    free(file);
    return status;
}

static fmk_status read_directory(struct fmk_checkpoint *c, const char *path) {
    DIR *dir = opendir(path);
    if (!dir)
        return fmk_fail(errno == ENOMEM ? FMK_ENOMEM : FMK_EIO, "%s: cannot list the directory: error %d",
                        path, errno);
    struct candidate safetensors = {.usual = "model.safetensors"}, gguf = {0};
    struct candidate index = {.usual = "model.safetensors.index.json"};
    fmk_status status = FMK_OK;
    for (const struct dirent *entry = readdir(dir); entry && !status; entry = readdir(dir))
        if (!note_file(&safetensors, &index, &gguf, entry->d_name))
            status = fmk_no_memory(strlen(entry->d_name), "a file's name");
    closedir(dir);
    if (!status)
        status = read_chosen(c, path, &safetensors, &index, &gguf);
    free(safetensors.name);
    free(index.name);
    free(gguf.name);
    return status;
}

fmk_status fmk_store_read(struct fmk_checkpoint *c, const char *path) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return read_directory(c, path);
    if (ends_with(path, ".json"))
        return read_index(c, path);
    if (ends_with(path, ".safetensors"))
        return read_safetensors(c, path);
    if (ends_with(path, ".gguf"))
        return read_gguf(c, path);
    struct fmk_map map = {0};
    fmk_status status = fmk_map_open(&map, path);
    bool gguf = !status && fmk_is_gguf(map.data, map.size);
    fmk_map_close(&map);
    if (status)
        return status;
    return gguf ? read_gguf(c, path) : read_safetensors(c, path);
}
