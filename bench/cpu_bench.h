/* What the parts of the CPU benchmark share: options, contenders with weights that are cold, results. */
#ifndef BENCH_CPU_BENCH_H
#define BENCH_CPU_BENCH_H

#include "device.h"
#include "peer.h"

#include <sched.h>
#include <stdio.h>

enum { MAX_LIST = 32, MAX_CONTENDERS = 16 };

struct shape {
    int64_t n, k;
};

struct options {
    struct shape shapes[MAX_LIST];
    int64_t m[MAX_LIST], threads[MAX_LIST];
    const char *formats[MAX_LIST], *modes[MAX_LIST], *ours[MAX_LIST], *peers[MAX_LIST], *without[MAX_LIST];
    int num_shapes, num_m, num_threads, num_formats, num_modes, num_ours, num_peers, num_without;
    int64_t load_rows;
    int32_t group_size;
    double seconds;  /* a line gives each contender */
    double budget;   /* seconds, after which lines are left out */
    double patience; /* seconds; who needs longer for one call sits the line out */
    const char *commit, *disable, *csv;
    bool cpu_time; /* of the calling thread, instead of what goes by */
    bool least;    /* ratios are of the shortest times, not of the medians */
};

/* One implementation under test. `state` and what follows belong to one number of threads. */
struct contender {
    const struct bench_peer *peer;
    void *state;    /* NULL: it refused to open */
    void **weights; /* equal ones at different addresses, so that none is in the cache when its turn comes */
    int num_weights, next;
    uint64_t bytes;  /* that a product of one row reads of a weight */
    double foreseen; /* seconds of a call with the line's m, from the line before; 0 = not known */
};

/* Repeated timings of one thing. */
struct timed {
    double median, low, high, least;
    int count;
};

/* A line of one contender. */
struct result {
    const char *record, *format, *name; /* record: what was measured: "linear" ... */
    char *kernel;
    int32_t threads;
    int64_t n, k, m;
    struct timed time;
    uint64_t bytes, file_bytes;  /* of the weight */
    double error, outlier_error; /* relative L2; negative = not known */
    double rate;                 /* ceilings, loads: per second */
};

/* Rates that nothing can beat, of one number of threads. Operations count a multiplication and an addition as
 * two. */
struct ceilings {
    double read,
        copy; /* bytes per second: the best of all numbers of streams; read and written counted once */
    double copy_fresh; /* to memory that has never been touched, in huge pages where there are */
};

struct bench {
    const struct options *options;
    FILE *csv;
    double begun;
    cpu_set_t cpus; /* that the program was given */
    int32_t threads;
    struct device cpu; /* of all of them: makes the weights */
    struct contender contenders[MAX_CONTENDERS];
    int num_contenders;
    struct ceilings ceilings[MAX_LIST]; /* by place in options->threads */
    int stage;                          /* that place */
    struct result *results;
    int num_results, room;
};

/* ---- contenders ---- */

/* Ours, in the order of --ours: "default", "exact" (FMK_LINEAR_EXACT), "borrowed" (the file's own bytes).
 * Their contexts do without the features of --disable. NULL = no such word. */
const struct bench_peer *ferrumk_as_peer(const char *word, const char *disable);
bool peer_is_ferrumk(const struct bench_peer *peer);

/* Fills in the list: ours, then what the peers' files hold. */
void contenders_list(struct bench *bench);
/* For a number of threads, on as many processors. */
void contenders_open(struct bench *bench);
void contenders_close(struct bench *bench);
/* Weights of a source: so many that they do not fit in the last cache by far; one alone where `warm`. */
void contenders_take(struct bench *bench, const struct bench_peer_source *source, bool warm);
void contenders_drop(struct bench *bench);
/* Whether it has weights now. */
bool contender_present(const struct contender *who);
/* All of its weights, for calls like this one; false when it has none, or refuses. */
bool contender_prepare(struct contender *who, const struct bench_peer_call *call);
/* One product with the weight whose turn it is. */
void contender_call(struct contender *who, const struct bench_peer_call *call);
/* Before somebody else is timed. */
void contender_rest(struct contender *who);
/* The kernel of such a call, or ""; to be freed. */
char *contender_kernel(struct contender *who, const struct bench_peer_call *call);

/* ---- sources ---- */

/* format: one of the words of peer.h. */
bool source_knows(const char *format);
void source_make(struct bench_peer_source *source, struct bench *bench, const char *format,
                 struct shape shape);
void source_free(struct bench_peer_source *source);
uint64_t source_bytes(const struct bench_peer_source *source);
/* As the library takes it. */
fmk_part source_part(const struct bench_peer_source *source);

/* ---- results ---- */

struct timed timed_of(double *samples, int count);
/* Keeps it, and writes it to the CSV file. `kernel` becomes the list's. */
void result_add(struct bench *bench, struct result result);
/* The median, or with --least the shortest. */
double result_seconds(const struct bench *bench, const struct result *result);
/* Geometric means over the shapes of every format, m and number of threads. */
void summary_print(const struct bench *bench);

/* ---- modes: each prints its tables ---- */

void bench_ceilings(struct bench *bench);
void bench_linear(struct bench *bench);
void bench_latency(struct bench *bench);
void bench_load(struct bench *bench);

#endif
