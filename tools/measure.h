/* Repeated timings and what they come to. */
#ifndef MEASURE_H
#define MEASURE_H

#include "device.h"

/* Seconds of one call: the median, and the tenths below and above which the others lie. */
struct timing {
    double median, low, high;
    int calls;
};

/* Times call(user, i) for i = 0, 1, ... until `enough` seconds and 5 calls have gone by; the first
 * `warm_up` calls are not counted. They run on `device`, whose own clock counts if it is a GPU. */
struct timing measure(struct device *device, void (*call)(void *user, int i), void *user, int warm_up,
                      double enough);

/* Sorts the samples. */
struct timing timing_of(double *samples, int count);

#endif
