/* Many tokens on the x8 layouts by smmla, which multiplies 8 k of two rows by the same 8 k of two tokens. Its
 * sums are integers, and what is done with them is what int8_x8.h does: so the bits are the same, and one
 * token goes there. A run of a panel is unpacked once for all tokens; a run of all tokens is put in order
 * once for all panels. */
#ifndef FMK_CPU_NEON_I8MM_X8_H
#define FMK_CPU_NEON_I8MM_X8_H

#include "int8_x8.h"

enum { HALVES = 2 * RUN_CHUNKS, MAX_PAIRS = FMK_TILE_M / 2 };

/* A run of two tokens; a lone one is there twice. Sums lie as {row 0: tokens 0, 1; row 1: tokens 0, 1}. */
struct token_pair {
    int8x16_t q[HALVES][2]; /* 8 k of the first, and of the second */
    float scale[HALVES][2], sum[RUN_CHUNKS][2];
    int32_t start[HALVES][2];
};

/* A run of a panel's rows, by twos. */
struct row_pairs {
    int8x16_t code[HALVES][2][4]; /* [16 k][8 k][rows 2i, 2i+1] */
    float32x4_t scale[HALVES][4], offset[RUN_CHUNKS][4];
};

FMK_INLINE void pair_tokens(const struct fmk_acts_block *a, const struct fmk_acts_block *b, int64_t chunks,
                            struct token_pair *pair) {
    for (int64_t h = 0; h < 2 * chunks; h++) {
        int64x2_t first = vreinterpretq_s64_s8(vld1q_s8(a->q + 16 * h));
        int64x2_t second = vreinterpretq_s64_s8(vld1q_s8(b->q + 16 * h));
        pair->q[h][0] = vreinterpretq_s8_s64(vzip1q_s64(first, second));
        pair->q[h][1] = vreinterpretq_s8_s64(vzip2q_s64(first, second));
        pair->scale[h][0] = a->scale[h];
        pair->scale[h][1] = b->scale[h];
        pair->start[h][0] = a->start[h];
        pair->start[h][1] = b->start[h];
    }
    for (int64_t c = 0; c < chunks; c++) {
        pair->sum[c][0] = a->sum[c];
        pair->sum[c][1] = b->sum[c];
    }
}

/* Rows 4g .. 4g+3 of a chunk. */
FMK_INLINE void store_quads(const struct quads *w, const bool centred, int64_t chunk, const int g,
                            struct row_pairs *rows) {
#pragma GCC unroll 4
    for (int e = 0; e < 4; e++) { /* eight k: two quads */
        uint32x4_t first = vreinterpretq_u32_u8(w->code[2 * e]),
                   second = vreinterpretq_u32_u8(w->code[2 * e + 1]);
        int8x16_t *code = rows->code[2 * chunk + e / 2][e % 2] + 2 * g;
        code[0] = vreinterpretq_s8_u32(vzip1q_u32(first, second));
        code[1] = vreinterpretq_s8_u32(vzip2q_u32(first, second));
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        float32x4_t *scale = rows->scale[2 * chunk + h] + 2 * g;
        scale[0] = vzip1q_f32(w->scale[h], w->scale[h]);
        scale[1] = vzip2q_f32(w->scale[h], w->scale[h]);
    }
    if (!centred) {
        rows->offset[chunk][2 * g] = vzip1q_f32(w->offset, w->offset);
        rows->offset[chunk][2 * g + 1] = vzip2q_f32(w->offset, w->offset);
    }
}

/* Two numbers, twice. */
FMK_INLINE float32x4_t two_floats(const float *p) {
    float32x2_t two = vld1_f32(p);
    return vcombine_f32(two, two);
}

FMK_INLINE int32x4_t two_ints(const int32_t *p) {
    int32x2_t two = vld1_s32(p);
    return vcombine_s32(two, two);
}

/* A run of a panel times P pairs of tokens; `present` tokens get their sums. */
FMK_INLINE void multiply_pairs(const struct row_pairs *rows, const struct token_pair *pair,
                               const bool centred, int64_t chunks, const int P, int present, float *out) {
    enum { MAX_P = 2 };
    float32x4_t total[MAX_P][4];
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            total[p][i] = vdupq_n_f32(0);
    for (int64_t h = 0; h < 2 * chunks; h++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            int32x4_t start = centred ? two_ints(pair[p].start[h]) : vdupq_n_s32(0);
            float32x4_t x = two_floats(pair[p].scale[h]), y = two_floats(pair[p].sum[h / 2]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                int32x4_t sum = vmmlaq_s32(start, rows->code[h][0][i], pair[p].q[h][0]);
                sum = vmmlaq_s32(sum, rows->code[h][1][i], pair[p].q[h][1]);
                total[p][i] = add_scaled(total[p][i], sum, rows->scale[h][i], x);
                if (!centred && h % 2)
                    total[p][i] = vfmsq_f32(total[p][i], rows->offset[h / 2][i], y);
            }
        }
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
#pragma GCC unroll 2
        for (int g = 0; g < 2; g++) {
            float *place = out + 2 * p * FMK_TILE_N + 4 * g;
            float32x4_t a = vuzp1q_f32(total[p][2 * g], total[p][2 * g + 1]);
            float32x4_t b = vuzp2q_f32(total[p][2 * g], total[p][2 * g + 1]);
            vst1q_f32(place, vaddq_f32(vld1q_f32(place), a));
            if (2 * p + 1 < present)
                vst1q_f32(place + FMK_TILE_N, vaddq_f32(vld1q_f32(place + FMK_TILE_N), b));
        }
}

FMK_INLINE void multiply_sheets(const struct fmk_tile *tile, unpack_quads *unpack, const bool centred) {
    if (tile->tokens == 1) {
        multiply_panels(tile, unpack, centred);
        return;
    }
    const struct fmk_packed *part = tile->part;
    const int64_t chunks = part->k_packed / 32, blocks = (tile->acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * part->stride;
    struct token_pair pair[MAX_PAIRS];
    struct row_pairs rows;
    clear_out(tile);
    for (int64_t c = 0; c < chunks; c += RUN_CHUNKS) {
        const struct fmk_acts_block *x = tile->acts->blocks + tile->token * blocks + c / RUN_CHUNKS;
        int64_t count = fmk_min(RUN_CHUNKS, chunks - c);
        for (int32_t t = 0; t < tile->tokens; t += 2)
            pair_tokens(x + t * blocks, x + fmk_min(t + 1, tile->tokens - 1) * blocks, count, &pair[t / 2]);
        for (int32_t r = 0; r < tile->rows; r += 8) {
            for (int64_t i = 0; i < count; i++)
#pragma GCC unroll 2
                for (int g = 0; g < 2; g++) {
                    struct quads w = unpack(part, panel + (uint64_t)(r / 8) * part->stride, c + i, g);
                    store_quads(&w, centred, i, g, &rows);
                }
            int32_t t = 0;
            for (; t + 4 <= tile->tokens; t += 4)
                multiply_pairs(&rows, &pair[t / 2], centred, count, 2, 4, tile->out + t * FMK_TILE_N + r);
            for (; t < tile->tokens; t += 2)
                multiply_pairs(&rows, &pair[t / 2], centred, count, 1, tile->tokens - t,
                               tile->out + t * FMK_TILE_N + r);
        }
    }
}

#endif
