/* Codes of four bits times bf16 activations of up to 16 tokens, by AMX tiles.
 *
 * So few tokens are done before weights are decoded, so that is what costs. A code in the lower half of a
 * bf16 that has the exponent of 2^7 *is* 128 + code: one operation for 32 weights. A product of tiles is one
 * of 32 k, which share a scale and a minimum, and goes into a tile of its own; its sums are stored, and
 * mended by vectors:
 *
 *     sum of (scale * code - min) * x = scale * sum of (128 + code) * x - (128 * scale + min) * sum of x
 *
 * Where many tokens share weights, that costs more than making weights of all codes (gemm_bf16.c).
 *
 * Sums of 16 tokens by 16 rows stay in registers for all of K. Memory is read in one place, and asked for
 * ahead. Of 32 k after 32 k, one is decoded, the one two before it multiplied, and the one two before that
 * mended: tiles and vectors do not wait for one another. */
#include "bf16_turn.h"
#include "codes_decode.h"

enum {
    RING = 4,
    BEHIND = 2,   /* so far is what is multiplied behind what is decoded, and what is mended behind that */
    AHEAD = 4096, /* bytes that memory is asked for ahead */
    ROWS = 256    /* of a job */
};
static_assert(RING == 2 * BEHIND, "what was mended makes room for what is decoded");

/* 32 k of 16 rows, times 16 tokens. */
struct chunk {
    struct codes codes;
    float sums[TILE][FMK_STRIP]; /* of products, to be mended */
};

struct work {
    const struct fmk_gemm_job *job;
    const struct fmk_packed *part;
    const uint8_t *panel, *ask;
    int32_t ask_lines; /* with each chunk */
    int64_t chunks;
    const uint16_t *x; /* of the first token */
    int64_t x_stride;  /* from 32 k to the next */
    int32_t tokens;
    int64_t token;       /* activation row */
    const float *x_sums; /* [TILE][8], of 256 k */
    struct chunk ring[RING];
    float some_sums[TILE][8]; /* where there are fewer tokens than TILE */
};

/* ---- the three things that are done with a chunk ---- */

FMK_INLINE void decode(struct work *work, int64_t c) {
    for (int i = 0; i < work->ask_lines; i++, work->ask += 64)
        __builtin_prefetch(work->ask, 0, 2);
    decode_chunk(work->part, work->panel, c, &work->ring[c % RING].codes);
}

/* Into tile number `tile`, of 0 to 3. */
FMK_INLINE void multiply_chunk(struct work *work, int64_t c, const int tile) {
    struct chunk *chunk = &work->ring[c % RING];
    tile_zero(tile);
    tile_load(4 + tile / 2, work->x + c * work->x_stride, TILE_K * sizeof *work->x);
    tile_load(6 + tile % 2, chunk->codes.pairs, sizeof *chunk->codes.pairs);
    tile_multiply_bf16(tile);
    tile_store(tile, chunk->sums, sizeof *chunk->sums);
}

/* The sums of activations of 256 k. */
static void find_sums(struct work *work, int64_t c) {
    const struct fmk_gemm_acts *acts = work->job->acts;
    work->x_sums = acts->sum32 + (c / 8 * acts->capacity + work->token) * 8;
    if (work->tokens == TILE)
        return;
    memcpy(work->some_sums, work->x_sums, (size_t)work->tokens * sizeof *work->some_sums);
    work->x_sums = work->some_sums[0];
}

FMK_INLINE void mend(struct work *work, int64_t c, floats total[TILE]) {
    const struct chunk *chunk = &work->ring[c % RING];
    if (c % 8 == 0)
        find_sums(work, c);
    const floats scale = load_floats(chunk->codes.scale), min = load_floats(chunk->codes.min);
    const float *x = work->x_sums + c % 8;
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++)
        total[t] = multiply_add(load_floats(chunk->sums[t]), scale,
                                multiply_from(min, all_floats(x[8 * t]), total[t]));
}

/* ---- 16 rows ---- */

FMK_INLINE void step(struct work *work, int64_t c, floats total[TILE], const int tile) {
    multiply_chunk(work, c, tile);
    if (c >= BEHIND)
        mend(work, c - BEHIND, total);
    if (c + BEHIND < work->chunks)
        decode(work, c + BEHIND);
}

static void multiply_strip(struct work *work, float *out) {
    floats total[TILE];
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++)
        total[t] = no_floats();
    for (int64_t c = 0; c < fmk_min(BEHIND, work->chunks); c++)
        decode(work, c);
    int64_t c = 0;
    for (; c + 4 <= work->chunks; c += 4) {
        step(work, c, total, 0);
        step(work, c + 1, total, 1);
        step(work, c + 2, total, 2);
        step(work, c + 3, total, 3);
    }
    for (; c < work->chunks; c++)
        step(work, c, total, 0);
    for (c = fmk_max(0, c - BEHIND); c < work->chunks; c++)
        mend(work, c, total);
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++)
        if (t < work->tokens)
            store_floats(out + t * FMK_TILE_N, total[t]);
}

/* ---- all of a job ---- */

static void run(const struct fmk_gemm_job *job) {
    const struct fmk_gemm_acts *acts = job->acts;
    struct work work = {.job = job,
                        .part = job->part,
                        .chunks = job->part->k_packed / TILE_K,
                        .x_stride = acts->capacity * TILE_K};
    work.ask_lines = (int32_t)(((int64_t)job->part->stride / work.chunks + 63) / 64);
    for (int32_t t = 0; t < job->tokens; t += TILE) {
        work.token = job->token + t;
        work.tokens = (int32_t)fmk_min(TILE, job->tokens - t);
        work.x = acts->bf16[0] + work.token * TILE_K;
        configure_square(work.tokens, work.tokens);
        for (int32_t strip = 0; strip * FMK_STRIP < job->rows; strip++) {
            work.panel = panel_of(job, job->row + strip * FMK_STRIP, 16);
            work.ask = work.panel + AHEAD;
            multiply_strip(&work, fmk_gemm_sums(job, strip) + t * FMK_TILE_N);
        }
    }
    tile_release();
}

const struct fmk_gemm fmk_gemm_amx_codes = {
    .run = run,
    .rows = ROWS,
    .sheet_bytes = 0,
    .decode_cost = 32,
    .fetch_cost = 1,
};
