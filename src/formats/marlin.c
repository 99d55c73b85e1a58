/* Marlin checkpoints: symmetric 4-bit codes in the order in which a GPU's tensor cores want them, a word of
 * B [k/16][2n] holding four k of two columns, and scales in the order of the accumulators.
 *
 * Both orders are sums of a part that depends on k and one that depends on the column. In the row of B of
 * k's tile of 16, the word and the nibble in it are
 *     word = 128 (column / 64) + 16 (column % 8) + (column % 64) / 16 + 4 (k % 8 / 2)
 *     nibble = 2 (column % 16 / 8) + (k % 16) / 8 + 4 (k % 2) */
#include "format.h"

#include "../abi.h"

static bool bytes(const struct fmk_source *source, int64_t *out) {
    return fmk_mul(source->part.k / 16, source->part.n, out) && fmk_mul(*out, 8, out);
}

static void codes(const struct fmk_source *source, int64_t expert, const int64_t *column, int32_t rows,
                  const int32_t *k, int64_t count, uint8_t *out) {
    const uint8_t *words[8]; /* the columns' part of the word in tile row 0 */
    int shift[8];
    for (int32_t r = 0; r < rows; r++) {
        int64_t c = column[r];
        words[r] = fmk_tensor_data(&source->part.qweight, expert) +
                   4 * (128 * (c / 64) + 16 * (c % 8) + c % 64 / 16);
        shift[r] = 8 * (int)(c % 16 / 8);
    }
    for (int64_t i = 0; i < count; i++, out += 8) {
        memset(out, 0, 8);
        if (k[i] < 0)
            continue;
        int64_t offset = 4 * (k[i] / 16 * 2 * source->part.n + 4 * (k[i] % 8 / 2));
        int k_shift = 4 * (k[i] % 16 / 8 + 4 * (k[i] % 2));
        for (int32_t r = 0; r < rows; r++)
            out[r] = (uint8_t)(fmk_load_u32(words[r] + offset) >> (shift[r] + k_shift) & 15);
    }
}

/* Grouped scales are transposed in runs of 8 by 8; those of one group go by runs of 32, in which each
 * thread's eight are (0, 1, 8, 9, 16, 17, 24, 25) from its first. */
static int64_t scale_column(const struct fmk_source *source, int64_t column) {
    if (source->groups > 1)
        return column / 64 * 64 + column % 8 * 8 + column % 64 / 8;
    return column / 32 * 32 + column % 8 / 2 * 8 + column % 32 / 8 * 2 + column % 2;
}

static uint8_t zero(const struct fmk_source *source, int64_t expert, int64_t column, int64_t group) {
    (void)source, (void)expert, (void)column, (void)group;
    return 8;
}

const struct fmk_format_ops fmk_marlin_ops = {
    .name = "MARLIN",
    .family = FMK_FAMILY_INT4,
    .qweight_dtype = FMK_I32,
    .bias_dtype = FMK_F16,
    .scales = true,
    .k_multiple = 16,
    .k_cut = 16,
    .n_multiple = 64,
    .unit = "a tile of B",
    .shape = "i32 [k/16][2n]",
    .bytes = bytes,
    .codes = codes,
    .scale_column = scale_column,
    .zero = zero,
};
