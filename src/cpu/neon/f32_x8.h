/* What the float kernels of the x8 layouts share: 256 k of a panel are decoded to [k][8 rows] in L1, and each
 * token's activations, lane by lane, multiply them for all its rows at once. An output is the sum, in the
 * order of k, of its products in blocks of 256, and the block sums added up in turn: its error is derived in
 * avx2/f32_x8.h, whose sums are the same. */
#ifndef FMK_CPU_NEON_F32_X8_H
#define FMK_CPU_NEON_F32_X8_H

#include "../tile.h"
#include "../layouts/x8.h"

#include <arm_neon.h>

enum { MAX_T = 4, MAX_P = 4 };

struct panel {
    _Alignas(64) float w[FMK_K_BLOCK][8];
};

/* sum += row k of P panels times lane `lane` of T tokens' four activations. */
FMK_INLINE void multiply_k(const struct panel *panel, int64_t k, const float32x4_t x[MAX_T], const int lane,
                           const int T, const int P, float32x4_t sum[MAX_T][MAX_P][2]) {
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        float32x4_t w[2] = {vld1q_f32(panel[p].w[k]), vld1q_f32(panel[p].w[k] + 4)};
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            float32x4_t a = vdupq_n_f32(x[t][lane]); /* becomes the multiplication's lane operand */
            sum[t][p][0] = vfmaq_f32(sum[t][p][0], w[0], a);
            sum[t][p][1] = vfmaq_f32(sum[t][p][1], w[1], a);
        }
    }
}

/* out += block sum of P panels times T tokens, over `count` k, a multiple of 32. */
FMK_INLINE void multiply_panels(const struct panel *panel, int64_t count, const float *x, int64_t stride,
                                const int T, const int P, float *out) {
    float32x4_t sum[MAX_T][MAX_P][2];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
            sum[t][p][0] = sum[t][p][1] = vdupq_n_f32(0);
    for (int64_t k = 0; k < count; k += 4) {
        float32x4_t a[MAX_T];
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            a[t] = vld1q_f32(x + t * stride + k);
        multiply_k(panel, k, a, 0, T, P, sum);
        multiply_k(panel, k + 1, a, 1, T, P, sum);
        multiply_k(panel, k + 2, a, 2, T, P, sum);
        multiply_k(panel, k + 3, a, 3, T, P, sum);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            float *place = out + t * FMK_TILE_N + 8 * p;
            vst1q_f32(place, vaddq_f32(vld1q_f32(place), sum[t][p][0]));
            vst1q_f32(place + 4, vaddq_f32(vld1q_f32(place + 4), sum[t][p][1]));
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

/* An FMA takes four cycles and up to four start in each: sixteen sums, of four tokens times two panels, keep
 * them busy; fewer tokens take four panels. */
FMK_INLINE void multiply_tile(const struct fmk_tile *tile, decode_panel *decode) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
    if (tile->tokens < 4)
        multiply_by(tile, decode, 4);
    else
        multiply_by(tile, decode, 2);
}

/* Half a quad (byte 4r+i is row r, k i) to four vectors of four rows. */
FMK_INLINE void widen_half(uint8x16_t half, uint32x4_t code[4]) {
    const uint32x4_t byte = vdupq_n_u32(255);
    uint32x4_t word = vreinterpretq_u32_u8(half);
    code[0] = vandq_u32(word, byte);
    code[1] = vandq_u32(vshrq_n_u32(word, 8), byte);
    code[2] = vandq_u32(vshrq_n_u32(word, 16), byte);
    code[3] = vshrq_n_u32(word, 24);
}

#endif
