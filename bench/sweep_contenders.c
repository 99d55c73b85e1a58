/* The contenders: ours, and those of the shared objects that were named. */
#include "peers.h"
#include "sweep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the list ---- */

static bool left_out(const struct sweep_options *o, const char *name) {
    for (int i = 0; i < o->num_without; i++)
        if (!strcmp(o->without[i], name))
            return true;
    return false;
}

static void *open_peer(const struct sweep *sweep, const struct bench_peer *peer) {
    char error[512] = "";
    struct bench_peer_device device = {.index = sweep->options->device};
    void *state = peer->open(&device, error, sizeof error);
    if (!state)
        fprintf(stderr, "%s: %s: %s\n", program(), peer->name, error);
    return state;
}

static void add(struct sweep *sweep, const struct bench_peer *peer, void *state) {
    const struct sweep_options *o = sweep->options;
    for (int i = 0; i < o->num_kinds; i++) {
        if (sweep->num_contenders == MAX_CONTENDERS)
            quit(EXIT_USAGE, "more than %d contenders", MAX_CONTENDERS);
        char *name =
            o->num_kinds > 1 ? text_of("%s %s", peer->name, o->kinds[i].name) : text_of("%s", peer->name);
        sweep->contenders[sweep->num_contenders++] =
            (struct contender){.peer = peer, .kind = &o->kinds[i], .name = name, .state = state};
    }
}

void contenders_open(struct sweep *sweep) {
    const struct sweep_options *o = sweep->options;
    if (!left_out(o, ours_plain.name))
        add(sweep, &ours_plain, ours_open(&sweep->bench, false));
    if (!left_out(o, ours_early.name))
        add(sweep, &ours_early, ours_open(&sweep->bench, true));
    for (int i = 0; i < o->num_peers; i++)
        for (const struct bench_peer *const *peer = peers_of_file(o->peers[i]); *peer; peer++) {
            void *state = (*peer)->kind == BENCH_PEER_CUDA && !left_out(o, (*peer)->name)
                              ? open_peer(sweep, *peer)
                              : NULL;
            if (state)
                add(sweep, *peer, state);
        }
}

void contenders_close(struct sweep *sweep) {
    for (int i = 0; i < sweep->num_contenders; i++) {
        struct contender *who = &sweep->contenders[i];
        if (i == 0 || who[-1].state != who->state)
            who->peer->close(who->state);
        free(who->name);
    }
    sweep->num_contenders = 0;
}

bool is_ours(const struct contender *who) {
    return who->peer == &ours_plain || who->peer == &ours_early;
}

/* ---- weights ---- */

struct bench_peer_source source_for_peer(const struct source *source) {
    const fmk_part *part = &source->part;
    uint64_t n = (uint64_t)part->n, k = (uint64_t)part->k;
    uint64_t group = part->group_size < 0 ? k : (uint64_t)part->group_size, groups = (k + group - 1) / group;
    return (struct bench_peer_source){.format = source->qzeros  ? "int4_asym"
                                                : source->g_idx ? "int4_act_order"
                                                                : "int4",
                                      .n = part->n,
                                      .k = part->k,
                                      .group_size = (int32_t)group,
                                      .qweight = source->qweight,
                                      .scales = source->scales,
                                      .qzeros = source->qzeros,
                                      .qweight_bytes = n * k / 2,
                                      .scales_bytes = 2 * groups * n,
                                      .qzeros_bytes = source->qzeros ? groups * n / 2 : 0,
                                      .g_idx = source->g_idx};
}

static void drop(struct contender *who) {
    while (who->num_weights)
        who->peer->destroy(who->weights[--who->num_weights]);
    free(who->weights);
    who->weights = NULL;
    who->foreseen = 0;
}

static void take(struct contender *who, const struct source *from) {
    struct bench_peer_source source = source_for_peer(from);
    char error[512] = "";
    int copies = 1;
    for (int i = 0; i < copies; i++) {
        void *weight = who->peer->create(who->state, &source, error, sizeof error);
        if (!weight) {
            fprintf(stderr, "%s: %s: %" PRId64 "x%" PRId64 ": %s\n", program(), who->name, source.n, source.k,
                    error);
            drop(who);
            return;
        }
        if (i == 0) {
            who->bytes = who->peer->bytes ? who->peer->bytes(weight) : from->bytes;
            copies = cold_copies(who->bytes);
            who->weights = allocate((size_t)copies, sizeof *who->weights);
        }
        who->weights[who->num_weights++] = weight;
    }
}

void contenders_take(struct sweep *sweep, const struct source *sources) {
    for (int i = 0; i < sweep->num_contenders; i++)
        take(&sweep->contenders[i], &sources[sweep->contenders[i].kind - sweep->options->kinds]);
    gpu_wait(&sweep->bench.gpu);
}

void contenders_drop(struct sweep *sweep) {
    gpu_wait(&sweep->bench.gpu);
    for (int i = 0; i < sweep->num_contenders; i++)
        drop(&sweep->contenders[i]);
}
