#include "staging.h"

#include "../abi.h"
#include "../error.h"
#include "../parallel.h"

#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { SLOTS = 4, PIECE_ALIGN = 256, LEAST_SLOT = 256 << 10 };

struct fmk_slot {
    uint8_t *host;
    CUdeviceptr device;
    CUevent sent; /* recorded behind the last copy to `device` */
    CUevent done; /* recorded behind the last work that uses the slot */
    bool recorded;
    bool taken;
};

struct fmk_staging {
    pthread_mutex_t lock; /* of who has which slot */
    pthread_cond_t given_back;
    uint64_t slot_bytes;
    void *host; /* of all slots */
    CUdeviceptr device;
    CUstream stream; /* of copies to the slots */
    int next;        /* the slot that was given back longest ago */
    struct fmk_slot slots[SLOTS];
};

/* ---- the ring ---- */

static void staging_free(struct fmk_context *ctx, struct fmk_staging *staging) {
    const struct fmk_driver *driver = fmk_cuda_of(ctx)->driver;
    for (int i = 0; i < SLOTS; i++) {
        if (staging->slots[i].recorded)
            driver->EventSynchronize(staging->slots[i].done);
        if (staging->slots[i].done)
            driver->EventDestroy(staging->slots[i].done);
        if (staging->slots[i].sent)
            driver->EventDestroy(staging->slots[i].sent);
    }
    if (staging->stream)
        driver->StreamDestroy(staging->stream);
    if (staging->device)
        driver->MemFree(staging->device);
    if (staging->host)
        driver->MemFreeHost(staging->host);
    pthread_cond_destroy(&staging->given_back);
    pthread_mutex_destroy(&staging->lock);
    free(staging);
}

static fmk_status staging_new(struct fmk_context *ctx, struct fmk_staging **out) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    const struct fmk_driver *driver = cuda->driver;
    struct fmk_staging *staging = calloc(1, sizeof *staging);
    if (!staging)
        return fmk_no_memory(sizeof *staging, "the staging ring");
    pthread_mutex_init(&staging->lock, NULL);
    pthread_cond_init(&staging->given_back, NULL);
    staging->slot_bytes = cuda->staging_bytes / SLOTS / PIECE_ALIGN * PIECE_ALIGN;
    if (staging->slot_bytes < LEAST_SLOT)
        staging->slot_bytes = LEAST_SLOT;
    uint64_t all = SLOTS * staging->slot_bytes;
    CUresult result = driver->MemHostAlloc(&staging->host, all, 0);
    if (!result)
        result = driver->MemAlloc(&staging->device, all);
    if (!result)
        result = driver->StreamCreate(&staging->stream, CU_STREAM_NON_BLOCKING);
    for (int i = 0; i < SLOTS && !result; i++) {
        struct fmk_slot *slot = &staging->slots[i];
        slot->host = (uint8_t *)staging->host + (uint64_t)i * staging->slot_bytes;
        slot->device = staging->device + (uint64_t)i * staging->slot_bytes;
        result = driver->EventCreate(&slot->sent, CU_EVENT_DISABLE_TIMING);
        if (!result)
            result = driver->EventCreate(&slot->done, CU_EVENT_DISABLE_TIMING);
    }
    if (result) {
        staging_free(ctx, staging);
        return fmk_cuda_check(ctx, result,
                              "making the staging ring (staging_bytes of pinned memory and as much "
                              "on the device)");
    }
    *out = staging;
    return FMK_OK;
}

static fmk_status ring_of(struct fmk_context *ctx, struct fmk_staging **out) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    fmk_status status = FMK_OK;
    pthread_mutex_lock(&cuda->lock);
    if (!cuda->staging)
        status = staging_new(ctx, &cuda->staging);
    *out = cuda->staging;
    pthread_mutex_unlock(&cuda->lock);
    return status;
}

fmk_status fmk_staging_stream(struct fmk_context *ctx, CUstream *stream) {
    struct fmk_staging *staging;
    fmk_status status = ring_of(ctx, &staging);
    if (!status)
        *stream = staging->stream;
    return status;
}

void fmk_staging_close(struct fmk_context *ctx) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    if (cuda->staging)
        staging_free(ctx, cuda->staging);
    cuda->staging = NULL;
}

/* ---- a slot ---- */

static struct fmk_staging *staging_of(const struct fmk_stage *stage) {
    return fmk_cuda_of(stage->queue->ctx)->staging;
}

static fmk_status claim(struct fmk_stage *stage) {
    struct fmk_staging *staging = staging_of(stage);
    const struct fmk_driver *driver = fmk_cuda_of(stage->queue->ctx)->driver;
    pthread_mutex_lock(&staging->lock);
    while (!stage->slot) {
        for (int i = 0; i < SLOTS && !stage->slot; i++) {
            struct fmk_slot *slot = &staging->slots[(staging->next + i) % SLOTS];
            if (!slot->taken) {
                stage->slot = slot;
                staging->next = (staging->next + i + 1) % SLOTS;
            }
        }
        if (!stage->slot)
            pthread_cond_wait(&staging->given_back, &staging->lock);
    }
    stage->slot->taken = true;
    pthread_mutex_unlock(&staging->lock);
    stage->used = 0;
    if (!stage->slot->recorded)
        return FMK_OK;
    return fmk_cuda_check(stage->queue->ctx, driver->EventSynchronize(stage->slot->done),
                          "waiting for a staging slot");
}

fmk_status fmk_stage_end(struct fmk_stage *stage) {
    if (!stage->slot)
        return FMK_OK;
    struct fmk_staging *staging = staging_of(stage);
    const struct fmk_driver *driver = fmk_cuda_of(stage->queue->ctx)->driver;
    CUresult result = driver->EventRecord(stage->slot->done, stage->queue->native);
    if (result) /* the next to use it must not find work under way */
        driver->StreamSynchronize(stage->queue->native);
    pthread_mutex_lock(&staging->lock);
    stage->slot->recorded = !result;
    stage->slot->taken = false;
    pthread_cond_signal(&staging->given_back);
    pthread_mutex_unlock(&staging->lock);
    stage->slot = NULL;
    return fmk_cuda_check(stage->queue->ctx, result, "recording the end of a staging slot");
}

fmk_status fmk_stage_begin(struct fmk_queue *queue, struct fmk_stage *stage) {
    struct fmk_staging *staging;
    *stage = (struct fmk_stage){.queue = queue};
    return ring_of(queue->ctx, &staging);
}

uint64_t fmk_stage_size(const struct fmk_stage *stage) {
    return staging_of(stage)->slot_bytes;
}

uint64_t fmk_stage_room(const struct fmk_stage *stage) {
    return stage->slot ? staging_of(stage)->slot_bytes - stage->used : 0;
}

fmk_status fmk_stage_take(struct fmk_stage *stage, uint64_t bytes, struct fmk_staged *out) {
    fmk_status status = FMK_OK;
    if (!stage->slot || bytes > fmk_stage_room(stage)) {
        status = fmk_stage_end(stage);
        if (!status)
            status = claim(stage);
    }
    if (status)
        return status;
    *out = (struct fmk_staged){stage->slot->host + stage->used, stage->slot->device + stage->used};
    stage->used =
        fmk_min((int64_t)fmk_stage_size(stage), fmk_round_up((int64_t)(stage->used + bytes), PIECE_ALIGN));
    return FMK_OK;
}

/* ---- copies on the device's side ---- */

static fmk_status check_copy(struct fmk_stage *stage, CUresult result) {
    return fmk_cuda_check(stage->queue->ctx, result, "copying weights to the device");
}

fmk_status fmk_stage_direct(struct fmk_stage *stage, uint64_t to, const void *from, uint64_t bytes) {
    const struct fmk_driver *driver = fmk_cuda_of(stage->queue->ctx)->driver;
    return check_copy(stage, driver->MemcpyHtoDAsync(to, from, bytes, stage->queue->native));
}

/* On the ring's own stream, so that slices are copied while kernels pack those before. Nobody else uses the
 * slot: its `done` was waited for. */
fmk_status fmk_stage_send(struct fmk_stage *stage, const struct fmk_staged *piece, const void *from,
                          uint64_t bytes) {
    const struct fmk_driver *driver = fmk_cuda_of(stage->queue->ctx)->driver;
    CUstream stream = staging_of(stage)->stream;
    CUresult result = driver->MemcpyHtoDAsync(piece->device, from, bytes, stream);
    if (!result)
        result = driver->EventRecord(stage->slot->sent, stream);
    if (!result)
        result = driver->StreamWaitEvent(stage->queue->native, stage->slot->sent, 0);
    if (result) /* `done` would not be behind the copy */
        driver->StreamSynchronize(stream);
    return check_copy(stage, result);
}

/* ---- copies on the host's side ---- */

/* Stores past the caches, a line at a time: lines that only the device will read need not be read first, and
 * push nothing out. */
void fmk_stage_copy(void *to, const void *from, size_t bytes) {
#ifdef __SSE2__
    enum { LINE = 64 };
    uint8_t *out = to;
    const uint8_t *in = from;
    size_t head = -(uintptr_t)out % LINE;
    head = head < bytes ? head : bytes;
    memcpy(out, in, head);
    size_t at = head;
    for (; at + LINE <= bytes; at += LINE) {
        const __m128i *next = (const __m128i *)(in + at);
        __m128i line[4] = {_mm_loadu_si128(next), _mm_loadu_si128(next + 1), _mm_loadu_si128(next + 2),
                           _mm_loadu_si128(next + 3)};
        for (int i = 0; i < 4; i++)
            _mm_stream_si128((__m128i *)(out + at) + i, line[i]);
    }
    memcpy(out + at, in + at, bytes - at);
#else
    memcpy(to, from, bytes);
#endif
}

void fmk_stage_copied(void) {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

struct run {
    uint8_t *to;
    const uint8_t *from;
    uint64_t bytes;
};

static void copy_task(void *arg, int64_t i) {
    const struct run *run = arg;
    uint64_t at = (uint64_t)i * FMK_STAGE_TASK, left = run->bytes - at;
    fmk_stage_copy(run->to + at, run->from + at, left < FMK_STAGE_TASK ? left : FMK_STAGE_TASK);
    fmk_stage_copied();
}

fmk_status fmk_stage_upload(struct fmk_stage *stage, uint64_t to, const void *from, uint64_t bytes) {
    fmk_status status = FMK_OK;
    for (uint64_t done = 0, count; done < bytes && !status; done += count) {
        count = bytes - done < fmk_stage_size(stage) ? bytes - done : fmk_stage_size(stage);
        struct fmk_staged piece;
        status = fmk_stage_take(stage, count, &piece);
        if (status)
            break;
        struct run run = {piece.host, (const uint8_t *)from + done, count};
        fmk_parallel(stage->queue->ctx, copy_task, &run,
                     (int64_t)((count + FMK_STAGE_TASK - 1) / FMK_STAGE_TASK));
        status = fmk_stage_direct(stage, to + done, piece.host, count);
    }
    return status;
}
