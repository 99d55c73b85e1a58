/* The t16 layouts, and t64: how weights lie in a GPU's memory for mma.m16n8k16, or wgmma, with the weights as
 * its A operand.
 *
 * A panel is 16 rows; rows past n are zero weights. Along K a panel is a run of units, each a number of bytes
 * divisible by 16. A unit's codes are tiles of 64 k: 512 bytes, of which lane l (0..31) reads the 16 at 16 l;
 * word s (0..3) of these is the lane's A fragment of step s, one mma with 16 k.
 *
 * With g = l / 4 and t = l % 4, the lane holds rows g and g + 8, and of each step four k:
 *     wide    (int4, q4_k)  k = 64 tile + 32 (s / 2) + 8 t + 4 (s % 2) + 0..3
 *     narrow  (q6_k)        k = 64 tile + 16 s + 4 t + 0..3
 * so that a lane's activations are 8, or 4, neighbours. Nibble i (0..3) of the word is the first of a pair of
 * neighbouring k, nibble i + 4 the second: i = 0 row g, k 0 and 1; i = 1 row g + 8, k 0 and 1;
 * i = 2 row g, k 2 and 3; i = 3 row g + 8, k 2 and 3. Shifting by 4 i and masking with 0x000f000f gives the
 * pair as two 16-bit numbers.
 *
 * int4.t16, unit of 128 k: codes 1024 | scale [S][16] (2 or 4 bytes each) | zero u8 [S][16] where has_zeros;
 *     S = 4 / chunks scales, each for 32 * chunks k; w = scale * (code - zero)
 * q4_k.t16, unit of 256 k, 2304 bytes: codes 2048 | row [16]: f16 d, f16 dmin, u8 scales[12], as in the file
 * q6_k.t16, unit of 256 k, 3360 bytes: low nibbles 2048 | high 2 x 512 | i8 scale [16 rows][16] | f16 d [16]
 *     high: of each half of 128 k, lane l reads 16 bytes at 16 l; word w (0..3) serves the half's steps
 *     2 w and 2 w + 1. Field j = 4 (step % 2) + i, at bits 2 j of the low 16 bits, is the first of pair i;
 *     at bits 16 + 2 j it is the second. A weight is d * scale[k / 16] * (low + 16 high - 32).
 *
 * int4.t64 has blocks of 64 rows: a unit is 128 k of four panels, one run of bytes for a bulk copy. Its k are
 * in the order of the fragments themselves: of step s lane (g, t) holds
 *     k = 64 tile + 16 s + 2 t + 0, 1, 8, 9      as nibble i's k 0, 1, 2, 3
 * so that ldmatrix, or wgmma's descriptors, can make fragments of rows of activations as they are. A unit is
 *     codes [4 panels][1024] | scale [S][8 g][4 panels][rows g, g + 8] | zero u8, likewise, where has_zeros;
 *     a scale has two bytes, S is as in t16 */
#ifndef FMK_KERNELS_LAYOUT_H
#define FMK_KERNELS_LAYOUT_H

enum {
    FMK_T16_ROWS = 16,
    FMK_T16_TILE = 512, /* bytes of the codes of 64 k */
    FMK_INT4_UNIT_K = 128,
    FMK_INT4_UNIT_CODES = 1024,
    FMK_T64_ROWS = 64,
    FMK_T64_CODES = 4 * FMK_INT4_UNIT_CODES,
    FMK_Q4K_UNIT_K = 256,
    FMK_Q4K_UNIT_HEADERS = 2048, /* offset */
    FMK_Q4K_UNIT = 2304,
    FMK_Q6K_UNIT_K = 256,
    FMK_Q6K_UNIT_HIGH = 2048, /* offsets */
    FMK_Q6K_UNIT_SCALES = 3072,
    FMK_Q6K_UNIT_D = 3328,
    FMK_Q6K_UNIT = 3360
};

/* Bytes of a unit of int4.t16. */
#define FMK_INT4_UNIT(chunks, scale_size, has_zeros)                                                         \
    (FMK_INT4_UNIT_CODES + 4 / (chunks)*16 * ((scale_size) + ((has_zeros) ? 1 : 0)))

/* Bytes of a unit of int4.t64. */
#define FMK_T64_UNIT(chunks, has_zeros) (4 * FMK_INT4_UNIT(chunks, 2, has_zeros))

/* Where the scale, or zero point, of row 0..63 lies among the 64 of a group. */
#define FMK_T64_PLACE(row) (8 * ((row) % 8) + (row) / 8)

#endif
