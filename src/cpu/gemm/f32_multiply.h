/* Sheets of floats times float activations, for the ISA whose vectors.h was included before.
 *
 * An output is the sum, in the order of k, of its products in blocks of 256, and the block sums added up in
 * turn: an error of 4.7e-7 at k = 28672, as avx2/f32_x8.h reckons. */
#ifndef FMK_CPU_GEMM_F32_MULTIPLY_H
#define FMK_CPU_GEMM_F32_MULTIPLY_H

#include "../../abi.h"
#include "f32_sheet.h"
#include "lines.h"

/* One k of V vectors of rows times T tokens. */
FMK_INLINE void f32_one(const struct f32_strip *strip, const float *x, int32_t k, floats sum[MOST_T][2],
                        const int T, const int V) {
    floats w[2];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++)
        w[v] = load_floats(strip[v * LANES / FMK_STRIP].w[k] + v * LANES % FMK_STRIP);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        floats a = all_floats(x[t * FMK_K_BLOCK + k]);
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            sum[t][v] = multiply_add(w[v], a, sum[t][v]);
    }
}

/* out += V vectors of rows times T tokens over `count` k; in the first block of K, out = . */
FMK_INLINE void f32_multiply(const struct f32_strip *strip, const float *x, int32_t count, bool first,
                             struct fmk_lines *lines, float *out, const int T, const int V) {
    floats sum[MOST_T][2];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            sum[t][v] = no_floats();
    int32_t k = 0;
    for (; k + 4 <= count; k += 4) {
        fmk_lines_next(lines); /* a sheet of f16 is 512 lines, and 16 tokens are 256 turns */
        fmk_lines_next(lines);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            f32_one(strip, x, k + i, sum, T, V);
    }
    for (; k < count; k++)
        f32_one(strip, x, k, sum, T, V);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            float *place = out + t * FMK_TILE_N + v * LANES;
            store_floats(place, first ? sum[t][v] : add(load_floats(place), sum[t][v]));
        }
}

/* All tokens of the job: as many at once as there are registers for, then 4, 2, 1. */
FMK_INLINE void f32_all_tokens(const struct fmk_gemm_job *job, const struct f32_strip *strip, int64_t k,
                               int32_t count, struct fmk_lines *lines, float *out, const int V) {
    enum { X = FMK_K_BLOCK, OUT = FMK_TILE_N };
    const float *x = job->acts->f32 + (k / FMK_K_BLOCK * job->acts->capacity + job->token) * FMK_K_BLOCK;
    int32_t left = job->tokens;
    for (; left >= MOST_T; left -= MOST_T, x += MOST_T * X, out += MOST_T * OUT)
        f32_multiply(strip, x, count, k == 0, lines, out, MOST_T, V);
    for (; left >= 4; left -= 4, x += 4 * X, out += 4 * OUT)
        f32_multiply(strip, x, count, k == 0, lines, out, 4, V);
    for (; left >= 2; left -= 2, x += 2 * X, out += 2 * OUT)
        f32_multiply(strip, x, count, k == 0, lines, out, 2, V);
    if (left)
        f32_multiply(strip, x, count, k == 0, lines, out, 1, V);
}

typedef void f32_decode(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                        struct f32_strip *strip);

FMK_INLINE void f32_job(const struct fmk_gemm_job *job, f32_decode *decode) {
    enum { AT_ONCE = 2 * LANES / FMK_STRIP }; /* strips: two vectors */
    struct f32_strip *sheet = job->sheet;
    int32_t strips = (job->rows + FMK_STRIP - 1) / FMK_STRIP;
    for (int64_t k = 0; k < job->part->k_packed; k += FMK_K_BLOCK) {
        int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, job->part->k_packed - k), s = 0;
        for (; s < strips; s++)
            decode(job, job->row + s * FMK_STRIP, k, count, &sheet[s]);
        struct fmk_lines lines = fmk_lines_of(job, k + FMK_K_BLOCK, FMK_K_BLOCK);
        for (s = 0; s + AT_ONCE <= strips; s += AT_ONCE)
            f32_all_tokens(job, &sheet[s], k, count, &lines, fmk_gemm_sums(job, s), 2);
        if (s < strips)
            f32_all_tokens(job, &sheet[s], k, count, &lines, fmk_gemm_sums(job, s), 1);
    }
}

#endif
