/* The numbers of the t16 layouts and t64 (kernels/layout.h): panels of 16 or 64 rows, units of 128 or 256 k.
 */
#include "layouts.h"

#include "../../kernels/layout.h"
#include "../abi.h"
#include "../formats/int4_groups.h"
#include "features.h"

/* Fills in the sizes that follow from the numbers already there and the bytes of a panel; false on overflow.
 */
static bool set_sizes(struct fmk_packed *packed, int64_t n, int32_t experts, int64_t units, int64_t unit) {
    int64_t panel, expert, all, rows = packed->layout->panel_rows;
    if (n < 1 || n > INT32_MAX || experts < 1 || !fmk_mul(units, unit, &panel) ||
        !fmk_mul((n + rows - 1) / rows, panel, &expert) || !fmk_mul(expert, experts, &all))
        return false;
    packed->stride = (uint64_t)panel;
    packed->expert_stride = (uint64_t)expert;
    packed->bytes = (uint64_t)all;
    return true;
}

/* Whether the sizes are those that follow from the other numbers. */
static bool sizes_follow(const struct fmk_packed *packed, int64_t units, int64_t unit) {
    struct fmk_packed own = {.layout = packed->layout};
    return set_sizes(&own, packed->n, packed->experts, units, unit) && packed->stride == own.stride &&
           packed->expert_stride == own.expert_stride && packed->bytes == own.bytes;
}

/* ---- int4 ---- */

static int64_t int4_unit(const struct fmk_packed *packed) {
    return packed->layout->panel_rows / FMK_T16_ROWS *
           FMK_INT4_UNIT(packed->chunks, fmk_dtype_size(packed->dtype), packed->has_zeros);
}

/* A bulk copy of 64 rows with scales of four bytes would be no faster than t16's. */
static bool has_short_scales(const struct fmk_source *source) {
    return source->part.scales.dtype == FMK_F16 || source->part.scales.dtype == FMK_BF16;
}

static bool int4_shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    struct fmk_int4_groups groups;
    fmk_int4_groups(source, &groups);
    *index = groups.index;
    packed->dtype = source->part.scales.dtype;
    packed->chunks = (int32_t)groups.granule;
    packed->has_zeros = !source->symmetric;
    packed->k_packed = fmk_round_up(32 * groups.chunks, FMK_INT4_UNIT_K);
    return packed->k_packed <= INT32_MAX && set_sizes(packed, source->n, source->experts,
                                                      packed->k_packed / FMK_INT4_UNIT_K, int4_unit(packed));
}

static bool int4_valid(const struct fmk_packed *packed) {
    bool wide = packed->dtype == FMK_F32 && packed->layout->id == FMK_LAYOUT_INT4_T16;
    if (packed->dtype != FMK_F16 && packed->dtype != FMK_BF16 && !wide)
        return false;
    if (packed->chunks != 1 && packed->chunks != 2 && packed->chunks != 4)
        return false;
    /* Each k makes at most one chunk. */
    return packed->k > 0 && packed->k <= INT32_MAX && packed->k_packed >= packed->k &&
           packed->k_packed % FMK_INT4_UNIT_K == 0 &&
           packed->k_packed <= fmk_round_up(32 * packed->k, FMK_INT4_UNIT_K) &&
           sizes_follow(packed, packed->k_packed / FMK_INT4_UNIT_K, int4_unit(packed));
}

static void int4_index(const struct fmk_source *source, const struct fmk_packed *packed, int64_t expert,
                       int32_t *k_index) {
    fmk_int4_index(source, packed->k_packed, expert, k_index);
}

const struct fmk_layout fmk_layout_int4_t16 = {
    .id = FMK_LAYOUT_INT4_T16,
    .name = "int4.t16",
    .backends = 1u << FMK_BACKEND_CUDA,
    .family = FMK_FAMILY_INT4,
    .range = true,
    .panel_rows = FMK_T16_ROWS,
    .k_multiple = FMK_INT4_UNIT_K,
    .shape = int4_shape,
    .valid = int4_valid,
    .index = int4_index,
};

const struct fmk_layout fmk_layout_int4_t64 = {
    .id = FMK_LAYOUT_INT4_T64,
    .name = "int4.t64",
    .backends = 1u << FMK_BACKEND_CUDA,
    .needs = FMK_CUDA_SM90 | FMK_CUDA_SM90A,
    .family = FMK_FAMILY_INT4,
    .range = true,
    .panel_rows = FMK_T64_ROWS,
    .k_multiple = FMK_INT4_UNIT_K,
    .takes = has_short_scales,
    .shape = int4_shape,
    .valid = int4_valid,
    .index = int4_index,
};

/* ---- K-quants ---- */

static int64_t k_quant_unit(const struct fmk_packed *packed) {
    return packed->layout->family == FMK_FAMILY_Q4_K ? FMK_Q4K_UNIT : FMK_Q6K_UNIT;
}

static bool k_quant_shape(const struct fmk_source *source, struct fmk_packed *packed, bool *index) {
    *index = false;
    packed->k_packed = source->k;
    packed->dtype = 0;
    packed->chunks = 0;
    return set_sizes(packed, source->n, source->experts, source->k / FMK_Q4K_UNIT_K, k_quant_unit(packed));
}

static bool k_quant_valid(const struct fmk_packed *packed) {
    return packed->k > 0 && packed->k <= INT32_MAX && packed->k % FMK_Q4K_UNIT_K == 0 &&
           packed->k_packed == packed->k && !packed->dtype && !packed->chunks && !packed->has_zeros &&
           sizes_follow(packed, packed->k / FMK_Q4K_UNIT_K, k_quant_unit(packed));
}

const struct fmk_layout fmk_layout_q4k_t16 = {
    .id = FMK_LAYOUT_Q4_K_T16,
    .name = "q4_k.t16",
    .backends = 1u << FMK_BACKEND_CUDA,
    .family = FMK_FAMILY_Q4_K,
    .range = true,
    .panel_rows = FMK_T16_ROWS,
    .k_multiple = FMK_Q4K_UNIT_K,
    .shape = k_quant_shape,
    .valid = k_quant_valid,
};

const struct fmk_layout fmk_layout_q6k_t16 = {
    .id = FMK_LAYOUT_Q6_K_T16,
    .name = "q6_k.t16",
    .backends = 1u << FMK_BACKEND_CUDA,
    .family = FMK_FAMILY_Q6_K,
    .range = true,
    .panel_rows = FMK_T16_ROWS,
    .k_multiple = FMK_Q6K_UNIT_K,
    .shape = k_quant_shape,
    .valid = k_quant_valid,
};
