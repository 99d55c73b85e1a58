/* What the int8 kernels of the x8 layouts share. A 32-byte register of weights holds four consecutive k of
 * each of eight rows; the same four k of a token, broadcast, meet them in vpmaddubsw (u8 weights times s8
 * activations, pairs added in s16). The eight quads of a chunk of 4-bit codes add up in s16 without overflow,
 * 8 * 2 * 15 * 127 = 30480, and vpmaddwd with the chunk's two ratios makes them s32. Over a run
 *     out += d * step * sum over chunks (scale * chunk sum) - sum over chunks (offset * activation sum)
 * Where all scales are 1 the s32 are added up over the run; else each becomes a float. Chunks of a run in the
 * order of k, then the run, so that the order depends on K alone. */
#ifndef FMK_CPU_INT8_X8_AVX2_H
#define FMK_CPU_INT8_X8_AVX2_H

#include "../tile.h"
#include "../layouts/x8.h"

#include <assert.h>
#include <immintrin.h>

enum { RUN_CHUNKS = 8, MAX_T = 4, MAX_P = 2 }; /* T tokens times P panels at once */
static_assert(RUN_CHUNKS * 32 == FMK_K_BLOCK, "the activations of a run share a step");
static_assert((int64_t)RUN_CHUNKS * 2 * 30480 * FMK_RATIO_MAX <= INT32_MAX, "a run adds up in s32");

/* Up to eight chunks of one panel, unpacked. */
struct run {
    _Alignas(64) uint8_t codes[RUN_CHUNKS][8][32]; /* [chunk][quad] */
    float scale[RUN_CHUNKS][8];                    /* unless all are 1 */
    float offset[RUN_CHUNKS][8];
    float d[8];
};

/* A run's activations of the tokens at hand: token t's are t * k further on in q, t * (k / 32) in ratio. */
struct run_acts {
    const int8_t *q;
    const int16_t (*ratio)[2];
    const float *sum, *step;
    int64_t k;
};

/* From a chunk on, up to the next multiple of 256 k. */
FMK_INLINE struct run_acts acts_at(const struct fmk_acts *acts, int64_t token, int64_t chunk) {
    int64_t k = acts->k, at = token * (k / 32) + chunk;
    return (struct run_acts){.q = acts->q + 32 * at,
                             .ratio = (const int16_t(*)[2])acts->ratio + at,
                             .sum = acts->sum32 + at,
                             .step = acts->step + token * ((k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) +
                                     chunk / RUN_CHUNKS,
                             .k = k};
}

/* Four bytes from p, in all lanes. */
FMK_INLINE __m256i broadcast(const void *p) {
    int32_t lane;
    memcpy(&lane, p, sizeof lane);
    return _mm256_set1_epi32(lane);
}

/* Token t's quad j (0..7) of chunk c, and what belongs to the chunk and to the run. */
FMK_INLINE __m256i act_quad(const struct run_acts *acts, int t, int c, int j) {
    return broadcast(acts->q + t * acts->k + 32 * c + 4 * j);
}

FMK_INLINE __m256i act_ratios(const struct run_acts *acts, int t, int c) {
    return broadcast(acts->ratio + t * (acts->k / 32) + c);
}

FMK_INLINE __m256 act_sum(const struct run_acts *acts, int t, int c) {
    return _mm256_broadcast_ss(acts->sum + t * (acts->k / 32) + c);
}

FMK_INLINE __m256 act_step(const struct run_acts *acts, int t) {
    return _mm256_broadcast_ss(acts->step + t * ((acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK));
}

FMK_INLINE void clear_out(const struct fmk_tile *tile) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
}

FMK_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* a + b, there and then: left to itself gcc regroups the sums of a chunk into trees, which take more
 * registers than there are. */
FMK_INLINE __m256i add_in_order(__m256i a, __m256i b) {
    __m256i sum = _mm256_add_epi16(a, b);
    __asm__("" : "+x"(sum));
    return sum;
}

/* Few tokens: bytes between what is used and what is asked for, of all the panels that take turns together.
 */
enum { FETCH_AHEAD = 8192 };

/* Asks for the cache lines that hold `bytes` bytes (at most 192) from p on; any address will do. */
FMK_INLINE void fetch(const uint8_t *p, const int bytes) {
#pragma GCC unroll 3
    for (int i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

/* vpmaddubsw of a chunk's nibbles of P panels (`stride` bytes apart) and T tokens, summed over the chunk:
 * 16-bit sums, two a row. */
FMK_INLINE void multiply_nibbles(const uint8_t *nibbles, uint64_t stride, const struct run_acts *acts, int c,
                                 const int T, const int P, __m256i sum[MAX_T][MAX_P]) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m256i first[MAX_P], second[MAX_P];
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            __m256i both = load(nibbles + p * stride + 32 * v);
            first[p] = _mm256_and_si256(both, low);
            second[p] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256i x = act_quad(acts, t, c, v), y = act_quad(acts, t, c, v + 4);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) {
                __m256i product = _mm256_maddubs_epi16(first[p], x);
                sum[t][p] = v ? add_in_order(sum[t][p], product) : product;
                sum[t][p] = add_in_order(sum[t][p], _mm256_maddubs_epi16(second[p], y));
            }
        }
    }
}

FMK_INLINE void unpack_nibbles(const uint8_t *nibbles, uint8_t codes[8][32]) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m256i both = load(nibbles + 32 * v);
        _mm256_store_si256((__m256i *)codes[v], _mm256_and_si256(both, low));
        _mm256_store_si256((__m256i *)codes[v + 4], _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
    }
}

/* total += scales of the rows * (ratios of the activations * sums). */
FMK_INLINE __m256 add_scaled(__m256i sum, __m256i ratios, __m256 scales, __m256 total) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(sum, ratios)), scales, total);
}

FMK_INLINE void add_run(__m256 d, __m256 step, __m256 total, __m256 offset, float *place) {
    __m256 sum = _mm256_sub_ps(_mm256_loadu_ps(place), offset);
    _mm256_storeu_ps(place, _mm256_fmadd_ps(_mm256_mul_ps(d, step), total, sum));
}

/* Adds a run of P panels times T tokens to out; scaled: run->scale counts. */
FMK_INLINE void multiply_run(const struct run *run, int chunks, const struct run_acts *acts,
                             const bool scaled, const int T, const int P, float *out) {
    __m256 total[MAX_T][MAX_P], offset[MAX_T][MAX_P];
    __m256i exact[MAX_T][MAX_P];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) {
            total[t][p] = offset[t][p] = _mm256_setzero_ps();
            exact[t][p] = _mm256_setzero_si256();
        }
    for (int c = 0; c < chunks; c++) {
        __m256i sum[MAX_T][MAX_P];
#pragma GCC unroll 8
        for (int q = 0; q < 8; q++) {
            __m256i w[MAX_P];
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                w[p] = _mm256_load_si256((const __m256i *)run[p].codes[c][q]);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                __m256i x = act_quad(acts, t, c, q);
#pragma GCC unroll 2
                for (int p = 0; p < P; p++) {
                    __m256i product = _mm256_maddubs_epi16(w[p], x);
                    sum[t][p] = q ? add_in_order(sum[t][p], product) : product;
                }
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256i ratios = act_ratios(acts, t, c);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                if (scaled)
                    total[t][p] = add_scaled(sum[t][p], ratios, _mm256_load_ps(run[p].scale[c]), total[t][p]);
                else
                    exact[t][p] = _mm256_add_epi32(exact[t][p], _mm256_madd_epi16(sum[t][p], ratios));
        }
    }
    for (int c = 0; c < chunks; c++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                offset[t][p] =
                    _mm256_fmadd_ps(_mm256_load_ps(run[p].offset[c]), act_sum(acts, t, c), offset[t][p]);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            add_run(_mm256_load_ps(run[p].d), act_step(acts, t),
                    scaled ? total[t][p] : _mm256_cvtepi32_ps(exact[t][p]), offset[t][p],
                    out + t * FMK_TILE_N + 8 * p);
}

/* Tokens from which on it pays to unpack codes to memory, for all of them. */
enum { MANY_TOKENS = 16 };

/* With tokens t .. t+3 of many: asks for a quarter of what follows in P panels, so that memory has the time
 * of the first sixteen for it. */
FMK_INLINE void fetch_quarter(const uint8_t *next, uint64_t stride, int64_t bytes, int t, const int P) {
    if (t >= MANY_TOKENS)
        return;
    for (int p = 0; p < P; p++)
        for (int64_t i = bytes * t / MANY_TOKENS; i < bytes * (t + 4) / MANY_TOKENS; i += 64)
            _mm_prefetch((const char *)next + p * stride + i, _MM_HINT_T0);
}

typedef void multiply_few(const struct fmk_tile *tile, const int T);

/* A few tokens go four by four: the first four fetch the tile's weights from memory, the others find them in
 * a cache. */
FMK_INLINE void multiply_tile(const struct fmk_tile *tile, multiply_few *few, fmk_tile_kernel *many) {
    clear_out(tile);
    if (tile->tokens >= MANY_TOKENS) {
        many(tile);
        return;
    }
    struct fmk_tile left = *tile;
    for (; left.tokens >= 4; left.token += 4, left.tokens -= 4, left.out += 4 * FMK_TILE_N)
        few(&left, 4);
    switch (left.tokens) {
    case 1:
        few(&left, 1);
        return;
    case 2:
        few(&left, 2);
        return;
    case 3:
        few(&left, 3);
        return;
    default:
        return;
    }
}

#endif
