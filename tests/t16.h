/* For tests: single weights of the t16 layouts and t64, found by the words of kernels/layout.h alone, bit by
 * bit. */
#ifndef T16_H
#define T16_H

#include "reference.h"

#include "../kernels/layout.h"
#include <string.h>

/* Where a code is among a unit's tiles of 512 bytes: the byte, and in it the nibble. */
struct t16_nibble {
    int64_t byte;
    int shift;
};

/* Of row 0..15 and a k of the unit. */
static inline struct t16_nibble t16_find(bool wide, int row, int64_t k) {
    int in = (int)(k % 64);
    int step = wide ? 2 * (in / 32) + in % 8 / 4 : in / 16;
    int t = wide ? in % 32 / 8 : in % 16 / 4;
    int pair = in % 4 / 2, second = in % 2;
    int nibble = 2 * pair + row / 8 + 4 * second;
    int64_t word = 128 * (k / 64) + 4 * (4 * (row % 8) + t) + step;
    return (struct t16_nibble){4 * word + nibble / 2, 4 * (nibble % 2)};
}

static inline int t16_code(const uint8_t *unit, bool wide, int row, int64_t k) {
    struct t16_nibble at = t16_find(wide, row, k);
    return unit[at.byte] >> at.shift & 15;
}

static inline double t16_int4(const uint8_t *unit, int32_t chunks, fmk_dtype dtype, bool has_zeros, int row,
                              int64_t k) {
    int64_t at = 16 * (k / 32 / chunks) + row;
    const uint8_t *scales = unit + FMK_INT4_UNIT_CODES, *zeros = scales + 4 / chunks * 16 * ref_size(dtype);
    return ref_number(dtype, scales + at * ref_size(dtype)) *
           (t16_code(unit, true, row, k) - (has_zeros ? zeros[at] : 8));
}

/* Of t64, with the row in its panel of 16. */
static inline struct t16_nibble t64_find(int row, int64_t k) {
    int in = (int)(k % 16), t = in % 8 / 2, nibble = 2 * (in / 8) + row / 8 + 4 * (in % 2);
    int64_t word = 128 * (k / 64) + 4 * (4 * (row % 8) + t) + k % 64 / 16;
    return (struct t16_nibble){4 * word + nibble / 2, 4 * (nibble % 2)};
}

/* Of row 0..63 and a k of the unit. */
static inline double t64_int4(const uint8_t *unit, int32_t chunks, fmk_dtype dtype, bool has_zeros, int row,
                              int64_t k) {
    struct t16_nibble nibble = t64_find(row % 16, k);
    const uint8_t *scales = unit + 4096, *zeros = scales + 2 * 64 * (4 / chunks);
    int code = unit[1024 * (row / 16) + nibble.byte] >> nibble.shift & 15;
    int64_t at = 64 * (k / 32 / chunks) + 8 * (row % 8) + 2 * (row / 16) + row % 16 / 8;
    return ref_number(dtype, scales + 2 * at) * (code - (has_zeros ? zeros[at] : 8));
}

static inline double t16_q4k(const uint8_t *unit, int row, int64_t k) {
    const uint8_t *head = unit + FMK_Q4K_UNIT_HEADERS + 16 * row, *s = head + 4;
    int64_t j = k / 32;
    int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    return ref_number(FMK_F16, head) * scale * t16_code(unit, true, row, k) -
           ref_number(FMK_F16, head + 2) * min;
}

static inline double t16_q6k(const uint8_t *unit, int row, int64_t k) {
    int step = (int)(k % 128 / 16), t = (int)(k % 16 / 4), pair = (int)(k % 4 / 2), second = (int)(k % 2);
    uint32_t word;
    memcpy(&word, unit + FMK_Q6K_UNIT_HIGH + 512 * (k / 128) + 16 * (4 * (row % 8) + t) + 4 * (step / 2), 4);
    int field = 4 * (step % 2) + 2 * pair + row / 8;
    int high = (int)(word >> (2 * field + 16 * second) & 3);
    int8_t scale = (int8_t)unit[FMK_Q6K_UNIT_SCALES + 16 * row + k / 16];
    return ref_number(FMK_F16, unit + FMK_Q6K_UNIT_D + 2 * row) * scale *
           (t16_code(unit, false, row, k) + 16 * high - 32);
}

#endif
