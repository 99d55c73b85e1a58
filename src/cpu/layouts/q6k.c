/* q6_k.x8 and q6_k.x16: Q6_K with eight or sixteen rows interleaved (panels.h). */
#include "interleave.h"
#include "pack_rows.h"
#include "x16.h"
#include "layouts.h"
#include "../../formats/k_quants.h"

enum { MOST_K = INT32_MAX };

/* Of a panel: fits, with k at most MOST_K. */
static int64_t panel_bytes(const struct fmk_packed *packed) {
    return packed->k / FMK_SUPER_BLOCK * FMK_Q6K_PANEL_BLOCK * packed->layout->panel_rows;
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

/* The 64 low bytes of half a super-block from `offset` on, of four rows: its runs 0 and 1 are the low
 * nibbles, 2 and 3 the high ones, of 32 bytes each. `next`: bytes from chunk to chunk. */
static void pack_low(const uint8_t *const in[4], int64_t offset, int32_t rows, uint8_t *chunk, int64_t next) {
    for (int s = 0; s < 2; s++, offset += 32, chunk += next) {
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
            store_words(chunk + 2 * next + 4 * rows * v, high[v]);
        }
    }
}

/* Pair s of the bits of each byte of word[j] to pair j of word[s]. */
static void transpose_pairs(words4 word[4]) {
    for (int j = 0; j < 4; j += 2) {
        words4 other = (word[j] >> 2 ^ word[j + 1]) & 0x33333333;
        word[j + 1] ^= other;
        word[j] ^= other << 2;
    }
    for (int j = 0; j < 2; j++) {
        words4 other = (word[j] >> 4 ^ word[j + 2]) & 0x0f0f0f0f;
        word[j + 2] ^= other;
        word[j] ^= other << 4;
    }
}

/* The 32 high bytes of half a super-block, of four rows: bits 2s and 2s+1 are run s's. */
static void pack_high(const uint8_t *const in[4], int64_t offset, int32_t rows, uint8_t *pairs,
                      int64_t next) {
    for (int v = 0; v < 2; v++) {
        words4 word[4];
        for (int r = 0; r < 4; r++)
            word[r] = load_words(in[r] + offset + 16 * v);
        transpose_words(word);
        transpose_pairs(word);
        for (int s = 0; s < 4; s++)
            store_words(pairs + s * next + 4 * rows * v, word[s]);
    }
}

/* Scales and d of four rows, of which `r` is the first. */
static void pack_scales(const uint8_t *const in[4], int32_t rows, int64_t r, uint8_t *out) {
    words4 row[4], scale[4];
    for (int i = 0; i < 4; i++) {
        memcpy(out + 2 * (r + i), in[i] + FMK_Q6K_D, 2);
        row[i] = load_words(in[i] + FMK_Q6K_SCALES);
    }
    interleave_bytes(row, scale);
    for (int j = 0; j < 4; j++)
        scatter_words(scale[j], out + rows * (FMK_Q6K_PANEL_SCALES + 4 * j) + r, rows);
}

static void pack_one(const uint8_t *const in[FMK_PANEL_MOST_ROWS], int32_t rows, uint8_t *out) {
    for (int32_t r = 0; r < rows; r += 4)
        pack_scales(in + r, rows, r, out);
    const int64_t next_low = fmk_q6k_panel_low(rows, 1) - fmk_q6k_panel_low(rows, 0);
    const int64_t next_high = fmk_q6k_panel_high(rows, 1) - fmk_q6k_panel_high(rows, 0);
    for (int h = 0; h < 2; h++) /* four chunks each */
        for (int32_t r = 0; r < rows; r += 4) {
            pack_low(in + r, 64 * h, rows, out + fmk_q6k_panel_low(rows, 4 * h) + 4 * r, next_low);
            pack_high(in + r, FMK_Q6K_HIGH + 32 * h, rows, out + fmk_q6k_panel_high(rows, 4 * h) + 4 * r,
                      next_high);
        }
}

static void pack(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst) {
    (void)k_index;
    pack_rows(source, packed, expert, row, rows, dst, FMK_Q6K_BLOCK,
              packed->layout->panel_rows * FMK_Q6K_PANEL_BLOCK, pack_one);
}

static void decode(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out) {
    const int32_t rows = packed->layout->panel_rows;
    const uint8_t *block =
        data + (uint64_t)(row / rows) * packed->stride + k / FMK_SUPER_BLOCK * rows * FMK_Q6K_PANEL_BLOCK;
    int64_t r = row % rows;
    float d = fmk_load_f16(block + 2 * r);
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i / 32;
        float scale = d * (float)(int8_t)block[rows * (FMK_Q6K_PANEL_SCALES + i / 16) + r];
        const uint8_t *nibbles = block + fmk_q6k_panel_low(rows, c);
        const uint8_t *pairs = block + fmk_q6k_panel_high(rows, c) + i % 32 / 16 * 4 * rows;
        uint8_t low = fmk_panel_nibble(nibbles, rows, r, i % 32);
        uint8_t high = pairs[4 * r + i % 4] >> 2 * (i / 4 % 4) & 3;
        out[i] = fmk_q6k_weight(scale, (uint8_t)(low | high << 4));
    }
}

const struct fmk_layout fmk_layout_q6k_x8 = {
    .id = FMK_LAYOUT_Q6_K_X8,
    .name = "q6_k.x8",
    .backends = 1u << FMK_BACKEND_CPU,
    .family = FMK_FAMILY_Q6_K,
    .panel_rows = 8,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};

const struct fmk_layout fmk_layout_q6k_x16 = {
    .id = FMK_LAYOUT_Q6_K_X16,
    .name = "q6_k.x16",
    .backends = 1u << FMK_BACKEND_CPU,
    .needs = FMK_X16_NEEDS,
    .family = FMK_FAMILY_Q6_K,
    .panel_rows = 16,
    .k_multiple = FMK_SUPER_BLOCK,
    .shape = shape,
    .valid = valid,
    .pack = pack,
    .decode = decode,
};
