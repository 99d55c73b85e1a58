/* Float kernels of K-quants in the file's own order: a super-block of two rows is decoded to floats in L1,
 * then it is a dense one. */
#ifndef FMK_CPU_NEON_F32_ROWS_H
#define FMK_CPU_NEON_F32_ROWS_H

#include "dot.h"

/* `decode` writes the 256 weights of the super-block at `block`, which has block_bytes. */
FMK_INLINE void multiply_decoded(const struct fmk_tile *tile, int64_t block_bytes,
                                 void (*decode)(const uint8_t *block, float out[FMK_K_BLOCK])) {
    enum { ROWS = 2 };
    const struct fmk_acts *acts = tile->acts;
    const uint64_t stride = tile->part->stride, row_bytes = FMK_K_BLOCK * sizeof(float);
    _Alignas(64) float w[ROWS][FMK_K_BLOCK] = {0};
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    for (int32_t r = 0; r < tile->rows; r += ROWS) {
        int32_t rows = tile->rows - r < ROWS ? tile->rows - r : ROWS;
        for (int64_t b = 0; b < tile->part->k / FMK_K_BLOCK; b++) {
            for (int32_t i = 0; i < rows; i++)
                decode(tile->data + (uint64_t)(tile->row + r + i) * stride + b * block_bytes, w[i]);
            const float *x = acts->f32 + tile->token * acts->k + b * FMK_K_BLOCK;
            float *out = tile->out + r;
            int32_t t = 0;
            if (rows == ROWS)
                for (; t + 4 <= tile->tokens; t += 4)
                    multiply_rows((const uint8_t *)w, row_bytes, FMK_F32, x + t * acts->k, acts->k,
                                  FMK_K_BLOCK, 4, ROWS, out + t * FMK_TILE_N);
            for (; t < tile->tokens; t++)
                for (int32_t i = 0; i < rows; i++)
                    multiply_rows((const uint8_t *)w[i], row_bytes, FMK_F32, x + t * acts->k, acts->k,
                                  FMK_K_BLOCK, 1, 1, out + t * FMK_TILE_N + i);
        }
    }
}

#endif
