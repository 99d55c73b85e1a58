/* Deep sheets of bf16 (sheets.h) times bf16 activations, by AMX tiles; or of sums of two bf16 times such
 * activations, 16 bits on both sides. Their product is three: high * high + low * high + high * low. What is
 * left out is 2^-16 of a term. f16 weights are such sums exactly; bf16 weights have no low part, and two
 * products. */
#include "bf16_decode.h"
#include "bf16_turn.h"
#include "sheets.h"

/* The pairs of a strip's part, of so many. */
FMK_INLINE bf16_pair *pairs_of(const struct work *work, int32_t strip, int part, const int parts) {
    return (bf16_pair *)work->job->sheet + (strip * parts + part) * (int64_t)(work->depth / 2);
}

/* A tiles of tokens times B strips. Sums are made 256 k at a time, whatever the depth of sheets is: all
 * products of those, then the next ones'. */
FMK_INLINE void multiply_square(struct work *work, int32_t token, const int A, const int B, const int parts) {
    const struct fmk_gemm_job *job = work->job;
    const struct fmk_gemm_acts *acts = job->acts;
    const struct sheet *sheet = &work->sheet;
    const int64_t stride = FMK_TILE_N * sizeof(float), x_stride = acts->capacity * TILE_K,
                  w_stride = pairs_of(work, 1, 0, parts) - pairs_of(work, 0, 0, parts);
    /* high * high, low * high, high * low */
    const int terms = parts == 1 ? 1 : job->part->dtype == FMK_BF16 ? 2 : 3;
    float *sums[4];
#pragma GCC unroll 4
    for (int b = 0; b < B; b++) {
        int32_t strip = (int32_t)((sheet->row - job->row) / FMK_STRIP) + b;
        sums[b] = fmk_gemm_sums(job, strip) + token * FMK_TILE_N;
    }
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
            if (sheet->k == 0)
                tile_zero(2 * a + b);
            else
                tile_load(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
    for (int32_t begin = 0; begin < sheet->count; begin += FMK_K_BLOCK) {
        const int32_t end = (int32_t)fmk_min(begin + FMK_K_BLOCK, sheet->count);
        for (int term = 0; term < terms; term++) {
            const bf16_pair *w = pairs_of(work, 0, term == 2, parts) + begin / 2;
            const uint16_t *x = acts->bf16[term == 1] + (sheet->k + begin) / TILE_K * x_stride +
                                (job->token + token) * TILE_K;
            for (int32_t k = begin; k < end; k += TILE_K, x += x_stride, w += TILE_PAIRS)
                multiply_turn(x, w, w_stride, A, B);
        }
        ask_lines(work);
    }
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
            tile_store(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
}

FMK_INLINE void multiply_parts(struct work *work, int32_t token, int32_t tokens, const int parts) {
    const int32_t strips = work->sheet.strips;
    if (tokens > TILE && strips == 2)
        multiply_square(work, token, 2, 2, parts);
    else if (tokens > TILE)
        multiply_square(work, token, 2, 1, parts);
    else if (strips == 4)
        multiply_square(work, token, 1, 4, parts);
    else if (strips == 3)
        multiply_square(work, token, 1, 3, parts);
    else if (strips == 2)
        multiply_square(work, token, 1, 2, parts);
    else
        multiply_square(work, token, 1, 1, parts);
}

/* ---- one product ---- */

static void multiply_one(struct work *work, int32_t token, int32_t tokens) {
    multiply_parts(work, token, tokens, 1);
}

static void decode_one(const struct work *work, int32_t strip, int32_t k, int32_t count) {
    const int32_t unit = bf16_unit_k(work->job->part);
    bf16_pair *out = pairs_of(work, strip, 0, 1);
    for (int32_t end = k + count; k < end; k += unit)
        bf16_decode_unit(work->job, work->sheet.row + strip * FMK_STRIP, work->sheet.k + k,
                         (int32_t)fmk_min(unit, end - k), out + k / 2, decode_integers);
}

void fmk_amx_bf16_deep(const struct fmk_gemm_job *job) {
    struct work work = work_of(job, sizeof(uint16_t));
    sheet_by_sheet(&work, &(struct kind){decode_one, multiply_one});
}
static_assert(SHEET_NUMBERS * sizeof(uint16_t) <= BF16_SHEET_BYTES, "sheets have room");

/* ---- three products ---- */

enum { PARTS = 2 };

static void multiply_split(struct work *work, int32_t token, int32_t tokens) {
    multiply_parts(work, token, tokens, PARTS);
}

/* Floats as two bf16 each: the second is what rounding to the first left. */
static void split_strip(const struct f32_strip *in, int32_t count, bf16_pair *high, bf16_pair *low) {
    for (int32_t k = 0; k < count; k += 2) {
        floats w[2] = {load_floats(in->w[k]), load_floats(in->w[k + 1])};
        store_pairs(&high[k / 2], w[0], w[1]);
        ints both = load_ints(high[k / 2]);
        store_pairs(&low[k / 2], _mm512_sub_ps(w[0], as_floats(shift_left(both, 16))),
                    _mm512_sub_ps(w[1], as_floats(and(both, all_32(INT32_C(-65536))))));
    }
}

static void decode_split(const struct work *work, int32_t strip, int32_t k, int32_t count) {
    struct f32_strip whole;
    f32_decode_strip(work->job, work->sheet.row + strip * FMK_STRIP, work->sheet.k + k, count, &whole,
                     decode_integers);
    split_strip(&whole, (int32_t)fmk_round_up(count, TILE_K), pairs_of(work, strip, 0, PARTS) + k / 2,
                pairs_of(work, strip, 1, PARTS) + k / 2);
}

static void run_split(const struct fmk_gemm_job *job) {
    struct work work = work_of(job, PARTS * sizeof(uint16_t));
    sheet_by_sheet(&work, &(struct kind){decode_split, multiply_split});
}

const struct fmk_gemm fmk_gemm_amx_bf16x2 = {
    .run = run_split,
    .rows = JOB_ROWS,
    .sheet_bytes = SHEET_NUMBERS * PARTS * sizeof(uint16_t),
    .decode_cost = 48,
    .fetch_cost = 8,
};
