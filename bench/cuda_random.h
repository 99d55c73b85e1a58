/* Random weights and activations, made as fast as memory: what is measured does not depend on their values.
 */
#ifndef BENCH_CUDA_RANDOM_H
#define BENCH_CUDA_RANDOM_H

#include "cuda_driver.h"

void random_bytes(void *out, uint64_t bytes, uint64_t seed);
/* Half-precision numbers of 2^-5 to 2^-1 in magnitude. */
void random_halves(uint16_t *out, uint64_t count, uint64_t seed);
/* The same in device memory, where it repeats after 64 MB. */
uint64_t gpu_random_halves(const struct gpu *gpu, uint64_t count);
/* count N(0, 1) numbers of F16, BF16 or F32 in device memory; they repeat after 65521. */
uint64_t gpu_random_normal(const struct gpu *gpu, fmk_dtype type, uint64_t count);

/* A matrix as its file holds it. */
struct source {
    fmk_part part;
    void *qweight, *scales, *qzeros, *g_idx;
    uint64_t bytes; /* of codes, scales and zero points */
};

/* int4 is GPTQ, symmetric, in groups of 128, unless its name says otherwise ("channel": one group). */
extern const char source_names[];
bool source_knows(const char *name);
void source_make(struct source *source, const char *name, int64_t n, int64_t k);
void source_free(struct source *source);

#endif
