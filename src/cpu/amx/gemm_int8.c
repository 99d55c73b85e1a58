/* Sheets of int8 times int8 activations, by AMX tiles: for calls that allow less exact sums.
 *
 * 32 tokens by 32 rows of sums lie in four tiles. Weights and activations have a step of their own for every
 * 256 k, so every four turns (64 k of four products) the tiles' integers are stored, and *mended* into sums
 * of floats, by vectors, beside the next four turns. Those sums, 4 KB, stay in L1 while K passes. */
#include "int8_decode.h"
#include "sheets.h"

enum { TILE_K = 64, BLOCKS = DEPTH / FMK_K_BLOCK };

/* Sums of 256 k that are not mended yet. */
struct unmended {
    _Alignas(64) int32_t sums[2][2][TILE][TILE]; /* [of the tokens' tiles][of the strips] */
    float step[2][TILE];                         /* of the strips' rows */
    const float *token_step;
    float *out;
    int32_t tokens, strips, done; /* tokens that are mended */
};

struct int8_work {
    struct work work;
    int at; /* the one of `unmended` that is filled next */
    struct unmended unmended[2];
};

/* ---- mending ---- */

enum { MEND = 8 }; /* tokens at a time: a quarter of a square */

FMK_INLINE void mend(struct unmended *u, const int tokens, const int B) {
    const int32_t(*sums)[TILE] = &u->sums[u->done / TILE][0][u->done % TILE];
    const float *token_step = u->token_step + u->done;
    float *out = u->out + u->done * FMK_TILE_N;
    floats step[2];
#pragma GCC unroll 2
    for (int b = 0; b < B; b++)
        step[b] = load_floats(u->step[b]);
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        floats of_token = all_floats(token_step[t]);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++) {
            float *at = out + t * FMK_TILE_N + b * FMK_STRIP;
            floats sum = multiply(to_floats(load_ints(sums[b * TILE + t])), step[b]);
            store_floats(at, multiply_add(sum, of_token, load_floats(at)));
        }
    }
    u->done += tokens;
}

FMK_INLINE void mend_some(struct unmended *u) {
    if (u->done + MEND <= u->tokens && u->strips == 2)
        mend(u, MEND, 2);
}

static void mend_rest(struct unmended *u) {
    while (u->done < u->tokens)
        if (u->strips == 2)
            mend(u, 1, 2);
        else
            mend(u, 1, 1);
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

/* The 256 k number `block` of a strip; strips are so many blocks apart. */
FMK_INLINE struct int8_strip *strip_of(const struct work *work, int32_t strip, int32_t block) {
    return (struct int8_strip *)work->job->sheet + strip * (work->depth / FMK_K_BLOCK) + block;
}

/* `tokens` tokens from `token` on, in A tiles, times B strips. */
FMK_INLINE void multiply_square(struct int8_work *whole, int32_t token, int32_t tokens, int32_t strip,
                                const int A, const int B) {
    struct work *work = &whole->work;
    const struct sheet *sheet = &work->sheet;
    const struct fmk_gemm_acts *acts = work->job->acts;
    const int64_t x_stride = acts->capacity * TILE_K,
                  w_stride = (strip_of(work, 1, 0)->quad - strip_of(work, 0, 0)->quad);
    float *out = fmk_gemm_sums(work->job, strip + (int32_t)((sheet->row - work->job->row) / FMK_STRIP)) +
                 token * FMK_TILE_N;
    const int8_t *x = acts->i8 + sheet->k / TILE_K * x_stride + (work->job->token + token) * TILE_K;
    for (int32_t t = 0; sheet->k == 0 && t < tokens; t++)
        memset(out + t * FMK_TILE_N, 0, B * FMK_STRIP * sizeof *out);
    for (int32_t begin = 0; begin < sheet->count; begin += FMK_K_BLOCK) {
        const struct int8_strip *w = strip_of(work, strip, begin / FMK_K_BLOCK);
        const int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, sheet->count - begin);
        struct unmended *last = &whole->unmended[!whole->at], *now = &whole->unmended[whole->at];
#pragma GCC unroll 4
        for (int i = 0; i < 2 * A; i++)
            if (i % 2 < B)
                tile_zero(i);
        for (int32_t k = 0; k < count; k += TILE_K, x += x_stride) {
            multiply_turn(x, w->quad + k / 4, w_stride, A, B);
            mend_some(last);
        }
        mend_rest(last);
        ask_lines(work);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++) {
#pragma GCC unroll 2
            for (int a = 0; a < A; a++)
                tile_store(2 * a + b, now->sums[a][b], sizeof now->sums[a][b][0]);
            store_floats(now->step[b], load_floats(strip_of(work, strip + b, begin / FMK_K_BLOCK)->step));
        }
        now->token_step =
            acts->step + (sheet->k + begin) / FMK_K_BLOCK * acts->capacity + work->job->token + token;
        now->out = out;
        now->tokens = tokens;
        now->strips = B;
        now->done = 0;
        whole->at = !whole->at;
    }
}
static_assert(sizeof(struct int8_strip) % sizeof(int8_quad) == 0, "strips are quads apart");
static_assert(FMK_TILE_N / FMK_STRIP % 2 == 0, "both strips' sums are in one group");

FMK_INLINE void multiply_strips(struct int8_work *whole, int32_t token, int32_t tokens, const int A) {
    int32_t s = 0;
    for (; s + 2 <= whole->work.sheet.strips; s += 2)
        multiply_square(whole, token, tokens, s, A, 2);
    if (s < whole->work.sheet.strips)
        multiply_square(whole, token, tokens, s, A, 1);
}

static void multiply_tokens(struct work *work, int32_t token, int32_t tokens) {
    struct int8_work *whole = (struct int8_work *)work;
    if (tokens > TILE)
        multiply_strips(whole, token, tokens, 2);
    else
        multiply_strips(whole, token, tokens, 1);
}
static_assert(offsetof(struct int8_work, work) == 0, "one is found from the other");

static void decode_strip(const struct work *work, int32_t strip, int32_t k, int32_t count) {
    int8_decode_strip(work->job, work->sheet.row + strip * FMK_STRIP, work->sheet.k + k, count,
                      strip_of(work, strip, k / FMK_K_BLOCK), decode_integers);
}

static void run(const struct fmk_gemm_job *job) {
    struct int8_work whole = {.work = work_of(job, sizeof(int8_t))};
    sheet_by_sheet(&whole.work, &(struct kind){decode_strip, multiply_tokens});
    mend_rest(&whole.unmended[!whole.at]);
}

const struct fmk_gemm fmk_gemm_amx_int8 = {
    .run = run,
    .rows = JOB_ROWS,
    .sheet_bytes = SHEET_ROWS / FMK_STRIP * BLOCKS * sizeof(struct int8_strip),
    .decode_cost = 64,
    .fetch_cost = 16,
};
