/* Four floats at a time: vectors that the compiler lowers to what the machine has, with the same operations
 * in the same order everywhere. In the K-quantizers a lane is a sub-block, elsewhere every fourth weight. */
#ifndef FMK_QUANTIZE_LANES_H
#define FMK_QUANTIZE_LANES_H

#include <stdint.h>

typedef float fmk_v4 __attribute__((vector_size(16), may_alias));
typedef int32_t fmk_v4i __attribute__((vector_size(16)));

static inline float fmk_sum4(fmk_v4 v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* a where the mask is -1, b where it is 0. */
static inline fmk_v4 fmk_select4(fmk_v4i mask, fmk_v4 a, fmk_v4 b) {
    return (fmk_v4)(((fmk_v4i)a & mask) | ((fmk_v4i)b & ~mask));
}

static inline fmk_v4 fmk_min4(fmk_v4 a, fmk_v4 b) {
    return fmk_select4(a < b, a, b);
}

/* b where a is NaN. */
static inline fmk_v4 fmk_max4(fmk_v4 a, fmk_v4 b) {
    return fmk_select4(a > b, a, b);
}

/* 1 / v, and 0 for a v of 0. */
static inline fmk_v4 fmk_inverse4(fmk_v4 v) {
    return (fmk_v4)((fmk_v4i)(1 / v) & (v != 0));
}

/* Nearest whole number of bottom..top, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction. */
static inline fmk_v4 fmk_code4(fmk_v4 value, float bottom, float top) {
    const fmk_v4 whole = (fmk_v4){0} + 0x1.8p23f;
    value = fmk_max4(value, (fmk_v4){0} + bottom);
    return (fmk_min4(value, (fmk_v4){0} + top) + whole) - whole;
}

/* Of codes q and weights x, in each lane. */
struct fmk_code_sums {
    fmk_v4 q, qq, xq;
};

/* Codes of x * inverse + offset in bottom..top, and their sums. */
static inline struct fmk_code_sums fmk_code_sums(const fmk_v4 *x, int count, fmk_v4 inverse, fmk_v4 offset,
                                                 float bottom, float top) {
    struct fmk_code_sums sums = {{0}, {0}, {0}};
    for (int i = 0; i < count; i++) {
        fmk_v4 q = fmk_code4(x[i] * inverse + offset, bottom, top);
        sums.q += q;
        sums.qq += q * q;
        sums.xq += q * x[i];
    }
    return sums;
}

/* weights [4][count] to x [count], a row a lane. */
static inline void fmk_transpose4(const float *weights, int count, fmk_v4 *x) {
    for (int i = 0; i < count; i++)
        x[i] = (fmk_v4){weights[i], weights[count + i], weights[2 * count + i], weights[3 * count + i]};
}

#endif
