/* The table of tensor types, and the lists that a reader of container files fills. */
#include "tensors.h"

#include "../abi.h"

#include <stdlib.h>
#include <string.h>

/* Element types that both containers share come first; sizes of the block types as ggml-common.h defines
 * the blocks. */
static const struct fmk_tensor_type types[] = {
    {"F32", 0, 1, 4, FMK_F32, FMK_FORMAT_DENSE},
    {"F16", 1, 1, 2, FMK_F16, FMK_FORMAT_DENSE},
    {"BF16", 30, 1, 2, FMK_BF16, FMK_FORMAT_DENSE},
    {"F64", 28, 1, 8, 0, 0},
    {"I8", 24, 1, 1, 0, 0},
    {"I16", 25, 1, 2, 0, 0},
    {"I32", 26, 1, 4, FMK_I32, 0},
    {"I64", 27, 1, 8, 0, 0},
    {"U8", -1, 1, 1, FMK_U8, 0},
    {"U16", -1, 1, 2, 0, 0},
    {"U32", -1, 1, 4, 0, 0},
    {"U64", -1, 1, 8, 0, 0},
    {"BOOL", -1, 1, 1, 0, 0},
    {"C64", -1, 1, 8, 0, 0},
    {"F8_E5M2", -1, 1, 1, 0, 0},
    {"F8_E4M3", -1, 1, 1, 0, 0},
    {"F8_E8M0", -1, 1, 1, 0, 0},
    {"F8_E5M2FNUZ", -1, 1, 1, 0, 0},
    {"F8_E4M3FNUZ", -1, 1, 1, 0, 0},
    {"F6_E2M3", -1, 4, 3, 0, 0},
    {"F6_E3M2", -1, 4, 3, 0, 0},
    {"F4", -1, 2, 1, 0, 0},
    {"Q4_0", 2, 32, 18, 0, 0},
    {"Q4_1", 3, 32, 20, 0, 0},
    {"Q5_0", 6, 32, 22, 0, 0},
    {"Q5_1", 7, 32, 24, 0, 0},
    {"Q8_0", 8, 32, 34, 0, 0},
    {"Q8_1", 9, 32, 36, 0, 0},
    {"Q2_K", 10, 256, 84, 0, 0},
    {"Q3_K", 11, 256, 110, 0, 0},
    {"Q4_K", 12, 256, 144, 0, FMK_FORMAT_Q4_K},
    {"Q5_K", 13, 256, 176, 0, 0},
    {"Q6_K", 14, 256, 210, 0, FMK_FORMAT_Q6_K},
    {"Q8_K", 15, 256, 292, 0, 0},
    {"IQ2_XXS", 16, 256, 66, 0, 0},
    {"IQ2_XS", 17, 256, 74, 0, 0},
    {"IQ3_XXS", 18, 256, 98, 0, 0},
    {"IQ1_S", 19, 256, 50, 0, 0},
    {"IQ4_NL", 20, 32, 18, 0, 0},
    {"IQ3_S", 21, 256, 110, 0, 0},
    {"IQ2_S", 22, 256, 82, 0, 0},
    {"IQ4_XS", 23, 256, 136, 0, 0},
    {"IQ1_M", 29, 256, 56, 0, 0},
    {"TQ1_0", 34, 256, 54, 0, 0},
    {"TQ2_0", 35, 256, 66, 0, 0},
    {"MXFP4", 39, 32, 17, 0, 0},
    {"NVFP4", 40, 64, 36, 0, 0},
    {"Q1_0", 41, 128, 18, 0, 0},
};

enum { NUM_TYPES = sizeof types / sizeof types[0] };

const struct fmk_tensor_type *fmk_type_of_gguf(uint32_t id) {
    for (size_t i = 0; i < NUM_TYPES; i++)
        if (types[i].gguf_id >= 0 && (uint32_t)types[i].gguf_id == id)
            return &types[i];
    return NULL;
}

const struct fmk_tensor_type *fmk_type_of_safetensors(const char *name) {
    for (size_t i = 0; i < NUM_TYPES && strcmp(types[i].name, "Q4_0") != 0; i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

/* Room for one more element of `size` bytes, doubling. */
static bool grow(void **items, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity)
        return true;
    size_t wanted = *capacity ? *capacity * 2 : 64;
    if (wanted > SIZE_MAX / size)
        return false;
    void *grown = realloc(*items, wanted * size);
    if (!grown)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

bool fmk_tensors_add(struct fmk_tensor_list *list, const struct fmk_file_tensor *tensor) {
    void *items = list->items;
    bool room = grow(&items, list->count, &list->capacity, sizeof *tensor);
    list->items = items;
    if (room)
        list->items[list->count++] = *tensor;
    return room;
}

bool fmk_tensor_measure(struct fmk_file_tensor *tensor) {
    const struct fmk_tensor_type *type = tensor->type;
    int64_t elements = 1, bytes = 0;
    for (int32_t i = 0; i < tensor->num_dims; i++)
        if (!fmk_mul(elements, tensor->dims[i], &elements))
            return false;
    int64_t row = tensor->num_dims ? tensor->dims[tensor->num_dims - 1] : 1;
    if (row % type->block || !fmk_mul(elements / type->block, type->bytes, &bytes))
        return false;
    tensor->elements = elements;
    tensor->size = (uint64_t)bytes;
    return true;
}

struct fmk_string_block {
    struct fmk_string_block *next;
    size_t used, size;
    char text[];
};

const char *fmk_strings_add(struct fmk_strings *strings, const char *text, size_t size) {
    enum { BLOCK = 16384 };
    struct fmk_string_block *block = strings->blocks;
    if (!block || block->size - block->used <= size) {
        size_t room = size < BLOCK ? BLOCK : size + 1;
        block = malloc(sizeof *block + room);
        if (!block)
            return NULL;
        *block = (struct fmk_string_block){.next = strings->blocks, .size = room};
        strings->blocks = block;
    }
    char *copy = block->text + block->used;
    memcpy(copy, text, size);
    copy[size] = 0;
    block->used += size + 1;
    return copy;
}

void fmk_strings_free(struct fmk_strings *strings) {
    while (strings->blocks) {
        struct fmk_string_block *next = strings->blocks->next;
        free(strings->blocks);
        strings->blocks = next;
    }
}

bool fmk_settings_add(struct fmk_settings *settings, const struct fmk_setting *setting) {
    void *items = settings->items;
    bool room = grow(&items, settings->count, &settings->capacity, sizeof *setting);
    settings->items = items;
    if (room)
        settings->items[settings->count++] = *setting;
    return room;
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct fmk_setting *)a)->key, ((const struct fmk_setting *)b)->key);
}

const char *fmk_settings_sort(struct fmk_settings *settings) {
    if (settings->count)
        qsort(settings->items, settings->count, sizeof *settings->items, by_key);
    for (size_t i = 1; i < settings->count; i++)
        if (strcmp(settings->items[i - 1].key, settings->items[i].key) == 0)
            return settings->items[i].key;
    return NULL;
}

const struct fmk_setting *fmk_settings_find(const struct fmk_settings *settings, const char *key) {
    struct fmk_setting wanted = {.key = key};
    return settings->count ? bsearch(&wanted, settings->items, settings->count, sizeof wanted, by_key) : NULL;
}
