/* Repeated timings: see measure.h. */
#include "measure.h"
#include "tool.h"

#include <assert.h>
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

struct timing measure(struct device *device, void (*call)(void *user, int i), void *user, int warm_up,
                      double enough) {
    /* A GPU gets several calls at once, so that only the first waits for the host: too few to be seen in a
     * median or a tenth. */
    enum { LEAST = 5, MOST = 20000, BATCH = 16 };
    static_assert(BATCH < (int)DRIVER_MARKS, "a mark before each call, and one after the last");
    int batch = device->gpu ? BATCH : 1, count = 0;
    double *samples = allocate(MOST, sizeof *samples);
    for (int i = 0; i < warm_up; i++)
        call(user, i);
    device_wait(device);
    double begun = seconds();
    while (count + batch <= MOST && (count < LEAST || seconds() - begun < enough)) {
        device_mark(device, 0);
        for (int i = 0; i < batch; i++) {
            call(user, warm_up + count + i);
            device_mark(device, i + 1);
        }
        device_wait(device);
        for (int i = 0; i < batch; i++)
            samples[count++] = device_seconds(device, i, i + 1);
    }
    struct timing timing = timing_of(samples, count);
    free(samples);
    return timing;
}
