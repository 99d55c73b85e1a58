#include "once.h"

#include "../abi.h"
#include "modules.h"

#include "../../kernels/layout.h"

enum {
    WIDE = FMK_T64_ROWS / 16, /* panels of a strip */
    NARROW = WIDE / 2,
    MOST_UNITS = 1 << 30 /* squared, of a cluster: FMK_ONCE_INVERSE */
};

/* What a launch costs, where reading a panel's unit, by one of all multiprocessors, costs 1024. */
enum {
    PANEL_UNIT = 1024,
    BUSY_PERCENT = 78, /* so many of the multiprocessors read as fast as memory can */
    EVEN = 768,        /* how much of the time memory is what one waits for; else the block with most to do */
    NARROW_UNIT = 60,  /* of each panel of a narrow strip, one token; */
    NARROW_UNIT_8 = 100, /* eight */
    CLUSTER = 17 << 10,  /* blocks of a cluster start together, and their sums meet */
    TOKEN_UNIT = 120     /* a token's activations of a unit, fetched by one block */
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Nothing is left to be looked up: the sums of the one part are the output. */
static bool is_usual(const struct fmk_linear_kernel_args *linear, const struct fmk_cuda_grid *grid) {
    const struct fmk_epilogue_args *e = &linear->epilogue;
    const struct fmk_linear_part *part = &linear->part[0];
    int64_t units = linear->k_packed / FMK_INT4_UNIT_K;
    return linear->num_parts == 1 && grid->y == 1 && grid->z == 1 && !linear->first_row && !linear->m_dev &&
           part->chunks == 4 && !part->has_zeros && !part->column && !part->bias && !e->addend &&
           !e->weights && (int64_t)part->stride == units * FMK_T64_UNIT(4, false);
}

static int32_t kind_of(const struct fmk_linear_kernel_args *linear, const struct fmk_cuda_grid *grid) {
    if (is_usual(linear, grid))
        return 0;
    for (int32_t i = 0; i < linear->num_parts; i++)
        if (linear->part[i].chunks != 4)
            return FMK_ONCE_ANY;
    return FMK_ONCE_GROUP;
}

static int32_t scales_of(const struct fmk_linear_part *part) {
    return FMK_T64_UNIT(part->chunks, part->has_zeros) - FMK_T64_CODES;
}

static int64_t strips_of(const struct fmk_linear_kernel_args *linear, int32_t parts, int32_t panels) {
    int64_t strips = 0;
    for (int32_t i = 0; i < parts; i++)
        strips += ceil_div(linear->part[i].n, 16 * panels);
    return strips;
}

bool fmk_once_serves(const struct fmk_cuda *cuda, const struct fmk_linear_kernel_args *linear,
                     int32_t tokens) {
    int64_t units = linear->k_packed / FMK_INT4_UNIT_K;
    bool vectors = linear->k % 8 == 0 && (uintptr_t)linear->in % 16 == 0 &&
                   (linear->in_stride | linear->expert_in_stride) % 8 == 0 &&
                   linear->in_stride <= INT32_MAX / 4;
    /* However few clusters there may be. */
    bool counted = (strips_of(linear, linear->num_parts, NARROW) + 1) * units * units <= MOST_UNITS;
    bool near = linear->part[0].stride <= UINT32_MAX;
    return tokens <= 8 && vectors && counted && near && !linear->glu && !linear->tiles && !linear->in_rows &&
           !linear->out_rows &&
           (!linear->part[0].k_index || (tokens == 1 && 2 * linear->k <= cuda->shared_bytes / 4));
}

/* ---- how strips are dealt ---- */

struct deal {
    int32_t panels, ranks; /* of a strip; blocks of a cluster */
    int64_t strips, clusters;
    int64_t share; /* units of the block with most to do */
};

static struct deal deal(const struct fmk_linear_kernel_args *linear, int32_t panels, int32_t ranks,
                        int64_t blocks) {
    struct deal d = {panels, ranks, strips_of(linear, linear->num_parts, panels), 0, 0};
    int64_t most = ceil_div(d.strips, fmk_max(1, blocks / ranks)); /* of a cluster */
    d.clusters = ceil_div(d.strips, most);
    d.share = ceil_div(most * (linear->k_packed / FMK_INT4_UNIT_K), ranks);
    return d;
}

static int64_t cost_of(const struct deal *d, const struct fmk_linear_kernel_args *linear, int64_t blocks) {
    int64_t units = linear->k_packed / FMK_INT4_UNIT_K, tokens = fmk_min(linear->m, 8);
    int64_t unit = PANEL_UNIT;
    if (d->panels == NARROW)
        unit += tokens > 1 ? NARROW_UNIT_8 : NARROW_UNIT;
    int64_t own = d->share * d->panels * unit;
    int64_t even = d->strips * units * d->panels * unit * 100 / (blocks * BUSY_PERCENT);
    return (EVEN * fmk_max(own, even) + (1024 - EVEN) * own) / 1024 + (d->ranks > 1 ? CLUSTER : 0) +
           fmk_min(d->share, units) * tokens * TOKEN_UNIT;
}

/* For `blocks` multiprocessors. */
static struct deal choose(const struct fmk_linear_kernel_args *linear, bool narrow, int64_t blocks) {
    struct deal best = deal(linear, WIDE, 1, blocks);
    for (int32_t panels = WIDE; panels >= (narrow ? NARROW : WIDE); panels /= 2)
        for (int32_t ranks = 1; ranks <= 2; ranks++) {
            struct deal d = deal(linear, panels, ranks, blocks);
            if (cost_of(&d, linear, blocks) < cost_of(&best, linear, blocks))
                best = d;
        }
    return best;
}

/* `strips`: of the cluster. */
static struct fmk_once_share share_of(int64_t strips, int32_t units, int32_t ranks, int32_t rank) {
    int64_t all = strips * units, half = ceil_div(all, ranks), begin = rank ? half : 0;
    int64_t border = half / units, before = half % units; /* of the strip, in the first block's half */
    struct fmk_once_share s = {.skipped = (int32_t)(begin / units), .first = (int32_t)(begin % units)};
    s.count = (int32_t)(rank ? all - half : half);
    s.halved = ranks > 1 && before ? (int32_t)border - s.skipped : -1;
    s.turn = s.halved > 0 ? (int32_t)before : 0;
    s.last = s.turn ? s.halved - 1 : (s.first + s.count - 1) / units;
    return s;
}

/* ---- what a block keeps ---- */

/* Whether it pays to keep activations: a warp comes to the same units of K in every strip, of which there are
 * several. */
static bool may_keep(const struct deal *d, int64_t units, int32_t m) {
    if (m <= 2 || d->share < 2 * units)
        return false;
    int64_t least = d->strips / d->clusters;
    for (int64_t strips = least; strips <= least + (d->strips % d->clusters > 0); strips++)
        if (units % FMK_ONCE_WARPS || (d->ranks > 1 && (strips * units + 1) / 2 % units % FMK_ONCE_WARPS))
            return false;
    return true;
}

static int64_t lay_out(struct fmk_once_args *args, const struct deal *d, int32_t tokens, int32_t scales,
                       int64_t most) {
    const struct fmk_linear_kernel_args *linear = &args->linear;
    const bool order = linear->part[0].k_index;
    int64_t sums = FMK_ONCE_SUMS(tokens, d->panels), all = tokens * FMK_ONCE_PITCH * args->units, bytes;
    for (int32_t resident = order || (tokens > 1 && may_keep(d, args->units, linear->m));; resident--) {
        args->resident = resident;
        args->stage = scales + (resident ? 0 : tokens * FMK_ONCE_PITCH);
        bytes = FMK_ONCE_BARRIER + FMK_ONCE_WARPS * FMK_ONCE_STAGES(d->panels) * args->stage;
        args->at_acts = (int32_t)bytes;
        bytes += resident ? all : 0;
        args->at_row = (int32_t)bytes;
        bytes += order ? fmk_round_up(2 * linear->k, 16) : 0;
        args->at_halves = (int32_t)bytes;
        bytes += d->ranks > 1 ? sums : 0;
        args->at_sums = (int32_t)bytes;
        bytes += 2 * sums;
        if (bytes <= most || !resident || order)
            return bytes;
    }
}

int32_t fmk_once_share(const struct fmk_cuda *cuda, int32_t tokens, bool early, struct fmk_once_args *args,
                       struct fmk_cuda_grid *grid) {
    const struct fmk_linear_kernel_args *linear = &args->linear;
    const struct fmk_linear_part *part = &linear->part[0];
    int32_t scales = 0, kind = kind_of(linear, grid);
    for (int32_t i = 0; kind && i < linear->num_parts; i++)
        scales = (int32_t)fmk_max(scales, scales_of(&linear->part[i]));
    struct deal d = choose(linear, !kind, fmk_max(1, cuda->multiprocessors / (int64_t)(grid->y * grid->z)));
    args->data = (const char *)part->data + (uint64_t)linear->expert * part->expert_stride;
    args->expert_stride = part->expert_stride;
    args->stride = (uint32_t)part->stride;
    args->first_strips = (int32_t)strips_of(linear, 1, d.panels);
    args->scales = scales_of(part);
    args->scale_type = part->dtype;
    args->units = linear->k_packed / FMK_INT4_UNIT_K;
    args->inverse = FMK_ONCE_INVERSE((uint64_t)args->units);
    args->strips = (int32_t)(d.strips / d.clusters);
    args->spare = (int32_t)(d.strips % d.clusters);
    args->ranks_shift = d.ranks - 1;
    for (int32_t more = 0; more < 2; more++)
        for (int32_t rank = 0; rank < d.ranks; rank++)
            args->share[!more][rank] = share_of(args->strips + more, args->units, d.ranks, rank);
    args->acts_first = !early;
    args->in = linear->in;
    args->in_stride = (int32_t)linear->in_stride;
    args->expert_in_stride = linear->expert_in_stride;
    args->m_dev = linear->m_dev;
    args->m = linear->m;
    args->first_row = linear->first_row;
    args->k = linear->k;
    args->index = part->k_index ? part->k_index + (int64_t)linear->expert * linear->k_packed : NULL;
    args->n = part->n;
    args->out = linear->epilogue.out;
    args->out_stride = linear->epilogue.out_stride;
    args->out_type = linear->epilogue.out_type;
    grid->x = (uint32_t)(d.clusters * d.ranks);
    grid->threads = FMK_ONCE_THREADS;
    grid->shared = (uint32_t)lay_out(args, &d, tokens, scales, cuda->shared_bytes);
    grid->cluster = (uint32_t)d.ranks;
    return (part->k_index ? FMK_ONCE_ORDER
            : tokens == 1 ? FMK_ONCE_1
                          : FMK_ONCE_8) +
           (kind                 ? kind
            : d.panels == NARROW ? FMK_ONCE_NARROW
                                 : 0);
}
