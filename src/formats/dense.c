/* Dense matrices of f32, f16 or bf16: [n][k], nothing to decode. */
#include "format.h"

#include "../abi.h"

static int64_t row_bytes(const struct fmk_source *source, int64_t k) {
    return k * fmk_dtype_size(source->part.qweight.dtype);
}

static bool bytes(const struct fmk_source *source, int64_t *out) {
    return fmk_mul(source->part.n, row_bytes(source, source->part.k), out);
}

const struct fmk_format_ops fmk_dense_ops = {
    .name = "DENSE",
    .family = FMK_FAMILY_DENSE,
    .k_multiple = 1,
    .k_cut = 1,
    .n_multiple = 1,
    .unit = "weights",
    .shape = "[n][k]",
    .bytes = bytes,
    .row_bytes = row_bytes,
};
