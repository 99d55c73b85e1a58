/* What `ferrumk quantize` reads: a checkpoint of dense tensors, and how another container would have them. */
#ifndef QUANTIZE_SOURCE_H
#define QUANTIZE_SOURCE_H

#include "gguf.h"
#include "names.h"
#include "synthetic.h"
#include "tool.h"

struct source {
    const char *path;
    fmk_checkpoint *checkpoint;
    struct device device;
    bool gguf;
    struct gguf_header header; /* gguf */
    json_t *config;            /* config.json, or one made of the key-values; NULL = there is none */
    const char *family;        /* "llama", "qwen2", "qwen3", or NULL: then names stay as they are */
    int64_t heads, kv_heads;
    fmk_entry *entries;
    struct tensor_name *names;
    int32_t count;
    struct progress progress;
    uint64_t done, total; /* bytes of entries */
};

/* Ends the program, with a sentence, where the checkpoint cannot be read or is not dense. */
void source_open(struct source *source, const char *path, const struct device_options *device);
void source_close(struct source *source);

/* Which of both containers' habits a name or an order of rows follows. */
enum habit { HABIT_HF, HABIT_GGUF };

/* "blk.0.attn_q" and a tail, ".weight" or ".qweight": the name in a container of that habit. ".weight" only
 * where the source has it too. To be freed. */
char *output_name(const struct source *source, int32_t index, enum habit habit, const char *tail);

/* A matrix, or its bias, as that habit orders its rows: GGUF's llama rotates neighbours where Hugging Face's
 * rotates halves, so q and k have their rows moved. The memory is the checkpoint's, or *owned. */
struct rows {
    fmk_part part;
    const void *data; /* [n][k] of the expert */
    const void *bias; /* [n], or NULL */
    void *owned_data, *owned_bias;
};
struct rows rows_of(const struct source *source, int32_t index, int32_t expert, enum habit habit);
void rows_free(struct rows *rows);

/* A vector as floats, reordered likewise; to be freed. */
float *vector_of(const struct source *source, int32_t index, enum habit habit);

/* Counts an entry as done. */
void source_step(struct source *source, int32_t index);

#endif
