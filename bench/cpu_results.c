/* Results: what several timings come to, the CSV file, and geometric means. */
#include "cpu_bench.h"
#include "tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct timed timed_of(double *samples, int count) {
    qsort(samples, (size_t)count, sizeof *samples, ascending);
    return (struct timed){.median = samples[count / 2],
                          .low = samples[count / 10],
                          .high = samples[count - 1 - count / 10],
                          .least = samples[0],
                          .count = count};
}

static void write_number(FILE *csv, const char *format, double number) {
    fputc(',', csv);
    if (number >= 0)
        fprintf(csv, format, number);
}

static void write_row(FILE *csv, const struct result *r) {
    fprintf(csv, "%s,%" PRId32 ",\"%s\",%s,%" PRId64 ",%" PRId64 ",%" PRId64 ",\"%s\"", r->record, r->threads,
            r->name, r->format, r->n, r->k, r->m, r->kernel ? r->kernel : "");
    fprintf(csv, ",%.3f,%.3f,%.3f,%.3f,%d,%" PRIu64 ",%" PRIu64, 1e6 * r->time.median, 1e6 * r->time.low,
            1e6 * r->time.high, 1e6 * r->time.least, r->time.count, r->bytes, r->file_bytes);
    write_number(csv, "%.3e", r->error);
    write_number(csv, "%.3e", r->outlier_error);
    fprintf(csv, ",%.5g\n", r->rate);
    fflush(csv);
}

void result_add(struct bench *bench, struct result result) {
    if (bench->num_results == bench->room) {
        bench->room = bench->room ? 2 * bench->room : 256;
        bench->results = realloc(bench->results, (size_t)bench->room * sizeof *bench->results);
        if (!bench->results)
            quit(EXIT_REFUSED, "no memory for %d results", bench->room);
    }
    bench->results[bench->num_results++] = result;
    if (!bench->csv)
        return;
    if (bench->num_results == 1)
        fprintf(bench->csv, "record,threads,name,format,n,k,m,kernel,us,us_p10,us_p90,us_least,calls,bytes,"
                            "file_bytes,error,outlier_error,rate\n");
    write_row(bench->csv, &result);
}

double result_seconds(const struct bench *bench, const struct result *result) {
    return bench->options->least ? result->time.least : result->time.median;
}

/* ---- geometric means ---- */

/* The contender's result in the same line. */
static const struct result *beside(const struct bench *bench, const struct result *line, const char *name) {
    for (int i = 0; i < bench->num_results; i++) {
        const struct result *r = &bench->results[i];
        if (!strcmp(r->record, "linear") && r->threads == line->threads && !strcmp(r->format, line->format) &&
            r->n == line->n && r->k == line->k && r->m == line->m && !strcmp(r->name, name))
            return r;
    }
    return NULL;
}

/* Sums of logarithms over the shapes of one (threads, format, m). */
struct means {
    int shapes, with_peer;
    double seconds[MAX_CONTENDERS], flop[MAX_CONTENDERS], file[MAX_CONTENDERS], faster, read;
    int count[MAX_CONTENDERS];
};

static void gather(const struct bench *bench, const struct result *like, struct means *means) {
    *means = (struct means){0};
    double ceiling = 0;
    for (int i = 0; i < bench->options->num_threads; i++)
        if (bench->options->threads[i] == like->threads)
            ceiling = bench->ceilings[i].read;
    for (int i = 0; i < bench->num_results; i++) {
        const struct result *ours = &bench->results[i];
        if (strcmp(ours->record, "linear") || strcmp(ours->name, like->name) ||
            ours->threads != like->threads || strcmp(ours->format, like->format) || ours->m != like->m)
            continue;
        double mine = result_seconds(bench, ours), best = INFINITY;
        means->shapes++;
        for (int c = 0; c < bench->num_contenders; c++) {
            const char *name = bench->contenders[c].peer->name;
            const struct result *r = beside(bench, ours, name);
            if (!r)
                continue;
            double took = result_seconds(bench, r);
            means->seconds[c] += log(took);
            means->flop[c] += log(2.0 * (double)r->n * (double)r->k * (double)r->m);
            means->file[c] += log((double)r->file_bytes);
            means->count[c]++;
            if (strncmp(name, "ferrumk", 7))
                best = took < best ? took : best;
        }
        if (isfinite(best)) {
            means->faster += log(best / mine);
            means->with_peer++;
        }
        if (ceiling > 0)
            means->read += log((double)ours->bytes / mine / ceiling);
    }
}

static void print_means(const struct bench *bench, const struct result *like) {
    struct means means;
    gather(bench, like, &means);
    printf("| %s | %" PRId32 " | %" PRId64 " | %d |", like->format, like->threads, like->m, means.shapes);
    for (int c = 0; c < bench->num_contenders; c++) {
        if (means.count[c])
            printf(" %.2f / %.1f%s |", 1e-9 * exp((means.file[c] - means.seconds[c]) / means.count[c]),
                   1e-9 * exp((means.flop[c] - means.seconds[c]) / means.count[c]),
                   means.count[c] < means.shapes ? " *" : "");
        else
            printf(" |");
    }
    if (means.read)
        printf(" %.0f %% |", 100 * exp(means.read / means.shapes));
    else
        printf(" |");
    if (means.with_peer)
        printf(" %.2f x |\n", exp(means.faster / means.with_peer));
    else
        printf(" |\n");
}

void summary_print(const struct bench *bench) {
    const char *first = bench->num_contenders ? bench->contenders[0].peer->name : "";
    bool any = false;
    for (int i = 0; i < bench->num_results; i++) {
        const struct result *r = &bench->results[i];
        bool seen = strcmp(r->record, "linear") || strcmp(r->name, first);
        for (int j = 0; j < i && !seen; j++) {
            const struct result *before = &bench->results[j];
            seen = !strcmp(before->record, "linear") && !strcmp(before->name, first) &&
                   before->threads == r->threads && !strcmp(before->format, r->format) && before->m == r->m;
        }
        if (seen)
            continue;
        if (!any) {
            printf("### Geometric means over the shapes\n\nGB/s of the file's bytes / GFLOP/s; then, of %s, "
                   "the bytes that it reads of its weights as a share of the read rate, and how many times "
                   "faster it is than the best peer of each shape. *: of some of the shapes.\n\n| format | "
                   "threads | M | shapes |",
                   first);
            for (int c = 0; c < bench->num_contenders; c++)
                printf(" %s |", bench->contenders[c].peer->name);
            printf(" of read rate | faster |\n|---|---|---|---|");
            for (int c = 0; c < bench->num_contenders; c++)
                printf("---|");
            printf("---|---|\n");
        }
        any = true;
        print_means(bench, r);
    }
    printf("\n");
}
