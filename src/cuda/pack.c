/* Dense rows and K-quants, and what they share with int4. */
#include "pack.h"

#include "../../kernels/layout.h"
#include "../../kernels/pack.h"
#include "../abi.h"
#include "../error.h"
#include "../formats/format.h"
#include "../formats/k_quants.h"
#include "../parallel.h"

enum { GRID_Y = 65535 };

fmk_status fmk_pack_advance(struct fmk_pack *pack, uint64_t bytes) {
    struct fmk_context *ctx = pack->stage.queue->ctx;
    fmk_cuda_leave(ctx, pack->before);
    fmk_status status = fmk_progress(pack->fill->progress, bytes);
    CUcontext again;
    return status ? status : fmk_cuda_enter(ctx, &again);
}

bool fmk_pack_in_place(const struct fmk_pack *pack) {
    return pack->fill->source->part.qweight.memory == FMK_MEM_DEVICE;
}

fmk_status fmk_pack_order(struct fmk_pack *pack, int64_t expert, int64_t row, int64_t rows,
                          const int32_t **order) {
    const fmk_tensor *tensor = &pack->fill->source->part.n_order;
    *order = NULL;
    if (!tensor->data.handle)
        return FMK_OK;
    struct fmk_staged piece;
    fmk_status status = fmk_stage_take(&pack->stage, 4 * (uint64_t)rows, &piece);
    if (status)
        return status;
    memcpy(piece.host, fmk_tensor_data(tensor, expert) + 4 * row, 4 * (size_t)rows);
    *order = (const int32_t *)(uintptr_t)piece.device;
    return fmk_stage_send(&pack->stage, &piece, piece.host, 4 * (uint64_t)rows);
}

fmk_status fmk_pack_rows_at_once(struct fmk_pack *pack, uint64_t row_bytes, uint64_t fixed, int64_t left,
                                 int64_t *rows) {
    uint64_t size = fmk_stage_size(&pack->stage), room = fmk_stage_room(&pack->stage);
    uint64_t all = fixed + row_bytes * (uint64_t)left;
    if (room < size / 4 && all > room)
        room = size; /* a fresh slot: slices of a few rows cost more than they save */
    int64_t fit = room > fixed ? (int64_t)((room - fixed) / row_bytes) : 0;
    if (fit < FMK_T16_ROWS && size > fixed)
        fit = (int64_t)((size - fixed) / row_bytes);
    *rows = fmk_min(left, fit >= 64 ? fit / 64 * 64 : fit / FMK_T16_ROWS * FMK_T16_ROWS);
    if (*rows > 0)
        return FMK_OK;
    return fmk_fail(
        FMK_EUNSUPPORTED,
        "k %lld: 16 rows take %llu bytes, and a quarter of staging_bytes is %llu; give the context "
        "more",
        (long long)pack->fill->source->k, (unsigned long long)(fixed + row_bytes * FMK_T16_ROWS),
        (unsigned long long)size);
}

/* ---- rows of the file into a slot ---- */

struct gather {
    const struct fmk_source *source;
    int64_t expert, row, rows, rows_per_task;
    uint64_t row_bytes;
    uint8_t *to;
};

static void gather_task(void *arg, int64_t i) {
    const struct gather *g = arg;
    int64_t end = fmk_min((i + 1) * g->rows_per_task, g->rows);
    for (int64_t r = i * g->rows_per_task; r < end; r++)
        fmk_stage_copy(g->to + (uint64_t)r * g->row_bytes, fmk_source_row(g->source, g->expert, g->row + r),
                       g->row_bytes);
    fmk_stage_copied();
}

/* Rows to `to` on the device, or to where the piece of a slot has its place there (0); *place is where they
 * are. Pinned rows that lie one behind the other need no slot on the host. */
static fmk_status send_rows(struct fmk_pack *pack, int64_t expert, int64_t row, int64_t rows,
                            uint64_t row_bytes, uint64_t to, uint64_t *place) {
    const struct fmk_source *source = pack->fill->source;
    const fmk_part *part = &source->part;
    uint64_t bytes = row_bytes * (uint64_t)rows;
    const uint8_t *first = fmk_source_row(source, expert, row);
    bool direct =
        part->qweight.memory == FMK_MEM_HOST_PINNED && source->k == part->k && !part->n_order.data.handle;
    struct fmk_staged piece = {0};
    fmk_status status = direct && to ? FMK_OK : fmk_stage_take(&pack->stage, bytes, &piece);
    if (status)
        return status;
    if (!direct) {
        int64_t rows_per_task = fmk_max(1, FMK_STAGE_TASK / (int64_t)row_bytes);
        struct gather g = {source, expert, row, rows, rows_per_task, row_bytes, piece.host};
        fmk_parallel(pack->stage.queue->ctx, gather_task, &g, (rows + rows_per_task - 1) / rows_per_task);
        first = piece.host;
    }
    *place = to ? to : piece.device;
    return to ? fmk_stage_direct(&pack->stage, to, first, bytes)
              : fmk_stage_send(&pack->stage, &piece, first, bytes);
}

/* Row 0 of the shard in its tensor, whatever the order. */
static uint64_t first_row(const struct fmk_source *source, int64_t expert, uint64_t file_row_bytes,
                          uint64_t k_bytes) {
    uint64_t base = (uint64_t)(uintptr_t)fmk_tensor_data(&source->part.qweight, expert);
    return base + (uint64_t)source->part.n_begin * file_row_bytes + k_bytes;
}

static int32_t alignment_of(uint64_t places, int32_t widest) {
    for (; places % (uint64_t)widest; widest /= 2)
        ;
    return widest;
}

/* ---- dense ---- */

static fmk_status move_rows(struct fmk_pack *pack, int64_t expert, uint64_t to) {
    const struct fmk_source *source = pack->fill->source;
    const struct fmk_packed *packed = pack->fill->packed;
    uint64_t size = (uint64_t)fmk_dtype_size(packed->dtype), file_row = (uint64_t)source->part.k * size;
    struct fmk_pack_rows_args args = {
        .from_stride = (int64_t)file_row,
        .to_stride = (int64_t)packed->stride,
        .bytes = (int64_t)packed->stride,
    };
    uint64_t from = first_row(source, expert, file_row, (uint64_t)source->part.k_begin * size);
    args.alignment = alignment_of(from | to | file_row | packed->stride, 16);
    if (args.alignment < 16)
        args.alignment = args.alignment < 4 ? 1 : 4;
    fmk_status status = FMK_OK;
    for (int64_t row = 0, rows; row < source->n && !status; row += rows) {
        rows = fmk_min(source->n - row, (int64_t)(fmk_stage_size(&pack->stage) / 4));
        status = fmk_pack_order(pack, expert, row, rows, &args.order);
        if (status)
            return status;
        args.from = (const uint8_t *)(uintptr_t)(args.order ? from : from + (uint64_t)row * file_row);
        args.to = (uint8_t *)(uintptr_t)(to + (uint64_t)row * packed->stride);
        struct fmk_cuda_grid grid = {(uint32_t)rows, 1, 1, FMK_PACK_COPY_THREADS, 0, 0};
        status = fmk_cuda_launch(pack->stage.queue, FMK_MODULE_PACK, FMK_PACK_ROWS, grid, &args, false);
        if (!status)
            status = fmk_pack_advance(pack, (uint64_t)rows * packed->stride);
    }
    return status;
}

fmk_status fmk_pack_dense(struct fmk_pack *pack, int64_t expert) {
    const struct fmk_source *source = pack->fill->source;
    const struct fmk_packed *packed = pack->fill->packed;
    uint64_t to = (uint64_t)(uintptr_t)packed->data + (uint64_t)expert * packed->expert_stride;
    if (fmk_pack_in_place(pack))
        return move_rows(pack, expert, to);
    fmk_status status = FMK_OK;
    uint64_t row_bytes = packed->stride, size = fmk_stage_size(&pack->stage);
    for (int64_t row = 0, rows; row < source->n && !status; row += rows) {
        rows = fmk_min(source->n - row, fmk_max(1, (int64_t)(size / row_bytes)));
        uint64_t place = to + (uint64_t)row * row_bytes;
        if (row_bytes > size)
            status = fmk_stage_upload(&pack->stage, place, fmk_source_row(source, expert, row), row_bytes);
        else
            status = send_rows(pack, expert, row, rows, row_bytes, place, &place);
        if (!status)
            status = fmk_pack_advance(pack, (uint64_t)rows * row_bytes);
    }
    return status;
}

/* ---- K-quants ---- */

/* Rows of blocks into their panels. args: blocks, order, row_bytes, alignment. */
static fmk_status pack_blocks(struct fmk_pack *pack, int64_t expert, int64_t row, int64_t rows,
                              struct fmk_pack_blocks_args *args) {
    const struct fmk_packed *packed = pack->fill->packed;
    bool q4k = packed->layout->family == FMK_FAMILY_Q4_K;
    args->out = (uint8_t *)(uintptr_t)packed->data + (uint64_t)expert * packed->expert_stride +
                (uint64_t)(row / FMK_T16_ROWS) * packed->stride;
    args->largest = (float *)(uintptr_t)packed->range;
    args->stride = packed->stride;
    args->rows = (int32_t)rows;
    args->units = (int32_t)(packed->k / FMK_SUPER_BLOCK);
    struct fmk_cuda_grid grid = {
        (uint32_t)((args->units + FMK_PACK_WARPS - 1) / FMK_PACK_WARPS),
        (uint32_t)((rows + FMK_T16_ROWS - 1) / FMK_T16_ROWS),
        1,
        32 * FMK_PACK_WARPS,
        0,
        0,
    };
    fmk_status status = fmk_cuda_launch(pack->stage.queue, FMK_MODULE_PACK, q4k ? FMK_PACK_Q4K : FMK_PACK_Q6K,
                                        grid, args, false);
    return status ? status : fmk_pack_advance(pack, grid.y * packed->stride);
}

fmk_status fmk_pack_k_quant(struct fmk_pack *pack, int64_t expert) {
    const struct fmk_source *source = pack->fill->source;
    bool q4k = source->family == FMK_FAMILY_Q4_K, in_place = fmk_pack_in_place(pack);
    uint64_t block = q4k ? FMK_Q4K_BLOCK : FMK_Q6K_BLOCK;
    uint64_t row_bytes = (uint64_t)source->k / FMK_SUPER_BLOCK * block;
    uint64_t file_row = (uint64_t)source->part.k / FMK_SUPER_BLOCK * block;
    uint64_t from =
        first_row(source, expert, file_row, (uint64_t)source->part.k_begin / FMK_SUPER_BLOCK * block);
    fmk_status status = FMK_OK;
    for (int64_t row = 0, rows; row < source->n && !status; row += rows) {
        struct fmk_pack_blocks_args args = {.row_bytes = (int64_t)(in_place ? file_row : row_bytes)};
        status = fmk_pack_rows_at_once(pack, in_place ? 4 : row_bytes, 0, source->n - row, &rows);
        if (status)
            return status;
        rows = fmk_min(rows, (int64_t)GRID_Y * FMK_T16_ROWS);
        if (in_place) {
            status = fmk_pack_order(pack, expert, row, rows, &args.order);
            args.blocks = (const uint8_t *)(uintptr_t)(args.order ? from : from + (uint64_t)row * file_row);
            args.alignment = alignment_of(from | file_row | block, 4);
        } else {
            uint64_t place = 0;
            status = send_rows(pack, expert, row, rows, row_bytes, 0, &place);
            args.blocks = (const uint8_t *)(uintptr_t)place;
            args.alignment = alignment_of(block, 4);
        }
        if (!status)
            status = pack_blocks(pack, expert, row, rows, &args);
    }
    return status;
}
