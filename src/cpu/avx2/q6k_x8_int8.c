/* q6_k.x8 times int8 activations, AVX2. As int8_x8.h, but with a scale per 16 k, and codes of 0..63 that
 * stand for -32..31. The 32 is taken off in integers: a row's 16-bit sum over 16 k starts from -32 times the
 * activations' sum. On the way it may wrap, but eight products of at most 32 * 127 make 32512, so that what
 * it ends with is right. */
#include "int8_x8.h"

enum { HALVES = 16 }; /* of 16 k in a super-block */

struct block {
    _Alignas(64) uint8_t codes[HALVES][4][32]; /* [half][quad] */
    float scale[HALVES][8];
    float d[8];
};

/* Where the 16-bit sums of a token start: two to a half. */
typedef int32_t starts[HALVES];

static void start_sums(const int8_t *q, starts out) {
    for (int c = 0; c < 8; c++) {
        __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(32), load(q + 32 * c));
        pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0x4e));
        pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0xb1));
        pairs = _mm256_sub_epi16(_mm256_setzero_si256(), pairs);
        out[2 * c] = _mm256_extract_epi32(pairs, 0);
        out[2 * c + 1] = _mm256_extract_epi32(pairs, 4);
    }
}

FMK_INLINE __m256 load_f16x8(const uint8_t *halves) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

FMK_INLINE __m256 load_i8x8(const uint8_t *bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

/* Quad j (0..3) of half h (0..1) of chunk c. */
FMK_INLINE __m256i unpack_quad(const uint8_t *block, int c, int h, int j) {
    __m256i low = load(block + FMK_Q6K_X8_LOW + c * FMK_X8_CHUNK + 32 * j);
    __m256i high = load(block + FMK_Q6K_X8_HIGH + 64 * c + 32 * h);
    high = j < 2 ? _mm256_slli_epi16(high, 4 - 2 * j) : _mm256_srli_epi16(high, 2 * j - 4);
    low = h ? _mm256_srli_epi16(low, 4) : low;
    return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)),
                           _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

static void unpack_block(const uint8_t *in, struct block *out) {
    _mm256_store_ps(out->d, load_f16x8(in));
    for (int i = 0; i < HALVES; i++)
        _mm256_store_ps(out->scale[i], load_i8x8(in + FMK_Q6K_X8_SCALES + 8 * i));
    for (int c = 0; c < 8; c++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                _mm256_store_si256((__m256i *)out->codes[2 * c + h][j], unpack_quad(in, c, h, j));
}

FMK_INLINE void add_block(__m256 d, __m256 step, __m256 total, float *place) {
    _mm256_storeu_ps(place, _mm256_fmadd_ps(_mm256_mul_ps(d, step), total, _mm256_loadu_ps(place)));
}

/* One super-block of P panels times T tokens. */
FMK_INLINE void multiply_unpacked(const struct block *block, const struct run_acts *acts, const starts *start,
                                  const int T, const int P, float *out) {
    __m256 total[MAX_T][MAX_P];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            total[t][p] = _mm256_setzero_ps();
    for (int h = 0; h < HALVES; h++) {
        __m256i sum[MAX_T][MAX_P];
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                sum[t][p] = _mm256_set1_epi32(start[t][h]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m256i w[MAX_P];
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                w[p] = _mm256_load_si256((const __m256i *)block[p].codes[h][j]);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                __m256i x = act_quad(acts, t, h / 2, h % 2 * 4 + j);
#pragma GCC unroll 2
                for (int p = 0; p < P; p++)
                    sum[t][p] = add_in_order(sum[t][p], _mm256_maddubs_epi16(w[p], x));
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                total[t][p] = add_scaled(sum[t][p], act_ratios(acts, t, h / 2),
                                         _mm256_load_ps(block[p].scale[h]), total[t][p]);
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            add_block(_mm256_load_ps(block[p].d), act_step(acts, t), total[t][p],
                      out + t * FMK_TILE_N + 8 * p);
}

/* One super-block of P panels (`stride` bytes apart), each code used as it is unpacked. */
FMK_INLINE void multiply_packed(const uint8_t *block, uint64_t stride, int64_t ahead,
                                const struct run_acts *acts, const starts *start, const int T, const int P,
                                float *out) {
    __m256 total[MAX_T][MAX_P];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            total[t][p] = _mm256_setzero_ps();
    for (int c = 0; c < 8; c++) {
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            fetch(block + p * stride + ahead + c * (FMK_Q6K_X8_BLOCK / 8), 192);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i sum[MAX_T][MAX_P];
#pragma GCC unroll 4
            for (int t = 0; t < T; t++)
#pragma GCC unroll 2
                for (int p = 0; p < P; p++)
                    sum[t][p] = _mm256_set1_epi32(start[t][2 * c + h]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                __m256i w[MAX_P];
#pragma GCC unroll 2
                for (int p = 0; p < P; p++)
                    w[p] = unpack_quad(block + p * stride, c, h, j);
#pragma GCC unroll 4
                for (int t = 0; t < T; t++) {
                    __m256i x = act_quad(acts, t, c, 4 * h + j);
#pragma GCC unroll 2
                    for (int p = 0; p < P; p++)
                        sum[t][p] = add_in_order(sum[t][p], _mm256_maddubs_epi16(w[p], x));
                }
            }
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) {
                __m256 scales = load_i8x8(block + p * stride + FMK_Q6K_X8_SCALES + 8 * (2 * c + h));
#pragma GCC unroll 4
                for (int t = 0; t < T; t++)
                    total[t][p] = add_scaled(sum[t][p], act_ratios(acts, t, c), scales, total[t][p]);
            }
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            add_block(load_f16x8(block + p * stride), act_step(acts, t), total[t][p],
                      out + t * FMK_TILE_N + 8 * p);
}

FMK_INLINE void few_tokens(const struct fmk_tile *tile, const int T) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * stride;
    const int64_t ahead = FETCH_AHEAD / tile->streams;
    int panels = (tile->rows + 7) / 8;
    starts start[MAX_T];
    for (int first = 0; first < panels; first += tile->streams) {
        int end = first + tile->streams < panels ? first + tile->streams : panels;
        for (int64_t b = 0; b < tile->part->k_packed / FMK_K_BLOCK; b++) {
            struct run_acts acts = acts_at(tile->acts, tile->token, 8 * b);
            for (int t = 0; t < T; t++)
                start_sums(acts.q + t * acts.k, start[t]);
            const uint8_t *block = panel + b * FMK_Q6K_X8_BLOCK;
            int p = first;
            for (; p + 2 <= end; p += 2)
                multiply_packed(block + p * stride, stride, ahead, &acts, start, T, 2, tile->out + 8 * p);
            if (p < end)
                multiply_packed(block + p * stride, stride, ahead, &acts, start, T, 1, tile->out + 8 * p);
        }
    }
}

/* Block b, which is unpacked; the panels have the next one at `next`. */
FMK_INLINE void all_tokens(const struct block *block, const struct fmk_tile *tile, const starts *start,
                           int64_t b, const uint8_t *next, const int P, float *out) {
    int t = 0;
    for (; t + 4 <= tile->tokens; t += 4) {
        struct run_acts acts = acts_at(tile->acts, tile->token + t, 8 * b);
        fetch_quarter(next, tile->part->stride, FMK_Q6K_X8_BLOCK, t, P);
        multiply_unpacked(block, &acts, start + t, 4, P, out + t * FMK_TILE_N);
    }
    if (t == tile->tokens)
        return;
    struct run_acts acts = acts_at(tile->acts, tile->token + t, 8 * b);
    switch (tile->tokens - t) {
    case 3:
        multiply_unpacked(block, &acts, start + t, 3, P, out + t * FMK_TILE_N);
        return;
    case 2:
        multiply_unpacked(block, &acts, start + t, 2, P, out + t * FMK_TILE_N);
        return;
    default:
        multiply_unpacked(block, &acts, start + t, 1, P, out + t * FMK_TILE_N);
    }
}

/* Many tokens: two panels' super-blocks are unpacked once and stay in L1 for all of them. */
static void many_tokens(const struct fmk_tile *tile) {
    const uint64_t stride = tile->part->stride;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * stride;
    int panels = (tile->rows + 7) / 8;
    struct block block[MAX_P];
    starts start[FMK_TILE_M];
    for (int64_t b = 0; b < tile->part->k_packed / FMK_K_BLOCK; b++) {
        for (int t = 0; t < tile->tokens; t++)
            start_sums(acts_at(tile->acts, tile->token + t, 8 * b).q, start[t]);
        for (int p = 0; p < panels; p += 2) {
            const uint8_t *in = panel + p * stride + b * FMK_Q6K_X8_BLOCK;
            unpack_block(in, &block[0]);
            if (p + 1 < panels) {
                unpack_block(in + stride, &block[1]);
                all_tokens(block, tile, start, b, in + FMK_Q6K_X8_BLOCK, 2, tile->out + 8 * p);
            } else {
                all_tokens(block, tile, start, b, in + FMK_Q6K_X8_BLOCK, 1, tile->out + 8 * p);
            }
        }
    }
}

void fmk_q6k_x8_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, few_tokens, many_tokens);
}
