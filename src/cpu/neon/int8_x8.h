/* What the int8 kernels of the x8 layouts share. A register of weights holds four consecutive k of four rows;
 * sdot adds up the products of the four with the same four of a token, which it takes from a lane: sixteen
 * activations to a register serve four quads. Codes are below 64, so that they are signed bytes too. out +=
 * sum over 16 k (scale * activations' scale * integer sum) - sum over chunks (offset * activations' sum)
 * Integers are exact. Halves of a chunk, then its offset, in the order of k; a run of up to eight chunks is
 * added up before it is added to the output, so that the order depends on K alone. */
#ifndef FMK_CPU_NEON_INT8_X8_H
#define FMK_CPU_NEON_INT8_X8_H

#include "../tile.h"
#include "../layouts/x8.h"
#include "numbers.h"

enum { MAX_T = 4, RUN_CHUNKS = FMK_K_BLOCK / 32 };

/* Rows 4g .. 4g+3 of a chunk: a weight is scale[half] * (code - centre) - offset. */
struct quads {
    uint8x16_t code[8];
    float32x4_t scale[2]; /* of each 16 k */
    float32x4_t offset;   /* not where the codes are centred */
};

/* Chunk c of a panel. */
typedef struct quads unpack_quads(const struct fmk_packed *part, const uint8_t *panel, int64_t c,
                                  const int g);

/* The codes of nibbles, of which rows 4g .. 4g+3 have 16 bytes of every 32. */
FMK_INLINE void unpack_nibbles(const uint8_t *nibbles, const int g, uint8x16_t code[8]) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        uint8x16_t both = vld1q_u8(nibbles + 32 * v + 16 * g);
        code[v] = vandq_u8(both, vdupq_n_u8(15));
        code[v + 4] = vshrq_n_u8(both, 4);
    }
}

/* sum + four quads times 16 activations. */
FMK_INLINE int32x4_t dot_16(int32x4_t sum, const uint8x16_t code[4], int8x16_t x) {
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(code[0]), x, 0);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(code[1]), x, 1);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(code[2]), x, 2);
    return vdotq_laneq_s32(sum, vreinterpretq_s8_u8(code[3]), x, 3);
}

/* total + 16 k of four sums. */
FMK_INLINE float32x4_t add_scaled(float32x4_t total, int32x4_t sum, float32x4_t scale, float32x4_t x) {
    return vfmaq_f32(total, vcvtq_f32_s32(sum), vmulq_f32(scale, x));
}

/* A run of `count` chunks from chunk c on: T tokens, whose blocks are `stride` apart. */
FMK_INLINE void multiply_run(const struct fmk_packed *part, const uint8_t *panel, unpack_quads *unpack,
                             const bool centred, int64_t c, int64_t count, const struct fmk_acts_block *x,
                             int64_t stride, const int T, float *out) {
    float32x4_t total[MAX_T][2];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
        total[t][0] = total[t][1] = vdupq_n_f32(0);
    for (int64_t i = 0; i < count; i++)
#pragma GCC unroll 2
        for (int g = 0; g < 2; g++) {
            struct quads w = unpack(part, panel, c + i, g);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                const struct fmk_acts_block *y = x + t * stride;
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    int32x4_t sum = centred ? vld1q_dup_s32(&y->start[2 * i + h]) : vdupq_n_s32(0);
                    sum = dot_16(sum, w.code + 4 * h, vld1q_s8(y->q + 32 * i + 16 * h));
                    total[t][g] =
                        add_scaled(total[t][g], sum, w.scale[h], vld1q_dup_f32(&y->scale[2 * i + h]));
                }
                if (!centred)
                    total[t][g] = vfmsq_f32(total[t][g], w.offset, vld1q_dup_f32(&y->sum[i]));
            }
        }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int g = 0; g < 2; g++) {
            float *place = out + t * FMK_TILE_N + 4 * g;
            vst1q_f32(place, vaddq_f32(vld1q_f32(place), total[t][g]));
        }
}

/* A panel and T tokens over all of K. */
FMK_INLINE void multiply_tokens(const struct fmk_tile *tile, const uint8_t *panel, unpack_quads *unpack,
                                const bool centred, int32_t t, const int T, float *out) {
    const int64_t chunks = tile->part->k_packed / 32,
                  blocks = (tile->acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
    const struct fmk_acts_block *x = tile->acts->blocks + (tile->token + t) * blocks;
    for (int64_t c = 0; c < chunks; c += RUN_CHUNKS, x++)
        multiply_run(tile->part, panel, unpack, centred, c, fmk_min(RUN_CHUNKS, chunks - c), x, blocks, T,
                     out + t * FMK_TILE_N);
}

FMK_INLINE void clear_out(const struct fmk_tile *tile) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
}

/* Four tokens share what is unpacked. A panel's weights stay in the cache for the next four. */
FMK_INLINE void multiply_panels(const struct fmk_tile *tile, unpack_quads *unpack, const bool centred) {
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * tile->part->stride;
    clear_out(tile);
    for (int32_t r = 0; r < tile->rows; r += 8, panel += tile->part->stride) {
        int32_t t = 0;
        for (; t + 4 <= tile->tokens; t += 4)
            multiply_tokens(tile, panel, unpack, centred, t, 4, tile->out + r);
        for (; t + 2 <= tile->tokens; t += 2)
            multiply_tokens(tile, panel, unpack, centred, t, 2, tile->out + r);
        if (t < tile->tokens)
            multiply_tokens(tile, panel, unpack, centred, t, 1, tile->out + r);
    }
}

#endif
