#include "rows.h"

#include "../abi.h"
#include "device.h"
#include "linear.h"

fmk_status fmk_cuda_enqueue(struct fmk_cuda_order *order, int32_t module, int32_t kernel, uint32_t x,
                            uint32_t y, uint32_t z, uint32_t threads, const void *args) {
    struct fmk_cuda_grid grid = {x, y, z, threads, 0, 0};
    bool early = order->early;
    order->early = true;
    return fmk_cuda_launch(order->queue, (enum fmk_cuda_module)module, kernel, grid, args, early);
}

static uint32_t column_blocks(int64_t threads) {
    return (uint32_t)((threads + FMK_ROWS_THREADS - 1) / FMK_ROWS_THREADS);
}

/* Blocks along y. Where rows are few a block takes one of them, so that all are fetched at once. */
static uint32_t spread_rows(const struct fmk_cuda_order *order, struct fmk_rows_set *rows, uint32_t columns,
                            uint32_t tiles, uint32_t experts) {
    if (rows->tiles)
        return tiles;
    int64_t count = rows->m - rows->first, blocks = 2ll * fmk_cuda_of(order->queue->ctx)->multiprocessors;
    rows->block = (int32_t)fmk_max(1, fmk_min(FMK_ROWS_BLOCK, count * columns * experts / blocks));
    return (uint32_t)((count + rows->block - 1) / rows->block);
}

fmk_status fmk_cuda_gather_rows(struct fmk_cuda_order *order, struct fmk_gather_args *args, uint32_t tiles,
                                uint32_t experts) {
    uint32_t columns = column_blocks(args->width / FMK_GATHER_COLUMNS);
    uint32_t blocks = spread_rows(order, &args->rows, columns, tiles, experts);
    return fmk_cuda_enqueue(order, FMK_MODULE_ROWS, FMK_ROWS_GATHER, columns, blocks, experts,
                            FMK_ROWS_THREADS, args);
}

fmk_status fmk_cuda_finish_rows(struct fmk_cuda_order *order, struct fmk_finish_args *args, uint32_t tiles,
                                uint32_t experts) {
    uint32_t columns = column_blocks(args->n);
    uint32_t blocks = spread_rows(order, &args->rows, columns, tiles, experts);
    return fmk_cuda_enqueue(order, FMK_MODULE_ROWS, FMK_ROWS_FINISH, columns, blocks, experts,
                            FMK_ROWS_THREADS, args);
}

fmk_status fmk_cuda_reduce_rows(struct fmk_cuda_order *order, const struct fmk_reduce_args *args) {
    return fmk_cuda_enqueue(order, FMK_MODULE_ROWS, FMK_ROWS_REDUCE, column_blocks(args->width),
                            (uint32_t)(args->m - args->first), 1, FMK_ROWS_THREADS, args);
}

/* ---- routing ---- */

static fmk_status route_step(struct fmk_cuda_order *order, const struct fmk_route_args *args, int32_t kernel,
                             int64_t blocks) {
    bool scan = kernel == FMK_ROWS_ROUTE_SCAN;
    return fmk_cuda_enqueue(order, FMK_MODULE_ROWS, kernel, (uint32_t)blocks, 1, 1,
                            scan ? FMK_ROWS_SCAN_THREADS : FMK_ROWS_THREADS, args);
}

fmk_status fmk_cuda_route_rows(struct fmk_cuda_order *order, const struct fmk_route_args *args, bool small) {
    if (small)
        return route_step(order, args, FMK_ROWS_ROUTE_SMALL, 1);
    /* A few blocks for each multiprocessor: more would only wait. */
    int64_t most = 8ll * fmk_cuda_of(order->queue->ctx)->multiprocessors;
    int64_t pairs = column_blocks(args->end - args->begin);
    int64_t experts = fmk_min(args->experts, most);
    int64_t clear = fmk_min(fmk_max(column_blocks(args->experts + 1ll), args->present ? pairs : 1), most);
    int64_t count = args->ids ? fmk_max(1, fmk_min(pairs, most)) : experts;
    fmk_status status = route_step(order, args, FMK_ROWS_ROUTE_CLEAR, clear);
    if (!status)
        status = route_step(order, args, FMK_ROWS_ROUTE_COUNT, count);
    if (!status)
        status = route_step(order, args, FMK_ROWS_ROUTE_SCAN, 1);
    return status ? status : route_step(order, args, FMK_ROWS_ROUTE_PLACE, experts);
}

fmk_status fmk_cuda_route_sort(struct fmk_queue *queue, const fmk_routing *ids, int64_t m,
                               int32_t num_experts, const fmk_routing *out) {
    int32_t total = (int32_t)(m * ids->top_k);
    struct fmk_route_args args = {
        .ids = fmk_pointer(ids->ids),
        .expert_base = ids->expert_base,
        .experts = num_experts,
        .top_k = ids->top_k,
        .end = total,
        .capacity = total,
        .first = fmk_pointer(out->offsets),
        .out_rows = fmk_pointer(out->pairs),
    };
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    struct fmk_cuda_order order = {queue, false};
    status = fmk_cuda_route_rows(
        &order, &args, !total || (total <= FMK_ROUTE_SMALL_PAIRS && num_experts <= FMK_ROUTE_SMALL_EXPERTS));
    fmk_cuda_leave(queue->ctx, before);
    return status;
}
