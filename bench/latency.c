/* What it costs to wake threads for little work: microseconds of pthreadpool's parallelize, of a pool that
 * sleeps on a condition variable, and of a whole small fmk_linear (256 x 256, M = 1), each right after the
 * call before it and after a pause in which the threads fall asleep. CSV on stdout. */
#include "measure.h"
#include "random.h"
#include "synthetic.h"
#include "tool.h"

#include <pthread.h>
#include <pthreadpool.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { CALLS = 2000, PAUSED_CALLS = 300, PAUSE_US = 2000 };

/* ---- a pool on a condition variable ---- */

struct sleeper {
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    int generation, running;
    bool stop;
    pthread_t thread;
};

static void *sleep_and_work(void *user) {
    struct sleeper *s = user;
    int seen = 0;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        if (s->generation == seen) {
            pthread_cond_wait(&s->begin, &s->lock);
            continue;
        }
        seen = s->generation;
        s->running = 0;
        pthread_cond_signal(&s->end);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void sleeper_call(void *user) {
    struct sleeper *s = user;
    pthread_mutex_lock(&s->lock);
    s->running = 1;
    s->generation++;
    pthread_cond_signal(&s->begin);
    while (s->running)
        pthread_cond_wait(&s->end, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void sleeper_open(struct sleeper *s) {
    *s = (struct sleeper){.lock = PTHREAD_MUTEX_INITIALIZER,
                          .begin = PTHREAD_COND_INITIALIZER,
                          .end = PTHREAD_COND_INITIALIZER};
    if (pthread_create(&s->thread, NULL, sleep_and_work, s))
        quit(EXIT_REFUSED, "no second thread");
}

static void sleeper_close(struct sleeper *s) {
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->begin);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
}

/* ---- what is timed ---- */

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

static void report(const char *what, int threads, void (*call)(void *user), void *user) {
    double *samples = allocate(CALLS, sizeof *samples);
    for (int paused = 0; paused < 2; paused++) {
        int count = paused ? PAUSED_CALLS : CALLS;
        call(user);
        for (int i = 0; i < count; i++) {
            if (paused)
                usleep(PAUSE_US);
            double before = seconds();
            call(user);
            samples[i] = seconds() - before;
        }
        struct timing t = timing_of(samples, count);
        printf("%s,%d,%d,%d,%.2f,%.2f,%.2f\n", what, threads, paused ? PAUSE_US : 0, count, 1e6 * t.median,
               1e6 * t.low, 1e6 * t.high);
    }
    free(samples);
}

int main(void) {
    set_program("latency");
    printf("what,threads,pause_us,calls,us_median,us_p10,us_p90\n");
    pthreadpool_t pool = pthreadpool_create(2);
    if (!pool)
        quit(EXIT_REFUSED, "no pool of two threads");
    report("pthreadpool", 2, pool_call, pool);
    pthreadpool_destroy(pool);
    struct sleeper sleeper;
    sleeper_open(&sleeper);
    report("condition variable", 2, sleeper_call, &sleeper);
    sleeper_close(&sleeper);

    for (int threads = 1; threads <= 2; threads++) {
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
    return 0;
}
