/* A context: one device of one backend, its threads, its allocator. Every other handle keeps one alive. */
#ifndef FMK_CONTEXT_H
#define FMK_CONTEXT_H

#include "ferrumk.h"

#include <stdatomic.h>
#include <stdbool.h>

struct fmk_pool;

struct fmk_context {
    atomic_int references;
    const struct fmk_backend_row *backend;
    uint32_t features;   /* of the device, less what was disabled: enum fmk_cpu_feature ... */
    unsigned fork_epoch; /* forks so far when it was made */
    fmk_allocator allocator;
    void (*parallel_for)(void *user, void (*body)(void *arg, int64_t i), void *arg, int64_t count);
    void *parallel_user;
    void (*log)(void *user, int32_t level, const char *text);
    void *log_user;
    struct fmk_pool *pool; /* NULL: the calling thread alone, or the caller's parallel_for */
    atomic_flag pool_busy;
    fmk_context_info_t info;
};

struct fmk_queue {
    struct fmk_context *ctx;
    void *native;
};

/* One per backend: what a context of it does. Weights reach it as a projection (plan/projection.h), calls
 * as a checked call (plan/call.h). */
struct fmk_projection;
struct fmk_call;
struct fmk_backend_row {
    fmk_backend id;
    /* Fills in features and info; the context's common fields are set already. */
    fmk_status (*open)(struct fmk_context *ctx, const fmk_context_desc *desc);
    void (*close)(struct fmk_context *ctx);
    fmk_status (*check_native)(void *native); /* of a queue */
    void (*workspace)(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                      uint64_t *least, uint64_t *best);
    fmk_status (*linear)(struct fmk_queue *queue, const struct fmk_projection *w,
                         const struct fmk_call *call);
    fmk_status (*rows)(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *args);
    fmk_status (*dequantize)(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                             void *out, fmk_dtype out_type, int64_t out_stride);
    fmk_status (*route_sort)(struct fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                             const fmk_routing *out);
};

extern const struct fmk_backend_row fmk_cpu_backend;

/* A context with one reference and no backend yet. */
fmk_status fmk_context_new(struct fmk_context **out);
void fmk_context_retain(struct fmk_context *ctx);
/* FMK_OK, or FMK_EFORKED with its sentence. */
fmk_status fmk_context_alive(const struct fmk_context *ctx);
/* The context's allocator, or the library's own: zero on failure. align is a power of two. */
uint64_t fmk_context_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align);
void fmk_context_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size);
/* Tells the caller's log, if there is one. */
void fmk_log(struct fmk_context *ctx, int32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
