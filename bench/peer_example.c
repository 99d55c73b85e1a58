/* A peer as short as can be: f32 weights, one thread, plain loops. A real one does the same with another
 * project's calls; see peer.h for what each function promises, and peers.md. */
#define BENCH_PEER_IMPLEMENTATION
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weight {
    int64_t n, k;
    float *values;
};

static void *open_plain(const struct bench_peer_device *device, char *error, size_t cap) {
    static char nothing;
    if (device->threads == 1)
        return &nothing;
    snprintf(error, cap, "plain loops have one thread");
    return NULL;
}

static void close_plain(void *peer) {
    (void)peer;
}

static void *create(void *peer, const struct bench_peer_source *source, char *error, size_t cap) {
    (void)peer;
    struct weight *weight = calloc(1, sizeof *weight);
    if (strcmp(source->format, "f32")) {
        snprintf(error, cap, "plain loops multiply by f32 only");
        free(weight);
        return NULL;
    }
    float *values = malloc(source->qweight_bytes);
    if (!weight || !values) {
        snprintf(error, cap, "no memory for %llu bytes", (unsigned long long)source->qweight_bytes);
        free(values);
        free(weight);
        return NULL;
    }
    memcpy(values, source->qweight, source->qweight_bytes);
    *weight = (struct weight){.n = source->n, .k = source->k, .values = values};
    return weight;
}

static void destroy(void *weight) {
    free(((struct weight *)weight)->values);
    free(weight);
}

static int32_t prepare(void *weight, const struct bench_peer_call *call, char *error, size_t cap) {
    (void)weight;
    if (!strcmp(call->type, "f32"))
        return 0;
    snprintf(error, cap, "activations are f32, not %s", call->type);
    return 1;
}

static int32_t run(void *weight, const struct bench_peer_call *call) {
    const struct weight *w = weight;
    const float *in = call->in;
    float *out = call->out;
    for (int64_t m = 0; m < call->m; m++)
        for (int64_t n = 0; n < w->n; n++) {
            float sum = 0;
            for (int64_t k = 0; k < w->k; k++)
                sum += in[m * w->k + k] * w->values[n * w->k + k];
            out[m * w->n + n] = sum;
        }
    return 0;
}

static const struct bench_peer plain = {
    .version = BENCH_PEER_VERSION,
    .kind = BENCH_PEER_HOST,
    .name = "plain",
    .about = "plain loops over f32, bench/peer_example.c",
    .open = open_plain,
    .close = close_plain,
    .create = create,
    .destroy = destroy,
    .prepare = prepare,
    .run = run,
};

const struct bench_peer *const *bench_peers(uint32_t version) {
    static const struct bench_peer *const list[] = {&plain, NULL};
    return version == BENCH_PEER_VERSION ? list : NULL;
}
