/* What it costs to wake a second thread for little work: microseconds of
 *     pthreadpool's parallelize,
 *     a pool of one word in memory, on which both sides spin for 0, 50 or 1000 us and then sleep,
 *     a small fmk_linear (256 x 256, M = 1) on one thread and on two,
 * each right after the call before it, after a pause in which threads fall asleep, and with a busy thread of
 * somebody else's for every core. CSV on stdout. */
#include "measure.h"
#include "random.h"
#include "synthetic.h"
#include "tool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <pthreadpool.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAUSE_US = 2000, MAX_BUSY = 256 };

/* ---- a pool of one word each way ---- */

struct word {
    atomic_int value, sleepers;
};

static void wait_while(struct word *word, int old, double spin) {
    double begun = seconds();
    while (atomic_load(&word->value) == old) {
        if (seconds() - begun < spin)
            continue;
        atomic_fetch_add(&word->sleepers, 1);
        syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
        atomic_fetch_sub(&word->sleepers, 1);
    }
}

static void set(struct word *word, int value) {
    atomic_store(&word->value, value);
    if (atomic_load(&word->sleepers))
        syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

struct pair {
    struct word begin, end;
    double spin;
    int calls;
    pthread_t thread;
};

static void *second_thread(void *user) {
    struct pair *pair = user;
    int seen = 0;
    for (;;) {
        wait_while(&pair->begin, seen, pair->spin);
        seen = atomic_load(&pair->begin.value);
        if (seen < 0)
            return NULL;
        set(&pair->end, seen);
    }
}

static void pair_open(struct pair *pair, double spin) {
    *pair = (struct pair){.spin = spin};
    if (pthread_create(&pair->thread, NULL, second_thread, pair))
        quit(EXIT_REFUSED, "no second thread");
}

static void pair_call(void *user) {
    struct pair *pair = user;
    set(&pair->begin, ++pair->calls);
    wait_while(&pair->end, pair->calls - 1, pair->spin);
}

static void pair_close(struct pair *pair) {
    set(&pair->begin, -1);
    pthread_join(pair->thread, NULL);
}

/* ---- what is timed, and when ---- */

static void nothing(void *user, size_t i) {
    (void)user;
    (void)i;
}

static void pool_call(void *pool) {
    pthreadpool_parallelize_1d(pool, nothing, NULL, 2, 0);
}

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
    enum { SIDE = 256 };
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
    projection_set(&projection, &device, weight, 1, 0, 0, in, out);
    report("fmk_linear 256x256 q4_k", threads, linear_call, &projection);
    fmk_weight_destroy(weight, device.queue);
    device_close(&device);
}

int main(void) {
    static const int spins_us[] = {0, 50, 1000};
    set_program("latency");
    printf("what,threads,when,calls,us_median,us_p10,us_p90,us_mean\n");
    pthreadpool_t pool = pthreadpool_create(2);
    if (!pool)
        quit(EXIT_REFUSED, "no pool of two threads");
    report("pthreadpool", 2, pool_call, pool);
    pthreadpool_destroy(pool);
    for (size_t i = 0; i < sizeof spins_us / sizeof *spins_us; i++) {
        struct pair pair;
        char *what = text_of("spin %d us then sleep", spins_us[i]);
        pair_open(&pair, 1e-6 * spins_us[i]);
        report(what, 2, pair_call, &pair);
        pair_close(&pair);
        free(what);
    }
    report_linear(1);
    report_linear(2);
    return 0;
}
