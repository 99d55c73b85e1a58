/* What one file of this folder tells source.c about its format: a row of the format table. */
#ifndef FMK_FORMATS_FORMAT_H
#define FMK_FORMATS_FORMAT_H

#include "source.h"

#include <string.h>

struct fmk_format_ops {
    const char *name;
    enum fmk_family family;
    fmk_dtype qweight_dtype; /* prescribed; 0: the part must say */
    fmk_dtype bias_dtype;    /* prescribed; 0: qweight's */
    bool scales;             /* the tensor, and with it group_size */
    bool zeros;              /* qzeros and g_idx */
    int64_t k_multiple;      /* of k and of a shard's ends, */
    int64_t k_cut;           /* which may be cut finer than k itself */
    int64_t n_multiple;      /* of n; n_begin and n_end are free */
    const char *unit;        /* what k_multiple k make up, for the sentence */
    const char *shape;       /* of qweight, for the sentence */
    /* Bytes of one expert's qweight; false when they overflow. */
    bool (*bytes)(const struct fmk_source *source, int64_t *bytes);
    /* Dense and K-quants: bytes of a row, up to k. */
    int64_t (*row_bytes)(const struct fmk_source *source, int64_t k);
    /* Settles what only data tell; NULL where there is nothing. */
    fmk_status (*read)(struct fmk_source *source);
    /* int4. `column` is a row of the weight, a column of these files; k counts in the whole tensor. */
    void (*codes)(const struct fmk_source *source, int64_t expert, const int64_t *column, int32_t rows,
                  const int32_t *k, int64_t count, uint8_t *out);
    int64_t (*scale_column)(const struct fmk_source *source, int64_t column);
    uint8_t (*zero)(const struct fmk_source *source, int64_t expert, int64_t column, int64_t group);
};

extern const struct fmk_format_ops fmk_dense_ops, fmk_gptq_ops, fmk_marlin_ops, fmk_q4k_ops, fmk_q6k_ops;

/* Tensors may lie at any address: safetensors promise 8 bytes, callers nothing. */

static inline uint32_t fmk_load_u32(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline int32_t fmk_load_i32(const uint8_t *bytes) {
    int32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* First byte of an expert's tensor; NULL when the tensor is absent. */
static inline const uint8_t *fmk_tensor_data(const fmk_tensor *tensor, int64_t expert) {
    if (!tensor->data.handle)
        return NULL;
    uint64_t offset = tensor->data.offset + (uint64_t)expert * tensor->expert_stride;
    return (const uint8_t *)(uintptr_t)tensor->data.handle + offset;
}

#endif
