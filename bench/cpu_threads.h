/* The same work on several threads at once, each on a processor of its own. */
#ifndef BENCH_CPU_THREADS_H
#define BENCH_CPU_THREADS_H

#include "cpu_bench.h"

/* Runs work(user, thread) on all threads of the stage, `repetitions` times, and times each time from a common
 * start to the last one's end. `before` is called between them, by the calling thread alone, or NULL. */
struct timed threads_time(const struct bench *bench, void (*work)(void *user, int thread),
                          void (*before)(void *user), void *user, int repetitions);

/* The i-th processor of those that the program was given. */
int threads_processor(const struct bench *bench, int i);

/* Keeps the calling thread, and those that it starts, on the first `count` of them. */
void threads_confine(const struct bench *bench, int count);

#endif
