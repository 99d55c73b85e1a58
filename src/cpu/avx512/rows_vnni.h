/* What the int8 kernels of K-quants in the file's own order share. The sixteen lanes of a register belong to
 * the sixteen runs of 16 k that a super-block has. vpdpbusd adds four products of a run to its lane, so a
 * row's codes, put in four registers of the runs' first, second, third and fourth quads, become the sums of
 * all runs in four instructions, and total += float(sums) * (scales of the weights * scales of the
 * activations) - offsets * activations' sums serves them all. Activations lie in that order already (struct
 * fmk_acts_lanes), codes are put in it once for all tokens. A row and a token keep sixteen lanes of sums,
 * added to in the order of k, which are added up at its end. */
#ifndef FMK_CPU_ROWS_VNNI_H
#define FMK_CPU_ROWS_VNNI_H

#include "../tile.h"

#include "../../abi.h"

#include <immintrin.h>

/* Rows and tokens at once: 8 registers of codes and 16 of totals fit 32. */
enum { MAX_T = 8, MAX_R = 2, QUADS = 4 };

/* A super-block of a row, by lanes. */
struct row_block {
    __m512i code[QUADS];
    __m512 scale;
    __m512 offset; /* not where the codes are centred */
};

typedef void unpack_block(const uint8_t *block, struct row_block *w);

/* Bytes between what is used and what is asked for: memory's latency times what it delivers to a core, and as
 * much again. */
enum { FETCH_AHEAD = 8192 };

/* Bytes of acts.lanes that may come again and again from L1; and so many super-blocks of T tokens at a time.
 */
enum { NEAR_ACTS = 28 << 10, NEAR_BLOCKS = NEAR_ACTS / (int)sizeof(struct fmk_acts_lanes) };

/* centred: codes are 32 too large, which the sums start from. */
FMK_INLINE __m512 multiply_block(const struct row_block *w, const struct fmk_acts_lanes *x,
                                 const bool centred, __m512 total) {
    __m512i sum = centred ? _mm512_loadu_si512(x->start) : _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < QUADS; i++)
        sum = _mm512_dpbusd_epi32(sum, w->code[i], _mm512_loadu_si512(x->q[i]));
    total =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(w->scale, _mm512_loadu_ps(x->scale)), total);
    return centred ? total : _mm512_fnmadd_ps(w->offset, _mm512_loadu_ps(x->sum), total);
}

/* Super-blocks begin .. end-1 of all rows, and T tokens from `token` on. */
struct piece {
    const struct fmk_tile *tile;
    int32_t token;
    int64_t begin, end;
    float (*partial)[MAX_T]
                    [FMK_ACTS_LANES]; /* of each row: sums up to `begin`, to be left as those up to `end` */
};

/* R rows from `row` on. Meanwhile what follows them in memory is asked for, in its order. */
FMK_INLINE void multiply_rows(const struct piece *piece, unpack_block *unpack, const bool centred,
                              const int64_t block_bytes, int32_t row, const int T, const int R) {
    const struct fmk_tile *tile = piece->tile;
    const int64_t blocks = tile->part->k / FMK_K_BLOCK, stride = (int64_t)tile->part->stride;
    const uint8_t *w = tile->data + (tile->row + row) * stride + piece->begin * block_bytes;
    const struct fmk_acts_lanes *x = tile->acts->lanes + (tile->token + piece->token) * blocks + piece->begin;
    const bool whole = stride == (piece->end - piece->begin) * block_bytes;
    const int64_t fetch_row = whole ? block_bytes : stride,
                  fetch_step = whole ? R * block_bytes : block_bytes;
    const uint8_t *fetch = w + (whole ? FETCH_AHEAD : fmk_max(R, FETCH_AHEAD / stride + 1) * stride);
    __m512 total[MAX_T][MAX_R];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int r = 0; r < R; r++)
            total[t][r] = piece->begin ? _mm512_load_ps(piece->partial[row + r][t]) : _mm512_setzero_ps();
    for (int64_t b = piece->begin; b < piece->end; b++, w += block_bytes, fetch += fetch_step, x++) {
        struct row_block block[MAX_R];
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
            for (int64_t i = 0; i < block_bytes; i += 64)
                _mm_prefetch((const char *)fetch + r * fetch_row + i, _MM_HINT_T0);
            unpack(w + r * stride, &block[r]);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int r = 0; r < R; r++)
                total[t][r] = multiply_block(&block[r], x + t * blocks, centred, total[t][r]);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int r = 0; r < R; r++)
            if (piece->end < blocks)
                _mm512_store_ps(piece->partial[row + r][t], total[t][r]);
            else
                tile->out[(piece->token + t) * FMK_TILE_N + row + r] = _mm512_reduce_add_ps(total[t][r]);
}

/* T tokens from `token` on: by pieces of K whose activations stay in L1 while all rows pass. */
FMK_INLINE void multiply_tokens(const struct fmk_tile *tile, unpack_block *unpack, const bool centred,
                                const int64_t block_bytes, int32_t token, const int T) {
    const int64_t blocks = tile->part->k / FMK_K_BLOCK, most = NEAR_BLOCKS / T;
    _Alignas(64) float partial[FMK_TILE_N][MAX_T][FMK_ACTS_LANES];
    struct piece piece = {.tile = tile, .token = token, .partial = partial};
    for (; piece.begin < blocks; piece.begin = piece.end) {
        piece.end = fmk_min(piece.begin + most, blocks);
        int32_t row = 0;
        for (; row + 2 <= tile->rows; row += 2)
            multiply_rows(&piece, unpack, centred, block_bytes, row, T, 2);
        if (row < tile->rows)
            multiply_rows(&piece, unpack, centred, block_bytes, row, T, 1);
    }
}

FMK_INLINE void multiply_tile(const struct fmk_tile *tile, unpack_block *unpack, const bool centred,
                              const int64_t block_bytes) {
    int32_t t = 0;
    for (; t + 8 <= tile->tokens; t += 8)
        multiply_tokens(tile, unpack, centred, block_bytes, t, 8);
    for (; t + 4 <= tile->tokens; t += 4)
        multiply_tokens(tile, unpack, centred, block_bytes, t, 4);
    for (; t + 2 <= tile->tokens; t += 2)
        multiply_tokens(tile, unpack, centred, block_bytes, t, 2);
    if (t < tile->tokens)
        multiply_tokens(tile, unpack, centred, block_bytes, t, 1);
}

#endif
