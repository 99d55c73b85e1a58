/* Reads the header of a safetensors file, and the index of a model that is cut into several. */
#include "safetensors.h"

#include "../abi.h"
#include "../error.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_HEADER = 100000000 };

static fmk_status read_shape(const json_t *shape, struct fmk_file_tensor *tensor) {
    if (!json_is_array(shape))
        return fmk_fail(FMK_EFORMAT, "tensor %.64s has no \"shape\" array", tensor->name);
    int64_t *dims = tensor->dims;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return fmk_fail(FMK_EFORMAT, "tensor %.64s: shape[%zu] is not an integer of 0 or more",
                            tensor->name, i);
        if (tensor->num_dims == FMK_MAX_DIMS) {
            /* no weight has that many: the first two become one, which keeps the size */
            if (!fmk_mul(dims[0], dims[1], &dims[0]))
                return fmk_fail(FMK_EFORMAT, "tensor %.64s: the product of its shape does not fit 63 bits",
                                tensor->name);
            memmove(dims + 1, dims + 2, (FMK_MAX_DIMS - 2) * sizeof *dims);
            tensor->num_dims--;
        }
        dims[tensor->num_dims++] = json_integer_value(dim);
    }
    return FMK_OK;
}

static fmk_status read_entry(const char *name, const json_t *entry, const struct fmk_reading *reading) {
    struct fmk_file_tensor tensor = {.file = reading->file, .name = name};
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return fmk_fail(FMK_EFORMAT, "tensor %.64s has no \"dtype\" string", name);
    if (!(tensor.type = fmk_type_of_safetensors(dtype)))
        return fmk_fail(FMK_EFORMAT,
                        "tensor %.64s has dtype \"%.32s\"; F32, F16, BF16, I32 and the like are known", name,
                        dtype);
    fmk_status status = read_shape(json_object_get(entry, "shape"), &tensor);
    if (status)
        return status;
    if (!fmk_tensor_measure(&tensor))
        return fmk_fail(FMK_EFORMAT,
                        "tensor %.64s: the product of its shape does not fit 63 bits or whole bytes", name);
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
        return fmk_fail(FMK_EFORMAT, "tensor %.64s: data_offsets are not two ascending integers of 0 or more",
                        name);
    tensor.offset = (uint64_t)json_integer_value(begin);
    uint64_t size = (uint64_t)json_integer_value(end) - tensor.offset;
    if (size != tensor.size)
        return fmk_fail(FMK_EFORMAT,
                        "tensor %.64s: data_offsets span %llu bytes; its shape and dtype take %llu", name,
                        (unsigned long long)size, (unsigned long long)tensor.size);
    if (!(tensor.name = fmk_strings_add(reading->strings, name, strlen(name))))
        return fmk_no_memory(strlen(name) + 1, "a tensor's name");
    return fmk_tensors_add(reading->tensors, &tensor) ? FMK_OK : fmk_no_memory(sizeof tensor, "a tensor");
}

static int by_offset(const void *a, const void *b) {
    const struct fmk_file_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The data is the tensors, one after the other, without holes or overlaps. */
static fmk_status place_tensors(const struct fmk_tensor_list *list, size_t from, const uint8_t *data,
                                uint64_t size) {
    uint64_t expected = 0;
    if (list->count > from)
        qsort(list->items + from, list->count - from, sizeof *list->items, by_offset);
    for (size_t i = from; i < list->count; i++) {
        struct fmk_file_tensor *tensor = &list->items[i];
        if (tensor->offset != expected)
            return fmk_fail(FMK_EFORMAT,
                            "tensor %.64s begins at byte %llu of the data; the tensor before it ends at %llu",
                            tensor->name, (unsigned long long)tensor->offset, (unsigned long long)expected);
        if (tensor->size > size - expected)
            return fmk_fail(FMK_EFORMAT, "tensor %.64s ends at byte %llu of the data, which has %llu",
                            tensor->name, (unsigned long long)(tensor->offset + tensor->size),
                            (unsigned long long)size);
        tensor->data = data + expected;
        expected += tensor->size;
    }
    if (expected != size)
        return fmk_fail(FMK_EFORMAT, "the tensors end at byte %llu of the data, which has %llu",
                        (unsigned long long)expected, (unsigned long long)size);
    return FMK_OK;
}

fmk_status fmk_safetensors_read(const uint8_t *data, size_t size, const struct fmk_reading *reading) {
    uint64_t header = 0;
    if (size < sizeof header)
        return fmk_fail(FMK_EFORMAT, "a safetensors file has at least 8 bytes, this one %zu", size);
    memcpy(&header, data, sizeof header);
    if (header > LARGEST_HEADER || header > size - sizeof header)
        return fmk_fail(
            FMK_EFORMAT,
            "the safetensors header is said to take %llu bytes; the file has %zu, and 100000000 is the most",
            (unsigned long long)header, size);
    json_t *root = NULL;
    fmk_status status = fmk_json_object(data + sizeof header, header, "the safetensors header", &root);
    if (status)
        return status;
    size_t first = reading->tensors->count;
    const char *name = NULL;
    json_t *entry = NULL;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if ((status = read_entry(name, entry, reading)))
            break;
    }
    json_decref(root);
    if (status)
        return status;
    size_t begin = sizeof header + header;
    return place_tensors(reading->tensors, first, data + begin, size - begin);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_plain_name(const char *name) {
    return *name && *name != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

fmk_status fmk_index_read(const uint8_t *data, size_t size, struct fmk_index *index) {
    *index = (struct fmk_index){0};
    fmk_status status = fmk_json_object(data, size, "the index", &index->root);
    if (status)
        return status;
    index->weight_map = json_object_get(index->root, "weight_map");
    size_t count = json_object_size(index->weight_map);
    if (!count)
        return fmk_fail(FMK_EFORMAT, "the index has no \"weight_map\" object with tensors in it");
    index->files = malloc(count * sizeof *index->files);
    if (!index->files)
        return fmk_no_memory(count * sizeof *index->files, "the index");
    const char *name = NULL;
    json_t *file = NULL;
    json_object_foreach((json_t *)(uintptr_t)index->weight_map, name, file) {
        const char *text = json_string_value(file);
        if (!text || !is_plain_name(text))
            return fmk_fail(
                FMK_EFORMAT,
                "weight_map[%.64s] is %.64s; the name of a file in the index's directory is expected", name,
                text ? text : "not a string");
        index->files[index->num_files++] = text;
    }
    qsort(index->files, index->num_files, sizeof *index->files, by_text);
    size_t kept = 0;
    for (size_t i = 0; i < index->num_files; i++)
        if (!kept || strcmp(index->files[kept - 1], index->files[i]) != 0)
            index->files[kept++] = index->files[i];
    index->num_files = kept;
    return FMK_OK;
}

int32_t fmk_index_file(const struct fmk_index *index, const char *name) {
    const char **found = bsearch(&name, index->files, index->num_files, sizeof *index->files, by_text);
    return found ? (int32_t)(found - index->files) : -1;
}

void fmk_index_free(struct fmk_index *index) {
    free(index->files);
    json_decref(index->root);
    *index = (struct fmk_index){0};
}
