/* Sheets of bf16 times bf16 activations, by AMX tiles: 32 tokens by 32 rows of sums in four tiles, so that
 * two loads of activations and two of weights feed four products; of up to 16 tokens, 64 rows.
 *
 * Three things go on in one thread: tiles multiply a sheet, vectors decode the next one, and memory is asked
 * for one further on. So a *turn*, up to four products, is followed by its share of the other two: products
 * take no port that vectors need, and a core sees more than a turn at a time.
 *
 * Up to 32 tokens need every weight once: sheets are small enough for L1, and sums stay in tiles for all of
 * K. More tokens: tiles take 64 bytes for a product's 16 cycles from each of two sides, which L2 alone does
 * not give. So the activations of 32 tokens, of a sheet's k, stay near while strip after strip passes from
 * L2, where sheets and sums lie. The more rows a sheet has, the less often activations come from farther
 * away; the deeper it is, the less often sums come and go.
 *
 * bf16    one product; both sides are rounded to 8 bits
 * bf16x2  both sides are sums of two bf16, 16 bits, and the product is three: high * high + low * high + high
 * * low. What is left out is 2^-16 of a term. f16 weights are such sums exactly */
#include "../gemm/lines.h"
#include "bf16_decode.h"
#include "tiles.h"

#include <assert.h>

enum {
    TILE = 16,
    TILE_K = 32,
    TILE_PAIRS = TILE_K / 2,
    ROWS = 256, /* of a job; of its sheets, of 256 k, for many tokens */
    /* Up to so many: sums stay in tiles. A sheet's rows, where tokens fill one tile; half of it for two. How
     * far behind what is decoded the k are that are asked for. */
    FEW = 2 * TILE,
    FEW_ROWS = 4 * TILE,
    FEW_AHEAD = 512,
    /* Up to so many: L2 holds their activations. */
    MIDDLE = 128,
    MIDDLE_ROWS = 128,
    MIDDLE_DEPTH = 512,
    SHEETS = 2 /* the one that is multiplied, the one that is decoded */
};
static_assert((int)FMK_STRIP == (int)TILE, "a strip is a tile wide");

/* At most a unit (bf16_decode.h), to `out`; of a weight's second part, `part` pairs further on. */
typedef void decode_unit(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                         bf16_pair *out, int32_t part);

/* How weights become bf16, and sheets of how many rows and k. */
struct kind {
    decode_unit *decode;
    int parts, terms; /* bf16 of a weight; products of a product */
    int32_t unit_k;   /* a unit's k */
    int32_t rows, depth;
};

/* Up to `depth` k of some strips of the job; none, behind the last one. */
struct sheet {
    int64_t row, k; /* in the part */
    int64_t offset; /* of k, in bytes of a panel */
    int32_t strips, count;
    bf16_pair *pairs; /* [strip][part][depth / 2] */
};

/* Activations, of the job's first token, and weights, of the sheet's first strip. */
struct operands {
    const uint16_t *x;
    const bf16_pair *w;
};

struct work {
    const struct fmk_gemm_job *job;
    struct kind kind;
    bool few;                        /* sums stay in tiles */
    int64_t x_stride;                /* of activations, from 32 k to the next */
    int64_t span;                    /* bytes of a sheet's k of a panel */
    int32_t panels, pieces;          /* of a strip: panels; units of a whole sheet */
    struct sheet sheet, next, later; /* that is multiplied; decoded; asked for */
    struct operands operands[3];
    int32_t tiles;                /* along k */
    int32_t turns, units, due;    /* of `sheet`; of `next`; that are to be decoded by now, in 1/turns */
    int32_t strip, piece;         /* of `next`: the unit that is decoded next */
    struct fmk_lines lines, acts; /* of `later`; of `next`, where L2 does not hold activations */
    int32_t unit_lines, turn_lines, turn_acts; /* that are asked for with each */
};

/* ---- what goes on beside products ---- */

/* The sheet after this one: along K, and then the next rows. */
FMK_INLINE struct sheet sheet_after(const struct work *work, const struct sheet *sheet) {
    const struct fmk_gemm_job *job = work->job;
    struct sheet next = {.row = sheet->row,
                         .k = sheet->k + work->kind.depth,
                         .offset = sheet->offset + work->span,
                         .strips = sheet->strips};
    if (next.k >= job->part->k_packed) {
        next.k = next.offset = 0;
        next.row += work->kind.rows;
        int64_t rows = fmk_min(work->kind.rows, job->row + job->rows - next.row);
        next.strips = (int32_t)(rows + FMK_STRIP - 1) / FMK_STRIP;
    }
    next.count = (int32_t)fmk_min(work->kind.depth, job->part->k_packed - next.k);
    return next;
}

static int32_t lines_left(const struct fmk_lines *lines) {
    return (int32_t)(lines->left + lines->run * lines->runs);
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

static const uint16_t *acts_at(const struct work *work, int plane, int64_t k) {
    return work->job->acts->bf16[plane] + k / TILE_K * work->x_stride + work->job->token * TILE_K;
}

/* A line is 32 k of a token. */
FMK_INLINE struct fmk_lines act_lines(const struct work *work, const struct sheet *sheet) {
    const struct fmk_gemm_job *job = work->job;
    if (job->tokens <= MIDDLE || sheet->strips <= 0)
        return (struct fmk_lines){0};
    return (struct fmk_lines){.at = (const uint8_t *)acts_at(work, 0, sheet->k),
                              .left = job->tokens,
                              .run = job->tokens,
                              .jump = 64 * (job->acts->capacity - job->tokens),
                              .runs = (sheet->count + TILE_K - 1) / TILE_K - 1};
}

/* Spreads what is to be done beside the products over `turns`. */
FMK_INLINE void spread(struct work *work, int32_t turns) {
    const struct sheet *next = &work->next;
    const int32_t unit_k = work->kind.unit_k;
    work->turns = turns;
    work->due = work->strip = work->piece = 0;
    work->units = fmk_max(0, next->strips) *
                  (next->count == work->kind.depth ? work->pieces : (next->count + unit_k - 1) / unit_k);
    work->lines = weight_lines(work, &work->later);
    work->turn_lines = work->unit_lines ? 0 : (lines_left(&work->lines) + turns - 1) / turns;
    work->acts = act_lines(work, next);
    work->turn_acts = work->acts.left ? (lines_left(&work->acts) + turns - 1) / turns : 0;
}

static __attribute__((noinline)) void decode_due(struct work *work) {
    const struct sheet *next = &work->next;
    const struct kind *kind = &work->kind;
    for (; work->due >= work->turns; work->due -= work->turns) {
        int32_t k = work->piece * kind->unit_k, part = kind->depth / 2;
        fmk_lines_ask(&work->lines, work->unit_lines);
        kind->decode(work->job, next->row + work->strip * FMK_STRIP, next->k + k,
                     (int32_t)fmk_min(kind->unit_k, next->count - k),
                     next->pairs + work->strip * kind->parts * part + k / 2, part);
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

FMK_INLINE void load_weights(const int b, const bf16_pair *pairs) {
    tile_load(b % 3 == 0 ? 6 : b % 3 == 1 ? 7 : 5, pairs, sizeof(bf16_pair));
}

/* 32 k of A tiles of tokens times B strips, which are w_stride pairs apart. */
FMK_INLINE void multiply_turn(const uint16_t *x, const bf16_pair *w, int64_t w_stride, const int A,
                              const int B) {
    if (A == 1) {
        tile_load(4, x, TILE_K * sizeof *x);
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) {
            load_weights(b, w + b * w_stride);
            tile_multiply_row_bf16(b);
        }
        return;
    }
#pragma GCC unroll 2
    for (int b = 0; b < B; b++)
        load_weights(b, w + b * w_stride);
#pragma GCC unroll 2
    for (int a = 0; a < A; a++) {
        tile_load(4 + a, x + a * TILE * TILE_K, TILE_K * sizeof *x);
#pragma GCC unroll 2
        for (int b = 0; b < B; b++)
            tile_multiply_bf16(2 * a + b);
    }
}

/* A tiles of tokens times B strips. */
FMK_INLINE void multiply_tiles(struct work *work, int32_t token, int32_t strip, const int A, const int B) {
    const int64_t stride = FMK_TILE_N * sizeof(float), part = work->kind.depth / 2,
                  w_stride = work->kind.parts * part;
    const int32_t of_job = strip + (int32_t)((work->sheet.row - work->job->row) / FMK_STRIP);
    const bool first = work->sheet.k == 0,
               last = work->sheet.k + work->kind.depth >= work->job->part->k_packed;
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
    for (int i = 0; i < work->kind.terms; i++) {
        const uint16_t *x = work->operands[i].x + token * TILE_K;
        const bf16_pair *w = work->operands[i].w + strip * w_stride;
        for (int32_t k = 0; k < work->tiles; k++, x += work->x_stride, w += TILE_PAIRS) {
            multiply_turn(x, w, w_stride, A, B);
            meanwhile(work);
        }
    }
    if (work->few && !last)
        return;
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++)
            tile_store(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
}

/* Tiles of so many tokens: those of activations, and the sums beside them. Without a second one: a row of
 * sums, and three tiles of weights. */
static void configure(int32_t first, int32_t second) {
    struct tile_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        bool of_second = tile == 2 || tile == 3 || tile == 5;
        config.row_bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile >= 6                 ? TILE
                                      : of_second && second > 0 ? second
                                      : tile == 5               ? TILE
                                                                : first);
    }
    tile_configure(&config);
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
        configure((int32_t)fmk_min(left, TILE), left - TILE);
    if (left > TILE)
        two_by_two(work, t);
    else
        one_by_four(work, t);
    if (!work->few)
        configure(TILE, TILE);
}

/* That multiply_sheet takes, for 32 k each. */
static int32_t turns_of(const struct work *work) {
    int32_t tokens = work->job->tokens, left = tokens % FEW, strips = work->sheet.strips;
    int32_t twos = (strips + 1) / 2, fours = (strips + 3) / 4;
    return tokens / FEW * twos + (left > TILE ? twos : left ? fours : 0);
}

/* ---- all of a job ---- */

static void multiply_job(const struct fmk_gemm_job *job, struct kind kind) {
    bf16_pair *room = job->sheet;
    struct work work = {
        .job = job,
        .kind = kind,
        .few = job->tokens <= FEW,
        .x_stride = job->acts->capacity * TILE_K,
        .span = fmk_bytes_before(job->part, kind.depth),
        .panels = FMK_STRIP / job->part->layout->panel_rows,
        .pieces = kind.depth / kind.unit_k,
    };
    /* Lines are asked for with a unit where it is small, which saves turns their own; those of a large one at
     * once would be too many for the core's line buffers, and what is loaded meanwhile would wait. */
    if (kind.unit_k == UNIT_K)
        work.unit_lines = (int32_t)(work.span / 64) / work.pieces + 1;
    if (work.few)
        configure((int32_t)fmk_min(job->tokens, TILE), job->tokens - TILE);
    else
        configure(TILE, TILE);

    /* The first sheet, with nothing to multiply meanwhile. */
    const struct sheet before = {.row = job->row - kind.rows, .k = job->part->k_packed};
    work.next = sheet_after(&work, &before);
    work.next.pairs = room;
    work.later = work.next;
    for (int ahead = work.few ? FEW_AHEAD / kind.depth : 1; ahead > 0; ahead--) {
        work.later = sheet_after(&work, &work.later);
        work.lines = weight_lines(&work, &work.later);
        fmk_lines_ask(&work.lines, lines_left(&work.lines));
    }
    spread(&work, 1);
    meanwhile(&work);

    for (int other = 1; work.next.strips > 0; other = !other) {
        work.sheet = work.next;
        work.next = sheet_after(&work, &work.sheet);
        work.next.pairs = room + other * (kind.rows / FMK_STRIP * kind.parts * (kind.depth / 2));
        work.later = sheet_after(&work, &work.later);
        work.tiles = (work.sheet.count + TILE_K - 1) / TILE_K;
        for (int i = 0; i < kind.terms; i++) { /* high * high, low * high, high * low */
            work.operands[i].x = acts_at(&work, i == 1, work.sheet.k);
            work.operands[i].w = work.sheet.pairs + (i == 2 ? kind.depth / 2 : 0);
        }
        spread(&work, turns_of(&work) * work.tiles * kind.terms);
        multiply_sheet(&work);
    }
    tile_release();
}

/* Of sheets that sums of few tokens stay in tiles for. */
static int32_t few_rows(int32_t tokens) {
    return tokens <= TILE ? FEW_ROWS : FEW_ROWS / 2;
}

static void decode_integers(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                            struct i16_strip *strip) {
    i16_decode_strip(job, row, k, count, strip);
}

/* ---- one product ---- */

static void decode_one(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count, bf16_pair *out,
                       int32_t part) {
    (void)part;
    bf16_decode_unit(job, row, k, count, out, decode_integers);
}

static void run(const struct fmk_gemm_job *job) {
    struct kind kind = {.decode = decode_one,
                        .parts = 1,
                        .terms = 1,
                        .unit_k = bf16_unit_k(job->part),
                        .rows = ROWS,
                        .depth = FMK_K_BLOCK};
    if (job->tokens <= FEW) {
        kind.rows = few_rows(job->tokens);
        kind.depth = kind.unit_k;
    } else if (job->tokens <= MIDDLE) {
        kind.rows = MIDDLE_ROWS;
        kind.depth = MIDDLE_DEPTH;
    }
    multiply_job(job, kind);
}
static_assert((int)MIDDLE_ROWS * (int)MIDDLE_DEPTH <= (int)ROWS * (int)FMK_K_BLOCK,
              "sheets have room for these");

const struct fmk_gemm fmk_gemm_amx_bf16 = {
    .run = run,
    .rows = ROWS,
    .sheet_bytes = SHEETS * (ROWS / FMK_STRIP) * (FMK_K_BLOCK / 2) * sizeof(bf16_pair),
    .decode_cost = 64,
    .fetch_cost = 16,
};

/* ---- three products ---- */

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

static void decode_two(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count, bf16_pair *out,
                       int32_t part) {
    struct f32_strip strip;
    f32_decode_strip(job, row, k, count, &strip, decode_integers);
    split_strip(&strip, (int32_t)fmk_round_up(count, TILE_K), out, out + part);
}

enum { SPLIT_PARTS = 2, SPLIT_ROWS = 64 };
static_assert((int)FEW_ROWS <= (int)SPLIT_ROWS, "sheets of few tokens have room");

static void run_split(const struct fmk_gemm_job *job) {
    multiply_job(job,
                 (struct kind){.decode = decode_two,
                               .parts = SPLIT_PARTS,
                               .terms = job->part->dtype == FMK_BF16 ? 2 : 3, /* bf16 has no second part */
                               .unit_k = FMK_K_BLOCK,
                               .rows = job->tokens <= FEW ? few_rows(job->tokens) : SPLIT_ROWS,
                               .depth = FMK_K_BLOCK});
}

const struct fmk_gemm fmk_gemm_amx_bf16x2 = {
    .run = run_split,
    .rows = ROWS,
    .sheet_bytes = SHEETS * (SPLIT_ROWS / FMK_STRIP) * SPLIT_PARTS * (FMK_K_BLOCK / 2) * sizeof(bf16_pair),
    .decode_cost = 48,
    .fetch_cost = 8,
};
