/* Rows of f32, f16 or bf16 times float activations, AVX2: dot products of 3 rows by 4 tokens (12 sums and 4
 * operands in 16 registers), or of 4 rows by 1. */
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
    for (; i + 4 <= tokens; i += 4)
        multiply_rows(w, stride, dtype, x + i * x_stride, x_stride, count, 4, R, out + i * FMK_TILE_N);
    for (; i < tokens; i++)
        multiply_rows(w, stride, dtype, x + i * x_stride, x_stride, count, 1, R, out + i * FMK_TILE_N);
}

/* Asks for the cache lines of `bytes` bytes of four rows. */
FMK_INLINE void fetch_rows(const uint8_t *w, uint64_t stride, int64_t bytes) {
    for (int r = 0; r < 4; r++)
        for (int64_t i = 0; i < bytes; i += 64)
            _mm_prefetch((const char *)w + (uint64_t)r * stride + i, _MM_HINT_T0);
}

/* Few tokens: each group of rows runs through K, as memory likes it, and is asked for 2 KB ahead; at its end,
 * the next group. */
FMK_INLINE void few_tokens(const struct fmk_tile *tile, const fmk_dtype dtype) {
    enum { FETCH_AHEAD = 2048 };
    const int64_t end = tile->part->k, stride = tile->acts->k, size = dtype == FMK_F32 ? 4 : 2;
    const uint64_t w_stride = tile->part->stride;
    const float *x = tile->acts->f32 + tile->token * stride;
    int32_t r = 0;
    for (; r + 4 <= tile->rows; r += 4) {
        const uint8_t *w = tile->data + (uint64_t)(tile->row + r) * w_stride;
        for (int64_t k = 0; k < end; k += FMK_K_BLOCK) {
            int64_t count = fmk_min(FMK_K_BLOCK, end - k), ahead = k * size + FETCH_AHEAD;
            fetch_rows(w + ahead + (ahead < end * size ? 0 : 3 * w_stride), w_stride, count * size);
            multiply_tokens(tile, dtype, k, count, r, x + k, stride, 0, tile->tokens, 4);
        }
    }
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
            for (; r + 3 <= tile->rows; r += 3)
                multiply_tokens(tile, dtype, k, count, r, x[0], FMK_K_BLOCK, t, tokens, 3);
            for (; r < tile->rows; r++)
                multiply_tokens(tile, dtype, k, count, r, x[0], FMK_K_BLOCK, t, tokens, 1);
        }
}

FMK_INLINE void multiply(const struct fmk_tile *tile, const fmk_dtype dtype) {
    if (tile->tokens < 4)
        few_tokens(tile, dtype);
    else
        many_tokens(tile, dtype);
}

void fmk_dense_avx2(const struct fmk_tile *tile) {
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
