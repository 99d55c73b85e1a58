/* The library in the shape of a peer, so that it is timed as they are. */
#include "cpu_bench.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

struct ours {
    struct device device;
    uint32_t call_flags, weight_flags;
};

struct our_weight {
    struct ours *ours;
    fmk_weight *weight;
    void *copy[3]; /* of a borrowed source */
    struct projection projection;
};

static const char *features_off; /* one choice for the whole run */

static void *open_with(const struct bench_peer_device *device, uint32_t call_flags, uint32_t weight_flags) {
    struct ours *ours = allocate(1, sizeof *ours);
    struct device_options options = {.backend = "cpu", .threads = device->threads, .disable = features_off};
    device_open(&ours->device, &options);
    ours->call_flags = call_flags;
    ours->weight_flags = weight_flags;
    return ours;
}

static void *open_default(const struct bench_peer_device *device, char *error, size_t cap) {
    (void)error, (void)cap;
    return open_with(device, 0, 0);
}

static void *open_exact(const struct bench_peer_device *device, char *error, size_t cap) {
    (void)error, (void)cap;
    return open_with(device, FMK_LINEAR_EXACT, 0);
}

static void *open_fast(const struct bench_peer_device *device, char *error, size_t cap) {
    (void)error, (void)cap;
    return open_with(device, FMK_LINEAR_FAST_REDUCE, 0);
}

static void *open_borrowed(const struct bench_peer_device *device, char *error, size_t cap) {
    (void)error, (void)cap;
    return open_with(device, 0, FMK_WEIGHT_BORROW);
}

static void close_ours(void *peer) {
    struct ours *ours = peer;
    device_close(&ours->device);
    free(ours);
}

static void destroy(void *weight) {
    struct our_weight *w = weight;
    fmk_weight_destroy(w->weight, w->ours->device.queue);
    for (size_t i = 0; i < sizeof w->copy / sizeof *w->copy; i++)
        free(w->copy[i]);
    free(w);
}

static void *copy_of(const void *from, uint64_t bytes) {
    void *copy = from ? allocate_aligned(bytes) : NULL;
    return copy ? memcpy(copy, from, bytes) : NULL;
}

static void *create(void *peer, const struct bench_peer_source *source, char *error, size_t cap) {
    struct our_weight *w = allocate(1, sizeof *w);
    w->ours = peer;
    struct bench_peer_source own = *source;
    if (w->ours->weight_flags & FMK_WEIGHT_BORROW) {
        own.qweight = w->copy[0] = copy_of(source->qweight, source->qweight_bytes);
        own.scales = w->copy[1] = copy_of(source->scales, source->scales_bytes);
        own.qzeros = w->copy[2] = copy_of(source->qzeros, source->qzeros_bytes);
    }
    fmk_part part = source_part(&own);
    fmk_weight_desc desc = {
        .struct_size = sizeof desc, .flags = w->ours->weight_flags, .parts = &part, .num_parts = 1};
    fmk_weight_info_t info = {.struct_size = sizeof info};
    if (fmk_weight_create(&w->weight, w->ours->device.queue, &desc) || fmk_weight_info(w->weight, &info)) {
        snprintf(error, cap, "%s", fmk_last_error());
        destroy(w);
        return NULL;
    }
    if (w->ours->weight_flags & FMK_WEIGHT_BORROW && !info.borrowed) {
        snprintf(error, cap, "no kernel works on the bytes of %s as the file has them", source->format);
        destroy(w);
        return NULL;
    }
    return w;
}

static uint64_t bytes(const void *weight) {
    const struct our_weight *w = weight;
    fmk_weight_info_t info = {.struct_size = sizeof info};
    check(fmk_weight_info(w->weight, &info), NULL);
    return info.bytes;
}

static int32_t prepare(void *weight, const struct bench_peer_call *call, char *error, size_t cap) {
    struct our_weight *w = weight;
    (void)error, (void)cap;
    projection_set(&w->projection, &w->ours->device, w->weight, call->m, w->ours->call_flags, 0,
                   (uintptr_t)call->in, (uintptr_t)call->out);
    projection_set_type(&w->projection, type_of_name(call->type));
    return 0;
}

static int32_t run(void *weight, const struct bench_peer_call *call) {
    struct projection *p = &((struct our_weight *)weight)->projection;
    p->args.m = call->m;
    p->args.in.handle = (uintptr_t)call->in;
    p->args.out.handle = (uintptr_t)call->out;
    projection_run(p);
    return 0;
}

static const char *kernel(void *weight, const struct bench_peer_call *call) {
    static char *name;
    (void)call;
    free(name);
    name = projection_kernels(&((struct our_weight *)weight)->projection);
    return name;
}

static const struct bench_peer variants[] = {
    {BENCH_PEER_VERSION, BENCH_PEER_HOST, "ferrumk", "default mode", open_default, close_ours, create,
     destroy, bytes, prepare, run, NULL, kernel},
    {BENCH_PEER_VERSION, BENCH_PEER_HOST, "ferrumk.exact", "FMK_LINEAR_EXACT", open_exact, close_ours, create,
     destroy, bytes, prepare, run, NULL, kernel},
    {BENCH_PEER_VERSION, BENCH_PEER_HOST, "ferrumk.fast", "FMK_LINEAR_FAST_REDUCE", open_fast, close_ours,
     create, destroy, bytes, prepare, run, NULL, kernel},
    {BENCH_PEER_VERSION, BENCH_PEER_HOST, "ferrumk.borrowed", "the file's own bytes, FMK_WEIGHT_BORROW",
     open_borrowed, close_ours, create, destroy, bytes, prepare, run, NULL, kernel},
};

const struct bench_peer *ferrumk_as_peer(const char *word, const char *disable) {
    static const char *const words[] = {"default", "exact", "fast", "borrowed"};
    features_off = disable;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i], word))
            return &variants[i];
    return NULL;
}

bool peer_is_ferrumk(const struct bench_peer *peer) {
    return peer->run == run;
}
