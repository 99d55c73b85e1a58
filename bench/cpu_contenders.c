/* The contenders: ours, and those of the shared objects that were named. */
#include "cpu_bench.h"
#include "peers.h"
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the list ---- */

static bool left_out(const struct options *o, const char *name) {
    for (int i = 0; i < o->num_without; i++)
        if (!strcmp(o->without[i], name))
            return true;
    return false;
}

static void add(struct bench *bench, const struct bench_peer *peer) {
    if (left_out(bench->options, peer->name))
        return;
    if (bench->num_contenders == MAX_CONTENDERS)
        quit(EXIT_USAGE, "more than %d contenders", MAX_CONTENDERS);
    for (int i = 0; i < bench->num_contenders; i++)
        if (!strcmp(bench->contenders[i].peer->name, peer->name))
            quit(EXIT_USAGE, "two contenders have the name %s", peer->name);
    bench->contenders[bench->num_contenders++].peer = peer;
}

static void add_peers(struct bench *bench, const char *path) {
    for (const struct bench_peer *const *peers = peers_of_file(path); *peers; peers++)
        if ((*peers)->kind == BENCH_PEER_HOST)
            add(bench, *peers);
}

void contenders_list(struct bench *bench) {
    const struct options *o = bench->options;
    for (int i = 0; i < o->num_ours; i++) {
        const struct bench_peer *ours = ferrumk_as_peer(o->ours[i], o->disable);
        if (!ours)
            quit(EXIT_USAGE, "--ours \"%s\" is none of default, exact, fast, borrowed", o->ours[i]);
        add(bench, ours);
    }
    for (int i = 0; i < o->num_peers; i++)
        add_peers(bench, o->peers[i]);
}

/* ---- threads ---- */

void contenders_open(struct bench *bench) {
    struct bench_peer_device device = {.threads = bench->threads};
    for (int i = 0; i < bench->num_contenders; i++) {
        struct contender *who = &bench->contenders[i];
        char error[512] = "";
        who->state = who->peer->open(&device, error, sizeof error);
        if (!who->state)
            fprintf(stderr, "%s: %s with %" PRId32 " threads: %s\n", program(), who->peer->name,
                    bench->threads, error);
    }
}

void contenders_close(struct bench *bench) {
    for (int i = 0; i < bench->num_contenders; i++) {
        struct contender *who = &bench->contenders[i];
        if (who->state)
            who->peer->close(who->state);
        who->state = NULL;
    }
}

/* ---- weights ---- */

/* Three times the last cache, and not less than a quarter of a gigabyte. */
static int copies_for(const struct bench *bench, uint64_t weight) {
    enum { TIMES_CACHE = 3, LEAST = 256 << 20 };
    uint64_t bytes = TIMES_CACHE * bench->cpu.info.last_level_cache;
    bytes = bytes < LEAST ? LEAST : bytes;
    return (int)((bytes + weight - 1) / weight);
}

static void take(struct contender *who, const struct bench_peer_source *source, int copies) {
    char error[512] = "";
    who->weights = allocate((size_t)copies, sizeof *who->weights);
    while (who->num_weights < copies) {
        void *weight = who->peer->create(who->state, source, error, sizeof error);
        if (!weight) {
            fprintf(stderr, "%s: %s: %s %" PRId64 "x%" PRId64 ": %s\n", program(), who->peer->name,
                    source->format, source->n, source->k, error);
            return;
        }
        who->weights[who->num_weights++] = weight;
    }
    who->bytes = who->peer->bytes ? who->peer->bytes(who->weights[0]) : source_bytes(source);
}

void contenders_take(struct bench *bench, const struct bench_peer_source *source, bool warm) {
    int copies = warm ? 1 : copies_for(bench, source_bytes(source));
    for (int i = 0; i < bench->num_contenders; i++)
        if (bench->contenders[i].state)
            take(&bench->contenders[i], source, copies);
}

void contenders_drop(struct bench *bench) {
    for (int i = 0; i < bench->num_contenders; i++) {
        struct contender *who = &bench->contenders[i];
        while (who->num_weights)
            who->peer->destroy(who->weights[--who->num_weights]);
        free(who->weights);
        who->weights = NULL;
        who->next = 0;
        who->foreseen = 0;
    }
}

bool contender_present(const struct contender *who) {
    return who->num_weights > 0;
}

bool contender_prepare(struct contender *who, const struct bench_peer_call *call) {
    char error[512] = "";
    for (int i = 0; who->peer->prepare && i < who->num_weights; i++)
        if (who->peer->prepare(who->weights[i], call, error, sizeof error)) {
            fprintf(stderr, "%s: %s: m %" PRId64 ": %s\n", program(), who->peer->name, call->m, error);
            return false;
        }
    return contender_present(who);
}

void contender_call(struct contender *who, const struct bench_peer_call *call) {
    if (who->peer->run(who->weights[who->next], call))
        quit(EXIT_REFUSED, "%s refused a call that it was prepared for", who->peer->name);
    who->next = (who->next + 1) % who->num_weights;
}

void contender_rest(struct contender *who) {
    if (who->peer->rest)
        who->peer->rest(who->state);
}

char *contender_kernel(struct contender *who, const struct bench_peer_call *call) {
    return text_of("%s", who->peer->kernel ? who->peer->kernel(who->weights[0], call) : "");
}
