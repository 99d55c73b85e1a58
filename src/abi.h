/* Structs that grow: the one place that knows how struct_size is read and written; and products that
 * must not overflow. */
#ifndef FMK_ABI_H
#define FMK_ABI_H

#include "ferrumk.h"

#include <stdbool.h>

/* dst (size bytes) = src as the caller knows it: a shorter struct is extended with zeros, of a longer one
 * the tail must be zero. `name` is the argument's name for the sentence. */
fmk_status fmk_struct_in(void *dst, size_t size, const void *src, const char *name);

/* Writes min(size, dst's struct_size) bytes of src and sets dst's struct_size to that. */
fmk_status fmk_struct_out(void *dst, const void *src, size_t size, const char *name);

/* *out = a * b, or a + b; false when it does not fit or an operand is negative. */
static inline bool fmk_mul(int64_t a, int64_t b, int64_t *out) {
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out);
}

static inline bool fmk_add(int64_t a, int64_t b, int64_t *out) {
    return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, out);
}

static inline int64_t fmk_round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

static inline int64_t fmk_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t fmk_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline void *fmk_pointer(fmk_buffer buffer) {
    return buffer.handle ? (void *)(uintptr_t)(buffer.handle + buffer.offset) : NULL;
}

/* Whether two buffers are present and share a byte of their first so many. */
static inline bool fmk_meet(fmk_buffer a, uint64_t a_bytes, fmk_buffer b, uint64_t b_bytes) {
    uint64_t first = a.handle + a.offset, second = b.handle + b.offset;
    return a.handle && b.handle && first < second + b_bytes && second < first + a_bytes;
}

#endif
