/* What the float kernels of the x16 layouts share: 256 k of a panel are decoded to [k][16 rows] in L1, and
 * each token's activations, broadcast, multiply them for all its rows at once.
 *
 * An output is the sum of blocks of 256 k in their order; a block's sum is four sums of 64 terms, every
 * fourth k, added as a tree: eight chains and more keep the multipliers busy. By the reckoning of
 * ../avx2/f32_x8.h that is an error of u * sqrt(64/6) = 1.9e-7 in a block and 2.6e-7 over the 112 blocks of k
 * = 28672. */
#ifndef FMK_CPU_F32_X16_H
#define FMK_CPU_F32_X16_H

#include "codes_x16.h"

#include "../../abi.h"

#include <string.h>

enum { MAX_T = 4, CHAINS = 4 };

struct panel {
    _Alignas(64) float w[FMK_K_BLOCK][16];
};

/* The codes of a quad to four vectors of sixteen rows. */
FMK_INLINE void widen_quad(__m512i quad, __m512i code[4]) {
    const __m512i byte = _mm512_set1_epi32(255);
    code[0] = _mm512_and_si512(quad, byte);
    code[1] = _mm512_and_si512(_mm512_srli_epi32(quad, 8), byte);
    code[2] = _mm512_and_si512(_mm512_srli_epi32(quad, 16), byte);
    code[3] = _mm512_srli_epi32(quad, 24);
}

/* out += the panel's `count` k, a multiple of 32, times T tokens. */
FMK_INLINE void multiply_panel(const struct panel *panel, int64_t count, const float *x, int64_t stride,
                               const int T, float *out) {
    __m512 sum[MAX_T][CHAINS];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int i = 0; i < CHAINS; i++)
            sum[t][i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < count; k += CHAINS)
#pragma GCC unroll 4
        for (int i = 0; i < CHAINS; i++) {
            __m512 w = _mm512_load_ps(panel->w[k + i]);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++)
                sum[t][i] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t * stride + k + i]), sum[t][i]);
        }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        float *place = out + t * FMK_TILE_N;
        __m512 all = _mm512_add_ps(_mm512_add_ps(sum[t][0], sum[t][1]), _mm512_add_ps(sum[t][2], sum[t][3]));
        _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), all));
    }
}

FMK_INLINE void all_tokens(const struct panel *panel, const struct fmk_tile *tile, int64_t k, int64_t count,
                           float *out) {
    const int64_t stride = tile->acts->k;
    const float *x = tile->acts->f32 + tile->token * stride + k;
    int t = 0;
    for (; t + 4 <= tile->tokens; t += 4)
        multiply_panel(panel, count, x + t * stride, stride, 4, out + t * FMK_TILE_N);
    for (; t + 2 <= tile->tokens; t += 2)
        multiply_panel(panel, count, x + t * stride, stride, 2, out + t * FMK_TILE_N);
    if (t < tile->tokens)
        multiply_panel(panel, count, x + t * stride, stride, 1, out + t * FMK_TILE_N);
}

/* Writes `count` k from k on of the panel at `data`. */
typedef void decode_panel(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                          struct panel *panel);

/* Asks for what follows `count` k at position k by FETCH_AHEAD bytes, of all panels that take turns together.
 */
FMK_INLINE void fetch_ahead(const struct fmk_packed *part, const uint8_t *panel, int64_t k, int64_t count,
                            int32_t streams) {
    enum { FETCH_AHEAD = 8192 };
    const int64_t chunk = (int64_t)part->stride / (part->k_packed / 32); /* about */
    const uint8_t *ahead = panel + k / 32 * chunk + FETCH_AHEAD / streams;
    for (int64_t i = 0; i < count / 32 * chunk; i += 64)
        _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
}

FMK_INLINE void multiply_tile(const struct fmk_tile *tile, decode_panel *decode) {
    const struct fmk_packed *part = tile->part;
    const uint8_t *data = tile->data + (uint64_t)(tile->row / 16) * part->stride;
    const int32_t rows_in_turns = 16 * tile->streams;
    struct panel panel;
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    for (int32_t first = 0; first < tile->rows; first += rows_in_turns) {
        int32_t end = (int32_t)fmk_min(first + rows_in_turns, tile->rows);
        for (int64_t k = 0; k < part->k_packed; k += FMK_K_BLOCK)
            for (int32_t row = first; row < end; row += 16) {
                const uint8_t *packed = data + (uint64_t)(row / 16) * part->stride;
                int64_t count = fmk_min(FMK_K_BLOCK, part->k_packed - k);
                fetch_ahead(part, packed, k, count, tile->streams);
                decode(part, packed, k, count, &panel);
                all_tokens(&panel, tile, k, count, tile->out + row);
            }
    }
}

#endif
