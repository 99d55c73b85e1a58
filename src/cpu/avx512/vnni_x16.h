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

/* The two sums of a chunk's codes times chunk c of a token. */
FMK_INLINE void sum_halves(const __m512i codes[8], const struct fmk_acts_block *x, int c, __m512 sum[2]) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
        sum[h] = _mm512_cvtepi32_ps(sum_16(_mm512_setzero_si512(), codes + 4 * h, x->q + 32 * c + 16 * h));
}

/* Asks for `lines` cache lines from p on; any address will do. */
FMK_INLINE void fetch(const uint8_t *p, const int lines) {
#pragma GCC unroll 8
    for (int i = 0; i < lines; i++)
        _mm_prefetch((const char *)p + 64 * i, _MM_HINT_T0);
}

/* Bytes between what is used and what is asked for, of all streams together: memory's latency times what it
 * delivers to a core, and as much again, as panels follow one another. */
enum { FETCH_AHEAD = 8192 };

/* A super-block of one panel, or what is left of one, and T tokens. */
struct step {
    const struct fmk_packed *part;
    const uint8_t *panel;
    int64_t k;                      /* the first */
    int64_t ahead;                  /* bytes from what is used to what is fetched */
    const struct fmk_acts_block *x; /* of the first token; the others' are `tokens` blocks apart */
    int64_t tokens;
    float *out; /* adds to it; tokens are FMK_TILE_N apart */
};

typedef void multiply_step(const struct step *step, const int T);

/* Tokens token .. token+T-1 of the tile. */
FMK_INLINE void multiply_tokens(const struct fmk_tile *tile, int32_t token, const int T,
                                multiply_step *multiply) {
    const struct fmk_packed *part = tile->part;
    const int64_t blocks = (tile->acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
    const struct fmk_acts_block *x = tile->acts->blocks + (tile->token + token) * blocks;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 16) * part->stride;
    const int32_t rows_in_turns = 16 * tile->streams;
    struct step step = {.part = part, .ahead = FETCH_AHEAD / tile->streams, .tokens = blocks};
    for (int32_t first = 0; first < tile->rows; first += rows_in_turns) {
        int32_t end = (int32_t)fmk_min(first + rows_in_turns, tile->rows);
        for (step.k = 0; step.k < part->k_packed; step.k += FMK_K_BLOCK)
            for (int32_t row = first; row < end; row += 16) {
                step.panel = panel + (uint64_t)(row / 16) * part->stride;
                step.x = x + step.k / FMK_K_BLOCK;
                step.out = tile->out + token * FMK_TILE_N + row;
                multiply(&step, T);
            }
    }
}

FMK_INLINE void multiply_tile(const struct fmk_tile *tile, multiply_step *multiply) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    int32_t t = 0;
    for (; t + MAX_T <= tile->tokens; t += MAX_T)
        multiply_tokens(tile, t, MAX_T, multiply);
    switch (tile->tokens - t) {
    case 1:
        multiply_tokens(tile, t, 1, multiply);
        return;
    case 2:
        multiply_tokens(tile, t, 2, multiply);
        return;
    case 3:
        multiply_tokens(tile, t, 3, multiply);
        return;
    case 4:
        multiply_tokens(tile, t, 4, multiply);
        return;
    case 5:
        multiply_tokens(tile, t, 5, multiply);
        return;
    case 6:
        multiply_tokens(tile, t, 6, multiply);
        return;
    case 7:
        multiply_tokens(tile, t, 7, multiply);
        return;
    default:
        return;
    }
}

#endif
