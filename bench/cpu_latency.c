/* What a call costs when there is next to nothing to multiply: one small projection whose weight is in the
 * cache. */
#include "cpu_bench.h"
#include "random.h"
#include "tool.h"

#include <inttypes.h>

enum { SIDE = 256, TURNS = 30, CALLS = 200 };

/* Seconds of a call, one of CALLS one after the other. */
static double turn(struct contender *who, const struct bench_peer_call *call) {
    contender_call(who, call); /* wakes its threads */
    double before = seconds();
    for (int i = 0; i < CALLS; i++)
        contender_call(who, call);
    double took = (seconds() - before) / CALLS;
    contender_rest(who);
    return took;
}

static void keep(struct bench *bench, struct contender *who, const struct bench_peer_call *call,
                 const struct bench_peer_source *source, double samples[TURNS]) {
    struct result result = {.record = "latency",
                            .format = source->format,
                            .name = who->peer->name,
                            .kernel = contender_kernel(who, call),
                            .threads = bench->threads,
                            .n = source->n,
                            .k = source->k,
                            .m = call->m,
                            .time = timed_of(samples, TURNS),
                            .bytes = who->bytes,
                            .file_bytes = source_bytes(source),
                            .error = -1,
                            .outlier_error = -1};
    result_add(bench, result);
    printf("| %s | %s | %.2f | %.2f |\n", result.format, result.name, 1e6 * result.time.least,
           1e6 * result.time.median);
}

static void rows_of(struct bench *bench, const char *format) {
    float in[SIDE] __attribute__((aligned(256))), out[SIDE] __attribute__((aligned(256)));
    const struct bench_peer_call call = {.m = 1, .type = "f32", .in = in, .out = out};
    struct bench_peer_source source;
    double samples[MAX_CONTENDERS][TURNS];
    bool here[MAX_CONTENDERS];
    random_normal(in, SIDE, 1);
    source_make(&source, bench, format, (struct shape){SIDE, SIDE});
    contenders_take(bench, &source, true);
    for (int c = 0; c < bench->num_contenders; c++)
        here[c] = contender_prepare(&bench->contenders[c], &call);
    for (int t = 0; t < TURNS; t++)
        for (int c = 0; c < bench->num_contenders; c++)
            if (here[c])
                samples[c][t] = turn(&bench->contenders[c], &call);
    for (int c = 0; c < bench->num_contenders; c++)
        if (here[c])
            keep(bench, &bench->contenders[c], &call, &source, samples[c]);
    contenders_drop(bench);
    source_free(&source);
}

void bench_latency(struct bench *bench) {
    printf(
        "### %d x %d, M = 1, weight in the cache, %" PRId32
        " thread%s\n\nus per call: the least of %d runs of "
        "%d calls, and the median of them.\n\n| format | contender | least | median |\n|---|---|---|---|\n",
        SIDE, SIDE, bench->threads, bench->threads > 1 ? "s" : "", TURNS, CALLS);
    for (int f = 0; f < bench->options->num_formats; f++)
        rows_of(bench, bench->options->formats[f]);
    printf("\n");
    fflush(stdout);
}
