/* A table over all shapes: geometric means, and what they are held against. */
#include "cpu_bench.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Of one format, number of threads and M, over the shapes: sums of logarithms and largest errors. */
struct means {
    int shapes, with_peer, with_one;
    int count[MAX_CONTENDERS];
    double seconds[MAX_CONTENDERS], operations[MAX_CONTENDERS], bytes[MAX_CONTENDERS];
    double faster, of_read_rate, of_one; /* ours: than the best peer; of the time at the least M */
    double error, outlier_error;         /* ours */
};

/* Whether `r` is a line of the first contender, as all sums go by its lines. */
static bool is_ours(const struct bench *bench, const struct result *r) {
    return !strcmp(r->record, "linear") && !strcmp(r->name, bench->contenders[0].peer->name);
}

static bool same_row(const struct result *a, const struct result *b) {
    return a->threads == b->threads && a->m == b->m && !strcmp(a->format, b->format);
}

/* The line of `name`, with that M and otherwise like `r`. */
static const struct result *beside(const struct bench *bench, const struct result *r, const char *name,
                                   int64_t m) {
    for (int i = 0; i < bench->num_results; i++) {
        const struct result *other = &bench->results[i];
        if (!strcmp(other->record, r->record) && !strcmp(other->name, name) && other->m == m &&
            other->threads == r->threads && other->n == r->n && other->k == r->k &&
            !strcmp(other->format, r->format))
            return other;
    }
    return NULL;
}

static double read_rate(const struct bench *bench, int32_t threads) {
    for (int i = 0; i < bench->options->num_threads; i++)
        if (bench->options->threads[i] == threads)
            return bench->ceilings[i].read;
    return 0;
}

static void add_shape(struct means *means, const struct bench *bench, const struct result *ours) {
    const double mine = result_seconds(bench, ours), rate = read_rate(bench, ours->threads);
    double best = INFINITY;
    means->shapes++;
    for (int c = 0; c < bench->num_contenders; c++) {
        const char *name = bench->contenders[c].peer->name;
        const struct result *r = beside(bench, ours, name, ours->m);
        if (!r)
            continue;
        double took = result_seconds(bench, r);
        means->count[c]++;
        means->seconds[c] += log(took);
        means->operations[c] += log(2.0 * (double)r->n * (double)r->k * (double)r->m);
        means->bytes[c] += log((double)r->file_bytes);
        if (!peer_is_ferrumk(bench->contenders[c].peer))
            best = fmin(best, took);
    }
    if (isfinite(best)) {
        means->with_peer++;
        means->faster += log(best / mine);
    }
    const struct result *one = beside(bench, ours, ours->name, bench->options->m[0]);
    if (one) {
        means->with_one++;
        means->of_one += log(mine / result_seconds(bench, one));
    }
    if (rate > 0)
        means->of_read_rate += log((double)ours->bytes / mine / rate);
    means->error = fmax(means->error, ours->error);
    means->outlier_error = fmax(means->outlier_error, ours->outlier_error);
}

static void print_row(const struct bench *bench, const struct result *like) {
    struct means means = {0};
    for (int i = 0; i < bench->num_results; i++)
        if (is_ours(bench, &bench->results[i]) && same_row(&bench->results[i], like))
            add_shape(&means, bench, &bench->results[i]);
    printf("| %s | %" PRId32 " | %" PRId64 " | %d |", like->format, like->threads, like->m, means.shapes);
    for (int c = 0; c < bench->num_contenders; c++) {
        const int count = means.count[c];
        if (count)
            printf(" %.2f / %.1f%s |", 1e-9 * exp((means.bytes[c] - means.seconds[c]) / count),
                   1e-9 * exp((means.operations[c] - means.seconds[c]) / count),
                   count < means.shapes ? " *" : "");
        else
            printf(" |");
    }
    if (means.with_peer)
        printf(" **%.2f x** |", exp(means.faster / means.with_peer));
    else
        printf(" |");
    if (read_rate(bench, like->threads) > 0)
        printf(" %.0f %% |", 100 * exp(means.of_read_rate / means.shapes));
    else
        printf(" |");
    if (means.with_one)
        printf(" %.2f |", exp(means.of_one / means.with_one));
    else
        printf(" |");
    printf(" %.1e / %.1e |\n", means.error, means.outlier_error);
}

static void print_head(const struct bench *bench) {
    const char *ours = bench->contenders[0].peer->name;
    printf("### Geometric means over the shapes\n\nGB/s of the file's bytes / GFLOP/s (*: of some of the "
           "shapes). "
           "Then, of %s: how many times faster it is than the best peer of each shape; the bytes that it "
           "reads of "
           "its weights, as a share of the read rate; its time over that at M = %" PRId64
           "; its largest errors, "
           "N(0, 1) / outliers.\n\n| format | threads | M | shapes |",
           ours, bench->options->m[0]);
    for (int c = 0; c < bench->num_contenders; c++)
        printf(" %s |", bench->contenders[c].peer->name);
    printf(" faster | of read rate | of M = %" PRId64 " | errors |\n|---|---|---|---|", bench->options->m[0]);
    for (int c = 0; c < bench->num_contenders; c++)
        printf("---|");
    printf("---|---|---|---|\n");
}

void summary_print(const struct bench *bench) {
    bool any = false;
    for (int i = 0; i < bench->num_results; i++) {
        const struct result *r = &bench->results[i];
        bool first = is_ours(bench, r);
        for (int j = 0; j < i && first; j++)
            first = !is_ours(bench, &bench->results[j]) || !same_row(&bench->results[j], r);
        if (!first)
            continue;
        if (!any)
            print_head(bench);
        any = true;
        print_row(bench, r);
    }
    if (any)
        printf("\n");
}
