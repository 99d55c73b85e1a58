/* Threads that start together: see cpu_threads.h. */
#include "cpu_threads.h"
#include "tool.h"

#include <pthread.h>
#include <stdlib.h>

int threads_processor(const struct bench *bench, int i) {
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &bench->cpus) && i-- == 0)
            return cpu;
    quit(EXIT_USAGE, "--threads is more than the %d processors of this program", CPU_COUNT(&bench->cpus));
}

void threads_confine(const struct bench *bench, int count) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < count; i++)
        CPU_SET(threads_processor(bench, i), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        quit(EXIT_REFUSED, "sched_setaffinity to %d processors failed", count);
}

struct group {
    const struct bench *bench;
    void (*work)(void *user, int thread);
    void *user;
    pthread_barrier_t start, end;
    int repetitions;
};

struct member {
    struct group *group;
    int thread;
};

static void *run(void *user) {
    struct member *member = user;
    struct group *group = member->group;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(threads_processor(group->bench, member->thread), &one);
    sched_setaffinity(0, sizeof one, &one);
    for (int i = 0; i < group->repetitions; i++) {
        pthread_barrier_wait(&group->start);
        group->work(group->user, member->thread);
        pthread_barrier_wait(&group->end);
    }
    return NULL;
}

struct timed threads_time(const struct bench *bench, void (*work)(void *user, int thread),
                          void (*before)(void *user), void *user, int repetitions) {
    int threads = bench->threads;
    struct group group = {.bench = bench, .work = work, .user = user, .repetitions = repetitions};
    struct member *members = allocate((size_t)threads, sizeof *members);
    pthread_t *ids = allocate((size_t)threads, sizeof *ids);
    double *samples = allocate((size_t)repetitions, sizeof *samples);
    pthread_barrier_init(&group.start, NULL, (unsigned)threads);
    pthread_barrier_init(&group.end, NULL, (unsigned)threads);
    for (int t = 1; t < threads; t++) {
        members[t] = (struct member){&group, t};
        if (pthread_create(&ids[t], NULL, run, &members[t]))
            quit(EXIT_REFUSED, "thread %d of %d did not start", t, threads);
    }
    for (int i = 0; i < repetitions; i++) {
        if (before)
            before(user);
        pthread_barrier_wait(&group.start);
        double begun = seconds();
        work(user, 0);
        pthread_barrier_wait(&group.end);
        samples[i] = seconds() - begun;
    }
    for (int t = 1; t < threads; t++)
        pthread_join(ids[t], NULL);
    struct timed timed = timed_of(samples, repetitions);
    pthread_barrier_destroy(&group.start);
    pthread_barrier_destroy(&group.end);
    free(members);
    free(ids);
    free(samples);
    return timed;
}
