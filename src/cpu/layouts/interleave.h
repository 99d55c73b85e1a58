/* Rows brought together by fours, sixteen bytes at a time, for the packers: in the compiler's vectors, as
 * every SIMD has instructions for these. */
#ifndef FMK_CPU_INTERLEAVE_H
#define FMK_CPU_INTERLEAVE_H

#include <stdint.h>
#include <string.h>

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t pairs8 __attribute__((vector_size(16)));
typedef uint32_t words4 __attribute__((vector_size(16)));

static inline words4 load_words(const uint8_t *bytes) {
    words4 words;
    memcpy(&words, bytes, sizeof words);
    return words;
}

static inline void store_words(uint8_t *bytes, words4 words) {
    memcpy(bytes, &words, sizeof words);
}

/* Word w of row[r] to word r of row[w]. */
static inline void transpose_words(words4 row[4]) {
    words4 a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
    words4 b = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
    words4 c = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
    words4 d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    row[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    row[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    row[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    row[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

static inline words4 low_bytes(words4 a, words4 b) {
    return (words4)__builtin_shufflevector((bytes16)a, (bytes16)b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                           6, 22, 7, 23);
}

static inline words4 high_bytes(words4 a, words4 b) {
    return (words4)__builtin_shufflevector((bytes16)a, (bytes16)b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                           29, 14, 30, 15, 31);
}

static inline words4 low_pairs(words4 a, words4 b) {
    return (words4)__builtin_shufflevector((pairs8)a, (pairs8)b, 0, 8, 1, 9, 2, 10, 3, 11);
}

static inline words4 high_pairs(words4 a, words4 b) {
    return (words4)__builtin_shufflevector((pairs8)a, (pairs8)b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/* Byte i of word r to byte r of word i. */
static inline words4 transpose_bytes(words4 rows) {
    words4 apart = __builtin_shufflevector(rows, rows, 2, 3, 0, 1);
    words4 even = low_bytes(rows, apart); /* of rows 0 and 2, then of 1 and 3 */
    return low_bytes(even, __builtin_shufflevector(even, even, 2, 3, 0, 1));
}

/* Sixteen bytes of four rows: word i of out[j] has byte 4j+i of each. */
static inline void interleave_bytes(const words4 row[4], words4 out[4]) {
    words4 first = low_bytes(row[0], row[1]), second = low_bytes(row[2], row[3]);
    words4 third = high_bytes(row[0], row[1]), fourth = high_bytes(row[2], row[3]);
    out[0] = low_pairs(first, second);
    out[1] = high_pairs(first, second);
    out[2] = low_pairs(third, fourth);
    out[3] = high_pairs(third, fourth);
}

/* Word i to out + i * stride. */
static inline void scatter_words(words4 words, uint8_t *out, int64_t stride) {
    for (int i = 0; i < 4; i++)
        memcpy(out + i * stride, (const uint8_t *)&words + 4 * i, 4);
}

/* Nibbles of 16 + 16 codes to the chunks that the low and the high halves of `first` and `second` are: quad v
 * of `first` with quad v of `second` behind it. In place. */
static inline void regroup_nibbles(words4 *first, words4 *second) {
    const uint32_t low = 0x0f0f0f0f, high = 0xf0f0f0f0;
    words4 a = (*first & low) | (*second & low) << 4, b = (*first >> 4 & low) | (*second & high);
    *first = a;
    *second = b;
}

#endif
