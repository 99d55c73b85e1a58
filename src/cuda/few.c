#include "few.h"

#include "../abi.h"

enum {
    LEAST_STAGES = 2,
    MOST_STAGES = 3,  /* of 8 warps and 4 KB: more in flight are slower, and so are three with more tokens */
    MOST_TOKENS = 16, /* of f32: */
    MOST_F32_TOKENS = 8,
    MOST_RANKS = 8,
    RESERVED = 1024, /* bytes of shared memory that the system takes of each block */
    GROUP = 16,      /* multiprocessors of which clusters of four and eight are made */
    SPARE = 3        /* times as many clusters as fit at once, where it is not known how many have work */
};

/* What a unit of a warp costs, a row block beside its units, and its sums in a cluster. */
enum { UNIT_COST = 4, ROW_BLOCK_COST = 3, CLUSTER_COST = 3 };

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Bytes of shared memory, and what begins where. */
static int64_t lay_out(struct fmk_few_args *args, const struct fmk_few_product *p, int64_t ranks,
                       int64_t window, int64_t stages) {
    int64_t each = ceil_div(p->units, ranks), columns = fmk_round_up(p->tokens, 8);
    int64_t at = FMK_FEW_WARPS * stages * p->unit;
    args->blocks = (int32_t)p->blocks;
    args->units = (int32_t)each;
    args->stages = (int32_t)stages;
    args->slot = (int32_t)p->unit;
    args->window = (int32_t)window;
    args->keeps_sums = window == each;
    args->at_acts = (int32_t)at;
    at += p->planes * p->tokens * FMK_FEW_PITCH(window);
    args->at_row = p->row ? (int32_t)at : 0;
    at += fmk_round_up(p->row, 16);
    args->at_act_sums = (int32_t)at;
    at += args->keeps_sums ? each * (p->any ? 4 : 1) * columns * 4 : 0;
    args->at_sums = (int32_t)at;
    at += FMK_FEW_WARPS * p->tokens * FMK_FEW_SUMS_PITCH * 4;
    args->at_done = (int32_t)at;
    at += ranks > 1 ? 2 * p->tokens * 64 * 4 : 0;
    args->at_barriers = (int32_t)at;
    return at + 8 * (FMK_FEW_WARPS * stages + 2);
}

/* With as many stages as there is room for, up to `most`; 0 where there is too little for two. */
static int64_t fit(struct fmk_few_args *args, const struct fmk_few_product *p, int64_t ranks, int64_t window,
                   int64_t most, int64_t room) {
    for (int64_t stages = most; stages >= LEAST_STAGES; stages--) {
        int64_t bytes = lay_out(args, p, ranks, window, stages);
        if (bytes <= room)
            return bytes;
    }
    return 0;
}

/* Clusters that run at once, a block to a multiprocessor. */
static int64_t clusters_at_once(int64_t multiprocessors, int64_t ranks) {
    int64_t usable = ranks > 2 ? multiprocessors / GROUP * GROUP : multiprocessors;
    return usable / ranks;
}

/* How long it takes, were memory no limit: the rounds of row blocks that one cluster does. */
static int64_t cost_of(const struct fmk_few_product *p, int64_t ranks, int64_t clusters) {
    int64_t rounds = ceil_div(p->blocks * (p->glu ? 2 : 1) * p->tiles, clusters);
    int64_t units = ceil_div(ceil_div(p->units, ranks), FMK_FEW_WARPS);
    return rounds * (UNIT_COST * units + ROW_BLOCK_COST + (ranks > 1 ? CLUSTER_COST : 0));
}

/* In how many blocks K is cut; 0 where nowhere all activations of a share fit. */
static int64_t choose_ranks(const struct fmk_cuda *cuda, const struct fmk_few_product *p) {
    int64_t best = 0, least = INT64_MAX;
    for (int64_t ranks = 1; ranks <= MOST_RANKS && ranks <= p->units; ranks *= 2) {
        struct fmk_few_args args;
        int64_t clusters = clusters_at_once(cuda->multiprocessors, ranks);
        if (!clusters || !fit(&args, p, ranks, ceil_div(p->units, ranks), LEAST_STAGES, cuda->shared_bytes))
            continue;
        int64_t cost = cost_of(p, ranks, clusters);
        if (cost < least) {
            least = cost;
            best = ranks;
        }
    }
    return best;
}

static int64_t most_ranks(const struct fmk_cuda *cuda, const struct fmk_few_product *p) {
    int64_t ranks = MOST_RANKS;
    while (ranks > 1 && (ranks > p->units || !clusters_at_once(cuda->multiprocessors, ranks)))
        ranks /= 2;
    return ranks;
}

/* The number of ranks decides on the order of the additions: it is to be the same whatever m is. */
static int64_t ranks_for(const struct fmk_cuda *cuda, const struct fmk_few_product *p) {
    if (!p->invariant)
        return choose_ranks(cuda, p);
    struct fmk_few_product any = *p;
    any.tokens = p->planes > 1 ? MOST_F32_TOKENS : MOST_TOKENS;
    any.tiles = 1;
    return choose_ranks(cuda, &any);
}

/* Whether two blocks of a multiprocessor, of which one works while the other adds up, leave no more of them
 * idle at the end than one would. */
static bool two_are_better(const struct fmk_cuda *cuda, const struct fmk_few_product *p, int64_t ranks) {
    int64_t clusters = clusters_at_once(cuda->multiprocessors, ranks), jobs = p->blocks * p->tiles;
    return jobs > clusters && 2 * ceil_div(jobs, 2 * clusters) <= ceil_div(jobs, clusters);
}

void fmk_few_share(const struct fmk_cuda *cuda, const struct fmk_few_product *product,
                   struct fmk_few_args *args, struct fmk_cuda_grid *grid) {
    struct fmk_few_product own = *product;
    const struct fmk_few_product *p = &own;
    if (own.row > cuda->shared_bytes / 4)
        own.row = 0; /* too long to be held as it is */
    int64_t ranks = ranks_for(cuda, p), bytes = 0;
    int64_t per_processor = 1;
    if (ranks) {
        int64_t each = ceil_div(p->units, ranks), half = cuda->shared_bytes / 2 - RESERVED;
        bytes = fit(args, p, ranks, each, LEAST_STAGES, half);
        if (bytes && two_are_better(cuda, p, ranks))
            per_processor = 2;
        else
            bytes =
                fit(args, p, ranks, each, p->tokens == 1 ? MOST_STAGES : LEAST_STAGES, cuda->shared_bytes);
    } else { /* activations come in windows, anew for every row block */
        int64_t window = FMK_FEW_WARPS;
        ranks = most_ranks(cuda, p);
        while (lay_out(args, p, ranks, window + FMK_FEW_WARPS, LEAST_STAGES) <= cuda->shared_bytes)
            window += FMK_FEW_WARPS;
        bytes = lay_out(args, p, ranks, window, LEAST_STAGES);
    }
    int64_t clusters = fmk_max(1, per_processor * clusters_at_once(cuda->multiprocessors, ranks));
    if (!p->exact_tiles)
        clusters *= SPARE;
    clusters = fmk_max(1, fmk_min(p->blocks, clusters / p->tiles));
    /* No more than there must be for all to take as many rounds. */
    clusters = ceil_div(p->blocks, ceil_div(p->blocks, clusters));
    grid->x = (uint32_t)(clusters * ranks);
    grid->threads = FMK_FEW_THREADS;
    grid->shared = (uint32_t)bytes;
    grid->cluster = (uint32_t)ranks;
    while (1 << args->ranks_shift < ranks)
        args->ranks_shift++;
}
