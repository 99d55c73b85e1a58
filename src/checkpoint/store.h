/* What the files of this folder share: the inside of a checkpoint. */
#ifndef FMK_CHECKPOINT_STORE_H
#define FMK_CHECKPOINT_STORE_H

#include "checkpoint.h"
#include "map.h"
#include "quant_config.h"

#include <stdatomic.h>

enum fmk_group {
    FMK_GROUP_PLAIN, /* X.weight or X, with X.bias where it is a matrix */
    FMK_GROUP_GPTQ,  /* X.qweight, X.scales, X.qzeros, X.g_idx, X.bias */
    FMK_GROUP_MARLIN /* X.B, X.s, X.bias; X.workspace is ignored */
};

struct fmk_store_entry {
    const char *name;
    const struct fmk_file_tensor *anchor; /* the tensor that gives the entry its name */
    enum fmk_group group;
};

struct fmk_checkpoint {
    atomic_int references;
    fmk_container container;
    struct fmk_map *maps;
    int32_t num_files;
    struct fmk_strings strings;
    struct fmk_settings settings;
    struct fmk_quant_config quant;
    struct fmk_tensor_list tensors; /* in the files' order */
    const struct fmk_file_tensor **by_name;
    struct fmk_store_entry *entries; /* in the files' order */
    const struct fmk_store_entry **entries_by_name;
    int32_t num_entries;
};

/* open.c: fills in an empty checkpoint up to and with `tensors`. */
fmk_status fmk_store_read(struct fmk_checkpoint *c, const char *path);

/* entries.c: by_name and entries out of tensors. */
fmk_status fmk_store_group(struct fmk_checkpoint *c);
/* The tensor stem + suffix; NULL = none. */
const struct fmk_file_tensor *fmk_store_tensor(const struct fmk_checkpoint *c, const char *stem, size_t size,
                                               const char *suffix);

/* describe.c: all that can be said of an entry without reading weights. */
struct fmk_described {
    fmk_entry_kind kind;
    const char *format_name;
    fmk_part part; /* whole where the status is FMK_OK, else what is known */
    int32_t num_experts;
    fmk_dtype dtype;
    uint64_t bytes;
};

fmk_status fmk_store_describe(const struct fmk_checkpoint *c, const struct fmk_store_entry *entry,
                              struct fmk_described *out);

#endif
