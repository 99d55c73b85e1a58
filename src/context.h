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
    void *device; /* the backend's own: struct fmk_cuda */
};

struct fmk_queue {
    struct fmk_context *ctx;
    void *native;
    void *device; /* the backend's own */
};

/* One per backend: what a context of it does. Weights reach it as a projection (plan/projection.h), calls
 * as a checked call (plan/call.h). */
struct fmk_projection;
struct fmk_call;
struct fmk_fill;
struct fmk_progress;
struct fmk_backend_row {
    fmk_backend id;
    /* Fills in features and info; the context's common fields are set already. */
    fmk_status (*open)(struct fmk_context *ctx, const fmk_context_desc *desc);
    void (*close)(struct fmk_context *ctx);
    fmk_status (*check_native)(struct fmk_context *ctx, void *native); /* of a queue */
    /* The backend's part of a queue, whose ctx and native are set. NULL: it has none. */
    fmk_status (*queue_open)(struct fmk_queue *queue);
    void (*queue_close)(struct fmk_queue *queue);
    /* fmk_context_vulkan and fmk_context_pipeline_cache. NULL: the backend has neither. */
    const fmk_vulkan_device *(*vulkan)(struct fmk_context *ctx);
    fmk_status (*pipeline_cache)(struct fmk_context *ctx, void *data, uint64_t capacity, uint64_t *size);
    /* Waits for what the queue has submitted. NULL: there is nothing to wait for. */
    fmk_status (*queue_wait)(struct fmk_queue *queue);
    /* The address of a buffer's byte 0, by the handle that callers know. NULL: that is the address. */
    uint64_t (*address)(const struct fmk_context *ctx, uint64_t handle);
    /* Memory for packed weights, where the caller gave no allocator: a handle. `native` is a queue's. */
    fmk_memory memory; /* what kind it is */
    fmk_status (*alloc)(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align, uint64_t *out);
    void (*release)(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size);
    /* Whether the device is lost: FMK_OK or FMK_ELOST with its sentence. NULL: it never is. */
    fmk_status (*check_device)(const struct fmk_context *ctx);
    /* Host-side set-up for calls of any m up to call's. NULL: there is none. */
    fmk_status (*prepare)(struct fmk_queue *queue, const struct fmk_projection *w,
                          const struct fmk_call *call);
    /* Weights (weight.c, packed.c). The pointers of a projection are addresses in the backend's memory. */
    uint32_t storage_align; /* of packed bytes: a multiple of FMK_STORAGE_ALIGN */
    /* Whether bytes can be used where this tensor has them. */
    bool (*borrows)(struct fmk_context *ctx, const fmk_tensor *tensor);
    /* Host memory that `borrows` accepted: *address is where the device finds it, *held what keeps it there
     * until `unborrow`. NULL: it is found where it is. */
    fmk_status (*borrow)(struct fmk_context *ctx, uint64_t at, uint64_t size, uint64_t *address, void **held);
    void (*unborrow)(struct fmk_context *ctx, void *held);
    /* Whether a tensor lies where it says; `name` is for the sentence. NULL: memory DEVICE is not accepted,
     * and the rest is believed. */
    fmk_status (*check_tensor)(struct fmk_context *ctx, const char *name, const fmk_tensor *tensor);
    /* Whether a weight can be made on the queue now. NULL: always. */
    fmk_status (*check_queue)(struct fmk_queue *queue);
    /* Brings a part into its sections; may only enqueue it, when it has read what is in host memory. */
    fmk_status (*fill)(struct fmk_queue *queue, const struct fmk_fill *fill);
    /* Likewise `size` bytes of a tensor, as they are. */
    fmk_status (*write)(struct fmk_queue *queue, uint64_t to, const fmk_tensor *from, uint64_t size,
                        struct fmk_progress *progress);
    /* Copies rows to host memory, one behind the other, after the work that is on `native`, and waits. */
    fmk_status (*read)(struct fmk_context *ctx, void *native, void *to, uint64_t from, uint64_t width,
                       uint64_t stride, uint64_t rows);
    /* *pending: what fill and write enqueued, for `ready` to ask about or wait for (FMK_EAGAIN), and for
     * `retire` to wait for and let go of; that also waits for what is on `queue`, if there is one. NULL:
     * nothing is ever in flight. */
    fmk_status (*finish)(struct fmk_queue *queue, void **pending);
    fmk_status (*ready)(struct fmk_context *ctx, void *pending, bool wait);
    void (*retire)(struct fmk_context *ctx, struct fmk_queue *queue, void *pending);
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
extern const struct fmk_backend_row fmk_cuda_backend; /* where the library is built with it */
extern const struct fmk_backend_row fmk_vulkan_backend;

/* A context with one reference and no backend yet. */
fmk_status fmk_context_new(struct fmk_context **out);
void fmk_context_retain(struct fmk_context *ctx);
/* FMK_OK, or FMK_EFORKED with its sentence. */
fmk_status fmk_context_alive(const struct fmk_context *ctx);
/* Where the caller gave a handle, there is the address from now on. */
void fmk_context_resolve(const struct fmk_context *ctx, fmk_buffer *buffer);
/* The caller's allocator, or the backend's own: a handle. align is a power of two. */
fmk_status fmk_context_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align,
                             uint64_t *out);
void fmk_context_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size);
/* Tells the caller's log, if there is one. */
void fmk_log(struct fmk_context *ctx, int32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
