/* A weight: parts of any format, packed into the backend's layouts or borrowed where they lie. */
#ifndef FMK_WEIGHT_H
#define FMK_WEIGHT_H

#include "context.h"
#include "plan/projection.h"

enum {
    FMK_STORAGE_ALIGN = 128, /* of sections in packed bytes, a line of what GPUs fetch; storage may need more:
                                storage_align of the backend */
    FMK_MAX_EXPERTS = 1 << 20
};

struct fmk_weight {
    atomic_int references;
    struct fmk_context *ctx;
    struct fmk_checkpoint *source; /* held while bytes of it are borrowed, else NULL */
    struct fmk_projection projection;
    fmk_part_info *infos;           /* [num_parts] */
    uint64_t storage, storage_size; /* the packed bytes' address; 0 when all is borrowed */
    uint64_t storage_handle;        /* what the allocator answered, where owns_storage */
    void **held;                    /* [num_parts]: what the backend's `borrow` holds, or NULL */
    void *native;                   /* the queue's, for the allocator */
    void *pending;                  /* what the backend may still be at: its `finish` made it; or NULL */
    bool owns_storage;
    bool borrowed;
};

/* Where the sections of one part begin in a run of packed bytes; -1 = it has no such section. */
struct fmk_sections {
    int64_t index, bias, range, data;
};

/* Places a part's sections from *at on, each aligned to FMK_STORAGE_ALIGN, and moves *at past them; false
 * when they do not fit in an address space. A range comes with the data where the layout keeps one. */
bool fmk_weight_sections(const struct fmk_packed *packed, bool index, bool bias, bool data, int64_t *at,
                         struct fmk_sections *out);
/* The caller's descriptor, checked but for its parts, and the first of these: whether it is of format PACKED
 * decides who makes the weight. */
fmk_status fmk_weight_desc_read(const struct fmk_context *ctx, const fmk_weight_desc *given,
                                fmk_weight_desc *desc, fmk_part *first);
/* The shape and the storage of a weight made of files' parts, without making it; read_data: what depends on
 * the data too. shape->parts [num_parts] is the caller's to free, also on failure; no pointer in it is set.
 */
fmk_status fmk_weight_shape(struct fmk_context *ctx, const fmk_weight_desc *desc, bool read_data,
                            struct fmk_projection *shape, uint64_t *size);
/* A weight made of files' parts. */
fmk_status fmk_weight_pack(struct fmk_weight **out, struct fmk_queue *queue, const fmk_weight_desc *desc);

/* A weight with room for num_parts parts and nothing in it yet; holds the context. */
fmk_status fmk_weight_new(struct fmk_weight **out, struct fmk_context *ctx, int32_t num_parts,
                          int32_t num_experts, bool glu);
/* Gives it `size` bytes of storage: desc->storage or the allocator's. */
fmk_status fmk_weight_give_storage(struct fmk_weight *weight, struct fmk_queue *queue,
                                   const fmk_weight_desc *desc, uint64_t size);
/* After the last of what creation enqueued, also when it failed: answers `status`, or what went wrong now. On
 * failure the weight is gone. */
fmk_status fmk_weight_finish(struct fmk_weight *weight, struct fmk_queue *queue, fmk_status status,
                             struct fmk_weight **out);

/* Whether the two can meet in a call: neither is NULL, one context, alive. */
fmk_status fmk_weight_check(const fmk_queue *queue, const fmk_weight *weight);

#endif
