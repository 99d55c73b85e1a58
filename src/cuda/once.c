#include "once.h"

#include "../abi.h"
#include "modules.h"

#include "../../kernels/layout.h"

enum {
    LEAST_TO_CUT = 16, /* units: two for each warp */
    LONG = 128,        /* units of which a block alone on a multiprocessor is not to take all */
    MANY = 4, /* row blocks for each multiprocessor, of LEAST_OF_MANY units: half of them end sooner */
    LEAST_OF_MANY = 64
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

bool fmk_once_serves(const struct fmk_cuda *cuda, const struct fmk_linear_kernel_args *linear,
                     int32_t tokens) {
    bool vectors = linear->k % 8 == 0 && (uintptr_t)linear->in % 16 == 0 &&
                   (linear->in_stride | linear->expert_in_stride) % 8 == 0 &&
                   linear->in_stride <= INT32_MAX / 4;
    return tokens <= 8 && vectors && !linear->glu && !linear->tiles && !linear->in_rows &&
           !linear->out_rows &&
           (!linear->part[0].k_index || (tokens == 1 && 2 * linear->k <= cuda->shared_bytes / 4));
}

static int32_t kind_of(const struct fmk_linear_kernel_args *linear) {
    int32_t kind = 0;
    for (int32_t i = 0; i < linear->num_parts; i++) {
        const struct fmk_linear_part *part = &linear->part[i];
        if (part->chunks != 4)
            return FMK_ONCE_ANY;
        if (part->has_zeros || part->dtype != linear->in_type)
            kind = FMK_ONCE_GROUP;
    }
    return kind;
}

static int32_t scales_of(const struct fmk_linear_part *part) {
    return FMK_T64_UNIT(part->chunks, part->has_zeros) - FMK_T64_CODES;
}

/* A block's sums are all of the output: nothing is left to be looked up. */
static bool is_bare(const struct fmk_linear_kernel_args *linear, uint32_t experts) {
    const struct fmk_epilogue_args *e = &linear->epilogue;
    return linear->num_parts == 1 && experts == 1 && !linear->part[0].column && !linear->part[0].bias &&
           !e->addend && !e->weights;
}

int32_t fmk_once_share(const struct fmk_cuda *cuda, int32_t tokens, bool early, struct fmk_once_args *args,
                       struct fmk_cuda_grid *grid) {
    const struct fmk_linear_kernel_args *linear = &args->linear;
    const struct fmk_linear_part *part = &linear->part[0];
    int64_t blocks = 0;
    int32_t scales = 0, kind = kind_of(linear);
    for (int32_t i = 0; i < linear->num_parts; i++) {
        blocks += ceil_div(linear->part[i].n, FMK_T64_ROWS);
        scales = (int32_t)fmk_max(scales, scales_of(&linear->part[i]));
    }
    args->data = (const char *)part->data + (uint64_t)linear->expert * part->expert_stride;
    args->expert_stride = part->expert_stride;
    args->stride = part->stride;
    args->blocks = (int32_t)ceil_div(part->n, FMK_T64_ROWS);
    args->scales = scales_of(part);
    args->units = linear->k_packed / FMK_INT4_UNIT_K;
    int64_t all = blocks * grid->y * grid->z;
    bool few = 2 * all <= cuda->multiprocessors,
         alone = few || (all <= cuda->multiprocessors && args->units < LONG);
    bool cut = args->units >= LEAST_TO_CUT &&
               (few || (all <= cuda->multiprocessors && !alone) ||
                (all >= MANY * cuda->multiprocessors && args->units >= LEAST_OF_MANY));
    int32_t ranks = cut ? 2 : 1;
    args->ranks_shift = cut;
    args->share = (int32_t)ceil_div(args->units, ranks);
    args->acts_first = !early;
    args->in = linear->in;
    args->in_stride = linear->in_stride;
    args->expert_in_stride = linear->expert_in_stride;
    args->m_dev = linear->m_dev;
    args->m = linear->m;
    args->first_row = linear->first_row;
    args->k = linear->k;
    args->bare = is_bare(linear, grid->z) ? part->n : 0;
    args->out = linear->epilogue.out;
    args->out_stride = linear->epilogue.out_stride;
    args->out_type = linear->epilogue.out_type;

    const bool order = part->k_index;
    args->stage = FMK_ONCE_STAGE(kind || tokens > 1 ? scales : 0, order ? 0 : tokens);
    int64_t bytes = FMK_ONCE_BARRIER + FMK_ONCE_WARPS * FMK_ONCE_STAGES * args->stage;
    args->at_sums = (int32_t)bytes;
    bytes += FMK_ONCE_SUMS(tokens);
    if (order) {
        args->at_row = (int32_t)bytes;
        bytes += fmk_round_up(2 * linear->k, 16);
        args->at_acts = (int32_t)bytes;
        bytes += ceil_div(args->share, FMK_ONCE_WARPS) * FMK_ONCE_WARPS * 2 * FMK_INT4_UNIT_K;
    }
    /* The second on a multiprocessor would be the next launch's, whose loads would come before those that are
     * waited for. */
    if (alone)
        bytes = fmk_max(bytes, cuda->shared_bytes / 2 + 1);
    grid->x = (uint32_t)(blocks * ranks);
    grid->threads = FMK_ONCE_THREADS;
    grid->shared = (uint32_t)bytes;
    grid->cluster = (uint32_t)ranks;
    return (order         ? FMK_ONCE_ORDER
            : tokens == 1 ? FMK_ONCE_1
                          : FMK_ONCE_8) +
           (kind    ? kind
            : alone ? FMK_ONCE_ALONE
                    : 0);
}
