/* What the int8 kernels of the x8 layouts with 4-bit codes share. A 32-byte register of weights holds four
 * consecutive k of each of eight rows; the same four k of a token, broadcast, meet them in vpmaddubsw (u8
 * weights times s8 activations, pairs added in s16). The eight quads of a chunk add up in s16 without
 * overflow, 8 * 2 * 15 * 127 = 30480, and everything is exact until the chunk's s32 sum becomes a float:
 *     out += d * sum over chunks (activation scale * chunk sum) - sum over chunks (offset * activation sum)
 * Chunks of a run in the order of k, then the run, so that the order depends on K alone. */
#ifndef FMK_CPU_INT8_X8_AVX2_H
#define FMK_CPU_INT8_X8_AVX2_H

#include "tile.h"
#include "x8.h"

#include <immintrin.h>

#define FMK_INLINE static inline __attribute__((always_inline))

enum { RUN_CHUNKS = 8, MAX_T = 4, MAX_P = 2 }; /* T tokens times P panels at once */

/* Up to eight chunks of one panel, unpacked. */
struct run {
    _Alignas(64) uint8_t codes[RUN_CHUNKS][8][32]; /* [chunk][quad] */
    int16_t scale[RUN_CHUNKS][16];                 /* integer scale of each row, twice: for vpmaddwd */
    float offset[RUN_CHUNKS][8];
    float d[8];
};

/* A run's activations of the tokens at hand: chunk c of token t is q + t * q_stride + 32 * c. */
struct run_acts {
    const int8_t *q;
    const float *scale, *sum;
    int64_t q_stride, s_stride;
};

FMK_INLINE struct run_acts acts_at(const struct fmk_acts *acts, int64_t token, int64_t chunk) {
    int64_t chunks = acts->k / 32;
    return (struct run_acts){acts->q + token * acts->k + 32 * chunk, acts->scale + token * chunks + chunk,
                             acts->sum32 + token * chunks + chunk, acts->k, chunks};
}

FMK_INLINE void clear_out(const struct fmk_tile *tile) {
    for (int32_t t = 0; t < tile->tokens; t++)
        memset(tile->out + t * FMK_TILE_N, 0, FMK_TILE_N * sizeof(float));
}

FMK_INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

FMK_INLINE __m256i broadcast_quad(const int8_t *q) {
    int32_t quad;
    memcpy(&quad, q, 4);
    return _mm256_set1_epi32(quad);
}

/* a + b, there and then: left to itself gcc regroups the sums of a chunk into trees, which take more
 * registers than there are. */
FMK_INLINE __m256i add_in_order(__m256i a, __m256i b) {
    __m256i sum = _mm256_add_epi16(a, b);
    __asm__("" : "+x"(sum));
    return sum;
}

/* Few tokens: this many panels take turns at a block, each fetching its next one meanwhile, so that memory
 * delivers as many streams at once. */
enum { STREAMS = 4 };

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
            const int8_t *q = acts->q + t * acts->q_stride + 32 * c + 4 * v;
            __m256i x = broadcast_quad(q), y = broadcast_quad(q + 16);
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

FMK_INLINE void add_run(__m256 d, __m256 total, __m256 offset, float *place) {
    __m256 sum = _mm256_sub_ps(_mm256_loadu_ps(place), offset);
    _mm256_storeu_ps(place, _mm256_fmadd_ps(d, total, sum));
}

/* Adds a run of P panels times T tokens to out. */
FMK_INLINE void multiply_run(const struct run *run, int chunks, const struct run_acts *acts, const int T,
                             const int P, float *out) {
    __m256 total[MAX_T][MAX_P];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            total[t][p] = _mm256_setzero_ps();
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
                __m256i x = broadcast_quad(acts->q + t * acts->q_stride + 32 * c + 4 * q);
#pragma GCC unroll 2
                for (int p = 0; p < P; p++) {
                    __m256i product = _mm256_maddubs_epi16(w[p], x);
                    sum[t][p] = q ? add_in_order(sum[t][p], product) : product;
                }
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256 scale = _mm256_broadcast_ss(acts->scale + t * acts->s_stride + c);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) {
                __m256i dot = _mm256_madd_epi16(sum[t][p], load(run[p].scale[c]));
                total[t][p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, total[t][p]);
            }
        }
    }
    __m256 offset[MAX_T][MAX_P];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            offset[t][p] = _mm256_setzero_ps();
    for (int c = 0; c < chunks; c++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256 x = _mm256_broadcast_ss(acts->sum + t * acts->s_stride + c);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                offset[t][p] = _mm256_fmadd_ps(_mm256_load_ps(run[p].offset[c]), x, offset[t][p]);
        }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            add_run(_mm256_load_ps(run[p].d), total[t][p], offset[t][p], out + t * FMK_TILE_N + 8 * p);
}

#endif
