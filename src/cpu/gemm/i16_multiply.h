/* Sheets of integers times activations of 11 bits and a sign, for the ISA whose vectors.h was included
 * before.
 *
 * A block is 256 k, whose sums of integers stay below 2^31: the largest code times scale is Q6_K's 32 * 128,
 * and 256 * 2^12 * 2047 < 2^31. They become floats once a block, or once a group of INT4 if that is smaller.
 */
#ifndef FMK_CPU_GEMM_I16_MULTIPLY_H
#define FMK_CPU_GEMM_I16_MULTIPLY_H

#include "../../abi.h"
#include "i16_sheet.h"
#include "lines.h"

/* Some tokens of a block. */
struct i16_tokens {
    const struct fmk_gemm_acts *acts;
    int64_t at; /* of the first token's row of this block */
    bool first; /* block of K: out is not yet anything */
    float *out;
};

/* out += sums of a run, rows LANES * v .. LANES * v + LANES-1 of the strips from `strip` on. */
FMK_INLINE void i16_mend(const struct i16_strip *strip, int32_t run, bool minima,
                         const struct i16_tokens *tokens, const ints sum[MOST_T][2], const int T,
                         const int v) {
    const struct i16_strip *of = &strip[v * LANES / FMK_STRIP];
    const int row = v * LANES % FMK_STRIP;
    floats scale = load_floats(of->scale[run] + row), total[MOST_T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        float *out = tokens->out + t * FMK_TILE_N + v * LANES;
        floats before = tokens->first && run == 0 ? no_floats() : load_floats(out);
        total[t] = multiply_add(multiply(to_floats(sum[t][v]), scale),
                                all_floats(tokens->acts->step[tokens->at + t]), before);
    }
    for (int j = 0; minima && j < FMK_K_BLOCK / 32; j++) {
        floats min = load_floats(of->min[j] + row);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++)
            total[t] =
                multiply_from(min, all_floats(tokens->acts->sum32[(tokens->at + t) * 8 + j]), total[t]);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
        store_floats(tokens->out + t * FMK_TILE_N + v * LANES, total[t]);
}

/* Pairs p .. p+3 of V vectors of rows times T tokens. */
FMK_INLINE void i16_pairs(const struct i16_strip *strip, const int16_t *x, int32_t p, ints sum[MOST_T][2],
                          const int T, const int V) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        ints w[2];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            w[v] = load_ints(strip[v * LANES / FMK_STRIP].pair[p + i][v * LANES % FMK_STRIP]);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            ints a = all_pairs(x + t * FMK_K_BLOCK + 2 * (p + i));
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                sum[t][v] = dot_pairs(sum[t][v], w[v], a);
        }
    }
}

/* V vectors of rows times T tokens over `count` k. */
FMK_INLINE void i16_multiply(const struct i16_strip *strip, struct i16_runs runs, int32_t count,
                             const struct i16_tokens *tokens, struct fmk_lines *lines, const int T,
                             const int V) {
    const int16_t *x = tokens->acts->i16 + tokens->at * FMK_K_BLOCK;
    for (int32_t run = 0; run * runs.length < count; run++) {
        int32_t end = (run + 1) * runs.length < count ? (run + 1) * runs.length : count;
        ints sum[MOST_T][2];
#pragma GCC unroll 8
        for (int t = 0; t < T; t++)
#pragma GCC unroll 2
            for (int v = 0; v < V; v++)
                sum[t][v] = no_ints();
        for (int32_t p = run * runs.length / 2; p < end / 2; p += 4) { /* runs are of whole 32 k */
            fmk_lines_next(lines); /* a sheet of Q6_K is 210 lines, and 16 tokens are 128 turns */
            fmk_lines_next(lines);
            i16_pairs(strip, x, p, sum, T, V);
        }
#pragma GCC unroll 2
        for (int v = 0; v < V; v++)
            i16_mend(strip, run, runs.minima, tokens, sum, T, v);
    }
}

/* All tokens of the job: as many at once as there are registers for, then 4, 2, 1. */
FMK_INLINE void i16_all_tokens(const struct fmk_gemm_job *job, const struct i16_strip *strip,
                               struct i16_runs runs, int64_t k, int32_t count, struct fmk_lines *lines,
                               float *out, const int V) {
    struct i16_tokens tokens = {job->acts, k / FMK_K_BLOCK * job->acts->capacity + job->token, k == 0, out};
    int32_t left = job->tokens;
    for (; left >= MOST_T; left -= MOST_T, tokens.at += MOST_T, tokens.out += MOST_T * FMK_TILE_N)
        i16_multiply(strip, runs, count, &tokens, lines, MOST_T, V);
    for (; left >= 4; left -= 4, tokens.at += 4, tokens.out += 4 * FMK_TILE_N)
        i16_multiply(strip, runs, count, &tokens, lines, 4, V);
    for (; left >= 2; left -= 2, tokens.at += 2, tokens.out += 2 * FMK_TILE_N)
        i16_multiply(strip, runs, count, &tokens, lines, 2, V);
    if (left)
        i16_multiply(strip, runs, count, &tokens, lines, 1, V);
}

FMK_INLINE void i16_job(const struct fmk_gemm_job *job, i16_decode *decode) {
    enum { AT_ONCE = 2 * LANES / FMK_STRIP }; /* strips: two vectors */
    struct i16_strip *sheet = job->sheet;
    struct i16_runs runs = i16_runs_of(job->part);
    int32_t strips = (job->rows + FMK_STRIP - 1) / FMK_STRIP;
    for (int64_t k = 0; k < job->part->k_packed; k += FMK_K_BLOCK) {
        int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, job->part->k_packed - k), s = 0;
        for (; s < strips; s++)
            decode(job, job->row + s * FMK_STRIP, k, count, &sheet[s]);
        struct fmk_lines lines = fmk_lines_of(job, k + FMK_K_BLOCK, FMK_K_BLOCK);
        for (s = 0; s + AT_ONCE <= strips; s += AT_ONCE)
            i16_all_tokens(job, &sheet[s], runs, k, count, &lines, fmk_gemm_sums(job, s), 2);
        if (s < strips)
            i16_all_tokens(job, &sheet[s], runs, k, count, &lines, fmk_gemm_sums(job, s), 1);
    }
}

#endif
