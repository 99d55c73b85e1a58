/* Sheets of bf16 times bf16 activations, by AMX tiles: 32 tokens by 32 rows of sums in four tiles, so that
 * two loads of activations and two of weights feed four products; of up to 16 tokens, 64 rows.
 *
 * Of some dozens of tokens sheets are deep (gemm_bf16_deep.c). Of fewer and of more three things go on in one
 * thread: tiles multiply a sheet, vectors decode the next one, and memory is asked for one further on. So a
 * *turn*, up to four products, is followed by its share of the other two: products take no port that vectors
 * need, and a core sees more than a turn at a time.
 *
 * Up to 32 tokens need every weight once: sheets are small enough for L1, and sums stay in tiles for all of
 * K. Hundreds: L2 holds neither all k of their activations nor, beside those, deep sheets. So the activations
 * of 32 tokens, of a sheet's k, stay near while strip after strip passes from L2, where sheets and sums
 * lie. */
#include "../gemm/lines.h"
#include "bf16_decode.h"
#include "bf16_turn.h"
#include "square.h"

enum {
    ROWS = 256, /* of a job; of its sheets, of 256 k, for many tokens */
    /* Up to so many: sums stay in tiles. A sheet's rows, where tokens fill one tile; half of it for two. How
     * far behind what is decoded the k are that are asked for. */
    FEW = 2 * TILE,
    FEW_ROWS = 4 * TILE,
    FEW_AHEAD = 512,
    MIDDLE = 192, /* up to so many: sheets are deep */
    SHEETS = 2    /* the one that is multiplied, the one that is decoded */
};

/* Sheets of how many rows and k, in units of which k (bf16_decode.h). */
struct shape {
    int32_t unit_k, rows, depth;
};

/* Up to `depth` k of some strips of the job; none, behind the last one. */
struct sheet {
    int64_t row, k; /* in the part */
    int64_t offset; /* of k, in bytes of a panel */
    int32_t strips, count;
    bf16_pair *pairs; /* [strip][depth / 2] */
};

struct work {
    const struct fmk_gemm_job *job;
    struct shape shape;
    bool few;                        /* sums stay in tiles */
    int64_t x_stride;                /* of activations, from 32 k to the next */
    int64_t span;                    /* bytes of a sheet's k of a panel */
    int32_t panels, pieces;          /* of a strip: panels; units of a whole sheet */
    struct sheet sheet, next, later; /* that is multiplied; decoded; asked for */
    int32_t turns, units, due;       /* of `sheet`; of `next`; that are to be decoded by now, in 1/turns */
    int32_t strip, piece;            /* of `next`: the unit that is decoded next */
    struct fmk_lines lines, acts;    /* of `later`; of `next`, where L2 does not hold activations */
    int32_t unit_lines, turn_lines, turn_acts; /* that are asked for with each */
};

/* ---- what goes on beside products ---- */

/* The sheet after this one: along K, and then the next rows. */
FMK_INLINE struct sheet sheet_after(const struct work *work, const struct sheet *sheet) {
    const struct fmk_gemm_job *job = work->job;
    struct sheet next = {.row = sheet->row,
                         .k = sheet->k + work->shape.depth,
                         .offset = sheet->offset + work->span,
                         .strips = sheet->strips};
    if (next.k >= job->part->k_packed) {
        next.k = next.offset = 0;
        next.row += work->shape.rows;
        int64_t rows = fmk_min(work->shape.rows, job->row + job->rows - next.row);
        next.strips = (int32_t)(rows + FMK_STRIP - 1) / FMK_STRIP;
    }
    next.count = (int32_t)fmk_min(work->shape.depth, job->part->k_packed - next.k);
    return next;
}

/* Of whole strips: what is asked for behind the last row is nothing to anybody. */
FMK_INLINE struct fmk_lines weight_lines(const struct work *work, const struct sheet *sheet) {
    const struct fmk_gemm_job *job = work->job;
    if (sheet->strips <= 0)
        return (struct fmk_lines){0};
    int64_t stride = (int64_t)job->part->stride, run = (work->span + 63) / 64;
    return (struct fmk_lines){
        .at = job->data + sheet->row / FMK_STRIP * work->panels * stride + sheet->offset,
        .left = run,
        .run = run,
        .jump = stride - 64 * run,
        .runs = sheet->strips * work->panels - 1,
    };
}

static const uint16_t *acts_at(const struct work *work, int64_t k) {
    return work->job->acts->bf16[0] + k / TILE_K * work->x_stride + work->job->token * TILE_K;
}

/* A line is 32 k of a token. */
FMK_INLINE struct fmk_lines act_lines(const struct work *work, const struct sheet *sheet) {
    const struct fmk_gemm_job *job = work->job;
    if (job->tokens <= MIDDLE || sheet->strips <= 0)
        return (struct fmk_lines){0};
    return (struct fmk_lines){.at = (const uint8_t *)acts_at(work, sheet->k),
                              .left = job->tokens,
                              .run = job->tokens,
                              .jump = 64 * (job->acts->capacity - job->tokens),
                              .runs = (sheet->count + TILE_K - 1) / TILE_K - 1};
}

/* Spreads what is to be done beside the products over `turns`. */
FMK_INLINE void spread(struct work *work, int32_t turns) {
    const struct sheet *next = &work->next;
    const int32_t unit_k = work->shape.unit_k;
    work->turns = turns;
    work->due = work->strip = work->piece = 0;
    work->units = fmk_max(0, next->strips) *
                  (next->count == work->shape.depth ? work->pieces : (next->count + unit_k - 1) / unit_k);
    work->lines = weight_lines(work, &work->later);
    work->turn_lines = work->unit_lines ? 0 : (int32_t)((fmk_lines_left(&work->lines) + turns - 1) / turns);
    work->acts = act_lines(work, next);
    work->turn_acts = work->acts.left ? (int32_t)((fmk_lines_left(&work->acts) + turns - 1) / turns) : 0;
}

static __attribute__((noinline)) void decode_due(struct work *work) {
    const struct sheet *next = &work->next;
    const struct shape *shape = &work->shape;
    for (; work->due >= work->turns; work->due -= work->turns) {
        int32_t k = work->piece * shape->unit_k;
        fmk_lines_ask(&work->lines, work->unit_lines);
        bf16_decode_unit(work->job, next->row + work->strip * FMK_STRIP, next->k + k,
                         (int32_t)fmk_min(shape->unit_k, next->count - k),
                         next->pairs + work->strip * (shape->depth / 2) + k / 2, decode_integers);
        if (++work->strip == next->strips) {
            work->strip = 0;
            work->piece++;
        }
    }
}

/* A turn's share. */
FMK_INLINE void meanwhile(struct work *work) {
    if (work->turn_lines)
        fmk_lines_ask(&work->lines, work->turn_lines);
    if (work->turn_acts)
        fmk_lines_ask(&work->acts, work->turn_acts);
    work->due += work->units;
    if (work->due >= work->turns)
        decode_due(work);
}

/* ---- products ---- */

/* A tiles of tokens times B strips. */
FMK_INLINE void multiply_tiles(struct work *work, int32_t token, int32_t strip, const int A, const int B) {
    const struct sheet *sheet = &work->sheet;
    const int64_t stride = FMK_TILE_N * sizeof(float), w_stride = work->shape.depth / 2;
    const int32_t of_job = strip + (int32_t)((sheet->row - work->job->row) / FMK_STRIP);
    const bool first = sheet->k == 0, last = sheet->k + work->shape.depth >= work->job->part->k_packed;
    float *sums[4];
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
        sums[b] = fmk_gemm_sums(work->job, of_job + b) + token * FMK_TILE_N;
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
            if (first)
                tile_zero(2 * a + b);
            else if (!work->few)
                tile_load(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
    const uint16_t *x = acts_at(work, sheet->k) + token * TILE_K;
    const bf16_pair *w = sheet->pairs + strip * w_stride;
    for (int32_t k = 0; k < sheet->count; k += TILE_K, x += work->x_stride, w += TILE_PAIRS) {
        multiply_turn(x, w, w_stride, A, B);
        meanwhile(work);
    }
    if (work->few && !last)
        return;
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
            tile_store(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
}

static void two_by_two(struct work *work, int32_t token) {
    int32_t s = 0;
    for (; s + 2 <= work->sheet.strips; s += 2)
        multiply_tiles(work, token, s, 2, 2);
    if (s < work->sheet.strips)
        multiply_tiles(work, token, s, 2, 1);
}

static void one_by_four(struct work *work, int32_t token) {
    int32_t s = 0;
    for (; s + 4 <= work->sheet.strips; s += 4)
        multiply_tiles(work, token, s, 1, 4);
    switch (work->sheet.strips - s) {
    case 3:
        multiply_tiles(work, token, s, 1, 3);
        break;
    case 2:
        multiply_tiles(work, token, s, 1, 2);
        break;
    case 1:
        multiply_tiles(work, token, s, 1, 1);
        break;
    default:
        break;
    }
}

/* Tiles are configured for 16 tokens each, and are so again afterwards; where there are few, as those are. */
static void multiply_sheet(struct work *work) {
    int32_t tokens = work->job->tokens, t = 0;
    for (; t + 2 * TILE <= tokens; t += 2 * TILE)
        two_by_two(work, t);
    int32_t left = tokens - t;
    if (!left)
        return;
    if (!work->few)
        configure_square((int32_t)fmk_min(left, TILE), left - TILE);
    if (left > TILE)
        two_by_two(work, t);
    else
        one_by_four(work, t);
    if (!work->few)
        configure_square(TILE, TILE);
}

/* That multiply_sheet takes, for 32 k each. */
static int32_t turns_of(const struct work *work) {
    int32_t tokens = work->job->tokens, left = tokens % FEW, strips = work->sheet.strips;
    int32_t twos = (strips + 1) / 2, fours = (strips + 3) / 4;
    return tokens / FEW * twos + (left > TILE ? twos : left ? fours : 0);
}

/* ---- all of a job ---- */

static void multiply_job(const struct fmk_gemm_job *job, struct shape shape) {
    bf16_pair *room = job->sheet;
    struct work work = {
        .job = job,
        .shape = shape,
        .few = job->tokens <= FEW,
        .x_stride = job->acts->capacity * TILE_K,
        .span = fmk_bytes_before(job->part, shape.depth),
        .panels = FMK_STRIP / job->part->layout->panel_rows,
        .pieces = shape.depth / shape.unit_k,
    };
    /* Lines are asked for with a unit where it is small, which saves turns their own; those of a large one at
     * once would be too many for the core's line buffers, and what is loaded meanwhile would wait. */
    if (shape.unit_k == UNIT_K)
        work.unit_lines = (int32_t)(work.span / 64) / work.pieces + 1;
    if (work.few)
        configure_square((int32_t)fmk_min(job->tokens, TILE), job->tokens - TILE);
    else
        configure_square(TILE, TILE);

    /* The first sheet, with nothing to multiply meanwhile. */
    const struct sheet before = {.row = job->row - shape.rows, .k = job->part->k_packed};
    work.next = sheet_after(&work, &before);
    work.next.pairs = room;
    work.later = work.next;
    for (int ahead = work.few ? FEW_AHEAD / shape.depth : 1; ahead > 0; ahead--) {
        work.later = sheet_after(&work, &work.later);
        work.lines = weight_lines(&work, &work.later);
        fmk_lines_ask(&work.lines, fmk_lines_left(&work.lines));
    }
    spread(&work, 1);
    meanwhile(&work);

    for (int other = 1; work.next.strips > 0; other = !other) {
        work.sheet = work.next;
        work.next = sheet_after(&work, &work.sheet);
        work.next.pairs = room + other * (shape.rows / FMK_STRIP * (shape.depth / 2));
        work.later = sheet_after(&work, &work.later);
        spread(&work, turns_of(&work) * ((work.sheet.count + TILE_K - 1) / TILE_K));
        multiply_sheet(&work);
    }
    tile_release();
}

/* Of sheets that sums of few tokens stay in tiles for. */
static int32_t few_rows(int32_t tokens) {
    return tokens <= TILE ? FEW_ROWS : FEW_ROWS / 2;
}

static void run(const struct fmk_gemm_job *job) {
    struct shape shape = {.unit_k = bf16_unit_k(job->part), .rows = ROWS, .depth = FMK_K_BLOCK};
    if (job->tokens > FEW && job->tokens <= MIDDLE) {
        fmk_amx_bf16_deep(job);
        return;
    }
    if (job->tokens <= FEW) {
        shape.rows = few_rows(job->tokens);
        shape.depth = shape.unit_k;
    }
    multiply_job(job, shape);
}
static_assert(SHEETS * ROWS * FMK_K_BLOCK * sizeof(uint16_t) <= BF16_SHEET_BYTES, "sheets have room");

const struct fmk_gemm fmk_gemm_amx_bf16 = {
    .run = run,
    .rows = ROWS,
    .sheet_bytes = BF16_SHEET_BYTES,
    .decode_cost = 64,
    .fetch_cost = 16,
};
