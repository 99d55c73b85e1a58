/* Sums over quantized weights, four at a time: vectors that the compiler lowers to what the machine has, with
 * the same additions in the same order everywhere. */
#ifndef FMK_QUANTIZE_LANES_H
#define FMK_QUANTIZE_LANES_H

#include <stdint.h>

typedef float fmk_v4 __attribute__((vector_size(16), may_alias));
typedef int32_t fmk_v4i __attribute__((vector_size(16)));

/* Of codes q and weights x, over one block. */
struct fmk_code_sums {
    float q, qq, xq;
};

static inline float fmk_sum4(fmk_v4 v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}

static inline fmk_v4 fmk_min4(fmk_v4 a, fmk_v4 b) {
    fmk_v4i less = a < b;
    return (fmk_v4)(((fmk_v4i)a & less) | ((fmk_v4i)b & ~less));
}

static inline fmk_v4 fmk_max4(fmk_v4 a, fmk_v4 b) {
    fmk_v4i more = a > b;
    return (fmk_v4)(((fmk_v4i)a & more) | ((fmk_v4i)b & ~more));
}

/* Nearest whole number of bottom..top, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction. */
static inline fmk_v4 fmk_code4(fmk_v4 value, float bottom, float top) {
    const fmk_v4 whole = (fmk_v4){0} + 0x1.8p23f;
    value = fmk_max4(value, (fmk_v4){0} + bottom);
    return (fmk_min4(value, (fmk_v4){0} + top) + whole) - whole;
}

/* Codes of x * inverse + offset in bottom..top, and their sums. */
static inline struct fmk_code_sums fmk_code_sums(const fmk_v4 *x, int vectors, float inverse, float offset,
                                                 float bottom, float top) {
    fmk_v4 q_sum = {0}, qq_sum = {0}, xq_sum = {0};
    for (int i = 0; i < vectors; i++) {
        fmk_v4 q = fmk_code4(x[i] * inverse + offset, bottom, top);
        q_sum += q;
        qq_sum += q * q;
        xq_sum += q * x[i];
    }
    return (struct fmk_code_sums){fmk_sum4(q_sum), fmk_sum4(qq_sum), fmk_sum4(xq_sum)};
}

#endif
