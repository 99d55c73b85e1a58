/* Weights back to numbers, on the device: which kernel, its arguments and its grid. */
#include "decode.h"

#include "../abi.h"
#include "../../kernels/decode.h"
#include "../../kernels/layout.h"
#include "device.h"

/* The part from a row on (a multiple of the layout's panels), as the kernels see it. */
static struct fmk_linear_part part_of(const struct fmk_packed *part, int32_t expert, int64_t row,
                                      int64_t rows) {
    int64_t panel = row / part->layout->panel_rows;
    return (struct fmk_linear_part){
        .data = part->data + (uint64_t)expert * part->expert_stride + (uint64_t)panel * part->stride,
        .stride = part->stride,
        .n = (int32_t)rows,
        .dtype = part->dtype,
        .chunks = part->chunks,
        .has_zeros = part->has_zeros,
    };
}

/* What is to be made of a part. */
struct request {
    const struct fmk_packed *part;
    int32_t expert;
    int64_t row, rows;
    uint64_t out;
    fmk_dtype type;
    int64_t stride; /* elements */
    bool natural;   /* in the order of the file, k wide; else in packed order, k_packed wide */
    bool scaled;
};

static int64_t width_of(const struct request *r) {
    return r->natural ? r->part->k : r->part->k_packed;
}

static const float *factor_of(const struct request *r) {
    return r->scaled ? &r->part->range->inverse : NULL; /* an address on the device */
}

/* Whether the kernels that store 16 bytes at a time can serve it. */
static bool in_vectors(const struct request *r) {
    int64_t size = fmk_dtype_size(r->type);
    return r->part->layout->family != FMK_FAMILY_DENSE && !(r->natural && r->part->k_index) &&
           width_of(r) % 8 == 0 && r->out % 16 == 0 && r->stride * size % 16 == 0;
}

static fmk_status decode_units(struct fmk_queue *queue, const struct request *r) {
    bool int4 = r->part->layout->family == FMK_FAMILY_INT4;
    int64_t unit = int4 ? FMK_INT4_UNIT_K : FMK_Q4K_UNIT_K; /* q6_k: as q4_k */
    int64_t units = r->part->k_packed / unit;
    struct fmk_decode_args args = {
        .part = part_of(r->part, r->expert, r->row, r->rows),
        .out = (void *)(uintptr_t)r->out,
        .stride = r->stride,
        .type = r->type,
        .width = (int32_t)width_of(r),
        .units = (int32_t)units,
        .blocks_per_panel = (int32_t)((units + FMK_DECODE_WARPS - 1) / FMK_DECODE_WARPS),
        .factor = factor_of(r),
    };
    int64_t panels = (r->rows + FMK_T16_ROWS - 1) / FMK_T16_ROWS;
    struct fmk_cuda_grid grid = {
        (uint32_t)(panels * args.blocks_per_panel), 1, 1, 32 * FMK_DECODE_WARPS, 0, 0};
    int32_t kernel = r->part->layout->id == FMK_LAYOUT_INT4_T64
                         ? FMK_DECODE_INT4_T64
                         : FMK_DECODE_INT4 + (int32_t)(r->part->layout->family - FMK_FAMILY_INT4);
    return fmk_cuda_launch(queue, FMK_MODULE_DECODE, kernel, grid, &args, false);
}

/* The kernel that writes row by row, for `count` rows. */
static fmk_status write_rows(struct fmk_queue *queue, const struct request *r, const int32_t *ids,
                             int64_t count, int64_t first, int64_t total) {
    struct fmk_lookup_args args = {
        .part = part_of(r->part, r->expert, r->row, r->rows),
        .ids = ids,
        .first = (int32_t)first,
        .total = (int32_t)total,
        .zeroes = first == 0,
        .k_packed = (int32_t)r->part->k_packed,
        .width = (int32_t)width_of(r),
        .type = r->type,
        .out = (void *)(uintptr_t)r->out,
        .stride = r->stride,
        .factor = factor_of(r),
    };
    if (r->natural && r->part->k_index)
        args.part.k_index = r->part->k_index + r->expert * r->part->k_packed;
    struct fmk_cuda_grid grid = {(uint32_t)count, 1, 1, FMK_LOOKUP_THREADS, 0, 0};
    int32_t kernel = r->part->layout->id == FMK_LAYOUT_INT4_T64
                         ? FMK_ROWS_INT4_T64
                         : FMK_ROWS_DENSE + (int32_t)(r->part->layout->family - FMK_FAMILY_DENSE);
    return fmk_cuda_launch(queue, FMK_MODULE_DECODE, kernel, grid, &args, false);
}

static fmk_status make(struct fmk_queue *queue, const struct request *r) {
    if (r->rows <= 0)
        return FMK_OK;
    return in_vectors(r) ? decode_units(queue, r) : write_rows(queue, r, NULL, r->rows, 0, r->rows);
}

fmk_status fmk_cuda_decode(struct fmk_queue *queue, const struct fmk_packed *part, int32_t expert,
                           int64_t row, int64_t rows, uint64_t out, fmk_dtype type, int64_t stride,
                           bool scaled) {
    struct request request = {part, expert, row, rows, out, type, stride, false, scaled};
    return make(queue, &request);
}

fmk_status fmk_cuda_dequantize(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                               void *out, fmk_dtype out_type, int64_t out_stride) {
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    uint64_t at = (uintptr_t)out;
    for (int32_t p = 0; p < w->num_parts && !status; p++) {
        const struct fmk_packed *part = &w->parts[p];
        struct request request = {part, expert, 0, part->n, at, out_type, out_stride, true, false};
        status = make(queue, &request);
        at += (uint64_t)(part->n * out_stride * fmk_dtype_size(out_type));
    }
    fmk_cuda_leave(queue->ctx, before);
    return status;
}

fmk_status fmk_cuda_rows(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *args) {
    if (!args->m)
        return FMK_OK;
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    int64_t first = 0;
    for (int32_t p = 0; p < w->num_parts && !status; p++) {
        const struct fmk_packed *part = &w->parts[p];
        struct request request = {
            .part = part,
            .expert = args->expert,
            .rows = part->n,
            .out = args->out.handle + args->out.offset,
            .type = args->out_type,
            .stride = args->out_stride,
            .natural = true,
        };
        status = write_rows(queue, &request, fmk_pointer(args->ids), args->m, first, w->n);
        first += part->n;
    }
    fmk_cuda_leave(queue->ctx, before);
    return status;
}
