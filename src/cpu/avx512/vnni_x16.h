/* What the int8 kernels of the x16 layouts share. A register of weights holds four consecutive k of sixteen
 * rows; the same four k of a token, broadcast by the instruction itself, meet them in vpdpbusd (u8 weights
 * times s8 activations, four products added up in each row's 32-bit lane). Four quads make the sum of 16 k,
 * which share a scale of the activations: chunk  = float(sum of the first 16 k) * scale[0] + float(sum of the
 * others) * scale[1] Chunks in the order of k, then super-blocks or groups, so that the order depends on K
 * alone. */
#ifndef FMK_CPU_VNNI_X16_H
#define FMK_CPU_VNNI_X16_H

#include "../tile.h"
#include "codes_x16.h"

#include <immintrin.h>
#include <string.h>

/* Tokens at once: two float sums of each, and eight registers of codes, fit 32 registers. */
enum { MAX_T = 8 };

/* Four bytes from p, in all lanes: the compiler makes it an operand of the instruction that uses it. */
FMK_INLINE __m512i broadcast(const void *p) {
    int32_t lane;
    memcpy(&lane, p, sizeof lane);
    return _mm512_set1_epi32(lane);
}

/* start + codes times activations of 16 k. */
FMK_INLINE __m512i sum_16(__m512i start, const __m512i codes[4], const int8_t q[16]) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        start = _mm512_dpbusd_epi32(start, codes[j], broadcast(q + 4 * j));
    return start;
}

/* A chunk's codes times chunk c of a token, without scales of the weights. */
FMK_INLINE __m512 sum_chunk(const __m512i codes[8], const struct fmk_acts_block *x, int c) {
    __m512 first = _mm512_cvtepi32_ps(sum_16(_mm512_setzero_si512(), codes, x->q + 32 * c));
    __m512 second = _mm512_cvtepi32_ps(sum_16(_mm512_setzero_si512(), codes + 4, x->q + 32 * c + 16));
    return _mm512_fmadd_ps(second, _mm512_set1_ps(x->scale[2 * c + 1]),
                           _mm512_mul_ps(first, _mm512_set1_ps(x->scale[2 * c])));
}

/* Asks for `lines` cache lines from p on; any address will do. */
FMK_INLINE void fetch(const uint8_t *p, const int lines) {
#pragma GCC unroll 8
    for (int i = 0; i < lines; i++)
        _mm_prefetch((const char *)p + 64 * i, _MM_HINT_T0);
}

/* A super-block, or what is left of one, of one panel times T tokens: adds to out. `k` is its first; x is the
 * first token's block, others are `tokens` blocks apart. */
typedef void multiply_block(const struct fmk_packed *part, const uint8_t *panel, int64_t k,
                            const struct fmk_acts_block *x, int64_t tokens, const int T, float *out);

FMK_INLINE void multiply_tokens(const struct fmk_tile *tile, const uint8_t *panel, int64_t k, float *out,
                                multiply_block *multiply) {
    const int64_t blocks = (tile->acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
    const struct fmk_acts_block *x = tile->acts->blocks + tile->token * blocks + k / FMK_K_BLOCK;
    int32_t left = tile->tokens;
    for (; left >= MAX_T; left -= MAX_T, x += MAX_T * blocks, out += MAX_T * FMK_TILE_N)
        multiply(tile->part, panel, k, x, blocks, MAX_T, out);
    switch (left) {
    case 1:
        multiply(tile->part, panel, k, x, blocks, 1, out);
        return;
    case 2:
        multiply(tile->part, panel, k, x, blocks, 2, out);
        return;
    case 3:
        multiply(tile->part, panel, k, x, blocks, 3, out);
        return;
    case 4:
        multiply(tile->part, panel, k, x, blocks, 4, out);
        return;
    case 5:
        multiply(tile->part, panel, k, x, blocks, 5, out);
        return;
    case 6:
        multiply(tile->part, panel, k, x, blocks, 6, out);
        return;
    case 7:
        multiply(tile->part, panel, k, x, blocks, 7, out);
        return;
    default:
        return;
    }
}

/* The panels of a tile take turns at a super-block, each asking for its next one meanwhile: so memory
 * delivers as many streams at once. */
FMK_INLINE void multiply_tile(const struct fmk_tile *tile, multiply_block *multiply) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 16) * stride;
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    for (int64_t k = 0; k < tile->part->k_packed; k += FMK_K_BLOCK)
        for (int32_t row = 0; row < tile->rows; row += 16)
            multiply_tokens(tile, panel + (uint64_t)(row / 16) * stride, k, tile->out + row, multiply);
}

#endif
