/* What it costs to share little work between threads: microseconds of
 *     an empty job of two items on the library's pool, and on pthreadpool where that is installed,
 *     the same of two items of 20 us each, which one thread alone would do in 40,
 *     a small fmk_linear (2048 x 2048, M = 1) on one thread and on two,
 * each right after the call before it, after a pause in which threads fall asleep, and with a busy thread of
 * somebody else's for every core. CSV on stdout. */
#include "../src/threads/pool.h"
#include "measure.h"
#include "random.h"
#include "synthetic.h"
#include "tool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef HAVE_PTHREADPOOL
#include <pthreadpool.h>
#endif

enum { PAUSE_US = 2000, MAX_BUSY = 256, ITEMS = 2 };

/* ---- what is timed, and when ---- */

static double item_seconds;

static void item(void *user, int64_t i) {
    (void)user;
    (void)i;
    double end = seconds() + item_seconds;
    while (item_seconds > 0 && seconds() < end)
        continue;
}

static void pool_call(void *pool) {
    fmk_pool_run(pool, item, NULL, ITEMS);
}

#ifdef HAVE_PTHREADPOOL
static void item_of_size(void *user, size_t i) {
    item(user, (int64_t)i);
}

static void pthreadpool_call(void *pool) {
    pthreadpool_parallelize_1d(pool, item_of_size, NULL, ITEMS, 0);
}
#endif

static void linear_call(void *projection) {
    projection_run(projection);
}

static void *keep_busy(void *stop) {
    while (!atomic_load((atomic_bool *)stop))
        continue;
    return NULL;
}

enum moment { AT_ONCE, PAUSED, BUSY, MOMENTS };

static void report(const char *what, int threads, void (*call)(void *user), void *user) {
    static const char *const names[MOMENTS] = {"at once", "after a pause", "busy machine"};
    static const int calls[MOMENTS] = {5000, 300, 300};
    for (int moment = 0; moment < MOMENTS; moment++) {
        pthread_t busy[MAX_BUSY];
        atomic_bool stop = false;
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        int num_busy = moment == BUSY ? (int)(cores < MAX_BUSY ? cores : MAX_BUSY) : 0;
        for (int i = 0; i < num_busy; i++)
            if (pthread_create(&busy[i], NULL, keep_busy, &stop))
                quit(EXIT_REFUSED, "no busy thread");
        double *samples = allocate((size_t)calls[moment], sizeof *samples);
        call(user);
        for (int i = 0; i < calls[moment]; i++) {
            if (moment == PAUSED)
                usleep(PAUSE_US);
            double before = seconds();
            call(user);
            samples[i] = seconds() - before;
        }
        atomic_store(&stop, true);
        for (int i = 0; i < num_busy; i++)
            pthread_join(busy[i], NULL);
        double sum = 0;
        for (int i = 0; i < calls[moment]; i++)
            sum += samples[i];
        struct timing t = timing_of(samples, calls[moment]);
        printf("%s,%d,%s,%d,%.2f,%.2f,%.2f,%.2f\n", what, threads, names[moment], t.calls, 1e6 * t.median,
               1e6 * t.low, 1e6 * t.high, 1e6 * sum / t.calls);
        fflush(stdout);
        free(samples);
    }
}

static void report_linear(int threads) {
    enum { SIDE = 2048 };
    struct device device;
    struct synthetic source;
    fmk_weight *weight;
    struct projection projection;
    static float in[SIDE], out[SIDE];
    device_open(&device, &(struct device_options){.backend = "cpu", .threads = threads});
    synthetic_make(&source, &device, "q4_k", SIDE, SIDE, 0);
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &source.part, .num_parts = 1};
    check(fmk_weight_create(&weight, device.queue, &desc), NULL);
    synthetic_free(&source);
    random_normal(in, SIDE, 1);
    projection_set(&projection, &device, weight, 1, 0, 0, (uintptr_t)in, (uintptr_t)out);
    report("fmk_linear 2048x2048 q4_k", threads, linear_call, &projection);
    fmk_weight_destroy(weight, device.queue);
    device_close(&device);
}

/* Jobs of two items on either pool. */
static void report_pools(const char *work) {
    char *what = text_of("the library's pool, %s", work);
    struct fmk_pool *own = fmk_pool_open(2);
    if (!own)
        quit(EXIT_REFUSED, "no pool of two threads");
    report(what, 2, pool_call, own);
    fmk_pool_close(own);
    free(what);
#ifdef HAVE_PTHREADPOOL
    what = text_of("pthreadpool, %s", work);
    pthreadpool_t pool = pthreadpool_create(2);
    if (!pool)
        quit(EXIT_REFUSED, "no pool of two threads");
    report(what, 2, pthreadpool_call, pool);
    pthreadpool_destroy(pool);
    free(what);
#endif
}

int main(void) {
    set_program("latency");
    printf("what,threads,when,calls,us_median,us_p10,us_p90,us_mean\n");
    report_pools("nothing");
    item_seconds = 20e-6;
    report_pools("2 x 20 us");
    report_linear(1);
    report_linear(2);
    return 0;
}
