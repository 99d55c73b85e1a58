/* Results: what several timings come to, and the CSV file. */
#include "cpu_bench.h"
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>

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
