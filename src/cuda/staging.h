/* The way of host bytes to the device: a ring of slots, each some pinned memory and as much on the device. A
 * slot is filled by the context's threads and copied from there while the next is filled; nobody waits for
 * more than a slot to come free. One ring a context, made when it is first needed. */
#ifndef FMK_CUDA_STAGING_H
#define FMK_CUDA_STAGING_H

#include "device.h"

/* Bytes that one thread copies at a time: small enough that a slot is spread evenly over many threads. */
enum { FMK_STAGE_TASK = 128 << 10 };

/* What one call brings to the device by way of the ring; it holds a slot from fmk_stage_take to
 * fmk_stage_end. */
struct fmk_stage {
    struct fmk_queue *queue;
    struct fmk_slot *slot; /* or NULL */
    uint64_t used;
};

/* A piece of the slot, on both sides. */
struct fmk_staged {
    uint8_t *host;
    uint64_t device;
};

/* Before the first fmk_stage_take: makes the ring. */
fmk_status fmk_stage_begin(struct fmk_queue *queue, struct fmk_stage *stage);
/* Bytes of a whole slot, and those that fmk_stage_take can give without another one. */
uint64_t fmk_stage_size(const struct fmk_stage *stage);
uint64_t fmk_stage_room(const struct fmk_stage *stage);
/* At most a whole slot; aligned to 256. It stays the caller's until the next call that does not fit, or
 * `end`: what uses it must be enqueued by then. */
fmk_status fmk_stage_take(struct fmk_stage *stage, uint64_t bytes, struct fmk_staged *out);
/* Enqueues the copy of host bytes to a piece's place on the device, to be read by what is enqueued on the
 * queue from then on. `from`: the piece's own, or the caller's pinned memory, which must stay until it is
 * done. */
fmk_status fmk_stage_send(struct fmk_stage *stage, const struct fmk_staged *piece, const void *from,
                          uint64_t bytes);
/* The same from pinned memory to anywhere on the device, in the queue's order. */
fmk_status fmk_stage_direct(struct fmk_stage *stage, uint64_t to, const void *from, uint64_t bytes);
/* Enqueues a copy of host bytes to anywhere on the device; they are free when it returns. */
fmk_status fmk_stage_upload(struct fmk_stage *stage, uint64_t to, const void *from, uint64_t bytes);
/* Gives the slot back; also after failures. */
fmk_status fmk_stage_end(struct fmk_stage *stage);

/* memcpy for the threads that fill a slot; each says `copied` when it has made its last. */
void fmk_stage_copy(void *to, const void *from, size_t bytes);
void fmk_stage_copied(void);

/* A stream of the ring's own, for reading what no queue is at. */
fmk_status fmk_staging_stream(struct fmk_context *ctx, CUstream *stream);
/* When the context goes. The caller has entered. */
void fmk_staging_close(struct fmk_context *ctx);

#endif
