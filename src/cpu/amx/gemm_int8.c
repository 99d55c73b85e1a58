/* Sheets of int8 times int8 activations, by AMX tiles: for calls that allow less exact sums.
 *
 * 32 tokens by 32 rows of sums lie in four tiles. Weights and activations have a step of their own for every
 * 256 k, so every four turns (64 k of four products) the tiles' integers are stored, and *mended* into sums
 * of floats, by vectors, beside the next four turns. Those sums, 4 KB, stay in L1 while K passes: activations
 * and the sheet come from L2, which holds 32 rows of all tokens' k, or of many tokens 128 rows and the k of
 * 32. */
#include "../gemm/lines.h"
#include "int8_decode.h"
#include "square.h"

enum {
    TILE_K = 64,
    TURNS = FMK_K_BLOCK / TILE_K,
    ROWS = 256,   /* of a job */
    DEPTH = 4096, /* k of a sheet */
    BLOCKS = DEPTH / FMK_K_BLOCK,
    /* Up to so many tokens: L2 holds their activations, and a sheet is a square wide. */
    MIDDLE = 256,
    MIDDLE_ROWS = 2 * TILE,
    MANY_ROWS = 128,
    DECODE_TURNS = 4 /* that decoding a strip takes as long as */
};

/* Sums of 256 k that are not mended yet. */
struct unmended {
    _Alignas(64) int32_t sums[2][2][TILE][TILE]; /* [of the tokens' tiles][of the strips] */
    float step[2][TILE];                         /* of the strips' rows */
    const float *token_step;
    float *out;
    int32_t tokens, strips, quarters; /* quarters that are mended */
    bool first;                       /* there are no sums yet */
};

struct work {
    const struct fmk_gemm_job *job;
    int64_t x_stride; /* of activations, from 64 k to the next */
    /* The sheet: up to DEPTH k of some strips. */
    int64_t row, k;
    int32_t strips, count, blocks;
    struct int8_strip *sheet; /* [strip][blocks] */
    struct fmk_lines lines;   /* of the next one */
    int32_t turn_lines;       /* that are asked for with each turn */
    int at;                   /* the one of `unmended` that is filled next */
    struct unmended unmended[2];
};

/* ---- mending ---- */

FMK_INLINE void mend_tokens(const struct unmended *u, int32_t from, int32_t to, const int B,
                            const bool first) {
    floats step[2];
#pragma GCC unroll 2
    for (int b = 0; b < B; b++)
        step[b] = load_floats(u->step[b]);
    for (int32_t t = from; t < to; t++) {
        floats of_token = all_floats(u->token_step[t]);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++) {
            float *out = u->out + t * FMK_TILE_N + b * FMK_STRIP;
            floats sum = multiply(to_floats(load_ints(u->sums[t / TILE][b][t % TILE])), step[b]);
            store_floats(out, multiply_add(sum, of_token, first ? no_floats() : load_floats(out)));
        }
    }
}

/* A quarter of the tokens. */
FMK_INLINE void mend_quarter(struct unmended *u) {
    enum { QUARTER = 2 * TILE / 4 };
    if (u->quarters == 4)
        return;
    int32_t from = QUARTER * u->quarters++, to = (int32_t)fmk_min(from + QUARTER, u->tokens);
    if (u->strips == 1)
        mend_tokens(u, from, to, 1, u->first);
    else if (u->first)
        mend_tokens(u, from, to, 2, true);
    else
        mend_tokens(u, from, to, 2, false);
}

static void mend_rest(struct unmended *u) {
    while (u->quarters < 4)
        mend_quarter(u);
}

/* ---- products ---- */

/* 64 k of A tiles of tokens times B strips. */
FMK_INLINE void multiply_turn(const int8_t *x, const int8_quad *w, int64_t w_stride, const int A,
                              const int B) {
#pragma GCC unroll 2
    for (int b = 0; b < B; b++)
        tile_load(6 + b, w + b * w_stride, sizeof *w);
#pragma GCC unroll 2
    for (int a = 0; a < A; a++) {
        tile_load(4 + a, x + a * TILE * TILE_K, TILE_K);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++)
            tile_multiply_int8(2 * a + b);
    }
}

/* `tokens` tokens from `token` on, in A tiles, times B strips. */
FMK_INLINE void multiply_square(struct work *work, int32_t token, int32_t tokens, int32_t strip, const int A,
                                const int B) {
    const struct fmk_gemm_acts *acts = work->job->acts;
    const int64_t w_stride = work->blocks * (int64_t)(sizeof(struct int8_strip) / sizeof(int8_quad));
    const int32_t of_job = strip + (int32_t)((work->row - work->job->row) / FMK_STRIP);
    const struct int8_strip *w = work->sheet + strip * work->blocks;
    const int8_t *x = acts->i8 + work->k / TILE_K * work->x_stride + (work->job->token + token) * TILE_K;
    for (int32_t block = 0; block < work->blocks; block++, w++) {
        const int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, work->count - block * FMK_K_BLOCK);
        struct unmended *last = &work->unmended[!work->at], *now = &work->unmended[work->at];
#pragma GCC unroll 4
        for (int i = 0; i < 2 * A; i++)
            if (i % 2 < B)
                tile_zero(i);
        for (int32_t k = 0; k < count; k += TILE_K, x += work->x_stride) {
            multiply_turn(x, w->quad + k / 4, w_stride, A, B);
            fmk_lines_ask(&work->lines, work->turn_lines);
            mend_quarter(last);
        }
        mend_rest(last);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++) {
#pragma GCC unroll 2
            for (int a = 0; a < A; a++)
                tile_store(2 * a + b, now->sums[a][b], sizeof now->sums[a][b][0]);
            store_floats(now->step[b], load_floats(w[b * work->blocks].step));
        }
        const int64_t k = work->k / FMK_K_BLOCK + block;
        now->token_step = acts->step + k * acts->capacity + work->job->token + token;
        now->out = fmk_gemm_sums(work->job, of_job) + token * FMK_TILE_N;
        now->tokens = tokens;
        now->strips = B;
        now->quarters = 0;
        now->first = k == 0;
        work->at = !work->at;
    }
}
static_assert(sizeof(struct int8_strip) % sizeof(int8_quad) == 0, "strips are quads apart");
static_assert(FMK_TILE_N / FMK_STRIP % 2 == 0, "both strips' sums are in one group");

FMK_INLINE void multiply_tokens(struct work *work, int32_t token, int32_t tokens, const int A) {
    int32_t s = 0;
    for (; s + 2 <= work->strips; s += 2)
        multiply_square(work, token, tokens, s, A, 2);
    if (s < work->strips)
        multiply_square(work, token, tokens, s, A, 1);
}

static void multiply_sheet(struct work *work) {
    int32_t tokens = work->job->tokens, t = 0;
    for (; t + 2 * TILE <= tokens; t += 2 * TILE)
        multiply_tokens(work, t, 2 * TILE, 2);
    int32_t left = tokens - t;
    if (!left)
        return;
    configure_square((int32_t)fmk_min(left, TILE), left - TILE);
    if (left > TILE)
        multiply_tokens(work, t, left, 2);
    else
        multiply_tokens(work, t, left, 1);
    configure_square(TILE, TILE);
}

/* ---- sheets ---- */

static void decode_integers(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                            struct i16_strip *strip) {
    i16_decode_strip(job, row, k, count, strip);
}

/* Rows of this sheet's k, or the next ones'. */
static struct fmk_lines lines_after(const struct work *work, int32_t rows) {
    struct fmk_gemm_job next = *work->job;
    int64_t k = work->k + DEPTH;
    next.row = work->row;
    next.rows = rows;
    if (k >= next.part->k_packed) {
        k = 0;
        next.row += rows;
        next.rows = (int32_t)fmk_min(rows, work->job->row + work->job->rows - next.row);
    }
    return next.rows > 0 ? fmk_lines_of(&next, k, DEPTH) : (struct fmk_lines){0};
}

static void decode_sheet(struct work *work) {
    for (int32_t block = 0; block < work->blocks; block++)
        for (int32_t s = 0; s < work->strips; s++) {
            int64_t k = work->k + block * FMK_K_BLOCK;
            fmk_lines_ask(&work->lines, DECODE_TURNS * work->turn_lines);
            int8_decode_strip(work->job, work->row + s * FMK_STRIP, k,
                              (int32_t)fmk_min(FMK_K_BLOCK, work->job->part->k_packed - k),
                              &work->sheet[s * work->blocks + block], decode_integers);
        }
}

/* Spreads what is to be asked for over decoding and multiplying. */
static void spread_lines(struct work *work, int32_t rows) {
    int32_t squares = (work->job->tokens + 2 * TILE - 1) / (2 * TILE) * ((work->strips + 1) / 2);
    int32_t turns = work->blocks * (squares * TURNS + work->strips * DECODE_TURNS);
    work->lines = lines_after(work, rows);
    int64_t lines = work->lines.left + work->lines.run * work->lines.runs;
    work->turn_lines = (int32_t)((lines + turns - 1) / turns);
}

static void run(const struct fmk_gemm_job *job) {
    const int32_t rows = job->tokens <= MIDDLE ? MIDDLE_ROWS : MANY_ROWS;
    struct work work = {.job = job, .x_stride = job->acts->capacity * TILE_K, .sheet = job->sheet};
    work.unmended[0].quarters = work.unmended[1].quarters = 4;
    configure_square(TILE, TILE);
    for (work.row = job->row; work.row < job->row + job->rows; work.row += rows)
        for (work.k = 0; work.k < job->part->k_packed; work.k += DEPTH) {
            int64_t left = job->row + job->rows - work.row;
            work.strips = (int32_t)(fmk_min(rows, left) + FMK_STRIP - 1) / FMK_STRIP;
            work.count = (int32_t)fmk_min(DEPTH, job->part->k_packed - work.k);
            work.blocks = (work.count + FMK_K_BLOCK - 1) / FMK_K_BLOCK;
            spread_lines(&work, rows);
            decode_sheet(&work);
            multiply_sheet(&work);
        }
    mend_rest(&work.unmended[!work.at]);
    tile_release();
}

const struct fmk_gemm fmk_gemm_amx_int8 = {
    .run = run,
    .rows = ROWS,
    .sheet_bytes = MANY_ROWS / FMK_STRIP * BLOCKS * sizeof(struct int8_strip),
    .decode_cost = 64,
    .fetch_cost = 16,
};
