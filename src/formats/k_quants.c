/* Q4_K and Q6_K as ggml writes them: [n][k / 256] super-blocks. */
#include "k_quants.h"

#include "../abi.h"
#include "format.h"

static int64_t q4k_row_bytes(const struct fmk_source *source, int64_t k) {
    (void)source;
    return k / FMK_SUPER_BLOCK * FMK_Q4K_BLOCK;
}

static int64_t q6k_row_bytes(const struct fmk_source *source, int64_t k) {
    (void)source;
    return k / FMK_SUPER_BLOCK * FMK_Q6K_BLOCK;
}

static bool q4k_bytes(const struct fmk_source *source, int64_t *out) {
    return fmk_mul(source->part.n, q4k_row_bytes(source, source->part.k), out);
}

static bool q6k_bytes(const struct fmk_source *source, int64_t *out) {
    return fmk_mul(source->part.n, q6k_row_bytes(source, source->part.k), out);
}

const struct fmk_format_ops fmk_q4k_ops = {
    .name = "Q4_K",
    .family = FMK_FAMILY_Q4_K,
    .qweight_dtype = FMK_U8,
    .bias_dtype = FMK_F32,
    .k_multiple = FMK_SUPER_BLOCK,
    .k_cut = FMK_SUPER_BLOCK,
    .n_multiple = 1,
    .unit = "the super-block of Q4_K",
    .shape = "[n][k/256] blocks of 144 bytes",
    .bytes = q4k_bytes,
    .row_bytes = q4k_row_bytes,
};

const struct fmk_format_ops fmk_q6k_ops = {
    .name = "Q6_K",
    .family = FMK_FAMILY_Q6_K,
    .qweight_dtype = FMK_U8,
    .bias_dtype = FMK_F32,
    .k_multiple = FMK_SUPER_BLOCK,
    .k_cut = FMK_SUPER_BLOCK,
    .n_multiple = 1,
    .unit = "the super-block of Q6_K",
    .shape = "[n][k/256] blocks of 210 bytes",
    .bytes = q6k_bytes,
    .row_bytes = q6k_row_bytes,
};
