/* q4_k.x8 and q4_k.x16: Q4_K with eight or sixteen rows interleaved and the 6-bit scales unpacked
 * (panels.h). */
#include "interleave.h"
#include "pack_rows.h"
#include "x16.h"
#include "layouts.h"
#include "../../formats/k_quants.h"

#include <assert.h>

enum { MOST_K = INT32_MAX };

/* Of a panel: fits, with k at most MOST_K. */
static int64_t panel_bytes(const struct fmk_packed *packed) {
    return packed->k / FMK_SUPER_BLOCK * FMK_Q4K_PANEL_BLOCK * packed->layout->panel_rows;
}

static bool shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    *index = false;
    if (source->k > MOST_K)
        return false;
    packed->k_packed = source->k;
    packed->dtype = 0;
    packed->chunks = 0;
    return fmk_panel_sizes(source->n, source->experts, packed->layout->panel_rows, panel_bytes(packed),
                           packed);
}

static bool valid(const struct fmk_packed *packed) {
    return packed->k > 0 && packed->k <= MOST_K && packed->k % FMK_SUPER_BLOCK == 0 &&
           packed->k_packed == packed->k && fmk_panel_valid(packed, panel_bytes(packed));
}

/* Sub-blocks 2c and 2c+1 are the low and high nibbles of 32 bytes from `offset` on, of four rows. */
static void pack_two_chunks(const uint8_t *const in[4], int64_t offset, int32_t rows, uint8_t *chunk) {
    words4 low[4], high[4];
    for (int r = 0; r < 4; r++) {
        low[r] = load_words(in[r] + offset);
        high[r] = load_words(in[r] + offset + 16);
        regroup_nibbles(&low[r], &high[r]);
    }
    transpose_words(low);
    transpose_words(high);
    for (int v = 0; v < 4; v++) {
        store_words(chunk + 4 * rows * v, low[v]);
        store_words(chunk + rows * FMK_PANEL_CHUNK + 4 * rows * v, high[v]);
    }
}

static_assert(FMK_Q4K_D == 0 && FMK_Q4K_DMIN == 2 && FMK_Q4K_SCALES == 4 && FMK_Q4K_NIBBLES == 16,
              "a block's first 16 bytes are four words: d and dmin, then the scales' three");

/* The first 16 bytes of four rows' blocks; `r` is the first row. fmk_q4k_scales, a row to a word. */
static void pack_scales(const uint8_t *const in[4], int32_t rows, int64_t r, uint8_t *out) {
    words4 word[4], eight[4];
    for (int i = 0; i < 4; i++)
        word[i] = load_words(in[i]);
    transpose_words(word);
    pairs8 d = __builtin_shufflevector((pairs8)word[0], (pairs8)word[0], 0, 2, 4, 6, 1, 3, 5, 7);
    memcpy(out + 2 * r, &d, 8);
    memcpy(out + rows * FMK_Q4K_PANEL_MINIMA + 2 * r, (const uint8_t *)&d + 8, 8);
    eight[0] = word[1] & 0x3f3f3f3f;
    eight[1] = (word[3] & 0x0f0f0f0f) | (word[1] >> 6 & 0x03030303) << 4;
    eight[2] = word[2] & 0x3f3f3f3f;
    eight[3] = (word[3] >> 4 & 0x0f0f0f0f) | (word[2] >> 6 & 0x03030303) << 4;
    static_assert(FMK_Q4K_PANEL_MINS == FMK_Q4K_PANEL_SCALES + 8, "minima follow the scales");
    for (int i = 0; i < 4; i++)
        scatter_words(transpose_bytes(eight[i]), out + rows * (FMK_Q4K_PANEL_SCALES + 4 * i) + r, rows);
}

static void pack_one(const uint8_t *const in[FMK_PANEL_MOST_ROWS], int32_t rows, uint8_t *out) {
    uint8_t *chunk = out + rows * FMK_Q4K_PANEL_NIBBLES;
    for (int32_t r = 0; r < rows; r += 4)
        pack_scales(in + r, rows, r, out);
    for (int c = 0; c < 4; c++, chunk += 2 * rows * FMK_PANEL_CHUNK)
        for (int32_t r = 0; r < rows; r += 4)
            pack_two_chunks(in + r, FMK_Q4K_NIBBLES + 32 * c, rows, chunk + 4 * r);
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    (void)k_index;
    pack_rows(source, packed, expert, row, rows, dst, FMK_Q4K_BLOCK,
              packed->layout->panel_rows * FMK_Q4K_PANEL_BLOCK, pack_one);
}

static void decode(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out) {
    const int32_t rows = packed->layout->panel_rows;
    const uint8_t *block =
        data + (uint64_t)(row / rows) * packed->stride + k / FMK_SUPER_BLOCK * rows * FMK_Q4K_PANEL_BLOCK;
    int64_t r = row % rows;
    float d = fmk_load_f16(block + 2 * r), dmin = fmk_load_f16(block + rows * FMK_Q4K_PANEL_MINIMA + 2 * r);
    for (int64_t i = 0; i < count; i++) {
        int64_t j = i / 32;
        float scale = d * block[rows * (FMK_Q4K_PANEL_SCALES + j) + r];
        float min = dmin * block[rows * (FMK_Q4K_PANEL_MINS + j) + r];
        const uint8_t *chunk = block + rows * (FMK_Q4K_PANEL_NIBBLES + j * FMK_PANEL_CHUNK);
        out[i] = fmk_q4k_weight(scale, min, fmk_panel_nibble(chunk, rows, r, i % 32));
    }
}

const struct fmk_layout fmk_layout_q4k_x8 = {
    .id = FMK_LAYOUT_Q4_K_X8,
    .name = "q4_k.x8",
    .backends = 1u << FMK_BACKEND_CPU,
    .family = FMK_FAMILY_Q4_K,
    .panel_rows = 8,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};

const struct fmk_layout fmk_layout_q4k_x16 = {
    .id = FMK_LAYOUT_Q4_K_X16,
    .name = "q4_k.x16",
    .backends = 1u << FMK_BACKEND_CPU,
    .needs = FMK_X16_NEEDS,
    .family = FMK_FAMILY_Q4_K,
    .panel_rows = 16,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};
