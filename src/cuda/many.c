#include "many.h"

#include "../abi.h"
#include "device.h"

#include "../../kernels/layout.h"

/* us on an H200: of 128 k, of a block that has a multiprocessor to itself, and of two together; 0: there is
 * no room for two. */
static const struct {
    int32_t rows, tokens;
    uint32_t shared, shared_any; /* bytes */
    double alone, together;
} tiles[FMK_MANY_TILES] = {
    [FMK_MANY_128X16] = {128, 16, FMK_MANY_SHARED(128, 16, 128, 0), FMK_MANY_SHARED(128, 16, 128, 1), 0.46,
                         0.82},
    [FMK_MANY_64X32] = {64, 32, FMK_MANY_SHARED(64, 32, 256, 0), FMK_MANY_SHARED(64, 32, 256, 1), 0.35, 0},
    [FMK_MANY_128X32] = {128, 32, FMK_MANY_SHARED(128, 32, 128, 0), FMK_MANY_SHARED(128, 32, 128, 1), 0.60,
                         1.07},
    [FMK_MANY_64X64] = {64, 64, FMK_MANY_SHARED(64, 64, 256, 0), FMK_MANY_SHARED(64, 64, 256, 1), 0.52, 0},
    [FMK_MANY_128X64] = {128, 64, FMK_MANY_SHARED(128, 64, 128, 0), FMK_MANY_SHARED(128, 64, 128, 1), 1.03,
                         1.85},
    [FMK_MANY_128X128] = {128, 128, FMK_MANY_SHARED(128, 128, 64, 0), FMK_MANY_SHARED(128, 128, 64, 1), 1.78,
                          3.1},
};
static const double BESIDE = 2.0; /* us of a block */

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
        .shared = any ? tiles[tile].shared_any : tiles[tile].shared,
    };
    int32_t kernel = tile + FMK_MANY_TILES * ((linear->in_type == FMK_BF16 ? 1 : 0) + (any ? 2 : 0));
    bool early = order->early;
    order->early = true;
    return fmk_cuda_launch(order->queue, FMK_MODULE_INT4_MANY, kernel, grid, args, early);
}

/* us that so many blocks take. */
static double time_of(int32_t tile, int64_t blocks, int64_t units, int64_t multiprocessors) {
    double alone = BESIDE + units * tiles[tile].alone, together = BESIDE + units * tiles[tile].together;
    if (!tiles[tile].together)
        return alone * (double)((blocks + multiprocessors - 1) / multiprocessors);
    int64_t rest = blocks % (2 * multiprocessors);
    return together * (double)(blocks / (2 * multiprocessors)) + (!rest                     ? 0.0
                                                                  : rest <= multiprocessors ? alone
                                                                                            : together);
}

fmk_status fmk_many_launch(struct fmk_cuda_order *order, const struct fmk_many_args *args, uint32_t experts,
                           bool any) {
    const struct fmk_cuda *cuda = fmk_cuda_of(order->queue->ctx);
    const struct fmk_linear_kernel_args *linear = &args->linear;
    int32_t best = -1;
    double least = 0.0;
    for (int32_t i = 0; i < FMK_MANY_TILES; i++) {
        if ((any ? tiles[i].shared_any : tiles[i].shared) > (uint32_t)cuda->shared_bytes)
            continue;
        int64_t blocks = row_tiles(linear, tiles[i].rows) * token_tiles(linear, tiles[i].tokens) * experts;
        double time = time_of(i, blocks, linear->k_packed / FMK_INT4_UNIT_K, cuda->multiprocessors);
        if (best < 0 || time < least) {
            best = i;
            least = time;
        }
    }
    return fmk_many_launch_tile(order, args, experts, any, best);
}
