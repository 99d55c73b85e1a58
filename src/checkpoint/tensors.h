/* Tensors and settings as the container files list them, before anything is made of them. */
#ifndef FMK_CHECKPOINT_TENSORS_H
#define FMK_CHECKPOINT_TENSORS_H

#include "ferrumk.h"

#include <stdbool.h>
#include <stddef.h>

enum { FMK_MAX_DIMS = 4 };

struct fmk_tensor_type {
    const char *name;
    int32_t gguf_id; /* -1 = GGUF has none */
    int32_t block;   /* elements, along the contiguous dimension, that share `bytes` */
    int32_t bytes;
    fmk_dtype dtype;   /* 0 = none that this library computes with */
    fmk_format format; /* of a matrix of it; 0 = not readable here */
};

/* NULL = unknown. */
const struct fmk_tensor_type *fmk_type_of_gguf(uint32_t id);
const struct fmk_tensor_type *fmk_type_of_safetensors(const char *name);

struct fmk_file_tensor {
    const char *name;
    const struct fmk_tensor_type *type;
    int32_t file, num_dims;
    int64_t dims[FMK_MAX_DIMS]; /* row-major: the last one is contiguous (GGUF's order reversed) */
    int64_t elements;
    uint64_t offset; /* from the file's first data byte */
    uint64_t size;
    const uint8_t *data;
};

struct fmk_tensor_list {
    struct fmk_file_tensor *items;
    size_t count, capacity;
};

/* False = no memory. */
bool fmk_tensors_add(struct fmk_tensor_list *list, const struct fmk_file_tensor *tensor);

/* Sets elements and size from type and dims; false where a product overflows or the contiguous dimension
 * is not a whole number of blocks. */
bool fmk_tensor_measure(struct fmk_file_tensor *tensor);

/* Strings that live as long as the checkpoint. */
struct fmk_strings {
    struct fmk_string_block *blocks;
};

/* A copy with a final 0; NULL = no memory. */
const char *fmk_strings_add(struct fmk_strings *strings, const char *text, size_t size);
void fmk_strings_free(struct fmk_strings *strings);

/* Settings: GGUF's key-values, or config.json with nested names joined by dots. */
enum fmk_setting_kind {
    FMK_SETTING_ABSENT,
    FMK_SETTING_INTEGER,
    FMK_SETTING_REAL,
    FMK_SETTING_BOOL, /* in `integer` */
    FMK_SETTING_STRING,
    FMK_SETTING_OTHER /* arrays, strings longer than FMK_LONGEST_SETTING */
};

enum { FMK_LONGEST_SETTING = 4096 };

struct fmk_setting {
    const char *key;
    enum fmk_setting_kind kind;
    int64_t integer;
    double real; /* integers too */
    const char *string;
};

struct fmk_settings {
    struct fmk_setting *items; /* sorted by key */
    size_t count, capacity;
};

/* False = no memory. Sort when all are added, before the first find. */
bool fmk_settings_add(struct fmk_settings *settings, const struct fmk_setting *setting);
/* The first key that is there twice, or NULL. */
const char *fmk_settings_sort(struct fmk_settings *settings);
/* NULL = absent. */
const struct fmk_setting *fmk_settings_find(const struct fmk_settings *settings, const char *key);

#endif
