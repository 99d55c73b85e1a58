/* Weights back to numbers: whole matrices, and rows by id, from any layout. */
#include "linear.h"

#include "../abi.h"
#include "../floats.h"
#include "../context.h"
#include "../half.h"
#include "../parallel.h"

#include <string.h>

static void store_one(void *out, fmk_dtype type, int64_t at, float value) {
    if (type == FMK_F32)
        ((float *)out)[at] = value;
    else
        ((uint16_t *)out)[at] = type == FMK_F16 ? fmk_f32_to_f16(value) : fmk_f32_to_bf16(value);
}

/* out[at .. at+k) = row `row` of the projection. */
static void decode_row(const struct fmk_projection *w, int32_t expert, int64_t row, void *out, fmk_dtype type,
                       int64_t at) {
    const struct fmk_packed *part = w->parts;
    for (; row >= part->n; part++)
        row -= part->n;
    const uint8_t *data = part->data + (uint64_t)expert * part->expert_stride;
    const int32_t *index = part->k_index ? part->k_index + expert * part->k_packed : NULL;
    float block[FMK_K_BLOCK];
    for (int64_t k = 0; k < part->k_packed; k += FMK_K_BLOCK) {
        int64_t count = fmk_min(FMK_K_BLOCK, part->k_packed - k);
        part->layout->decode(part, data, row, k, count, block);
        if (!index) {
            count = fmk_min(count, part->k - k); /* positions past k are padding */
            if (count > 0)
                fmk_store_floats(out, type, at + k, count, block);
            continue;
        }
        for (int64_t i = 0; i < count; i++)
            if (index[k + i] >= 0)
                store_one(out, type, at + index[k + i], block[i]);
    }
}

enum { ROWS_PER_TASK = 16 };

struct dequantize {
    const struct fmk_projection *w;
    int32_t expert;
    void *out;
    fmk_dtype type;
    int64_t stride;
};

static void dequantize_task(void *arg, int64_t i) {
    const struct dequantize *d = arg;
    int64_t end = fmk_min((i + 1) * ROWS_PER_TASK, d->w->n);
    for (int64_t row = i * ROWS_PER_TASK; row < end; row++)
        decode_row(d->w, d->expert, row, d->out, d->type, row * d->stride);
}

fmk_status fmk_cpu_dequantize(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                              void *out, fmk_dtype out_type, int64_t out_stride) {
    struct dequantize d = {w, expert, out, out_type, out_stride};
    fmk_parallel(queue->ctx, dequantize_task, &d, (w->n + ROWS_PER_TASK - 1) / ROWS_PER_TASK);
    return FMK_OK;
}

struct lookup {
    const struct fmk_projection *w;
    const fmk_rows_args *args;
};

static void lookup_task(void *arg, int64_t i) {
    const struct lookup *l = arg;
    const fmk_rows_args *a = l->args;
    int64_t id = ((const int32_t *)fmk_pointer(a->ids))[i];
    char *out = fmk_pointer(a->out);
    if (id >= 0 && id < l->w->n)
        decode_row(l->w, a->expert, id, out, a->out_type, i * a->out_stride);
    else
        memset(out + i * a->out_stride * fmk_dtype_size(a->out_type), 0,
               (size_t)(l->w->k * fmk_dtype_size(a->out_type)));
}

fmk_status fmk_cpu_rows(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *args) {
    struct lookup lookup = {w, args};
    fmk_parallel(queue->ctx, lookup_task, &lookup, args->m);
    return FMK_OK;
}
