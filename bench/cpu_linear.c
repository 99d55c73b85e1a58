/* Tables of projections over cold weights, all contenders in turns, and their errors. */
#include "cpu_inputs.h"
#include "tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- a line ---- */

enum { MOST_SAMPLES = 20000 };

struct line {
    struct bench *bench;
    struct inputs *inputs;
    const struct bench_peer_source *source;
    int64_t m;
    bool here[MAX_CONTENDERS];
    double error[MAX_CONTENDERS], outlier_error[MAX_CONTENDERS];
    double *samples[MAX_CONTENDERS];
    int count[MAX_CONTENDERS];
    const struct result *result[MAX_CONTENDERS]; /* NULL: it sat the line out */
};

/* Seconds, on the clock that was asked for. */
static double clock_now(const struct bench *bench) {
    struct timespec time;
    if (!bench->options->cpu_time || clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time))
        return seconds();
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* A call that wakes its threads, then timed ones for about a scheduler's slice. */
static void turn(struct line *line, int c) {
    const double slice = 10e-3, long_call = 20e-3; /* which does not feel the waking */
    struct contender *who = &line->bench->contenders[c];
    const struct bench_peer_call call = inputs_call(line->inputs, line->m);
    const double begun = seconds();
    if (who->foreseen < long_call)
        contender_call(who, &call);
    do {
        double before = clock_now(line->bench);
        contender_call(who, &call);
        line->samples[c][line->count[c]++] = clock_now(line->bench) - before;
    } while (line->count[c] < MOST_SAMPLES && seconds() - begun < slice);
    contender_rest(who);
}

/* The first call of a contender also gives its error, and foresees how long others take. */
static void begin(struct line *line, int c) {
    struct contender *who = &line->bench->contenders[c];
    const struct inputs *inputs = line->inputs;
    const struct bench_peer_call call = inputs_call(inputs, line->m);
    line->here[c] = who->foreseen <= line->bench->options->patience && contender_prepare(who, &call);
    if (!line->here[c])
        return;
    line->samples[c] = allocate(MOST_SAMPLES, sizeof(double));
    double before = seconds();
    line->error[c] = error_of(who, inputs, line->m, inputs->normal, inputs->want_normal);
    who->foreseen = (seconds() - before) / error_calls(line->m);
    line->outlier_error[c] = error_of(who, inputs, line->m, inputs->outliers, inputs->want_outliers);
    contender_rest(who);
}

/* One turn at least, and three even if they take somewhat longer than was asked for. */
static bool more_turns(int done, double spent, double enough) {
    enum { TURNS = 3, TIMES = 4 };
    return done == 0 || spent < (done < TURNS ? TIMES * enough : enough);
}

static void measure_line(struct line *line) {
    struct bench *bench = line->bench;
    int contenders = bench->num_contenders, present = 0;
    for (int c = 0; c < contenders; c++) {
        begin(line, c);
        present += line->here[c];
    }
    double enough = bench->options->seconds * present, begun = seconds();
    for (int t = 0; present && more_turns(t, seconds() - begun, enough); t++)
        for (int i = 0; i < contenders; i++) {
            int c = (i + t) % contenders; /* nobody is always first, or always behind the same one */
            if (line->here[c] && line->count[c] < MOST_SAMPLES)
                turn(line, c);
        }
}

static void keep_line(struct line *line) {
    struct bench *bench = line->bench;
    const struct bench_peer_call call = inputs_call(line->inputs, line->m);
    const int first = bench->num_results;
    for (int c = 0; c < bench->num_contenders; c++) {
        struct contender *who = &bench->contenders[c];
        if (!line->here[c])
            continue;
        result_add(bench, (struct result){.record = "linear",
                                          .format = line->source->format,
                                          .name = who->peer->name,
                                          .kernel = contender_kernel(who, &call),
                                          .threads = bench->threads,
                                          .n = line->source->n,
                                          .k = line->source->k,
                                          .m = line->m,
                                          .time = timed_of(line->samples[c], line->count[c]),
                                          .bytes = who->bytes,
                                          .file_bytes = source_bytes(line->source),
                                          .error = line->error[c],
                                          .outlier_error = line->outlier_error[c]});
        free(line->samples[c]);
    }
    int at = first; /* adding may have moved them */
    for (int c = 0; c < bench->num_contenders; c++)
        line->result[c] = line->here[c] ? &bench->results[at++] : NULL;
}

static void print_ours(const struct bench *bench, const struct result *r) {
    double took = result_seconds(bench, r), weights = (double)r->n * (double)r->k;
    printf(" %s | %.1f (%.1f to %.1f) | %.2f | %.1f |", r->kernel, 1e6 * r->time.median, 1e6 * r->time.low,
           1e6 * r->time.high, 1e-9 * (double)r->file_bytes / took, 2e-9 * weights * (double)r->m / took);
}

static void print_line(const struct line *line) {
    const struct bench *bench = line->bench;
    const struct result *ours = line->result[0];
    double best = INFINITY;
    printf("| %" PRId64 " |", line->m);
    if (ours)
        print_ours(bench, ours);
    else
        printf(" | | | |");
    for (int c = 1; c < bench->num_contenders; c++) {
        const struct result *r = line->result[c];
        if (r)
            printf(" %.1f", 1e6 * result_seconds(bench, r));
        printf(" |");
        if (r && !peer_is_ferrumk(bench->contenders[c].peer))
            best = fmin(best, result_seconds(bench, r));
    }
    if (ours && isfinite(best))
        printf(" %.2f x", best / result_seconds(bench, ours));
    printf(" |");
    for (int c = 0; c < bench->num_contenders; c++)
        if (line->result[c])
            printf(" %.1e / %.1e;", line->result[c]->error, line->result[c]->outlier_error);
    printf(" |\n");
    fflush(stdout);
}

/* ---- a table ---- */

static void print_head(const struct bench *bench, const struct bench_peer_source *source) {
    const struct contender *who = bench->contenders;
    printf("### %s, %" PRId64 " x %" PRId64 ", %" PRId32 " thread%s\n\n", source->format, source->n,
           source->k, bench->threads, bench->threads > 1 ? "s" : "");
    if (contender_present(who))
        printf("%s reads %.3f x the file's %.1f MB; copies in turn: %d.\n\n", who->peer->name,
               (double)who->bytes / (double)source_bytes(source), 1e-6 * (double)source_bytes(source),
               who->num_weights);
    printf("| M | kernel | %s, us (p10 to p90) | GB/s | GFLOP/s |", who->peer->name);
    for (int c = 1; c < bench->num_contenders; c++)
        printf(" %s |", bench->contenders[c].peer->name);
    printf(" faster | errors: N(0, 1) / outliers, in the order of columns |\n|---|---|---|---|---|");
    for (int c = 1; c < bench->num_contenders; c++)
        printf("---|");
    printf("---|---|\n");
}

/* What a call would take if it took as long per token; from the line before. */
static void foresee(struct bench *bench, double more) {
    for (int c = 0; c < bench->num_contenders; c++)
        bench->contenders[c].foreseen *= more;
}

/* Each number of threads may use an equal part of the budget, and what those before it left. */
static bool spent(const struct bench *bench) {
    const struct options *o = bench->options;
    return seconds() - bench->begun > o->budget * (bench->stage + 1) / o->num_threads;
}

static void table(struct bench *bench, const struct bench_peer_source *source) {
    struct inputs inputs;
    const struct options *o = bench->options;
    contenders_take(bench, source, false);
    inputs_make(&inputs, bench, source);
    print_head(bench, source);
    for (int i = 0; i < o->num_m && !spent(bench); i++) {
        struct line line = {.bench = bench, .inputs = &inputs, .source = source, .m = o->m[i]};
        foresee(bench, i && o->m[i] > o->m[i - 1] ? (double)o->m[i] / (double)o->m[i - 1] : 1);
        measure_line(&line);
        keep_line(&line);
        print_line(&line);
    }
    printf("\n");
    inputs_free(&inputs);
    contenders_drop(bench);
}

void bench_linear(struct bench *bench) {
    const struct options *o = bench->options;
    for (int f = 0; f < o->num_formats; f++)
        for (int s = 0; s < o->num_shapes && !spent(bench); s++) {
            struct bench_peer_source source;
            source_make(&source, bench, o->formats[f], o->shapes[s]);
            table(bench, &source);
            source_free(&source);
        }
}
