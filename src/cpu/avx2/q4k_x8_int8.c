/* q4_k.x8 times int8 activations, AVX2. */
#include "int8_x8.h"

FMK_INLINE __m256 load_f16x8(const uint8_t *halves) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

FMK_INLINE __m256 load_u8x8(const uint8_t *bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

static void unpack_block(const uint8_t *block, struct run *run) {
    __m256 dmin = load_f16x8(block + FMK_Q4K_X8_MINIMA);
    _mm256_store_ps(run->d, load_f16x8(block));
    for (int c = 0; c < 8; c++) {
        _mm256_store_ps(run->scale[c], load_u8x8(block + FMK_Q4K_X8_SCALES + 8 * c));
        _mm256_store_ps(run->offset[c], _mm256_mul_ps(dmin, load_u8x8(block + FMK_Q4K_X8_MINS + 8 * c)));
        unpack_nibbles(block + FMK_Q4K_X8_NIBBLES + c * FMK_X8_CHUNK, run->codes[c]);
    }
}

/* One super-block of P panels (`stride` bytes apart), each nibble used as it is unpacked. */
FMK_INLINE void multiply_packed(const uint8_t *block, uint64_t stride, int64_t ahead,
                                const struct run_acts *acts, const int T, const int P, float *out) {
    __m256 dmin[MAX_P], total[MAX_T][MAX_P], offset[MAX_T][MAX_P];
#pragma GCC unroll 2
    for (int p = 0; p < P; p++) {
        dmin[p] = load_f16x8(block + p * stride + FMK_Q4K_X8_MINIMA);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            total[t][p] = offset[t][p] = _mm256_setzero_ps();
    }
    for (int c = 0; c < 8; c++) {
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            fetch(block + p * stride + ahead + c * (FMK_Q4K_X8_BLOCK / 8), FMK_Q4K_X8_BLOCK / 8);
        __m256i sum[MAX_T][MAX_P];
        multiply_nibbles(block + FMK_Q4K_X8_NIBBLES + c * FMK_X8_CHUNK, stride, acts, c, T, P, sum);
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            __m256 scales = load_u8x8(block + p * stride + FMK_Q4K_X8_SCALES + 8 * c);
            __m256 mins = _mm256_mul_ps(dmin[p], load_u8x8(block + p * stride + FMK_Q4K_X8_MINS + 8 * c));
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                total[t][p] = add_scaled(sum[t][p], act_ratios(acts, t, c), scales, total[t][p]);
                offset[t][p] = _mm256_fmadd_ps(mins, act_sum(acts, t, c), offset[t][p]);
            }
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            add_run(load_f16x8(block + p * stride), act_step(acts, t), total[t][p], offset[t][p],
                    out + t * FMK_TILE_N + 8 * p);
}

FMK_INLINE void few_tokens(const struct fmk_tile *tile, const int T) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * stride;
    const int64_t ahead = FETCH_AHEAD / tile->streams;
    int panels = (tile->rows + 7) / 8;
    int64_t blocks = tile->part->k_packed / FMK_K_BLOCK;
    for (int first = 0; first < panels; first += tile->streams) {
        int end = first + tile->streams < panels ? first + tile->streams : panels;
        for (int64_t b = 0; b < blocks; b++) {
            struct run_acts acts = acts_at(tile->acts, tile->token, 8 * b);
            const uint8_t *block = panel + b * FMK_Q4K_X8_BLOCK;
            int p = first;
            for (; p + 2 <= end; p += 2)
                multiply_packed(block + p * stride, stride, ahead, &acts, T, 2, tile->out + 8 * p);
            if (p < end)
                multiply_packed(block + p * stride, stride, ahead, &acts, T, 1, tile->out + 8 * p);
        }
    }
}

/* Block b, which is unpacked; the panels have the next one at `next`. */
FMK_INLINE void all_tokens(const struct run *run, const struct fmk_tile *tile, int64_t b, const uint8_t *next,
                           const int P, float *out) {
    int t = 0;
    for (; t + 4 <= tile->tokens; t += 4) {
        struct run_acts acts = acts_at(tile->acts, tile->token + t, 8 * b);
        fetch_quarter(next, tile->part->stride, FMK_Q4K_X8_BLOCK, t, P);
        multiply_run(run, 8, &acts, true, 4, P, out + t * FMK_TILE_N);
    }
    if (t == tile->tokens)
        return;
    struct run_acts acts = acts_at(tile->acts, tile->token + t, 8 * b);
    switch (tile->tokens - t) {
    case 3:
        multiply_run(run, 8, &acts, true, 3, P, out + t * FMK_TILE_N);
        return;
    case 2:
        multiply_run(run, 8, &acts, true, 2, P, out + t * FMK_TILE_N);
        return;
    default:
        multiply_run(run, 8, &acts, true, 1, P, out + t * FMK_TILE_N);
    }
}

/* Many tokens: two panels' super-blocks are unpacked once and stay in L1 for all of them. */
static void many_tokens(const struct fmk_tile *tile) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * stride;
    int panels = (tile->rows + 7) / 8;
    int64_t blocks = tile->part->k_packed / FMK_K_BLOCK;
    struct run run[2];
    for (int64_t b = 0; b < blocks; b++)
        for (int p = 0; p < panels; p += 2) {
            const uint8_t *block = panel + p * stride + b * FMK_Q4K_X8_BLOCK;
            unpack_block(block, &run[0]);
            if (p + 1 < panels) {
                unpack_block(block + stride, &run[1]);
                all_tokens(run, tile, b, block + FMK_Q4K_X8_BLOCK, 2, tile->out + 8 * p);
            } else {
                all_tokens(run, tile, b, block + FMK_Q4K_X8_BLOCK, 1, tile->out + 8 * p);
            }
        }
}

void fmk_q4k_x8_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, few_tokens, many_tokens);
}
