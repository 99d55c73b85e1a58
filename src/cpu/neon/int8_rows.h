/* What the int8 kernels of K-quants in the file's own order share: sixteen codes of a row meet sixteen of a
 * token, which makes four sums of four products each. A row and each of its tokens keep them in four lanes,
 * those of even and of odd runs of 16 apart, as one addition has to wait for another; they are added up at
 * the end of K. */
#ifndef FMK_CPU_NEON_INT8_ROWS_H
#define FMK_CPU_NEON_INT8_ROWS_H

#include "../tile.h"
#include "../../abi.h"
#include "numbers.h"

enum { MAX_T = 4, RUNS = FMK_K_BLOCK / 16 };

/* Of a super-block: what each 16 codes and each 32 are scaled and offset by. */
struct block_scales {
    float32x4_t scale[RUNS / 4];
    float32x4_t offset[RUNS / 8]; /* not where the codes are signed */
};

typedef struct block_scales load_scales(const uint8_t *block);
/* Run g of 16 codes. */
typedef int8x16_t load_codes(const uint8_t *block, const int g);

FMK_INLINE void multiply_block(const uint8_t *block, load_scales *scales_of, load_codes *codes_of,
                               const bool offsets, const struct fmk_acts_block *x, int64_t stride,
                               const int T, float32x4_t total[MAX_T][2]) {
    struct block_scales w = scales_of(block);
    float32x4_t scale[MAX_T][RUNS / 4];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int i = 0; i < RUNS / 4; i++)
            scale[t][i] = vmulq_f32(w.scale[i], vld1q_f32(x[t * stride].scale + 4 * i));
#pragma GCC unroll 16
    for (int g = 0; g < RUNS; g++) {
        int8x16_t codes = codes_of(block, g);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            int32x4_t sum = vdotq_s32(vdupq_n_s32(0), codes, vld1q_s8(x[t * stride].q + 16 * g));
            total[t][g % 2] =
                vfmaq_f32(total[t][g % 2], vcvtq_f32_s32(sum), vdupq_n_f32(scale[t][g / 4][g % 4]));
        }
    }
    if (offsets)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++)
                total[t][i] = vfmsq_f32(total[t][i], w.offset[i], vld1q_f32(x[t * stride].sum + 4 * i));
}

FMK_INLINE void multiply_row(const struct fmk_tile *tile, load_scales *scales_of, load_codes *codes_of,
                             const bool offsets, int64_t block_bytes, int32_t r, int32_t t, const int T) {
    const int64_t blocks = tile->part->k / FMK_K_BLOCK;
    const uint8_t *w = tile->data + (uint64_t)(tile->row + r) * tile->part->stride;
    const struct fmk_acts_block *x = tile->acts->blocks + (tile->token + t) * blocks;
    float32x4_t total[MAX_T][2];
#pragma GCC unroll 4
    for (int i = 0; i < T; i++)
        total[i][0] = total[i][1] = vdupq_n_f32(0);
    for (int64_t b = 0; b < blocks; b++)
        multiply_block(w + b * block_bytes, scales_of, codes_of, offsets, x + b, blocks, T, total);
#pragma GCC unroll 4
    for (int i = 0; i < T; i++)
        tile->out[(t + i) * FMK_TILE_N + r] = vaddvq_f32(vaddq_f32(total[i][0], total[i][1]));
}

/* Tokens share an unpacked row, four at a time. */
FMK_INLINE void multiply_rows(const struct fmk_tile *tile, load_scales *scales_of, load_codes *codes_of,
                              const bool offsets, int64_t block_bytes) {
    for (int32_t r = 0; r < tile->rows; r++) {
        int32_t t = 0;
        for (; t + 4 <= tile->tokens; t += 4)
            multiply_row(tile, scales_of, codes_of, offsets, block_bytes, r, t, 4);
        for (; t + 2 <= tile->tokens; t += 2)
            multiply_row(tile, scales_of, codes_of, offsets, block_bytes, r, t, 2);
        if (t < tile->tokens)
            multiply_row(tile, scales_of, codes_of, offsets, block_bytes, r, t, 1);
    }
}

#endif
