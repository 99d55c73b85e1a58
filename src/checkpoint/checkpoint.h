/* A mapped checkpoint: entries by index and name. */
#ifndef FMK_CHECKPOINT_H
#define FMK_CHECKPOINT_H

#include "tensors.h"

/* A checkpoint is counted: what keeps using its map retains it, and releases it. NULL is fine. */
void fmk_checkpoint_retain(fmk_checkpoint *c);
void fmk_checkpoint_release(fmk_checkpoint *c);

fmk_status fmk_checkpoint_open_path(fmk_checkpoint **out, const char *path);
void fmk_checkpoint_describe(const fmk_checkpoint *c, fmk_checkpoint_info_t *out);

/* index must be in 0..num_entries-1. What a damaged group's tensors contradict stays as far as it is known:
 * such a matrix is listed, and refused by fmk_checkpoint_part. Fails only for want of memory. */
fmk_status fmk_checkpoint_entry_at(const fmk_checkpoint *c, int32_t index, fmk_entry *out);

/* Index of the entry of that name, with or without the ending of its tensor; -1 = none. */
int32_t fmk_checkpoint_index(const fmk_checkpoint *c, const char *name);

/* The matrix `name` as a part. part->struct_size is set to the whole struct. *bytes (may be NULL): of all its
 * tensors. */
fmk_status fmk_checkpoint_part(const fmk_checkpoint *c, const char *name, fmk_part *part,
                               int32_t *num_experts, uint64_t *bytes);

/* The vector `name`: its length, and its values where out is not NULL (room for `capacity`). */
fmk_status fmk_checkpoint_floats(const fmk_checkpoint *c, const char *name, float *out, int64_t capacity,
                                 int64_t *count);

/* A GGUF key or a value of config.json ("rope_parameters.rope_theta"). Of kind FMK_SETTING_ABSENT where there
 * is none. */
const struct fmk_setting *fmk_checkpoint_setting(const fmk_checkpoint *c, const char *key);

#endif
