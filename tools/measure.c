/* Repeated timings: see measure.h. */
#include "measure.h"
#include "tool.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct timing timing_of(double *samples, int count) {
    qsort(samples, (size_t)count, sizeof *samples, ascending);
    return (struct timing){.median = samples[count / 2],
                           .low = samples[count / 10],
                           .high = samples[count - 1 - count / 10],
                           .calls = count};
}

struct timing measure(void (*call)(void *user, int i), void *user, int warm_up, double enough) {
    enum { LEAST = 5, MOST = 20000 };
    double *samples = allocate(MOST, sizeof *samples);
    int count = 0;
    for (int i = 0; i < warm_up; i++)
        call(user, i);
    double begun = seconds();
    while (count < MOST && (count < LEAST || seconds() - begun < enough)) {
        double before = seconds();
        call(user, warm_up + count);
        samples[count++] = seconds() - before;
    }
    struct timing timing = timing_of(samples, count);
    free(samples);
    return timing;
}
