/* Points: one shape, one m, all contenders in turns. */
#include "sweep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 64 };

/* A shape in memory. */
struct place {
    struct sweep *sweep;
    struct shape shape;
    uint64_t in[MAX_KINDS], out; /* kinds of one type share their activations */
    double read[MAX_KINDS][2];
    struct check *check;
};

/* ---- how fast the bytes can be read ---- */

struct reading {
    const struct bench *bench;
    struct reader reader;
    uint64_t data, bytes;
    int copies;
    bool early;
};

static void reading_call(void *user, int i) {
    const struct reading *r = user;
    reader_run(&r->reader, &r->bench->gpu, r->data + r->bytes * (uint64_t)(i % r->copies), r->bytes,
               r->early);
}

/* The best of several ways to cut the work into blocks. */
static void time_reading(const struct bench *bench, uint64_t bytes, double read[2]) {
    static const struct {
        int blocks, threads;
    } ways[] = {{1, 1024}, {2, 512}, {2, 1024}, {4, 256}, {4, 512}, {8, 256}};
    struct reading r = {
        .bench = bench, .reader = bench->reader, .bytes = bytes / 16 * 16, .copies = cold_copies(bytes)};
    r.data = gpu_random_halves(&bench->gpu, (uint64_t)r.copies * bytes / 2 + 8);
    int calls = calls_of(r.copies, 2e-6 + (double)bytes / bench->floors.read);
    for (int early = 0; early < 2; early++)
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            struct gpu_graph graph;
            double samples[5];
            r.early = early;
            r.reader.blocks = ways[i].blocks;
            r.reader.threads = ways[i].threads;
            gpu_graph_make(&graph, &bench->gpu, reading_call, &r, calls);
            gpu_graphs_time(&bench->gpu, &graph, 1, 5, samples);
            gpu_graph_free(&graph, &bench->gpu);
            double median = timing_of(samples, 5).median;
            if (!read[early] || median < read[early])
                read[early] = median;
        }
    gpu_free(&bench->gpu, r.data);
}

/* As many bytes as the first implementation reads of each kind. */
static void time_readings(struct place *place) {
    struct sweep *sweep = place->sweep;
    for (int i = 0; i < sweep->options->num_kinds; i++) {
        uint64_t bytes = sweep->contenders[i].bytes;
        for (int j = 0; j < i && !place->read[i][0]; j++)
            if (sweep->contenders[j].bytes == bytes)
                memcpy(place->read[i], place->read[j], sizeof place->read[i]);
        if (!place->read[i][0] && bytes)
            time_reading(&sweep->bench, bytes, place->read[i]);
    }
}

/* ---- a point ---- */

struct turn {
    struct contender *who;
    struct bench_peer_call call;
};

static void turn_call(void *user, int i) {
    const struct turn *turn = user;
    if (turn->who->peer->run(turn->who->weights[i % turn->who->num_weights], &turn->call))
        quit(EXIT_REFUSED, "%s refused a call that it was prepared for", turn->who->name);
}

static bool prepare(const struct turn *turn) {
    const struct contender *who = turn->who;
    for (int i = 0; i < who->num_weights; i++) {
        char error[512] = "";
        if (who->peer->prepare && who->peer->prepare(who->weights[i], &turn->call, error, sizeof error)) {
            fprintf(stderr, "%s: %s: m %" PRId64 ": %s\n", program(), who->name, turn->call.m, error);
            return false;
        }
    }
    return who->num_weights > 0;
}

/* Calls of a graph: all copies in turn, and again until its own launch does not disturb it. */
static int calls_foreseen(const struct contender *who) {
    const double enough = 1.5e-3;
    const int most = 768;
    int calls = who->num_weights;
    while (calls * who->foreseen < enough && calls + who->num_weights <= most)
        calls += who->num_weights;
    return calls;
}

/* Whether the time that was given is over. */
static bool too_late(struct sweep *sweep) {
    double limit = sweep->options->seconds;
    sweep->late |= limit > 0 && seconds() - sweep->begun > limit;
    return sweep->late;
}

/* Seconds of the first contender; 0 = none could, or there is no time left. */
static double measure_point(struct place *place, int64_t m) {
    struct sweep *sweep = place->sweep;
    if (too_late(sweep))
        return 0;
    const struct gpu *gpu = &sweep->bench.gpu;
    struct turn turns[MAX_CONTENDERS];
    struct gpu_graph graphs[MAX_CONTENDERS];
    struct result results[MAX_CONTENDERS];
    int count = 0, rounds = sweep->options->rounds;
    double least = 2.0 * (double)(m * place->shape.n * place->shape.k) / 7e14;
    for (int i = 0; i < sweep->num_contenders; i++) {
        struct contender *who = &sweep->contenders[i];
        struct turn *turn = &turns[count];
        uint64_t in = place->in[who->kind - sweep->options->kinds];
        *turn = (struct turn){.who = who,
                              .call = {.m = m,
                                       .type = who->kind->type,
                                       .in = (void *)(uintptr_t)in,
                                       .out = (void *)(uintptr_t)place->out,
                                       .stream = gpu->stream}};
        if (!prepare(turn))
            continue;
        struct result *result = &results[count++];
        *result = (struct result){.shape = place->shape, .m = m, .who = who, .bytes = who->bytes};
        result->error = check_call(place->check, who, &turn->call, &result->repeats);
        if (!(result->error < WRONG))
            fprintf(stderr, "%s: %s: %" PRId64 "x%" PRId64 ", m %" PRId64 ": the relative error is %.1e\n",
                    program(), who->name, place->shape.n, place->shape.k, m, result->error);
        const char *kernel = who->peer->kernel ? who->peer->kernel(who->weights[0], &turn->call) : "";
        result->kernel = text_of("%s", kernel);
        memcpy(result->read, place->read[who->kind - sweep->options->kinds], sizeof result->read);
        double reading = (double)who->bytes / sweep->bench.floors.read;
        if (who->foreseen < reading || who->foreseen < least)
            who->foreseen = reading > least ? reading : least;
    }
    for (int i = 0; i < count; i++) /* after all preparations, which may move a workspace */
        gpu_graph_make(&graphs[i], gpu, turn_call, &turns[i], calls_foreseen(turns[i].who));
    double *samples = allocate((size_t)(count * rounds), sizeof *samples);
    gpu_graphs_time(gpu, graphs, count, rounds, samples);
    double first = 0;
    for (int i = 0; i < count; i++) {
        gpu_graph_free(&graphs[i], gpu);
        results[i].time = timing_of(samples + i * rounds, rounds);
        turns[i].who->foreseen = results[i].time.median;
        first = i ? first : results[i].time.median;
        result_add(sweep, &results[i]);
    }
    free(samples);
    return first;
}

/* ---- all m of a shape ---- */

struct seen {
    int64_t m;
    double seconds;
};

/* Between two m whose times are far apart, down to neighbours. */
static void refine(struct place *place, struct seen below, struct seen above) {
    double factor = place->sweep->options->refine;
    if (above.m - below.m < 2 || above.seconds <= factor * below.seconds)
        return;
    int64_t m = (below.m + above.m) / 2;
    struct seen middle = {m, measure_point(place, m)};
    if (!middle.seconds)
        return;
    refine(place, below, middle);
    refine(place, middle, above);
}

static void measure_shape(struct place *place) {
    const struct sweep_options *o = place->sweep->options;
    struct seen before = {0};
    for (int64_t m = 1; m <= MAX_M; m++) {
        if (!o->m[m])
            continue;
        struct seen now = {m, measure_point(place, m)};
        if (!now.seconds)
            continue;
        if (o->refine > 0 && before.m)
            refine(place, before, now);
        before = now;
    }
}

/* ---- all shapes ---- */

/* A bf16 weight's scales are numbers that bf16 holds, too. */
static void make_sources(struct sweep *sweep, struct shape shape, struct source *sources) {
    for (int i = 0; i < sweep->options->num_kinds; i++) {
        const struct kind *kind = &sweep->options->kinds[i];
        source_make(&sources[i], kind->format, shape.n, shape.k);
        if (kind->dtype == FMK_F16)
            continue;
        struct bench_peer_source peer = source_for_peer(&sources[i]);
        uint16_t *scales = sources[i].scales;
        for (uint64_t s = 0; s < peer.scales_bytes / 2; s++)
            scales[s] &= 0xfff8; /* of ten bits of the mantissa, seven */
    }
}

static void place_open(struct place *place, struct sweep *sweep, struct shape shape) {
    const struct sweep_options *o = sweep->options;
    const struct gpu *gpu = &sweep->bench.gpu;
    struct source sources[MAX_KINDS];
    uint64_t most = 0;
    for (int64_t m = 1; m <= MAX_M; m++)
        most = o->m[m] ? (uint64_t)m : most;
    *place = (struct place){.sweep = sweep, .shape = shape};
    make_sources(sweep, shape, sources);
    contenders_take(sweep, sources);
    place->check = check_open(sweep, sources);
    for (int i = 0; i < o->num_kinds; i++) {
        source_free(&sources[i]);
        for (int j = 0; j < i && !place->in[i]; j++)
            if (o->kinds[j].dtype == o->kinds[i].dtype)
                place->in[i] = place->in[j];
        if (!place->in[i])
            place->in[i] = gpu_random_normal(gpu, o->kinds[i].dtype, most * (uint64_t)shape.k);
    }
    place->out = gpu_allocate(gpu, 2 * most * (uint64_t)shape.n);
    time_readings(place);
}

static void place_close(struct place *place) {
    const struct gpu *gpu = &place->sweep->bench.gpu;
    contenders_drop(place->sweep);
    check_close(place->check);
    for (int i = 0; i < place->sweep->options->num_kinds; i++) {
        bool again = false;
        for (int j = 0; j < i; j++)
            again |= place->in[j] == place->in[i];
        if (!again)
            gpu_free(gpu, place->in[i]);
    }
    gpu_free(gpu, place->out);
}

void sweep_run(struct sweep *sweep) {
    for (int i = 0; i < sweep->options->num_shapes && !too_late(sweep); i++) {
        struct place place;
        place_open(&place, sweep, sweep->options->shapes[i]);
        measure_shape(&place);
        place_close(&place);
    }
}
