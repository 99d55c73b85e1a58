/* Many tokens: weights are decoded once, a *sheet* of up to 64 rows by 256 or 512 k at a time, into numbers
 * that the machine multiplies fastest, and a sheet is multiplied by all tokens of a task before the next one
 * is decoded. (A tile kernel, tile.h, decodes weights again for every 64 tokens, or multiplies codes and
 * mends the sums afterwards.)
 *
 * - f32: floats, as exact as a float kernel.
 * - i16: integers, code times integer scale, which is exact; the float scale of 256 k, or of a group, is
 * applied to sums of integers. Activations are rounded to 11 bits and a sign.
 * - bf16: what tiles of AMX multiply; both sides are rounded to 8 bits. Or bf16x2, both are sums of two.
 * - int8: tiles, too; both sides are rounded to 127ths of the largest of 256, where the call allows that.
 *
 * In a sheet 16 rows lie side by side, a *strip*, so that a register holds one k, or a pair of k, of 16 rows.
 * As with tiles, the sum of an output is made in an order that depends on K alone. */
#ifndef FMK_CPU_GEMM_H
#define FMK_CPU_GEMM_H

#include "../tile.h"

enum {
    FMK_SHEET_M = 16, /* rows of an expert from which on a sheet is worth it */
    FMK_INT8_M = 64,  /* and one of int8, beside one of bf16 */
    FMK_STRIP = 16    /* rows of a strip */
};

/* Some rows of a part times a run of tokens. */
struct fmk_gemm_job {
    const struct fmk_packed *part;
    const uint8_t *data; /* the expert's first byte */
    const struct fmk_gemm_acts *acts;
    int64_t row;    /* a multiple of 16 */
    int32_t rows;   /* 1 .. those of the kernel; whole strips are computed, the rest is padding */
    int64_t token;  /* first activation row */
    int32_t tokens; /* at least 1 */
    void *sheet;    /* sheet_bytes, aligned to 64 */
    float *out;     /* of each 64 rows [tokens][FMK_TILE_N]; columns of padding are don't-care */
    int64_t group;  /* from those of 64 rows to the next ones */
};

struct fmk_gemm {
    void (*run)(const struct fmk_gemm_job *job); /* all of K */
    int32_t rows;                                /* of a job at most: 64, or a multiple */
    int64_t sheet_bytes;
    /* What else takes time beside products: to decode a row, in tokens' products with it; to fetch a token,
     * in rows' products with it. */
    int32_t decode_cost, fetch_cost;
};

/* Sums of so many tokens are kept while K passes: less where a job has more rows. */
static inline int64_t fmk_gemm_tokens(int32_t rows) {
    return rows > FMK_TILE_N ? 512 : 1024;
}

static inline float *fmk_gemm_sums(const struct fmk_gemm_job *job, int32_t strip) {
    const int32_t strips = FMK_TILE_N / FMK_STRIP;
    return job->out + strip / strips * job->group + strip % strips * FMK_STRIP;
}

extern const struct fmk_gemm fmk_gemm_avx2_f32, fmk_gemm_avx2_i16;
extern const struct fmk_gemm fmk_gemm_avx512_f32, fmk_gemm_avx512_i16;
extern const struct fmk_gemm fmk_gemm_amx_bf16, fmk_gemm_amx_bf16x2, fmk_gemm_amx_int8;

/* What turns up to 256 floats of a row into activations of sheets. */
fmk_quantize_row fmk_gemm_fill_f32, fmk_gemm_fill_i16_portable;
fmk_quantize_row fmk_gemm_fill_i16_avx2, fmk_gemm_fill_bf16, fmk_gemm_fill_bf16x2, fmk_gemm_fill_int8;

#endif
