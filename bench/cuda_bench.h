/* What the modes of the CUDA benchmark share: options, the context under test, weights that are cold. */
#ifndef BENCH_CUDA_BENCH_H
#define BENCH_CUDA_BENCH_H

#include "cuda_floor.h"
#include "cuda_random.h"

enum { MAX_LIST = 32 };

struct options {
    const char *mode, *commit, *disable;
    int device, threads;
    bool quick, explain;
    struct {
        int64_t n, k;
    } shapes[MAX_LIST];
    int64_t m[MAX_LIST];
    const char *formats[MAX_LIST];
    int num_shapes, num_m, num_formats;
    fmk_dtype type; /* of activations and results */
    int64_t load_bytes;
};

struct bench {
    const struct options *options;
    struct gpu gpu;
    struct reader reader;
    struct floors floors;
    fmk_context *context;
    fmk_queue *queue;
};

/* Opens all but the options, and measures the floors. */
void bench_open(struct bench *bench, int device, const char *disable);
void bench_close(struct bench *bench);
/* Says on which machine this was measured, of which build, and by which command. */
void bench_print_header(const struct bench *bench, const char *mode, const char *commit, int argc,
                        char **argv);

/* Equal weights at different addresses. */
struct copies {
    fmk_weight **weights;
    int count;
    uint64_t bytes; /* that a call reads of one */
};

/* How many weights do not fit the L2 cache by far; at least two. */
int cold_copies(uint64_t bytes);
void copies_make(struct copies *copies, struct bench *bench, const struct source *source);
void copies_free(struct copies *copies, struct bench *bench);

/* How many calls make a graph that its own launch does not disturb: a multiple of `copies`, at least two
 * rounds. */
int calls_of(int copies, double seconds_of_one);

/* One projection over the copies in turn. */
struct projections {
    struct bench *bench;
    const struct copies *copies;
    fmk_linear_args args;
};

/* Sizes a workspace of at most `limit` bytes (0 = the best), or more where `least` is more, and prepares;
 * false with the library's sentence when it refuses. */
bool projections_prepare(struct projections *p, uint64_t limit);
void projections_free(struct projections *p);
/* For gpu_time. */
void projections_call(void *user, int i);
/* The kernel that a call runs, to be freed; all of fmk_explain goes to stderr if `explain`. */
char *kernel_of(const fmk_weight *weight, const fmk_linear_args *args, bool explain);
char *projections_kernel(struct projections *p);

/* The modes. Each prints one table. */
void bench_linear(struct bench *bench);
void bench_prefill(struct bench *bench);
void bench_dequantize(struct bench *bench);
void bench_load(struct bench *bench);
void bench_host(struct bench *bench);

#endif
