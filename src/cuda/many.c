#include "many.h"

#include "../abi.h"
#include "device.h"

/* `work`: of a block, as far as it is more than its tile's area. */
static const struct {
    int32_t rows, tokens;
    double work;
} tiles[] = {[FMK_MANY_128X128] = {128, 128, 1.0}, [FMK_MANY_64X64] = {64, 64, 1.15}};
enum { TILES = sizeof tiles / sizeof tiles[0] };

static int64_t token_tiles(const struct fmk_linear_kernel_args *linear, int32_t tokens) {
    return (linear->m - linear->first_row + (int64_t)tokens - 1) / tokens;
}

static int64_t row_tiles(const struct fmk_linear_kernel_args *linear, int32_t rows) {
    int64_t count = 0;
    if (linear->glu)
        return (linear->part[0].n + rows / 2 - 1) / (rows / 2);
    for (int32_t i = 0; i < linear->num_parts; i++)
        count += (linear->part[i].n + rows - 1) / rows;
    return count;
}

fmk_status fmk_many_launch_tile(struct fmk_cuda_order *order, const struct fmk_many_args *args,
                                uint32_t experts, bool any, int32_t tile) {
    const struct fmk_linear_kernel_args *linear = &args->linear;
    struct fmk_cuda_grid grid = {
        .x = (uint32_t)row_tiles(linear, tiles[tile].rows),
        .y = (uint32_t)token_tiles(linear, tiles[tile].tokens),
        .z = experts,
        .threads = FMK_MANY_THREADS,
        .shared = (uint32_t)FMK_MANY_SHARED(any),
    };
    int32_t kernel = tile + (linear->in_type == FMK_BF16 ? FMK_MANY_BF16 : 0) + (any ? FMK_MANY_ANY : 0);
    bool early = order->early;
    order->early = true;
    return fmk_cuda_launch(order->queue, FMK_MODULE_INT4_MANY, kernel, grid, args, early);
}

/* The tile with which the multiprocessors have least to do. */
fmk_status fmk_many_launch(struct fmk_cuda_order *order, const struct fmk_many_args *args, uint32_t experts,
                           bool any) {
    int64_t multiprocessors = fmk_cuda_of(order->queue->ctx)->multiprocessors;
    int32_t best = 0;
    double least = 0.0;
    for (int32_t i = 0; i < TILES; i++) {
        int64_t count =
            row_tiles(&args->linear, tiles[i].rows) * token_tiles(&args->linear, tiles[i].tokens) * experts;
        int64_t turns = (count + multiprocessors - 1) / multiprocessors;
        double work = (double)(turns * tiles[i].rows * tiles[i].tokens) * tiles[i].work;
        if (i == 0 || work < least) {
            best = i;
            least = work;
        }
    }
    return fmk_many_launch_tile(order, args, experts, any, best);
}
