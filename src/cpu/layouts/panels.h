/* The x8 and x16 layouts: R = eight or sixteen weight rows interleaved, a *panel*, so that a register of 32
 * or 64 bytes holds four consecutive k of each row in its 32-bit lanes. Rows past n are zero weights.
 *
 * A "quad" is such a register, 4R bytes; byte 4r+i is row r, k 4q+i. A chunk is 32 k of R rows = 8 quads. In
 * nibbles, the 4R bytes number v (0..3) of a chunk hold quad v in their low and quad v+4 in their high
 * halves: 16R bytes.
 *
 * q4_k, per super-block of 256 k (148R bytes, 1.028 x the file's 144R; of x16, whole cache lines):
 *     f16 d[R], f16 dmin[R], u8 scale[8][R], u8 min[8][R]  ([sub-block][row], unpacked from 6 bits),
 *     u8 nibbles[8][16R]                                   (one chunk a sub-block)
 * q6_k, per super-block (210R bytes):
 *     f16 d[R], i8 scale[16][R] ([16 k][row]), u8 low[8][16R] (nibbles as above, codes' low 4 bits),
 *     u8 high[8][8R]: two high bits of each code; 4R bytes number v (0..1) of a chunk hold, in bits 2j and
 *     2j+1 of byte 4r+i, the bits of quad 4v+j, so the codes are 0..63 and a weight is d * scale * (code-32)
 *     In x16 the high bits of each chunk follow its nibbles: memory is read in one place.
 * int4, per block of `chunks` chunks (32 * chunks k that share a scale; the last block of a panel has the
 * chunks that are left):
 *     scale[R] in dtype's bits, u8 zero[R], u8 nibbles[chunks][16R]; w = scale * (code - zero)
 *
 * A panel is its blocks in the order of k; panels follow one another. stride = bytes of a panel. */
#ifndef FMK_CPU_PANELS_H
#define FMK_CPU_PANELS_H

#include "../../abi.h"
#include "../../plan/layout.h"

#include <string.h>

enum { /* bytes for each row of a panel: of a chunk's nibbles; a super-block's fields' offsets, and all of it
        */
       FMK_PANEL_CHUNK = 16,
       FMK_Q4K_PANEL_MINIMA = 2,
       FMK_Q4K_PANEL_SCALES = 4,
       FMK_Q4K_PANEL_MINS = 12,
       FMK_Q4K_PANEL_NIBBLES = 20,
       FMK_Q4K_PANEL_BLOCK = 148,
       FMK_Q6K_PANEL_SCALES = 2,
       FMK_Q6K_PANEL_LOW = 18,
       FMK_Q6K_PANEL_HIGH = 146,
       FMK_Q6K_PANEL_BLOCK = 210
};

/* q6_k: bytes into a super-block of chunk c's nibbles, and of its high bits. */
static inline int64_t fmk_q6k_panel_low(int32_t rows, int64_t c) {
    return rows * (FMK_Q6K_PANEL_LOW + c * (rows == 16 ? 3 : 2) * FMK_PANEL_CHUNK / 2);
}

static inline int64_t fmk_q6k_panel_high(int32_t rows, int64_t c) {
    return rows == 16 ? fmk_q6k_panel_low(rows, c) + rows * FMK_PANEL_CHUNK
                      : rows * (FMK_Q6K_PANEL_HIGH + c * FMK_PANEL_CHUNK / 2);
}

static inline uint32_t fmk_load_u32(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline void fmk_store_u32(uint8_t *bytes, uint32_t word) {
    memcpy(bytes, &word, sizeof word);
}

/* The nibble of row r (0..rows-1), k (0..31) of a chunk. */
static inline uint8_t fmk_panel_nibble(const uint8_t *chunk, int32_t rows, int64_t r, int64_t k) {
    return (chunk[(k % 16 / 4) * 4 * rows + 4 * r + k % 4] >> (k / 16 * 4)) & 15;
}

/* The sizes that follow from n, experts and the bytes of a panel of so many rows; false when they overflow.
 */
static inline bool fmk_panel_sizes(int64_t n, int32_t experts, int32_t rows, int64_t panel,
                                   struct fmk_packed *packed) {
    int64_t expert, all;
    if (n <= 0 || n > INT64_MAX - rows || experts <= 0 || panel <= 0)
        return false;
    if (!fmk_mul((n + rows - 1) / rows, panel, &expert) || !fmk_mul(expert, experts, &all))
        return false;
    packed->stride = (uint64_t)panel;
    packed->expert_stride = (uint64_t)expert;
    packed->bytes = (uint64_t)all;
    return true;
}

/* Whether the sizes in `packed` are those that follow from its n, experts and a panel of so many bytes. */
static inline bool fmk_panel_valid(const struct fmk_packed *packed, int64_t panel) {
    struct fmk_packed own;
    return !packed->has_zeros &&
           fmk_panel_sizes(packed->n, packed->experts, packed->layout->panel_rows, panel, &own) &&
           packed->stride == own.stride && packed->expert_stride == own.expert_stride &&
           packed->bytes == own.bytes;
}

#endif
