/* Reproducible N(0, 1) numbers. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

/* out[i] depends on seed and i alone. */
void random_normal(float *out, int64_t count, uint64_t seed);

#endif
