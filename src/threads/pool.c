/* The pool: one job at a time, given out item by item.
 *
 * A worker that has seen a new epoch first counts itself as active, then looks whether the job is open. The
 * caller first closes the job, then looks whether anybody is active. Both in sequentially consistent order,
 * so either the worker sees that the job is closed, or the caller sees the worker and waits for it: nobody
 * reads a job that is gone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_setname_np, syscall, CPU_SET */
#endif
#include "pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPINS = 1000, /* some 15 to 40 us: longer than the pause between two projections of a layer */
    FEW_CORES = 8 /* up to which workers are kept off the caller's */
};

struct fmk_pool {
    /* The job. Written while it is closed and nobody is active. */
    void (*body)(void *arg, int64_t i);
    void *arg;
    int64_t count;
    _Alignas(64) atomic_int_least64_t next; /* item */
    _Alignas(64) atomic_uint epoch;         /* of the job; a futex */
    atomic_bool open, stopping;
    atomic_int sleeping;             /* workers in, or on the way into, the futex */
    _Alignas(64) atomic_uint active; /* workers that may read the job; a futex */
    atomic_bool waited;              /* for active to become 0 */
    int32_t workers;
    cpu_set_t allowed; /* cores that the process may run on */
    int caller_cpu;    /* the workers are kept off this one; -1 = none */
    bool few_cores;
    pthread_t thread[];
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_while(atomic_uint *word, unsigned value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(atomic_uint *word, int32_t count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void work(struct fmk_pool *pool) {
    for (;;) {
        int64_t i = atomic_fetch_add(&pool->next, 1);
        if (i >= pool->count)
            return;
        pool->body(pool->arg, i);
    }
}

/* Waits for an epoch other than `seen` and answers it. */
static unsigned wait_for_job(struct fmk_pool *pool, unsigned seen) {
    unsigned epoch;
    for (int i = 0; i < SPINS; i++) {
        if ((epoch = atomic_load(&pool->epoch)) != seen)
            return epoch;
        relax();
    }
    atomic_fetch_add(&pool->sleeping, 1);
    while ((epoch = atomic_load(&pool->epoch)) == seen)
        sleep_while(&pool->epoch, seen);
    atomic_fetch_sub(&pool->sleeping, 1);
    return epoch;
}

static void *worker(void *pool_) {
    struct fmk_pool *pool = pool_;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_job(pool, seen);
        if (atomic_load(&pool->stopping))
            return NULL;
        atomic_fetch_add(&pool->active, 1);
        if (atomic_load(&pool->open))
            work(pool);
        if (atomic_fetch_sub(&pool->active, 1) == 1 && atomic_load(&pool->waited))
            wake(&pool->active, 1);
    }
}

static void wait_for_workers(struct fmk_pool *pool) {
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load(&pool->active))
            return;
        relax();
    }
    unsigned active;
    atomic_store(&pool->waited, true);
    while ((active = atomic_load(&pool->active)))
        sleep_while(&pool->active, active);
    atomic_store(&pool->waited, false);
}

/* With few cores Linux may wake a worker on the caller's own core although another one is idle, and leave it
 * there: it would get to work when the caller pauses. So the workers are kept off that core. */
static void keep_apart(struct fmk_pool *pool) {
    int cpu = pool->few_cores ? sched_getcpu() : -1;
    if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == pool->caller_cpu)
        return;
    cpu_set_t others = pool->allowed;
    CPU_CLR(cpu, &others);
    for (int32_t i = 0; i < pool->workers; i++)
        pthread_setaffinity_np(pool->thread[i], sizeof others, &others);
    pool->caller_cpu = cpu;
}

static void announce(struct fmk_pool *pool, int32_t wanted) {
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleeping))
        wake(&pool->epoch, wanted);
}

void fmk_pool_run(struct fmk_pool *pool, void (*body)(void *arg, int64_t i), void *arg, int64_t count) {
    keep_apart(pool);
    pool->body = body;
    pool->arg = arg;
    pool->count = count;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->open, true);
    announce(pool, count - 1 < pool->workers ? (int32_t)(count - 1) : pool->workers);
    work(pool);
    atomic_store(&pool->open, false);
    wait_for_workers(pool);
}

void fmk_pool_close(struct fmk_pool *pool) {
    atomic_store(&pool->stopping, true);
    announce(pool, pool->workers);
    for (int32_t i = 0; i < pool->workers; i++)
        pthread_join(pool->thread[i], NULL);
    free(pool);
}

struct fmk_pool *fmk_pool_open(int32_t threads) {
    size_t size = sizeof(struct fmk_pool) + (size_t)(threads - 1) * sizeof(pthread_t);
    struct fmk_pool *pool = NULL;
    if (posix_memalign((void **)&pool, _Alignof(struct fmk_pool), size))
        return NULL;
    memset(pool, 0, size);
    pool->caller_cpu = -1;
    if (!sched_getaffinity(0, sizeof pool->allowed, &pool->allowed)) {
        int cores = CPU_COUNT(&pool->allowed);
        pool->few_cores = cores > 1 && cores <= FEW_CORES;
    }
    /* The host's signals are the host's threads' business. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = true;
    while (started && pool->workers < threads - 1) {
        started = pthread_create(&pool->thread[pool->workers], NULL, worker, pool) == 0;
        if (started)
            pthread_setname_np(pool->thread[pool->workers++], "ferrumk");
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!started) {
        fmk_pool_close(pool);
        return NULL;
    }
    return pool;
}
