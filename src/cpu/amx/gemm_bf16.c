/* Sheets of bf16 times bf16 activations, by AMX tiles: 32 tokens by 32 rows of sums in four tiles, so that
 * two loads of activations and two of weights feed four products.
 *
 * Tiles take 64 bytes for a product's 16 cycles from each of two sides, which L2 alone does not give. So over
 * 256 k the 16 KB of 32 tokens stay in L1 while strip after strip passes from L2, where the sheet and the
 * sums lie. The more rows a sheet has, the less often activations come from farther away.
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
    ROWS = 256,     /* of a sheet: 128 KB of the 2 MB of L2 that CPUs with AMX have */
    SPLIT_ROWS = 64 /* of one that has every weight twice */
};
static_assert((int)FMK_STRIP == (int)TILE, "a strip is a tile wide");

/* 256 k: activations, of the job's first token, and weights, of the sheet's first strip. */
struct operands {
    const uint16_t *x;
    const struct bf16_strip *w;
};

/* What a sheet adds to the sums. */
struct products {
    const struct fmk_gemm_job *job;
    struct operands operands[3];
    int count;
    int32_t tiles, strips;          /* along k; along n */
    int64_t x_stride;               /* from 32 k to the next */
    int64_t w_stride;               /* strips, from one to the next */
    bool first;                     /* of K: there are no sums yet */
    struct fmk_lines weights, acts; /* of the next sheet */
    int32_t weights_rate, acts_rate, burst;
};

/* Lines while four products are made: so many that all are asked for by the last of a sheet's products. More
 * at once would keep the core's few line buffers from what it loads meanwhile. */
static inline void fetch(struct products *products) {
    for (int32_t i = 0; i < products->weights_rate; i++)
        fmk_lines_next(&products->weights);
    for (int32_t i = 0; i < products->acts_rate; i++)
        fmk_lines_next(&products->acts);
}

/* A tiles of tokens times B strips. */
FMK_INLINE void multiply_tiles(struct products *products, int32_t token, int32_t strip, const int A,
                               const int B) {
    const int64_t stride = FMK_TILE_N * sizeof(float), w_stride = products->w_stride;
    float *sums[2] = {fmk_gemm_sums(products->job, strip) + token * FMK_TILE_N,
                      fmk_gemm_sums(products->job, strip + 1) + token * FMK_TILE_N};
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 2
        for (int b = 0; b < B; b++)
            if (products->first)
                tile_zero(2 * a + b);
            else
                tile_load(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
    for (int i = 0; i < products->count; i++) {
        const uint16_t *x = products->operands[i].x + token * TILE_K;
        const struct bf16_strip *w = products->operands[i].w + strip * w_stride;
        for (int32_t k = 0; k < products->tiles; k++, x += products->x_stride) {
            fetch(products);
#pragma GCC unroll 2
            for (int b = 0; b < B; b++)
                tile_load(6 + b, w[b * w_stride].pair[k * TILE_PAIRS], sizeof(bf16_pair));
#pragma GCC unroll 2
            for (int a = 0; a < A; a++) {
                tile_load(4 + a, x + a * TILE * TILE_K, TILE_K * sizeof *x);
#pragma GCC unroll 2
                for (int b = 0; b < B; b++)
                    tile_multiply_bf16(2 * a + b);
            }
        }
    }
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 2
        for (int b = 0; b < B; b++)
            tile_store(2 * a + b, sums[b] + a * TILE * FMK_TILE_N, stride);
}

/* Tiles of so many tokens: those of activations, and the sums beside them. One that nothing uses has a row
 * all the same, as it may not have none. */
static void configure(int32_t first, int32_t second) {
    struct tile_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        bool of_second = tile == 2 || tile == 3 || tile == 5;
        config.row_bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile >= 6 ? TILE : fmk_max(1, of_second ? second : first));
    }
    tile_configure(&config);
}

FMK_INLINE void all_strips(struct products *products, int32_t token, const int A) {
    int32_t s = 0;
    for (; s + 2 <= products->strips; s += 2)
        multiply_tiles(products, token, s, A, 2);
    if (s < products->strips)
        multiply_tiles(products, token, s, A, 1);
}

/* A sheet times all tokens; tiles are configured for 16 tokens each, and are so again afterwards. */
static void multiply_sheet(struct products *products) {
    int32_t tokens = products->job->tokens, t = 0;
    for (; t + 2 * TILE <= tokens; t += 2 * TILE)
        all_strips(products, t, 2);
    int32_t left = tokens - t;
    if (!left)
        return;
    if (left == TILE) {
        all_strips(products, t, 1);
        return;
    }
    configure((int32_t)fmk_min(left, TILE), left - TILE);
    if (left > TILE)
        all_strips(products, t, 2);
    else
        all_strips(products, t, 1);
    configure(TILE, TILE);
}

enum { RATE = 5, BURST = 16 }; /* lines that memory gives a core in 64 cycles; that it waits for at once */

/* So many turns, of four products each, have the lines asked for. What they are too few for is asked for
 * while this sheet is decoded, some lines before each strip. */
static void set_rates(struct products *products) {
    const struct fmk_lines *weights = &products->weights, *acts = &products->acts;
    int64_t pairs =
        (int64_t)((products->job->tokens + 2 * TILE - 1) / (2 * TILE)) * ((products->strips + 1) / 2);
    int64_t turns = pairs * products->tiles * products->count;
    int64_t lines = weights->left + weights->run * weights->runs,
            of_acts = acts->left + acts->run * acts->runs;
    products->weights_rate = (int32_t)fmk_min(RATE, (lines + turns - 1) / turns);
    products->acts_rate = (int32_t)fmk_min(RATE, (of_acts + turns - 1) / turns);
    int64_t rest = fmk_max(0, lines - turns * products->weights_rate);
    products->burst = (int32_t)fmk_min(BURST, (rest + products->strips - 1) / products->strips);
}

static void fetch_burst(struct products *products) {
    for (int32_t i = 0; i < products->burst; i++)
        fmk_lines_next(&products->weights);
}

/* What is the same for one product and for three. */
static struct products begin_sheet(const struct fmk_gemm_job *job, int64_t k, int32_t count, int terms) {
    const struct fmk_gemm_acts *acts = job->acts;
    struct products products = {
        .job = job,
        .count = terms,
        .tiles = (count + TILE_K - 1) / TILE_K,
        .strips = (job->rows + FMK_STRIP - 1) / FMK_STRIP,
        .x_stride = acts->capacity * TILE_K,
        .first = k == 0,
        .weights = fmk_lines_of(job, k + FMK_K_BLOCK, FMK_K_BLOCK),
    };
    int64_t next = fmk_min(job->part->k_packed - k - count, FMK_K_BLOCK),
            tiles = (next + TILE_K - 1) / TILE_K;
    if (tiles > 0) /* a line is 32 k of a token */
        products.acts =
            (struct fmk_lines){.at = (const uint8_t *)(acts->bf16[0] + (k / TILE_K + 8) * products.x_stride +
                                                       job->token * TILE_K),
                               .left = job->tokens,
                               .run = job->tokens,
                               .jump = 64 * (acts->capacity - job->tokens),
                               .runs = tiles - 1};
    set_rates(&products);
    return products;
}
static_assert(FMK_K_BLOCK == 8 * TILE_K, "a sheet is eight tiles deep");

static const uint16_t *acts_at(const struct fmk_gemm_job *job, int plane, int64_t k) {
    return job->acts->bf16[plane] + (k / TILE_K * job->acts->capacity + job->token) * TILE_K;
}

static void decode_integers(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                            struct i16_strip *strip) {
    i16_decode_strip(job, row, k, count, strip);
}

/* ---- one product ---- */

static void run(const struct fmk_gemm_job *job) {
    struct bf16_strip *sheet = job->sheet;
    configure(TILE, TILE);
    for (int64_t k = 0; k < job->part->k_packed; k += FMK_K_BLOCK) {
        int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, job->part->k_packed - k);
        struct products products = begin_sheet(job, k, count, 1);
        for (int32_t s = 0; s < products.strips; s++) {
            fetch_burst(&products);
            bf16_decode_block(job, job->row + s * FMK_STRIP, k, count, sheet[s].pair, decode_integers);
        }
        products.operands[0] = (struct operands){acts_at(job, 0, k), sheet};
        products.w_stride = 1;
        multiply_sheet(&products);
    }
    tile_release();
}

const struct fmk_gemm fmk_gemm_amx_bf16 = {
    .run = run,
    .rows = ROWS,
    .sheet_bytes = ROWS / FMK_STRIP * sizeof(struct bf16_strip),
    .decode_cost = 64,
    .fetch_cost = 16,
};

/* ---- three products ---- */

/* Floats as two bf16 each: the second is what rounding to the first left. */
static void split_strip(const struct f32_strip *in, int32_t count, struct bf16_strip out[2]) {
    for (int32_t k = 0; k < count; k += 2) {
        floats w[2] = {load_floats(in->w[k]), load_floats(in->w[k + 1])};
        store_pairs(&out[0].pair[k / 2], w[0], w[1]);
        ints high = load_ints(out[0].pair[k / 2]);
        store_pairs(&out[1].pair[k / 2], _mm512_sub_ps(w[0], as_floats(shift_left(high, 16))),
                    _mm512_sub_ps(w[1], as_floats(and(high, all_32(INT32_C(-65536))))));
    }
}

static void run_split(const struct fmk_gemm_job *job) {
    struct bf16_strip *sheet = job->sheet;
    configure(TILE, TILE);
    for (int64_t k = 0; k < job->part->k_packed; k += FMK_K_BLOCK) {
        int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, job->part->k_packed - k);
        /* bf16 has no second part */
        struct products products = begin_sheet(job, k, count, job->part->dtype == FMK_BF16 ? 2 : 3);
        for (int32_t s = 0; s < products.strips; s++) {
            struct f32_strip strip;
            fetch_burst(&products);
            f32_decode_strip(job, job->row + s * FMK_STRIP, k, count, &strip, decode_integers);
            split_strip(&strip, products.tiles * TILE_K, &sheet[2 * s]);
        }
        const uint16_t *x = acts_at(job, 0, k);
        products.operands[0] = (struct operands){x, sheet};
        products.operands[1] = (struct operands){acts_at(job, 1, k), sheet};
        products.operands[2] = (struct operands){x, sheet + 1};
        products.w_stride = 2;
        multiply_sheet(&products);
    }
    tile_release();
}

const struct fmk_gemm fmk_gemm_amx_bf16x2 = {
    .run = run_split,
    .rows = SPLIT_ROWS,
    .sheet_bytes = 2 * SPLIT_ROWS / FMK_STRIP * sizeof(struct bf16_strip),
    .decode_cost = 48,
    .fetch_cost = 8,
};
