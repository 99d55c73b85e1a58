/* safetensors files and the index of a sharded model. */
#ifndef FMK_CHECKPOINT_SAFETENSORS_H
#define FMK_CHECKPOINT_SAFETENSORS_H

#include "gguf.h"
#include "json.h"

/* Checks everything but the weights themselves; tensors are appended in the order of their data. */
fmk_status fmk_safetensors_read(const uint8_t *data, size_t size, const struct fmk_reading *reading);

/* A *.index.json: its files, sorted, and the file that each tensor is said to be in. */
struct fmk_index {
    json_t *root;             /* owns the names */
    const json_t *weight_map; /* of `root` */
    const char **files;
    size_t num_files;
};

/* To be freed in any case. A file's name must be a plain name in the index's directory. */
fmk_status fmk_index_read(const uint8_t *data, size_t size, struct fmk_index *index);
/* Position of `name` in files. */
int32_t fmk_index_file(const struct fmk_index *index, const char *name);
void fmk_index_free(struct fmk_index *index);

#endif
