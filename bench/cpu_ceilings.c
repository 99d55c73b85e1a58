/* What the machine gives to programs that do nothing but read, copy or multiply. */
#include "cpu_peak.h"
#include "cpu_threads.h"
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { REPETITIONS = 7 };

static void print_head(const struct bench *bench) {
    printf("### Ceilings, %" PRId32
           " thread%s\n\nThe best of many times; the median in brackets.\n\n| | |\n|---|---|\n",
           bench->threads, bench->threads > 1 ? "s" : "");
}

/* amount: bytes or operations of all threads in one time. */
static double keep(struct bench *bench, const char *name, struct timed time, double amount,
                   const char *unit) {
    printf("| %s | %.1f (%.1f) %s |\n", name, 1e-9 * amount / time.least, 1e-9 * amount / time.median, unit);
    fflush(stdout);
    result_add(bench, (struct result){.record = "ceiling",
                                      .format = "",
                                      .name = text_of("%s", name),
                                      .threads = bench->threads,
                                      .time = time,
                                      .error = -1,
                                      .outlier_error = -1,
                                      .rate = amount / time.least});
    return amount / time.least;
}

/* ---- memory ---- */

/* One timed reading is short, so that on a machine with other work some are not disturbed; they go through
 * all of the data in turn, which is far more than the last cache holds. 2027 is a prime: runs that lay a
 * power of two apart would share the sets of the caches. */
enum {
    COPY_BYTES = 256 << 20,
    MOST_STREAMS = 8,
    READ_BYTES = MOST_STREAMS * 2027 * PEAK_TURN,
    TIMES = 60,
    TIMES_CACHE = 4
};

struct reading {
    const struct bench *bench;
    const char *data;
    uint64_t bytes; /* a multiple of READ_BYTES */
    uint64_t at;    /* of what is read next, by all threads */
    int streams;
    size_t ahead;
    uint64_t sink;
};

static void read_on(void *user) {
    struct reading *r = user;
    r->at = (r->at + (uint64_t)READ_BYTES * (uint64_t)r->bench->threads) % r->bytes;
}

static void read_share(void *user, int thread) {
    struct reading *r = user;
    const char *from = r->data + (r->at + (uint64_t)READ_BYTES * (uint64_t)thread) % r->bytes;
    if (peak_read(from, READ_BYTES / (size_t)r->streams, r->streams, r->ahead) ==
        1) /* the data makes it even */
        r->sink = 1;
}

struct copying {
    const struct bench *bench;
    const char *from;
    char *to;
    bool fresh; /* to new pages, huge ones where there are */
};

static void copy_share(void *user, int thread) {
    struct copying *c = user;
    size_t share = COPY_BYTES / (size_t)c->bench->threads;
    memcpy(c->to + share * (size_t)thread, c->from + share * (size_t)thread, share);
}

static void map_again(void *user) {
    struct copying *c = user;
    if (!c->fresh)
        return;
    if (c->to)
        munmap(c->to, COPY_BYTES);
    c->to = mmap(NULL, COPY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (c->to == MAP_FAILED)
        quit(EXIT_REFUSED, "no memory for %d bytes", COPY_BYTES);
    madvise(c->to, COPY_BYTES, MADV_HUGEPAGE);
}

static const struct {
    const char *name;
    int streams;
    size_t ahead;
} readings[] = {
    {"read, 1 stream a thread", 1, 0},           {"read, 2 streams a thread", 2, 0},
    {"read, 4 streams a thread", 4, 0},          {"read, 8 streams a thread", MOST_STREAMS, 0},
    {"read, 1 stream, fetched ahead", 1, 8192},  {"read, 2 streams, fetched ahead", 2, 4096},
    {"read, 4 streams, fetched ahead", 4, 2048},
};

enum { NUM_READINGS = sizeof readings / sizeof *readings };

static void memory(struct bench *bench, struct ceilings *ceilings) {
    uint64_t bytes = TIMES_CACHE * bench->cpu.info.last_level_cache;
    bytes = bytes < 2 * COPY_BYTES ? 2 * COPY_BYTES : bytes;
    bytes = (bytes + READ_BYTES - 1) / READ_BYTES * READ_BYTES;
    char *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        quit(EXIT_REFUSED, "no memory for %" PRIu64 " bytes", bytes);
    madvise(data, bytes, MADV_HUGEPAGE); /* where there are: a weight may have them too */
    memset(data, 2, bytes);
    for (int i = 0; i < NUM_READINGS; i++) {
        struct reading r = {.bench = bench,
                            .data = data,
                            .bytes = bytes,
                            .streams = readings[i].streams,
                            .ahead = readings[i].ahead};
        struct timed time = threads_time(bench, read_share, read_on, &r, TIMES);
        double rate = keep(bench, readings[i].name, time, (double)READ_BYTES * bench->threads, "GB/s");
        ceilings->read = rate > ceilings->read ? rate : ceilings->read;
    }
    struct copying c = {.bench = bench, .from = data, .to = data + COPY_BYTES};
    ceilings->copy = keep(bench, "memcpy", threads_time(bench, copy_share, map_again, &c, REPETITIONS),
                          COPY_BYTES, "GB/s");
    struct copying f = {.bench = bench, .from = data, .fresh = true};
    ceilings->copy_fresh =
        keep(bench, "memcpy to new pages", threads_time(bench, copy_share, map_again, &f, REPETITIONS),
             COPY_BYTES, "GB/s");
    munmap(f.to, COPY_BYTES);
    munmap(data, bytes);
}

/* ---- arithmetic ---- */

struct multiplying {
    const struct peak *peak;
    char *panels;
    int64_t rounds;
    double operations; /* of one thread */
};

static void multiply_share(void *user, int thread) {
    struct multiplying *m = user;
    double operations = m->peak->run(m->rounds, m->panels + (size_t)PEAK_PANEL_BYTES * (size_t)thread);
    if (!thread)
        m->operations = operations;
}

static void arithmetic(struct bench *bench) {
    const double enough = 3e-3; /* less than a scheduler's slice */
    struct multiplying m = {.panels =
                                allocate_aligned((uint64_t)PEAK_PANEL_BYTES * (uint64_t)bench->threads)};
    memset(m.panels, 0, (size_t)PEAK_PANEL_BYTES * (size_t)bench->threads);
    for (const struct peak *peak = peaks; peak->name; peak++) {
        if (!peak->present())
            continue;
        m.peak = peak;
        m.rounds = 1000;
        for (double took = 0; took < enough; m.rounds *= took < enough ? 2 : 1) {
            double before = seconds();
            multiply_share(&m, 0);
            took = seconds() - before;
        }
        struct timed time = threads_time(bench, multiply_share, NULL, &m, 5 * REPETITIONS);
        keep(bench, peak->name, time, m.operations * bench->threads, "GFLOP/s or GOP/s");
    }
    free(m.panels);
}

void bench_ceilings(struct bench *bench) {
    print_head(bench);
    memory(bench, &bench->ceilings[bench->stage]);
    arithmetic(bench);
    printf("\n");
}
