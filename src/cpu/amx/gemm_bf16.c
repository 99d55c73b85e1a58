/* Sheets of bf16 times bf16 activations, by AMX tiles: 32 tokens by 32 rows of sums in four tiles, so that
 * two loads of activations and two of weights feed four products. A group of tokens stays in L1 while the
 * sheet's rows pass from L2.
 *
 * bf16    one product; both sides are rounded to 8 bits
 * bf16x2  both sides are sums of two bf16, 16 bits, and the product is three: high * high + low * high + high
 * * low. What is left out is 2^-16 of a term. f16 weights are such sums exactly */
#include "bf16_decode.h"
#include "tiles.h"

enum { TILE = 16, TILE_K = 32, TILE_PAIRS = TILE_K / 2 };
static_assert((int)FMK_STRIP == (int)TILE, "a strip is a tile wide");

/* A block of 256 k: activations, of the job's first token, and weights, of the sheet's first strip. */
struct operands {
    const uint16_t *x;
    const bf16_pair *w;
    int32_t tiles; /* along k */
};

/* What a sheet adds to the sums. */
struct products {
    struct operands operands[3];
    int count;
    bool first; /* of K: there are no sums yet */
};

/* A tiles of tokens times B strips. */
FMK_INLINE void multiply_tiles(const struct products *products, int32_t token, int32_t strip, float *out,
                               const int A, const int B) {
    const int64_t out_stride = FMK_TILE_N * sizeof(float), x_stride = FMK_K_BLOCK * sizeof(uint16_t);
    const int64_t w_strip = sizeof(struct bf16_strip) / sizeof(bf16_pair);
    float *sums = out + token * FMK_TILE_N + strip * FMK_STRIP;
#pragma GCC unroll 2
    for (int a = 0; a < A; a++)
#pragma GCC unroll 2
        for (int b = 0; b < B; b++)
            if (products->first)
                tile_zero(2 * a + b);
            else
                tile_load(2 * a + b, sums + a * TILE * FMK_TILE_N + b * TILE, out_stride);
    for (int i = 0; i < products->count; i++) {
        const struct operands *of = &products->operands[i];
        const uint16_t *x = of->x + token * FMK_K_BLOCK;
        const bf16_pair *w = of->w + strip * w_strip;
        for (int32_t k = 0; k < of->tiles; k++, x += TILE_K, w += TILE_PAIRS) {
#pragma GCC unroll 2
            for (int b = 0; b < B; b++)
                tile_load(6 + b, w + b * w_strip, sizeof(bf16_pair));
#pragma GCC unroll 2
            for (int a = 0; a < A; a++) {
                tile_load(4 + a, x + a * TILE * FMK_K_BLOCK, x_stride);
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
            tile_store(2 * a + b, sums + a * TILE * FMK_TILE_N + b * TILE, out_stride);
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

FMK_INLINE void all_strips(const struct products *products, int32_t token, int32_t strips, float *out,
                           const int A) {
    int32_t s = 0;
    for (; s + 2 <= strips; s += 2)
        multiply_tiles(products, token, s, out, A, 2);
    if (s < strips)
        multiply_tiles(products, token, s, out, A, 1);
}

/* A sheet times all tokens; tiles are configured for 16 tokens each, and are so again afterwards. */
static void multiply_sheet(const struct fmk_gemm_job *job, const struct products *products) {
    int32_t strips = (job->rows + FMK_STRIP - 1) / FMK_STRIP, t = 0;
    for (; t + 2 * TILE <= job->tokens; t += 2 * TILE)
        all_strips(products, t, strips, job->out, 2);
    int32_t left = job->tokens - t;
    if (!left)
        return;
    configure((int32_t)fmk_min(left, TILE), left - TILE);
    if (left > TILE)
        all_strips(products, t, strips, job->out, 2);
    else
        all_strips(products, t, strips, job->out, 1);
    configure(TILE, TILE);
}

static int32_t tiles_of(int32_t count) {
    return (count + TILE_K - 1) / TILE_K;
}

/* ---- one product ---- */

static void decode_integers(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                            struct i16_strip *strip) {
    i16_decode_strip(job, row, k, count, strip);
}

void fmk_gemm_amx_bf16(const struct fmk_gemm_job *job) {
    struct bf16_strip *sheet = job->sheet;
    const int64_t block = job->acts->capacity * FMK_K_BLOCK, end = job->part->k_packed;
    configure(TILE, TILE);
    for (int64_t k = 0; k < end; k += FMK_BF16_K) {
        struct products products = {.first = k == 0};
        for (int64_t at = k; at < fmk_min(end, k + FMK_BF16_K); at += FMK_K_BLOCK) {
            int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, end - at);
            for (int32_t s = 0; s * FMK_STRIP < job->rows; s++)
                bf16_decode_block(job, job->row + s * FMK_STRIP, at, count, sheet[s].pair + (at - k) / 2,
                                  decode_integers);
            products.operands[products.count++] =
                (struct operands){job->acts->bf16[0] + at / FMK_K_BLOCK * block + job->token * FMK_K_BLOCK,
                                  (const bf16_pair *)sheet->pair + (at - k) / 2, tiles_of(count)};
        }
        multiply_sheet(job, &products);
    }
    tile_release();
}

/* ---- three products ---- */

/* Floats as two bf16 each: the second is what rounding to the first left. */
static void split_strip(const struct f32_strip *in, int32_t count, struct bf16_strip *out) {
    for (int32_t k = 0; k < count; k += 2) {
        floats w[2] = {load_floats(in->w[k]), load_floats(in->w[k + 1])}, rest[2];
        store_pairs(&out->pair[k / 2], w[0], w[1]);
        ints high = load_ints(out->pair[k / 2]);
        rest[0] = _mm512_sub_ps(w[0], as_floats(shift_left(high, 16)));
        rest[1] = _mm512_sub_ps(w[1], as_floats(and(high, all_32(INT32_C(-65536)))));
        store_pairs(&out->pair[(FMK_K_BLOCK + k) / 2], rest[0], rest[1]);
    }
}

void fmk_gemm_amx_bf16x2(const struct fmk_gemm_job *job) {
    struct bf16_strip *sheet = job->sheet;
    const bf16_pair *high = (const bf16_pair *)sheet->pair, *low = high + FMK_K_BLOCK / 2;
    configure(TILE, TILE);
    for (int64_t k = 0; k < job->part->k_packed; k += FMK_K_BLOCK) {
        int32_t count = (int32_t)fmk_min(FMK_K_BLOCK, job->part->k_packed - k), tiles = tiles_of(count);
        for (int32_t s = 0; s * FMK_STRIP < job->rows; s++) {
            struct f32_strip strip;
            f32_decode_strip(job, job->row + s * FMK_STRIP, k, count, &strip, decode_integers);
            split_strip(&strip, tiles * TILE_K, &sheet[s]);
        }
        int64_t at = (k / FMK_K_BLOCK * job->acts->capacity + job->token) * FMK_K_BLOCK;
        const uint16_t *x = job->acts->bf16[0] + at, *x_low = job->acts->bf16[1] + at;
        struct products products = {{{x, high, tiles}, {x_low, high, tiles}, {x, low, tiles}}, 3, k == 0};
        if (job->part->dtype == FMK_BF16 && job->part->layout->family == FMK_FAMILY_DENSE)
            products.count = 2; /* low is 0 */
        multiply_sheet(job, &products);
    }
    tile_release();
}
