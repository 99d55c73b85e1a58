/* Rows of f32, f16 or bf16 times float activations, NEON: dot products of 2 rows by 4 tokens (16 sums, 4 and
 * 2 operands in 32 registers), or of 4 rows by 1. */
#include "dot.h"

#include "../../abi.h"

/* Rows first .. first+R-1 of the tile against `tokens` rows of x from token t on. */
FMK_INLINE void multiply_tokens(const struct fmk_tile *tile, const fmk_dtype dtype, int64_t k, int64_t count,
                                int32_t first, const float *x, int64_t x_stride, int32_t t, int32_t tokens,
                                const int R) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *w = tile->data + (uint64_t)(tile->row + first) * stride + k * (dtype == FMK_F32 ? 4 : 2);
    float *out = tile->out + t * FMK_TILE_N + first;
    int32_t i = 0;
    if (R <= 2)
        for (; i + 4 <= tokens; i += 4)
            multiply_rows(w, stride, dtype, x + i * x_stride, x_stride, count, 4, R, out + i * FMK_TILE_N);
    for (; i < tokens; i++)
        multiply_rows(w, stride, dtype, x + i * x_stride, x_stride, count, 1, R, out + i * FMK_TILE_N);
}

/* Few tokens: each group of rows runs through K, as memory likes it. */
FMK_INLINE void few_tokens(const struct fmk_tile *tile, const fmk_dtype dtype) {
    const int64_t end = tile->part->k, stride = tile->acts->k;
    const float *x = tile->acts->f32 + tile->token * stride;
    int32_t r = 0;
    for (; r + 4 <= tile->rows; r += 4)
        for (int64_t k = 0; k < end; k += FMK_K_BLOCK)
            multiply_tokens(tile, dtype, k, fmk_min(FMK_K_BLOCK, end - k), r, x + k, stride, 0, tile->tokens,
                            4);
    for (; r < tile->rows; r++)
        for (int64_t k = 0; k < end; k += FMK_K_BLOCK)
            multiply_tokens(tile, dtype, k, fmk_min(FMK_K_BLOCK, end - k), r, x + k, stride, 0, tile->tokens,
                            1);
}

/* Many tokens: 16 tokens' block of activations (16 KB) stays in L1 while all rows pass. It is copied
 * together, as rows a power of two apart would all claim the same few lines of L1. */
FMK_INLINE void many_tokens(const struct fmk_tile *tile, const fmk_dtype dtype) {
    enum { GROUP = 16 };
    const int64_t end = tile->part->k;
    _Alignas(64) float x[GROUP][FMK_K_BLOCK];
    for (int64_t k = 0; k < end; k += FMK_K_BLOCK)
        for (int32_t t = 0; t < tile->tokens; t += GROUP) {
            int64_t count = fmk_min(FMK_K_BLOCK, end - k);
            int64_t padded = fmk_round_up(count, 8); /* activations are, to 32 */
            int32_t tokens = tile->tokens - t < GROUP ? tile->tokens - t : GROUP, r = 0;
            for (int32_t i = 0; i < tokens; i++)
                memcpy(x[i], tile->acts->f32 + (tile->token + t + i) * tile->acts->k + k,
                       (size_t)padded * sizeof(float));
            for (; r + 2 <= tile->rows; r += 2)
                multiply_tokens(tile, dtype, k, count, r, x[0], FMK_K_BLOCK, t, tokens, 2);
            if (r < tile->rows)
                multiply_tokens(tile, dtype, k, count, r, x[0], FMK_K_BLOCK, t, tokens, 1);
        }
}

FMK_INLINE void multiply(const struct fmk_tile *tile, const fmk_dtype dtype) {
    if (tile->tokens < 4)
        few_tokens(tile, dtype);
    else
        many_tokens(tile, dtype);
}

void fmk_dense_neon(const struct fmk_tile *tile) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    switch (tile->part->dtype) {
    case FMK_F16:
        multiply(tile, FMK_F16);
        return;
    case FMK_BF16:
        multiply(tile, FMK_BF16);
        return;
    default:
        multiply(tile, FMK_F32);
    }
}
