/* What the float kernels of the x8 layouts share: 256 k of a panel are decoded to [k][8 rows] in L1, and each
 * token's activations, broadcast, multiply them for all its rows at once.
 *
 * An output is the sum, in the order of k, of its products in blocks of 256, and the block sums added up in
 * turn. Additions round independently: after i of n equal terms the partial sum has grown to sqrt(i), and
 * rounding it errs by u/sqrt(3) of itself (u = 2^-24), so a sum of n errs by u * sqrt(n/6) of the result.
 * Within the blocks that is 16/sqrt(6) * u = 3.9e-7, over the 112 blocks of k = 28672 it is 2.6e-7: 4.7e-7
 * together. */
#ifndef FMK_CPU_F32_X8_AVX2_H
#define FMK_CPU_F32_X8_AVX2_H

#include "../tile.h"
#include "../layouts/x8.h"

#include <immintrin.h>

enum { MAX_T = 4, MAX_P = 4 };

struct panel {
    _Alignas(64) float w[FMK_K_BLOCK][8];
};

/* out += block sum of P panels times T tokens, over `count` k. */
FMK_INLINE void multiply_panels(const struct panel *panel, int64_t count, const float *x, int64_t stride,
                                const int T, const int P, float *out) {
    __m256 sum[MAX_T][MAX_P];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
            sum[t][p] = _mm256_setzero_ps();
    for (int64_t k = 0; k < count; k++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256 a = _mm256_broadcast_ss(x + t * stride + k);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++)
                sum[t][p] = _mm256_fmadd_ps(a, _mm256_load_ps(panel[p].w[k]), sum[t][p]);
        }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            float *place = out + t * FMK_TILE_N + 8 * p;
            _mm256_storeu_ps(place, _mm256_add_ps(_mm256_loadu_ps(place), sum[t][p]));
        }
}

FMK_INLINE void all_tokens(const struct panel *panel, const struct fmk_tile *tile, int64_t k, int64_t count,
                           const int P, float *out) {
    const float *x = tile->acts->f32 + tile->token * tile->acts->k + k;
    const int64_t stride = tile->acts->k;
    int t = 0;
    if (P < 4) /* four panels serve fewer tokens: one or two, else there are more sums than registers */
        for (; t + 4 <= tile->tokens; t += 4)
            multiply_panels(panel, count, x + t * stride, stride, 4, P, out + t * FMK_TILE_N);
    for (; t + 2 <= tile->tokens; t += 2)
        multiply_panels(panel, count, x + t * stride, stride, 2, P, out + t * FMK_TILE_N);
    if (t < tile->tokens)
        multiply_panels(panel, count, x + t * stride, stride, 1, P, out + t * FMK_TILE_N);
}

/* Writes `count` k from k on of the panel at `data`. */
typedef void decode_panel(const struct fmk_packed *part, const uint8_t *data, int64_t k, int64_t count,
                          struct panel *panel);

/* P panels at a time, and one by one what is left. */
FMK_INLINE void multiply_by(const struct fmk_tile *tile, decode_panel *decode, const int P) {
    const struct fmk_packed *part = tile->part;
    const uint8_t *data = tile->data + (uint64_t)(tile->row / 8) * part->stride;
    int panels = (tile->rows + 7) / 8;
    struct panel panel[MAX_P];
    for (int64_t k = 0; k < part->k_packed; k += FMK_K_BLOCK) {
        int64_t count = fmk_min(FMK_K_BLOCK, part->k_packed - k);
        int p = 0;
        for (; p + P <= panels; p += P) {
            for (int i = 0; i < P; i++)
                decode(part, data + (uint64_t)(p + i) * part->stride, k, count, &panel[i]);
            all_tokens(panel, tile, k, count, P, tile->out + 8 * p);
        }
        for (; p < panels; p++) {
            decode(part, data + (uint64_t)p * part->stride, k, count, &panel[0]);
            all_tokens(panel, tile, k, count, 1, tile->out + 8 * p);
        }
    }
}

/* An FMA takes four cycles and two start in each: eight sums, of four tokens times two panels, keep them
 * busy; with fewer tokens, more panels (32 KB of them, which spill from L1, but less than the waiting costs).
 */
FMK_INLINE void multiply_tile(const struct fmk_tile *tile, decode_panel *decode) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    if (tile->tokens < 4)
        multiply_by(tile, decode, 4);
    else
        multiply_by(tile, decode, 2);
}

/* The codes of a quad (byte 4r+i is row r, k i) to four vectors of eight rows. */
FMK_INLINE void widen_quad(__m256i quad, __m256i code[4]) {
    const __m256i byte = _mm256_set1_epi32(255);
    code[0] = _mm256_and_si256(quad, byte);
    code[1] = _mm256_and_si256(_mm256_srli_epi32(quad, 8), byte);
    code[2] = _mm256_and_si256(_mm256_srli_epi32(quad, 16), byte);
    code[3] = _mm256_srli_epi32(quad, 24);
}

#endif
