/* The x8 layouts: eight weight rows interleaved, so that a 32-byte register holds four consecutive k of each
 * row in its eight 32-bit lanes. Rows past n are zero weights.
 *
 * A "quad" is 32 bytes; byte 4r+i is row r, k 4q+i. A chunk is 32 k of 8 rows = 8 quads. In nibbles, the 32
 * bytes number v (0..3) of a chunk hold quad v in their low and quad v+4 in their high halves: 128 bytes.
 *
 * q4_k.x8, per super-block of 256 k (1184 bytes, 1.028 x the file's 8 * 144):
 *     f16 d[8], f16 dmin[8], u8 scale[8][8], u8 min[8][8]  ([sub-block][row], unpacked from 6 bits),
 *     u8 nibbles[8][128]                                   (one chunk a sub-block)
 * q6_k.x8, per super-block (1680 = 8 * 210 bytes):
 *     f16 d[8], i8 scale[16][8] ([16 k][row]), u8 low[8][128] (nibbles as above, codes' low 4 bits),
 *     u8 high[8][64]: two high bits of each code; 32 bytes number v (0..1) of a chunk hold, in bits 2j and
 *     2j+1 of byte 4r+i, the bits of quad 4v+j, so the codes are 0..63 and a weight is d * scale * (code-32)
 * int4.x8, per block of `chunks` chunks (32 * chunks k that share a scale; the last block of a panel has
 * the chunks that are left):
 *     scale[8] in dtype's bits, u8 zero[8], u8 nibbles[chunks][128]; w = scale * (code - zero)
 *
 * A panel is its blocks in the order of k; panels follow one another. stride = bytes of a panel. */
#ifndef FMK_CPU_X8_H
#define FMK_CPU_X8_H

#include "../../abi.h"
#include "../../plan/layout.h"

#include <string.h>

enum {
    FMK_X8_CHUNK = 128,     /* bytes of nibbles of 32 k */
    FMK_Q4K_X8_MINIMA = 16, /* offsets in a super-block: of dmin, */
    FMK_Q4K_X8_SCALES = 32, /* scale, */
    FMK_Q4K_X8_MINS = 96,   /* min */
    FMK_Q4K_X8_NIBBLES = 160,
    FMK_Q4K_X8_BLOCK = 1184,
    FMK_Q6K_X8_SCALES = 16,
    FMK_Q6K_X8_LOW = 144,
    FMK_Q6K_X8_HIGH = 1168,
    FMK_Q6K_X8_BLOCK = 1680
};

/* Bytes in front of a block's nibbles. */
static inline int64_t fmk_int4_x8_header(int64_t scale_size) {
    return 8 * scale_size + 8;
}

static inline uint32_t fmk_load_u32(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline void fmk_store_u32(uint8_t *bytes, uint32_t word) {
    memcpy(bytes, &word, sizeof word);
}

/* The nibble of row r (0..7), k (0..31) of a chunk. */
static inline uint8_t fmk_x8_nibble(const uint8_t *chunk, int64_t r, int64_t k) {
    return (chunk[(k % 16 / 4) * 32 + 4 * r + k % 4] >> (k / 16 * 4)) & 15;
}

/* The sizes that follow from n, experts and the bytes of a panel of 8 rows; false when they overflow. */
static inline bool fmk_x8_sizes(int64_t n, int32_t experts, int64_t panel, struct fmk_packed *packed) {
    int64_t expert, all;
    if (n <= 0 || n > INT64_MAX - 7 || experts <= 0 || panel <= 0)
        return false;
    if (!fmk_mul((n + 7) / 8, panel, &expert) || !fmk_mul(expert, experts, &all))
        return false;
    packed->stride = (uint64_t)panel;
    packed->expert_stride = (uint64_t)expert;
    packed->bytes = (uint64_t)all;
    return true;
}

/* Whether the sizes in `packed` are those that follow from its n, experts and a panel of so many bytes. */
static inline bool fmk_x8_valid(const struct fmk_packed *packed, int64_t panel) {
    struct fmk_packed own;
    return !packed->has_zeros && fmk_x8_sizes(packed->n, packed->experts, panel, &own) &&
           packed->stride == own.stride && packed->expert_stride == own.expert_stride &&
           packed->bytes == own.bytes;
}

#endif
