/* What the parts of the sweep share: options, contenders with cold weights, results. */
#ifndef BENCH_SWEEP_H
#define BENCH_SWEEP_H

#include "cuda_bench.h"
#include "peer.h"

enum { MAX_CONTENDERS = 16, MAX_M = 4096, MAX_KINDS = 16 };

/* A relative error that is no rounding: the result is wrong, and competes with nobody. */
#define WRONG 1e-2

struct shape {
    int64_t n, k;
};

/* A weight's format, in the words of source_make, and the type of activations and results. */
struct kind {
    const char *name, *format, *type; /* "int4:bf16", "int4", "bf16" */
    fmk_dtype dtype;
};

struct sweep_options {
    const char *mode, *commit, *disable, *csv;
    int device, rounds;
    struct shape shapes[MAX_LIST];
    int num_shapes;
    bool m[MAX_M + 1];
    struct kind kinds[MAX_KINDS];
    int num_kinds;
    const char *peers[MAX_LIST], *without[MAX_LIST];
    int num_peers, num_without;
    double seconds; /* no point begins later; 0 = all are measured */
    double refine;  /* measure between two m whose times differ by more than this factor; 0 = do not */
};

/* One implementation, with one kind of weight. */
struct contender {
    const struct bench_peer *peer;
    const struct kind *kind;
    char *name;     /* the peer's, and the kind's where there are several */
    void *state;    /* shared by the contenders of one peer */
    void **weights; /* equal ones at different addresses */
    int num_weights;
    uint64_t bytes;  /* that a product of one row reads of a weight */
    double foreseen; /* seconds of a call, as of the last one; 0 = not known */
};

/* One contender with one shape and m. */
struct result {
    struct shape shape;
    int64_t m;
    const struct contender *who;
    char *kernel; /* "" = not told */
    struct timing time;
    uint64_t bytes;
    double error;   /* relative L2 against float64 */
    bool repeats;   /* a second call gave the same bits */
    double read[2]; /* seconds in which a kernel can read as many bytes: plain, dependent */
};

struct sweep {
    struct bench bench; /* gpu, reader, floors, and a context and queue of ours */
    const struct sweep_options *options;
    struct contender contenders[MAX_CONTENDERS];
    int num_contenders;
    struct device cpu; /* converts numbers */
    struct result *results;
    int num_results, room;
    double begun;
    bool late; /* points were left out */
    FILE *csv;
};

/* ---- contenders ---- */

/* Ours, by plain launches and with FMK_LINEAR_PDL: opened not by `open`, but by ours_open, on this context
 * and queue. */
extern const struct bench_peer ours_plain, ours_early;
void *ours_open(struct bench *bench, bool early);
bool is_ours(const struct contender *who);

/* All implementations, each with all kinds. */
void contenders_open(struct sweep *sweep);
void contenders_close(struct sweep *sweep);
/* Weights of a shape; sources has one for each kind. */
void contenders_take(struct sweep *sweep, const struct source *sources);
void contenders_drop(struct sweep *sweep);
/* As peers take it; what it points to stays the source's. */
struct bench_peer_source source_for_peer(const struct source *source);

/* ---- what results should be ---- */

struct check;

struct check *check_open(struct sweep *sweep, const struct source *sources);
void check_close(struct check *check);
/* Makes a call twice; answers the error of some rows and columns. */
double check_call(struct check *check, const struct contender *who, const struct bench_peer_call *call,
                  bool *repeats);

/* ---- measuring ---- */

/* Every shape and m, and more m where --refine says so. */
void sweep_run(struct sweep *sweep);
/* The four projections of a layer, one after another. */
void sweep_chain(struct sweep *sweep);

/* ---- reports ---- */

/* Keeps it, and writes it to the CSV file. */
void result_add(struct sweep *sweep, const struct result *result);
void print_points(const struct sweep *sweep);
void print_means(const struct sweep *sweep);
/* All, or only those that were missed. */
void print_goals(const struct sweep *sweep, bool misses);
void print_kinds(const struct sweep *sweep);
void print_kind_goals(const struct sweep *sweep);
void print_cliffs(const struct sweep *sweep);

#endif
