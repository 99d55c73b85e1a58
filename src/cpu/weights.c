/* Weights into the memory of the CPU, and out of it. Packing goes by tasks on the context's threads. */
#include "weights.h"

#include "../abi.h"
#include "../parallel.h"
#include "../plan/fill.h"

#include <string.h>

enum {
    LEAST_ROWS_PER_TASK = 64, /* a multiple of every layout's panel */
    ROWS_PER_TASK = 256,      /* where there are enough: int4 likes them together */
    ROWS_PER_BATCH = 8192     /* between two calls of progress */
};

bool fmk_cpu_borrows(struct fmk_context *ctx, const fmk_tensor *tensor) {
    (void)ctx, (void)tensor;
    return true;
}

struct pack {
    const struct fmk_source *source;
    const struct fmk_packed *packed;
    int64_t rows;   /* of a task */
    int64_t chunks; /* tasks per expert */
    int64_t first;  /* task of this batch */
};

static void pack_task(void *arg, int64_t i) {
    const struct pack *p = arg;
    int64_t expert = (p->first + i) / p->chunks, row = (p->first + i) % p->chunks * p->rows;
    const struct fmk_packed *packed = p->packed;
    const int32_t *index = packed->k_index ? packed->k_index + expert * packed->k_packed : NULL;
    packed->layout->pack(p->source, packed, index, expert, row, fmk_min(p->rows, packed->n - row),
                         (uint8_t *)packed->data + (uint64_t)expert * packed->expert_stride);
}

fmk_status fmk_cpu_fill(struct fmk_queue *queue, const struct fmk_fill *fill) {
    const struct fmk_source *source = fill->source;
    const struct fmk_packed *packed = fill->packed;
    if (packed->k_index)
        for (int64_t e = 0; e < packed->experts; e++)
            packed->layout->index(source, packed, e, (int32_t *)packed->k_index + e * packed->k_packed);
    if (packed->bias)
        for (int64_t e = 0; e < packed->experts; e++)
            fmk_source_bias(source, e, (float *)packed->bias + e * packed->n);
    if (!fill->data)
        return FMK_OK;
    bool many = packed->n * packed->experts >= 4ll * ROWS_PER_TASK * queue->ctx->info.threads;
    int64_t rows = many ? ROWS_PER_TASK : LEAST_ROWS_PER_TASK;
    struct pack pack = {source, packed, rows, (packed->n + rows - 1) / rows, 0};
    int64_t tasks = pack.chunks * packed->experts, most = ROWS_PER_BATCH / rows;
    uint64_t before = 0;
    for (; pack.first < tasks; pack.first += most) {
        int64_t batch = fmk_min(most, tasks - pack.first);
        fmk_parallel(queue->ctx, pack_task, &pack, batch);
        uint64_t after = (uint64_t)((double)packed->bytes * (double)(pack.first + batch) / (double)tasks);
        if (pack.first + batch == tasks)
            after = packed->bytes;
        fmk_status status = fmk_progress(fill->progress, after - before);
        if (status)
            return status;
        before = after;
    }
    return FMK_OK;
}

fmk_status fmk_cpu_write(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                         struct fmk_progress *progress) {
    enum { RUN = 64 << 20 }; /* between two calls of progress */
    (void)queue;
    const uint8_t *bytes = fmk_pointer(from->data);
    fmk_status status = FMK_OK;
    for (uint64_t done = 0, count; done < size && !status; done += count) {
        count = size - done < RUN ? size - done : RUN;
        memcpy((uint8_t *)(uintptr_t)to + done, bytes + done, count);
        status = fmk_progress(progress, count);
    }
    return status;
}

fmk_status fmk_cpu_read(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                        uint64_t stride, uint64_t rows) {
    (void)ctx, (void)native;
    for (uint64_t row = 0; row < rows; row++)
        memcpy((uint8_t *)to + row * width, (const uint8_t *)(uintptr_t)from + row * stride, width);
    return FMK_OK;
}
