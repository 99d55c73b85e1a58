#include "wgmma.h"

#include "../abi.h"
#include "device.h"

/* Of one type of activations; see kernels/wgmma.h. Clocks as measured on an H200: of a unit of K, and of
 * everything else that a tile takes. */
static const struct {
    int32_t rows, tokens, warpgroups;
    bool deep; /* warpgroups share K */
    bool glu;  /* can have gate and up */
    double unit, tile;
    uint32_t blocks; /* of a wide tile: that share activations; else 0 */
} variants[FMK_WGMMA_VARIANTS] = {
    [FMK_WGMMA_64X16] = {64, 16, 2, true, false, 267, 1068, 0},
    [FMK_WGMMA_128X16] = {128, 16, 2, true, true, 486, 1206, 0},
    [FMK_WGMMA_256X16] = {256, 16, 4, false, false, 930, 1583, 0},
    [FMK_WGMMA_512X16] = {512, 16, 4, false, true, 1653, 6125, 0},
    [FMK_WGMMA_64X32] = {64, 32, 2, true, false, 306, 1199, 0},
    [FMK_WGMMA_128X32] = {128, 32, 2, false, false, 552, 1129, 0},
    [FMK_WGMMA_256X32] = {256, 32, 2, false, true, 1004, 2708, 0},
    [FMK_WGMMA_128X64] = {128, 64, 2, false, false, 743, 2143, 0},
    [FMK_WGMMA_256X64] = {256, 64, 2, false, true, 1506, 4881, 0},
    [FMK_WGMMA_128X128] = {128, 128, 2, false, false, 1139, 5668, 0},
    [FMK_WGMMA_WIDE_128X128] = {128, 128, 2, false, true, 1254, 1813, 1},
    [FMK_WGMMA_WIDE_128X144] = {128, 144, 2, false, true, 1357, 1648, 1},
    [FMK_WGMMA_WIDE_128X160] = {128, 160, 2, false, true, 1460, 2122, 1},
    [FMK_WGMMA_WIDE_128X192] = {128, 192, 2, false, true, 1747, 1486, 1},
    [FMK_WGMMA_WIDE_128X224] = {128, 224, 2, false, true, 2041, 1288, 1},
    [FMK_WGMMA_WIDE_256X256] = {256, 256, 2, false, true, 2313, 1430, 2},
    [FMK_WGMMA_WIDE_192X128] = {192, 128, 3, false, false, 1777, 1775, 1},
};

enum {
    LAUNCH_CLOCKS = 4562,
    CLUSTER_CLOCKS = 941, /* of adding up sums of a cluster, at the end */
    DEAL_CLOCKS = 9400,   /* of passing on the sums of 128 x 256 */
    OVER_RING = 128 /* tokens of a tile whose sums lie over the ring: a cluster should have one such tile */
};

/* Clusters of so many blocks that 132 multiprocessors hold at once, as an H200's were counted to: they are in
 * groups, and a cluster stays in one. */
static const struct {
    uint32_t blocks, at_once;
} clusters[] = {{1, 132}, {2, 66}, {3, 39}, {4, 30}, {5, 22}, {6, 17}, {8, 15}};
enum { CLUSTERS = sizeof clusters / sizeof clusters[0] };

static uint32_t tiles_of(const struct fmk_wgmma_problem *problem, int32_t variant) {
    uint32_t rows = (uint32_t)(problem->glu ? variants[variant].rows / 2 : variants[variant].rows);
    uint32_t tokens = (uint32_t)variants[variant].tokens, row_tiles = 0;
    for (int32_t i = 0; i < (problem->glu ? 1 : problem->num_parts); i++)
        row_tiles += ((uint32_t)problem->parts[i].n + rows - 1) / rows;
    return row_tiles * (uint32_t)problem->experts * (((uint32_t)problem->m + tokens - 1) / tokens);
}

/* Clusters of `size` blocks, `at_once` of them, each of which takes every so-manieth tile. Where warpgroups
 * share K, all take as many units. */
static struct fmk_wgmma_cut cut(int32_t variant, uint32_t tiles, uint32_t units, uint32_t size,
                                uint32_t at_once) {
    uint32_t turns = (tiles + at_once - 1) / at_once, share = (units + size - 1) / size;
    if (variants[variant].deep)
        share = (uint32_t)fmk_round_up(share, variants[variant].warpgroups);
    double tile = share * variants[variant].unit + variants[variant].tile;
    return (struct fmk_wgmma_cut){.variant = variant,
                                  .cluster = (int32_t)size,
                                  .blocks = (uint32_t)fmk_min(tiles, at_once) * size,
                                  .clocks = LAUNCH_CLOCKS + turns * tile + (size > 1 ? CLUSTER_CLOCKS : 0)};
}

static bool is_wide(int32_t variant) {
    return variant >= FMK_WGMMA_WIDE;
}

/* Blocks, or pairs of them, each of which takes every so-manieth tile, or as many units of K as every other.
 */
static struct fmk_wgmma_cut cut_wide(int32_t variant, uint32_t tiles, uint32_t units, const uint32_t *at_once,
                                     bool room) {
    uint32_t size = variants[variant].blocks, workers = at_once[size - 1];
    uint32_t turns = (tiles + workers - 1) / workers;
    double unit = variants[variant].unit, tile = variants[variant].tile, each = (double)tiles / workers;
    double whole = turns * (units * unit + tile);
    /* Those who have less than a tile wait for one another. */
    double large = (double)variants[variant].rows * variants[variant].tokens / (128 * 256 * size);
    double dealt = each * units * unit + (each + 1) * tile + DEAL_CLOCKS * large * (each < 1 ? 2 : 1);
    /* What the kernel computes with 32 bits: see first_unit_of. */
    bool fits = 2.0 * workers * workers * units < INT32_MAX;
    bool deal = room && fits && dealt < whole;
    return (struct fmk_wgmma_cut){.variant = variant,
                                  .cluster = (int32_t)size,
                                  .dealt = deal,
                                  .blocks = size * (deal ? workers : fmk_min(tiles, workers)),
                                  .clocks = LAUNCH_CLOCKS + (deal ? dealt : whole)};
}

/* A few divisions for each candidate, for it is asked at every call. */
struct fmk_wgmma_cut fmk_wgmma_choose(const struct fmk_wgmma_problem *problem) {
    struct fmk_wgmma_cut best = {.clocks = 1e300};
    uint32_t units = (uint32_t)((problem->k + FMK_WGMMA_K - 1) / FMK_WGMMA_K);
    uint32_t at_once[CLUSTERS];
    for (int i = 0; i < CLUSTERS; i++)
        at_once[i] =
            fmk_max(1, clusters[i].at_once * (uint32_t)problem->multiprocessors / clusters[0].at_once);
    for (int32_t v = 0; v < FMK_WGMMA_VARIANTS; v++) {
        if (problem->glu && !variants[v].glu)
            continue;
        uint32_t tiles = tiles_of(problem, v);
        if (is_wide(v)) {
            struct fmk_wgmma_cut candidate = cut_wide(v, tiles, units, at_once, problem->room);
            if (candidate.clocks < best.clocks)
                best = candidate;
            continue;
        }
        for (int i = 0; i < CLUSTERS; i++) {
            if (i && tiles > at_once[i] && variants[v].tokens >= OVER_RING)
                break;
            struct fmk_wgmma_cut candidate = cut(v, tiles, units, clusters[i].blocks, at_once[i]);
            if (candidate.clocks < best.clocks)
                best = candidate;
        }
    }
    return best;
}

/* ---- a launch ---- */

uint64_t fmk_wgmma_room(int64_t m, int32_t multiprocessors) {
    if (m < FMK_WGMMA_DEAL_M || multiprocessors > FMK_WIDE_MOST_BLOCKS)
        return 0;
    return FMK_WIDE_ROOM((uint64_t)multiprocessors);
}

/* A number that no launch had before, and that memory is most unlikely to contain. */
static uint64_t make_nonce(void) {
    static _Atomic uint64_t launches;
    return (atomic_fetch_add_explicit(&launches, 1, memory_order_relaxed) + 1) * 0x9e3779b97f4a7c15u;
}

/* Activations as [experts][k / 64][rows][64], where a box is a stage of few tokens, or [experts][1][rows][k].
 * Their own strides are what the driver takes: see is_aligned in plan.c. */
static fmk_status describe_activations(const struct fmk_context *ctx, struct fmk_wgmma_args *args,
                                       int32_t variant) {
    int32_t tokens = variants[variant].tokens;
    const struct fmk_linear_kernel_args *linear = &args->linear;
    bool pairs = args->start.flags & FMK_WGMMA_PAIRS;
    cuuint64_t stride = (cuuint64_t)linear->in_stride * 2, rows = (cuuint64_t)(linear->m - linear->first_row);
    cuuint64_t expert = args->experts > 1 ? (cuuint64_t)linear->expert_in_stride * 2 : rows * stride;
    cuuint64_t k = (cuuint64_t)linear->k;
    const cuuint64_t strides[] = {stride, pairs ? 2 * FMK_WGMMA_BOX : expert, expert};
    const cuuint64_t sizes[] = {pairs ? FMK_WGMMA_BOX : k, rows, pairs ? k / FMK_WGMMA_BOX : 1,
                                (cuuint64_t)args->experts};
    const cuuint32_t every[] = {1, 1, 1, 1};
    int32_t rows_of_box = is_wide(variant)                ? tokens / (int32_t)variants[variant].blocks
                          : tokens < FMK_WGMMA_BOX_TOKENS ? tokens
                                                          : FMK_WGMMA_BOX_TOKENS;
    const cuuint32_t box[] = {FMK_WGMMA_BOX, (cuuint32_t)rows_of_box, pairs ? 2 : 1, 1};
    char *first = (char *)(uintptr_t)linear->in + (uint64_t)linear->first_row * stride;
    CUresult result = fmk_cuda_of(ctx)->driver->TensorMapEncodeTiled(
        (CUtensorMap *)&args->in,
        linear->in_type == FMK_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
        first, sizes, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return fmk_cuda_check(ctx, result, "describing the activations");
}

/* What kernels would have to divide for. */
static void describe_walk(struct fmk_wgmma_args *args, const struct fmk_wgmma_cut *cut, bool early) {
    const struct fmk_linear_kernel_args *linear = &args->linear;
    const struct fmk_linear_part *part = linear->part;
    int32_t rows = variants[cut->variant].rows / (linear->glu ? 2 : 1),
            tokens = variants[cut->variant].tokens;
    struct fmk_wgmma_start *start = &args->start;
    struct fmk_wgmma_walk *walk = &start->walk;
    *start = (struct fmk_wgmma_start){
        .data = (const uint8_t *)part->data + (uint64_t)linear->expert * part->expert_stride,
        .stride = part->stride,
        .bytes = FMK_T64_UNIT(part->chunks, part->has_zeros),
        .last = (part->n - 1) / FMK_T64_ROWS,
        .row_tiles = (part->n + rows - 1) / rows,
        .units = (linear->k_packed + FMK_WGMMA_K - 1) / FMK_WGMMA_K,
        .per_block = 1.0f / (float)cut->cluster,
        .flags = early ? FMK_WGMMA_AHEAD : 0,
    };
    start->share = (start->units + cut->cluster - 1) / cut->cluster;
    for (int32_t i = 0; i < (linear->glu ? 1 : linear->num_parts); i++)
        walk->row_tiles += (linear->part[i].n + rows - 1) / rows;
    walk->tokens = linear->m - linear->first_row;
    walk->token_tiles = (walk->tokens + tokens - 1) / tokens;
    walk->tiles = walk->row_tiles * walk->token_tiles * args->experts;
    if (args->experts == 1 && walk->token_tiles <= FMK_WGMMA_TOGETHER && walk->tiles < 1 << 20)
        walk->per_row = 1.0f / (float)walk->token_tiles;
    if (walk->per_row != 0 && !linear->m_dev)
        start->flags |= FMK_WGMMA_EARLY;
    if (linear->glu)
        start->flags |= FMK_WGMMA_GLU;
    if (tokens <= FMK_WGMMA_BOX_TOKENS && linear->k % FMK_WGMMA_BOX == 0)
        start->flags |= FMK_WGMMA_PAIRS;
}

fmk_status fmk_wgmma_launch_cut(struct fmk_cuda_order *order, struct fmk_wgmma_args *args,
                                const struct fmk_wgmma_cut *cut) {
    int32_t variant = cut->variant;
    bool early = order->early;
    describe_walk(args, cut, early);
    fmk_status status = describe_activations(order->queue->ctx, args, variant);
    if (status)
        return status;
    if (!cut->dealt)
        args->room = NULL;
    args->nonce = make_nonce();
    struct fmk_cuda_grid grid = {.x = cut->blocks,
                                 .y = 1,
                                 .z = 1,
                                 .threads =
                                     (uint32_t)(128 * variants[variant].warpgroups + FMK_WGMMA_FETCHING),
                                 .shared = FMK_WGMMA_SHARED,
                                 .cluster = (uint32_t)cut->cluster};
    order->early = true;
    return fmk_cuda_launch(order->queue, FMK_MODULE_INT4_WGMMA,
                           variant + (args->linear.in_type == FMK_BF16 ? FMK_WGMMA_VARIANTS : 0), grid, args,
                           early);
}

fmk_status fmk_wgmma_launch(struct fmk_cuda_order *order, struct fmk_wgmma_args *args) {
    const struct fmk_linear_kernel_args *linear = &args->linear;
    struct fmk_wgmma_problem problem = {
        .parts = linear->part,
        .num_parts = linear->num_parts,
        .glu = linear->glu,
        .k = linear->k_packed,
        .m = linear->m - linear->first_row,
        .experts = args->experts,
        .multiprocessors = fmk_cuda_of(order->queue->ctx)->multiprocessors,
        .room = args->room != NULL,
    };
    struct fmk_wgmma_cut cut = fmk_wgmma_choose(&problem);
    return fmk_wgmma_launch_cut(order, args, &cut);
}
