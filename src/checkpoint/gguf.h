/* GGUF, versions 2 and 3. */
#ifndef FMK_CHECKPOINT_GGUF_H
#define FMK_CHECKPOINT_GGUF_H

#include "tensors.h"

/* Where a reader puts what it finds. */
struct fmk_reading {
    struct fmk_tensor_list *tensors; /* appended, in the file's order, with `file` and `data` set */
    struct fmk_settings *settings;   /* appended and sorted */
    struct fmk_strings *strings;
    int32_t file;
};

bool fmk_is_gguf(const uint8_t *data, size_t size);

/* Checks everything but the weights themselves. After a failure what was appended is still there, to be
 * freed with the rest. */
fmk_status fmk_gguf_read(const uint8_t *data, size_t size, const struct fmk_reading *reading);

/* "q4_k_m" of general.file_type 15 and so on; "" = unknown. */
const char *fmk_gguf_file_type(int64_t file_type);

#endif
