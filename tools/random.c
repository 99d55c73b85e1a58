/* N(0, 1) numbers by Box and Muller's transform of a counter's hash, two at a time. */
#include "random.h"

#include <math.h>

/* The finalizer of splitmix64: a bijection that spreads every bit. */
static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void random_normal(float *out, int64_t count, uint64_t seed) {
    uint64_t start = mix(seed + 0x9e3779b97f4a7c15u);
    for (int64_t i = 0; i < count; i += 2) {
        uint64_t bits = mix(start + (uint64_t)i * 0x9e3779b97f4a7c15u);
        float uniform = ((float)(bits >> 40) + 0.5f) * 0x1p-24f; /* in (0, 1) */
        float angle = (float)(bits & 0xffffff) * (float)(2 * M_PI * 0x1p-24);
        float radius = sqrtf(-2 * logf(uniform));
        out[i] = radius * cosf(angle);
        if (i + 1 < count)
            out[i + 1] = radius * sinf(angle);
    }
}
