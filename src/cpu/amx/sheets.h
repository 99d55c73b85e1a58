/* How a job is done sheet by sheet: one is decoded, and multiplied by all tokens, while the lines of the next
 * one are asked for. What is decoded of 16 rows by up to 256 k, and what a sheet is multiplied by, is the
 * kernel's own.
 *
 * A sheet is narrow and deep: 32 rows, so that the sums of 32 tokens stay in four tiles while all of its k
 * pass, and as many k as leave the activations of all tokens in L2, which every sheet of the job's rows
 * passes by. Both sides of a product then come from L2, 4 KB for the 64 cycles of four products, which take
 * 88 to 105 by what is multiplied; sums that came and went every 256 k would take half as long again, as
 * stores to L2 do. Of up to 16 tokens, one tile, sheets are of 64 rows, and not deep. */
#ifndef FMK_CPU_AMX_SHEETS_H
#define FMK_CPU_AMX_SHEETS_H

#include "../gemm/lines.h"
#include "square.h"

enum {
    JOB_ROWS = 256,
    SHEET_ROWS = 2 * TILE,
    FEW_ROWS = 4 * TILE, /* of up to TILE tokens */
    DEPTH = 4096,        /* k of a sheet at most */
    FEW_DEPTH = 256,
    LEAST_DEPTH = 512,
    SHEET_NUMBERS = SHEET_ROWS * DEPTH, /* room for */
    L2_ACTS = 1 << 20                   /* bytes of activations that a sheet passes by */
};
static_assert(FEW_ROWS * FEW_DEPTH <= SHEET_NUMBERS, "sheets of few tokens have room");

struct sheet {
    int64_t row, k; /* in the part */
    int32_t strips, count;
};

struct work {
    const struct fmk_gemm_job *job;
    int32_t rows, depth; /* of a sheet */
    bool few;            /* K passes before the next rows come */
    struct sheet sheet;
    struct fmk_lines lines; /* of the next one */
    int32_t step_lines;     /* that are asked for with every 256 k of a square or a strip */
};

struct kind {
    /* `count` k from k on, which counts from the sheet's first, of one of its strips: up to 256. */
    void (*decode_strip)(const struct work *work, int32_t strip, int32_t k, int32_t count);
    /* Up to 32 tokens from `token` on times all strips: two, or of one tile of tokens up to four. */
    void (*multiply_tokens)(struct work *work, int32_t token, int32_t tokens);
};

/* Sheets for so many tokens; `bytes` of an activation. */
static inline struct work work_of(const struct fmk_gemm_job *job, int32_t bytes) {
    struct work work = {.job = job, .few = job->tokens <= TILE};
    work.rows = work.few ? FEW_ROWS : SHEET_ROWS;
    work.depth = work.few ? FEW_DEPTH : DEPTH;
    while (work.depth > LEAST_DEPTH && job->tokens * work.depth * bytes > L2_ACTS)
        work.depth /= 2;
    return work;
}

/* What there is of a sheet at row and k: no strips behind the last one. */
static inline struct sheet sheet_at(const struct work *work, int64_t row, int64_t k) {
    const struct fmk_gemm_job *job = work->job;
    int64_t rows = fmk_min(work->rows, job->row + job->rows - row), count = job->part->k_packed - k;
    if (rows <= 0 || count <= 0)
        return (struct sheet){0};
    return (struct sheet){.row = row,
                          .k = k,
                          .strips = (int32_t)(rows + FMK_STRIP - 1) / FMK_STRIP,
                          .count = (int32_t)fmk_min(work->depth, count)};
}

static inline struct sheet sheet_after(const struct work *work) {
    const struct sheet *sheet = &work->sheet;
    struct sheet along = sheet_at(work, sheet->row, sheet->k + work->depth);
    struct sheet down = sheet_at(work, sheet->row + work->rows, sheet->k);
    if (work->few)
        return along.strips ? along : sheet_at(work, sheet->row + work->rows, 0);
    return down.strips ? down : sheet_at(work, work->job->row, sheet->k + work->depth);
}

/* Spreads what the next sheet is made of over this one's decoding and multiplying. */
static inline void spread_lines(struct work *work) {
    const struct sheet next = sheet_after(work), *now = &work->sheet;
    struct fmk_gemm_job rows = *work->job;
    int32_t squares = (rows.tokens + 2 * TILE - 1) / (2 * TILE);
    int32_t steps = (now->count + FMK_K_BLOCK - 1) / FMK_K_BLOCK * (squares + now->strips);
    rows.row = next.row;
    rows.rows = next.strips * FMK_STRIP;
    work->lines = next.strips ? fmk_lines_of(&rows, next.k, next.count) : (struct fmk_lines){0};
    work->step_lines = (int32_t)((fmk_lines_left(&work->lines) + steps - 1) / steps);
}

/* With every 256 k of a square or a strip. */
static inline void ask_lines(struct work *work) {
    fmk_lines_ask(&work->lines, work->step_lines);
}

static inline void multiply_sheet(struct work *work, const struct kind *kind) {
    const int32_t tokens = work->job->tokens;
    int32_t t = 0;
    for (; t + 2 * TILE <= tokens; t += 2 * TILE)
        kind->multiply_tokens(work, t, 2 * TILE);
    int32_t left = tokens - t;
    if (!left)
        return;
    configure_square((int32_t)fmk_min(left, TILE), left - TILE);
    kind->multiply_tokens(work, t, left);
    configure_square(TILE, TILE);
}

/* All of a job. */
static inline void sheet_by_sheet(struct work *work, const struct kind *kind) {
    configure_square(TILE, TILE);
    for (work->sheet = sheet_at(work, work->job->row, 0); work->sheet.strips;
         work->sheet = sheet_after(work)) {
        spread_lines(work);
        for (int32_t k = 0; k < work->sheet.count; k += FMK_K_BLOCK)
            for (int32_t s = 0; s < work->sheet.strips; s++) {
                ask_lines(work);
                kind->decode_strip(work, s, k, (int32_t)fmk_min(FMK_K_BLOCK, work->sheet.count - k));
            }
        multiply_sheet(work, kind);
    }
    tile_release();
}

#endif
