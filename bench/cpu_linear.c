/* Tables of projections over cold weights, all contenders in turns, and their errors; and of one small
 * projection whose weight is in the cache. */
#include "cpu_bench.h"
#include "random.h"
#include "tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- activations, and what they should give ---- */

/* For errors: some rows of the weight and some tokens stand for all. Synthetic weights repeat after so many
 * rows. */
enum { TOKENS = 32, ROWS = 256 };

struct inputs {
    int64_t n, k, m; /* the largest m */
    float *normal;   /* [m][k] of N(0, 1) */
    float *outliers; /* [TOKENS or m][k]: in one channel of a hundred 50 times as large */
    float *out;      /* [m][n] */
    int rows;
    int64_t row[ROWS];
    double *want_normal, *want_outliers; /* [TOKENS][rows], from the dequantized weight in double */
};

static void multiply(double *want, const float *in, const float *weight, int tokens, int rows, int64_t k) {
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += (double)in[t * k + i] * (double)weight[r * k + i];
            want[t * ROWS + r] = sum;
        }
}

/* The rows by the library's decoder, which its tests hold to the formats' formulas bit for bit. */
static float *decode_rows(struct bench *bench, const struct bench_peer_source *source,
                          const struct inputs *inputs) {
    fmk_part part = source_part(source);
    fmk_weight_desc desc = {
        .struct_size = sizeof desc, .flags = FMK_WEIGHT_BORROW, .parts = &part, .num_parts = 1};
    fmk_weight *weight;
    int32_t ids[ROWS];
    float *rows = allocate_aligned((uint64_t)(inputs->rows * source->k) * sizeof *rows);
    for (int r = 0; r < inputs->rows; r++)
        ids[r] = (int32_t)inputs->row[r];
    fmk_rows_args args = {.struct_size = sizeof args,
                          .out_type = FMK_F32,
                          .m = inputs->rows,
                          .ids = {.handle = (uintptr_t)ids, .size = sizeof ids},
                          .out = {.handle = (uintptr_t)rows}};
    check(fmk_weight_create(&weight, bench->cpu.queue, &desc), "fmk_weight_create");
    check(fmk_rows(bench->cpu.queue, weight, &args), "fmk_rows");
    fmk_weight_destroy(weight, bench->cpu.queue);
    return rows;
}

static void inputs_make(struct inputs *inputs, struct bench *bench, const struct bench_peer_source *source) {
    enum { SEED = 7, ONE_OF = 100, TIMES = 50 };
    const struct options *o = bench->options;
    *inputs = (struct inputs){.n = source->n, .k = source->k};
    for (int i = 0; i < o->num_m; i++)
        inputs->m = o->m[i] > inputs->m ? o->m[i] : inputs->m;
    int64_t k = inputs->k, elements = inputs->m * k;
    inputs->normal = allocate_aligned((uint64_t)elements * sizeof(float));
    inputs->outliers = allocate_aligned((uint64_t)elements * sizeof(float));
    inputs->out = allocate_aligned((uint64_t)(inputs->m * inputs->n) * sizeof(float));
    random_normal(inputs->normal, elements, SEED);
    for (int64_t i = 0; i < elements; i++)
        inputs->outliers[i] = inputs->normal[i] * (i % k % ONE_OF == ONE_OF / 2 ? TIMES : 1);

    inputs->rows = inputs->n < ROWS ? (int)inputs->n : ROWS;
    for (int r = 0; r < inputs->rows;
         r++) /* spread over all of them, each another row of the ROWS that differ */
        inputs->row[r] = inputs->n / ROWS * r / ROWS * ROWS + r;
    int tokens = inputs->m < TOKENS ? (int)inputs->m : TOKENS;
    inputs->want_normal = allocate(TOKENS * ROWS, sizeof(double));
    inputs->want_outliers = allocate(TOKENS * ROWS, sizeof(double));
    float *rows = decode_rows(bench, source, inputs);
    multiply(inputs->want_normal, inputs->normal, rows, tokens, inputs->rows, k);
    multiply(inputs->want_outliers, inputs->outliers, rows, tokens, inputs->rows, k);
    free(rows);
}

static void inputs_free(struct inputs *inputs) {
    free(inputs->normal);
    free(inputs->outliers);
    free(inputs->out);
    free(inputs->want_normal);
    free(inputs->want_outliers);
}

/* Relative L2 of what `who` makes of `in`. */
static double error_of(struct contender *who, const struct inputs *inputs, int64_t m, const float *in,
                       const double *want) {
    struct bench_peer_call call = {.m = m, .type = "f32", .in = in, .out = inputs->out};
    int tokens = m < TOKENS ? (int)m : TOKENS;
    double difference = 0, whole = 0;
    memset(inputs->out, 0xff, (size_t)(m * inputs->n) * sizeof(float)); /* NaN, if it stays */
    contender_call(who, &call);
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < inputs->rows; r++) {
            double got = inputs->out[t * inputs->n + inputs->row[r]], is = want[t * ROWS + r];
            difference += (got - is) * (got - is);
            whole += is * is;
        }
    return sqrt(difference / whole);
}

/* ---- a line ---- */

struct line {
    struct bench *bench;
    struct inputs *inputs;
    const struct bench_peer_source *source;
    int64_t m;
    bool here[MAX_CONTENDERS];
    double error[MAX_CONTENDERS], outlier_error[MAX_CONTENDERS];
    double *samples[MAX_CONTENDERS];
    int count[MAX_CONTENDERS];
};

enum { MOST_SAMPLES = 20000 };

static bool prepare(struct line *line, struct contender *who) {
    struct bench_peer_call call = {
        .m = line->m, .type = "f32", .in = line->inputs->normal, .out = line->inputs->out};
    for (int i = 0; i < who->num_weights; i++) {
        char error[512] = "";
        if (who->peer->prepare && who->peer->prepare(who->weights[i], &call, error, sizeof error)) {
            fprintf(stderr, "%s: %s: m %" PRId64 ": %s\n", program(), who->peer->name, line->m, error);
            return false;
        }
    }
    return true;
}

/* A call that wakes its threads, then timed ones for about a scheduler's slice. */
static void turn(struct line *line, int c) {
    const double slice = 10e-3,
                 asleep = 20e-3; /* who takes longer than the latter does not feel the waking */
    struct contender *who = &line->bench->contenders[c];
    struct bench_peer_call call = {
        .m = line->m, .type = "f32", .in = line->inputs->normal, .out = line->inputs->out};
    double begun = seconds(), before = begun;
    if (who->foreseen < asleep)
        contender_call(who, &call);
    do {
        before = seconds();
        contender_call(who, &call);
        line->samples[c][line->count[c]++] = seconds() - before;
    } while (line->count[c] < MOST_SAMPLES && seconds() - begun < slice);
    if (who->peer->rest)
        who->peer->rest(who->state);
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
        struct contender *who = &bench->contenders[c];
        line->here[c] =
            contender_present(who) && who->foreseen <= bench->options->patience && prepare(line, who);
        if (!line->here[c])
            continue;
        present++;
        line->samples[c] = allocate(MOST_SAMPLES, sizeof(double));
        double before = seconds();
        line->error[c] =
            error_of(who, line->inputs, line->m, line->inputs->normal, line->inputs->want_normal);
        who->foreseen = seconds() - before;
        line->outlier_error[c] =
            error_of(who, line->inputs, line->m, line->inputs->outliers, line->inputs->want_outliers);
        if (who->peer->rest)
            who->peer->rest(who->state);
    }
    double enough = bench->options->seconds * present, begun = seconds();
    for (int t = 0; present && more_turns(t, seconds() - begun, enough); t++)
        for (int i = 0; i < contenders; i++) {
            int c = (i + t) % contenders; /* nobody is always first, or always behind the same one */
            if (line->here[c] && line->count[c] < MOST_SAMPLES)
                turn(line, c);
        }
}

static const char *kernel_of(struct line *line, struct contender *who) {
    struct bench_peer_call call = {
        .m = line->m, .type = "f32", .in = line->inputs->normal, .out = line->inputs->out};
    return who->peer->kernel ? who->peer->kernel(who->weights[0], &call) : "";
}

/* The results of the line, of which the first `ours` belong to the first contender. */
static void keep_line(struct line *line, const char *record) {
    struct bench *bench = line->bench;
    for (int c = 0; c < bench->num_contenders; c++) {
        struct contender *who = &bench->contenders[c];
        if (!line->here[c] || !line->count[c])
            continue;
        struct result result = {.record = record,
                                .format = line->source->format,
                                .name = who->peer->name,
                                .kernel = text_of("%s", kernel_of(line, who)),
                                .threads = bench->threads,
                                .n = line->source->n,
                                .k = line->source->k,
                                .m = line->m,
                                .time = timed_of(line->samples[c], line->count[c]),
                                .bytes = who->bytes,
                                .file_bytes = source_bytes(line->source),
                                .error = line->error[c],
                                .outlier_error = line->outlier_error[c]};
        result_add(bench, result);
        free(line->samples[c]);
    }
}

static void print_line(struct line *line, int first) {
    struct bench *bench = line->bench;
    const double weights = (double)line->source->n * (double)line->source->k;
    double ours = 0, best = INFINITY;
    int at = first;
    for (int c = 0; c < bench->num_contenders; c++) {
        if (!line->here[c] || !line->count[c]) {
            printf("%s |", c ? "" : "| | | | | | | |");
            continue;
        }
        const struct result *r = &bench->results[at++];
        double took = result_seconds(bench, r);
        if (!c) {
            ours = took;
            printf("| %" PRId64 " | %s | %.1f (%.1f to %.1f) | %.2f | %.1f |", line->m, r->kernel,
                   1e6 * r->time.median, 1e6 * r->time.low, 1e6 * r->time.high,
                   1e-9 * (double)r->file_bytes / took, 2e-9 * weights * (double)line->m / took);
        } else {
            printf(" %.1f |", 1e6 * took);
            if (strncmp(r->name, "ferrumk", 7))
                best = took < best ? took : best;
        }
    }
    if (isfinite(best) && ours > 0)
        printf(" %.2f x |", best / ours);
    else
        printf(" |");
    at = first;
    for (int c = 0; c < bench->num_contenders; c++)
        if (line->here[c] && line->count[c]) {
            const struct result *r = &bench->results[at++];
            printf("%s %.1e / %.1e", at == first + 1 ? "" : ",", r->error, r->outlier_error);
        }
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
        int first = bench->num_results;
        keep_line(&line, "linear");
        print_line(&line, first);
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

/* ---- one small call ---- */

void bench_latency(struct bench *bench) {
    enum { SIDE = 256, TURNS = 30, CALLS = 200 };
    const struct options *o = bench->options;
    printf(
        "### %d x %d, M = 1, weight in the cache, %" PRId32
        " thread%s\n\nus per call: the least of %d runs of "
        "%d calls, and the median of them.\n\n| format | contender | least | median |\n|---|---|---|---|\n",
        SIDE, SIDE, bench->threads, bench->threads > 1 ? "s" : "", TURNS, CALLS);
    float in[SIDE] __attribute__((aligned(256))), out[SIDE] __attribute__((aligned(256)));
    random_normal(in, SIDE, 1);
    for (int f = 0; f < o->num_formats; f++) {
        struct bench_peer_source source;
        double samples[MAX_CONTENDERS][TURNS];
        struct bench_peer_call call = {.m = 1, .type = "f32", .in = in, .out = out};
        char error[512] = "";
        source_make(&source, bench, o->formats[f], (struct shape){SIDE, SIDE});
        contenders_take(bench, &source, true);
        bool here[MAX_CONTENDERS];
        for (int c = 0; c < bench->num_contenders; c++) {
            struct contender *who = &bench->contenders[c];
            here[c] =
                contender_present(who) &&
                (!who->peer->prepare || !who->peer->prepare(who->weights[0], &call, error, sizeof error));
        }
        for (int t = 0; t < TURNS; t++)
            for (int c = 0; c < bench->num_contenders; c++) {
                struct contender *who = &bench->contenders[c];
                if (!here[c])
                    continue;
                contender_call(who, &call);
                double before = seconds();
                for (int i = 0; i < CALLS; i++)
                    contender_call(who, &call);
                samples[c][t] = (seconds() - before) / CALLS;
                if (who->peer->rest)
                    who->peer->rest(who->state);
            }
        for (int c = 0; c < bench->num_contenders; c++) {
            if (!here[c])
                continue;
            struct contender *who = &bench->contenders[c];
            const char *kernel = who->peer->kernel ? who->peer->kernel(who->weights[0], &call) : "";
            struct result result = {.record = "latency",
                                    .format = source.format,
                                    .name = who->peer->name,
                                    .kernel = text_of("%s", kernel),
                                    .threads = bench->threads,
                                    .n = SIDE,
                                    .k = SIDE,
                                    .m = 1,
                                    .time = timed_of(samples[c], TURNS),
                                    .bytes = who->bytes,
                                    .file_bytes = source_bytes(&source),
                                    .error = -1,
                                    .outlier_error = -1};
            result_add(bench, result);
            printf("| %s | %s | %.2f | %.2f |\n", source.format, result.name, 1e6 * result.time.least,
                   1e6 * result.time.median);
        }
        contenders_drop(bench);
        source_free(&source);
    }
    printf("\n");
    fflush(stdout);
}
