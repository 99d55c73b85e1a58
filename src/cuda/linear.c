/* One linear call on CUDA, slab by slab: list the rows by expert, gather them, multiply, finish, reduce. */
#include "linear.h"

#include "../../kernels/dense_one.h"
#include "../../kernels/layout.h"
#include "../../kernels/plain.h"
#include "../abi.h"
#include "../error.h"
#include "cublas.h"
#include "decode.h"
#include "device.h"
#include "few.h"
#include "many.h"
#include "once.h"
#include "plan.h"
#include "rows.h"
#include "wgmma.h"

/* What the steps of a slab have in common. Rows are numbered as the call numbers them, or where they are
 * routed by their place in the slab's list: `base` is the number that the workspace's first row has. */
struct slab {
    const struct fmk_cuda_plan *plan;
    struct fmk_cuda_order order;
    const fmk_linear_args *args;
    uint64_t workspace;
    int64_t begin, end; /* units */
    int64_t base;
    int64_t rows;     /* that the workspace has room for, of each expert */
    int32_t expert;   /* BATCH: the slab's first, else the expert of all rows */
    uint32_t experts; /* BATCH: of the slab, else 1 */
};

static uint64_t address_of(fmk_buffer buffer) {
    return buffer.handle ? buffer.handle + buffer.offset : 0;
}

/* An array of the workspace, as if row 0 were in it too. */
static void *row_zero(const struct slab *slab, uint64_t at, int64_t row_bytes) {
    return (void *)(uintptr_t)(slab->workspace + at - (uint64_t)(slab->base * row_bytes));
}

static void *at(const struct slab *slab, uint64_t offset) {
    return (void *)(uintptr_t)(slab->workspace + offset);
}

/* Blocks along y for the slab's rows. */
static uint32_t row_blocks(const struct slab *slab, int32_t tile) {
    return slab->plan->routed ? (uint32_t)slab->plan->num_tiles
                              : (uint32_t)((slab->end - slab->begin + tile - 1) / tile);
}

static struct fmk_rows_set rows_set(const struct slab *slab) {
    const struct fmk_cuda_plan *plan = slab->plan;
    return (struct fmk_rows_set){
        .tiles = plan->routed ? at(slab, plan->at_tiles) : NULL,
        .expert = slab->expert,
        .first = (int32_t)slab->begin,
        .m = (int32_t)slab->end,
        .m_dev = fmk_pointer(slab->args->m_dev),
    };
}

static const int32_t *listed(const struct slab *slab, uint64_t offset) {
    return slab->plan->routed ? at(slab, offset) : NULL;
}

/* ---- routing ---- */

static fmk_status route(struct slab *slab) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_call *call = plan->call;
    const fmk_routing *r = &call->routing;
    int64_t top_k = call->rows_per_token, limit = call->rows;
    if (r->pairs.handle && r->pairs.size)
        limit = fmk_min(limit, (int64_t)(r->pairs.size / 4));
    struct fmk_route_args args = {
        .ids = r->kind == FMK_ROUTE_IDS ? fmk_pointer(r->ids) : NULL,
        .offsets = fmk_pointer(r->offsets),
        .pairs = fmk_pointer(r->pairs),
        .expert_base = r->expert_base,
        .experts = plan->w->num_experts,
        .top_k = (int32_t)top_k,
        .in_per_pair = r->in_per_pair || !call->pairs,
        .begin = (int32_t)(slab->begin * top_k),
        .end = (int32_t)(slab->end * top_k),
        .sorted_limit = (int32_t)limit,
        .capacity = (int32_t)slab->rows,
        .m_dev = fmk_pointer(slab->args->m_dev),
        .first = plan->small_route ? NULL : at(slab, plan->at_first),
        .first_tile = plan->small_route ? NULL : at(slab, plan->at_first_tile),
        .out_rows = at(slab, plan->at_out_rows),
        .in_rows = at(slab, plan->at_in_rows),
        .present = call->reduce ? at(slab, plan->at_present) : NULL,
        .tiles = at(slab, plan->at_tiles),
        .num_tiles = plan->num_tiles,
        .tile = plan->tile,
    };
    return fmk_cuda_route_rows(&slab->order, &args, plan->small_route);
}

/* ---- gather ---- */

/* Rows of `in` that there are, as far as the caller told. */
static int64_t rows_of_in(const struct slab *slab) {
    const fmk_linear_args *a = slab->args;
    int64_t elements = (int64_t)(a->in.size / (uint64_t)fmk_dtype_size(a->in_type)), k = slab->plan->w->k;
    if (!a->in_rows.handle || !a->in.size)
        return INT64_MAX;
    return elements < k ? 0 : (elements - k) / a->in_stride + 1;
}

static fmk_status gather(struct slab *slab, const struct fmk_cuda_form *form) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    const fmk_routing *r = &plan->call->routing;
    int64_t size = fmk_dtype_size(form->type);
    int64_t all = slab->rows * (int64_t)slab->experts;
    struct fmk_gather_args args = {
        .rows = rows_set(slab),
        .in = (const char *)fmk_pointer(a->in) +
              (r->kind == FMK_ROUTE_BATCH ? slab->expert * r->expert_in_stride * fmk_dtype_size(a->in_type)
                                          : 0),
        .in_stride = a->in_stride,
        .expert_in_stride = r->expert_in_stride,
        .in_type = a->in_type,
        .k = (int32_t)plan->w->k,
        .in_rows = plan->routed ? at(slab, plan->at_in_rows) : fmk_pointer(a->in_rows),
        .in_limit = rows_of_in(slab),
        .k_index = form->index ? form->index->k_index : NULL,
        .k_packed = form->index ? (int32_t)form->index->k_packed : 0,
        .width = (int32_t)form->width,
        .out = row_zero(slab, form->at, form->width * size),
        .out_stride = form->width,
        .expert_out_stride = slab->rows * form->width,
        .plane_stride = all * form->width,
        .out_type = form->type,
        .planes = form->planes,
        .zero_rest = plan->gemm,
    };
    return fmk_cuda_gather_rows(&slab->order, &args, (uint32_t)plan->num_tiles, slab->experts);
}

/* ---- multiply: our kernels ---- */

static struct fmk_epilogue_args epilogue(const struct slab *slab) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_call *call = plan->call;
    const fmk_linear_args *a = slab->args;
    struct fmk_epilogue_args e = {
        .out = fmk_pointer(a->out),
        .addend = call->reduce ? NULL : fmk_pointer(a->addend),
        .weights = fmk_pointer(call->routing.pair_weights),
        .out_stride = a->out_stride,
        .addend_stride = a->addend_stride,
        .out_type = a->out_type,
        .addend_type = a->addend_type,
        .act = a->act,
        .up_column = (int32_t)(plan->w->n / 2),
        .alpha = a->act_alpha,
        .limit = a->act_limit,
    };
    if (call->routing.kind == FMK_ROUTE_BATCH)
        e.out = (char *)e.out + slab->expert * call->routing.expert_out_stride * fmk_dtype_size(a->out_type);
    if (call->reduce) { /* a row for each pair of the slab */
        int64_t first = slab->begin * call->rows_per_token;
        e.out = (char *)at(slab, plan->at_pairs) - first * call->width * 4;
        e.out_stride = call->width;
        e.out_type = FMK_F32;
    }
    return e;
}

/* Sums of a window, to be finished by another kernel. */
static struct fmk_epilogue_args plain_sums(const struct slab *slab, int64_t stride) {
    return (struct fmk_epilogue_args){
        .out = row_zero(slab, slab->plan->at_sums, stride * 4),
        .out_stride = stride,
        .out_type = FMK_F32,
    };
}

static struct fmk_linear_part part_args(const struct fmk_packed *part, bool bias) {
    return (struct fmk_linear_part){
        .data = part->data,
        .bias = bias ? part->bias : NULL,
        .expert_stride = part->expert_stride,
        .stride = part->stride,
        .n = (int32_t)part->n,
        .dtype = part->dtype,
        .chunks = part->chunks,
        .has_zeros = part->has_zeros,
        .k_index = part->k_index,
    };
}

static int64_t column_of(const struct fmk_projection *w, int32_t p) {
    int64_t column = 0;
    while (p)
        column += w->parts[--p].n;
    return column;
}

static void point_at_activations(const struct slab *slab, const struct fmk_cuda_product *product,
                                 struct fmk_linear_kernel_args *args) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_cuda_form *form = &plan->forms[product->form];
    const fmk_linear_args *a = slab->args;
    const fmk_routing *r = &plan->call->routing;
    args->in_type = form->type;
    args->planes = form->planes;
    if (form->direct) {
        int64_t shift = r->kind == FMK_ROUTE_BATCH ? slab->expert * r->expert_in_stride : 0;
        args->in = (const char *)fmk_pointer(a->in) + shift * fmk_dtype_size(a->in_type);
        args->in_stride = a->in_stride;
        args->expert_in_stride = r->expert_in_stride;
        args->in_rows = listed(slab, plan->at_in_rows);
        args->k = (int32_t)plan->w->k;
    } else {
        args->in = row_zero(slab, form->at, form->width * fmk_dtype_size(form->type));
        args->in_stride = form->width;
        args->expert_in_stride = slab->rows * form->width;
        args->plane_stride = slab->rows * (int64_t)slab->experts * form->width;
        args->k = (int32_t)(form->index || product->path < FMK_CUDA_PLAIN ? form->width : plan->w->k);
    }
}

/* Blocks that run at once walk over all of the rows' blocks, each over as many as another. With one token,
 * where there is little to do between two loads, each row block gets a block of its own; unless that would be
 * less than two rounds, and no kernel that starts early fills the second: then those that run at once take
 * what there is. */
static uint32_t walkers(const struct slab *slab, int64_t blocks, int32_t resident, uint32_t y) {
    int64_t at_once = (int64_t)resident * fmk_cuda_of(slab->order.queue->ctx)->multiprocessors;
    int64_t all = blocks * y * slab->experts;
    if (slab->plan->tile == 1)
        return (uint32_t)(all < 2 * at_once && !(slab->args->flags & FMK_LINEAR_PDL)
                              ? fmk_min(blocks, fmk_max(1, at_once / (y * slab->experts)))
                              : blocks);
    int64_t turns = fmk_max(1, (all + at_once - 1) / at_once);
    return (uint32_t)((blocks + turns - 1) / turns);
}

/* Rows of weights and threads of a block, and blocks that run at once on a multiprocessor. */
static const struct {
    int32_t rows, threads, resident;
} variants[FMK_MMA_VARIANTS] = {
    [FMK_MMA_16X1] = {16, 256, 3}, [FMK_MMA_32X1] = {32, 128, 5},  [FMK_MMA_16X8] = {16, 256, 3},
    [FMK_MMA_32X8] = {32, 128, 5}, [FMK_MMA_32X16] = {32, 128, 3}, [FMK_MMA_32X32] = {32, 128, 2},
};

static int32_t variant_for(int32_t tile, bool narrow) {
    switch (tile) {
    case 1:
        return narrow ? FMK_MMA_16X1 : FMK_MMA_32X1;
    case 8:
        return narrow ? FMK_MMA_16X8 : FMK_MMA_32X8;
    default:
        return tile == 16 ? FMK_MMA_32X16 : FMK_MMA_32X32;
    }
}

static fmk_status launch_mma(struct slab *slab, const struct fmk_cuda_product *product,
                             const struct fmk_linear_kernel_args *args) {
    static const enum fmk_cuda_module modules[] = {
        [FMK_FAMILY_DENSE] = FMK_MODULE_DENSE_MMA,
        [FMK_FAMILY_INT4] = FMK_MODULE_INT4_MMA,
        [FMK_FAMILY_Q4_K] = FMK_MODULE_Q4K_MMA,
        [FMK_FAMILY_Q6_K] = FMK_MODULE_Q6K_MMA,
    };
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_packed *part = &plan->w->parts[product->parts[0]];
    int32_t tile = plan->tile, variant = variant_for(tile, product->narrow);
    int32_t rows = product->glu ? 16 : variants[variant].rows, kernel = variant;
    fmk_dtype type = plan->forms[product->form].type;
    if (part->layout->family == FMK_FAMILY_DENSE)
        kernel += (type == FMK_BF16 ? FMK_MMA_VARIANTS : 0) - FMK_MMA_16X8 * (type == FMK_BF16 ? 2 : 1);
    else
        kernel += type == FMK_BF16 ? FMK_MMA_VARIANTS : type == FMK_F32 ? FMK_MMA_F32 : 0;
    if (fmk_cuda_any_groups(part))
        kernel += FMK_MMA_KERNELS;
    int64_t blocks = 0;
    for (int32_t i = 0; i < (product->glu ? 1 : args->num_parts); i++)
        blocks += (args->part[i].n + rows - 1) / rows;
    uint32_t y = row_blocks(slab, tile);
    return fmk_cuda_enqueue(&slab->order, modules[part->layout->family], kernel,
                            walkers(slab, blocks, variants[variant].resident, y), y, slab->experts,
                            (uint32_t)variants[variant].threads, args);
}

static fmk_status launch_once(struct slab *slab, uint32_t y, const struct fmk_linear_kernel_args *linear) {
    int32_t tile = slab->plan->tile;
    struct fmk_once_args args = {.linear = *linear};
    struct fmk_cuda_grid grid = {.y = y, .z = slab->experts};
    bool early = slab->order.early;
    int32_t kernel = fmk_once_share(fmk_cuda_of(slab->order.queue->ctx), tile, early, &args, &grid) +
                     (linear->in_type == FMK_BF16 ? FMK_ONCE_BF16 : 0);
    slab->order.early = true;
    return fmk_cuda_launch(slab->order.queue, FMK_MODULE_INT4_ONCE, kernel, grid, &args, early);
}

static fmk_status launch_few(struct slab *slab, const struct fmk_cuda_product *product,
                             const struct fmk_linear_kernel_args *linear) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_cuda_form *form = &plan->forms[product->form];
    const struct fmk_packed *part = &plan->w->parts[product->parts[0]];
    const bool floats = form->type == FMK_F32, any = fmk_cuda_any_groups(part);
    uint32_t y = row_blocks(slab, plan->tile);
    struct fmk_few_args args = {.linear = *linear};
    struct fmk_few_product shape = {
        .units = part->k_packed / FMK_INT4_UNIT_K,
        .tiles = slab->experts * (plan->routed ? fmk_min(y, slab->rows) : y),
        .tokens = plan->tile,
        .planes = floats ? 3 : 1,
        .row = form->direct && form->index && !floats ? 2 * plan->w->k : 0,
        .exact_tiles = !plan->routed || plan->tile == 1,
        .any = any,
        .glu = product->glu,
        .invariant = slab->args->flags & FMK_LINEAR_BATCH_INVARIANT,
    };
    for (int32_t i = 0; i < product->num_parts; i++) {
        part = &plan->w->parts[product->parts[i]];
        shape.unit = fmk_max(shape.unit, FMK_T64_UNIT(part->chunks, part->has_zeros));
        if (i == 0 || !product->glu)
            shape.blocks += (part->n + FMK_T64_ROWS - 1) / FMK_T64_ROWS;
        if (!form->direct)
            args.linear.part[i].k_index = NULL; /* activations are in packed order */
    }
    if (!floats && !shape.invariant &&
        fmk_once_serves(fmk_cuda_of(slab->order.queue->ctx), &args.linear, plan->tile))
        return launch_once(slab, y, &args.linear);
    int32_t kernel = (plan->tile == 1   ? FMK_FEW_1
                      : plan->tile == 8 ? FMK_FEW_8
                                        : FMK_FEW_16) +
                     (floats                   ? FMK_FEW_F32
                      : form->type == FMK_BF16 ? FMK_FEW_BF16
                                               : 0) +
                     (any ? FMK_FEW_ANY : 0);
    struct fmk_cuda_grid grid = {.y = y, .z = slab->experts};
    fmk_few_share(fmk_cuda_of(slab->order.queue->ctx), &shape, &args, &grid);
    bool early = slab->order.early;
    slab->order.early = true;
    return fmk_cuda_launch(slab->order.queue, FMK_MODULE_INT4_FEW, kernel, grid, &args, early);
}

static fmk_status launch_wgmma(struct slab *slab, const struct fmk_cuda_product *product,
                               const struct fmk_linear_kernel_args *linear) {
    struct fmk_wgmma_args args = {.linear = *linear, .experts = (int32_t)slab->experts};
    if (slab->plan->room)
        args.room = at(slab, slab->plan->at_room);
    for (int32_t i = 0; i < product->num_parts; i++)
        args.range[i] = (const float *)slab->plan->w->parts[product->parts[i]].range;
    return fmk_wgmma_launch(&slab->order, &args);
}

static fmk_status launch_many(struct slab *slab, const struct fmk_cuda_product *product,
                              const struct fmk_linear_kernel_args *linear) {
    const struct fmk_packed *part = &slab->plan->w->parts[product->parts[0]];
    struct fmk_many_args args = {.linear = *linear};
    for (int32_t i = 0; i < product->num_parts; i++)
        args.range[i] = (const float *)slab->plan->w->parts[product->parts[i]].range;
    return fmk_many_launch(&slab->order, &args, slab->experts, fmk_cuda_any_groups(part));
}

static fmk_status launch_one(struct slab *slab, const struct fmk_cuda_product *product,
                             const struct fmk_linear_kernel_args *args) {
    int32_t weights = slab->plan->w->parts[product->parts[0]].dtype;
    int64_t blocks = 0;
    for (int32_t i = 0; i < args->num_parts; i++)
        blocks += FMK_DENSE_ONE_BLOCKS((int64_t)args->part[i].n);
    if (product->glu)
        blocks = (args->part[0].n + FMK_DENSE_ONE_ROWS / 2 - 1) / (FMK_DENSE_ONE_ROWS / 2);
    return fmk_cuda_enqueue(&slab->order, FMK_MODULE_DENSE_ONE,
                            3 * (weights - FMK_F16) + args->in_type - FMK_F16, (uint32_t)blocks,
                            row_blocks(slab, 1), slab->experts, FMK_DENSE_ONE_THREADS, args);
}

static fmk_status launch_plain(struct slab *slab, const struct fmk_cuda_product *product,
                               const struct fmk_linear_kernel_args *args) {
    const struct fmk_layout *layout = slab->plan->w->parts[product->parts[0]].layout;
    int32_t kernel = layout->id == FMK_LAYOUT_INT4_T64 ? FMK_PLAIN_INT4_T64 : (int32_t)layout->family;
    int64_t blocks = 0;
    for (int32_t i = 0; i < (product->glu ? 1 : args->num_parts); i++)
        blocks += FMK_PLAIN_BLOCKS((int64_t)args->part[i].n);
    return fmk_cuda_enqueue(
        &slab->order, FMK_MODULE_PLAIN, kernel + (product->path == FMK_CUDA_DOUBLE ? FMK_PLAIN_DOUBLE : 0),
        (uint32_t)blocks, row_blocks(slab, FMK_PLAIN_TOKENS), slab->experts, FMK_PLAIN_THREADS, args);
}

static fmk_status multiply(struct slab *slab, const struct fmk_cuda_product *product) {
    const struct fmk_cuda_plan *plan = slab->plan;
    struct fmk_linear_kernel_args args = {
        .num_parts = product->num_parts,
        .glu = product->glu,
        .k_packed = (int32_t)plan->w->parts[product->parts[0]].k_packed,
        .expert = slab->expert,
        .m = (int32_t)slab->end,
        .first_row = (int32_t)slab->begin,
        .m_dev = fmk_pointer(slab->args->m_dev),
        .expert_out_stride = plan->call->routing.expert_out_stride,
        .tiles = plan->routed ? at(slab, plan->at_tiles) : NULL,
        .out_rows = listed(slab, plan->at_out_rows),
        .epilogue = epilogue(slab),
    };
    if (plan->split_glu) {
        args.epilogue = plain_sums(slab, 2 * plan->window);
        args.expert_out_stride = slab->rows * 2 * plan->window;
        args.out_rows = NULL;
    }
    for (int32_t i = 0; i < product->num_parts; i++) {
        args.part[i] = part_args(&plan->w->parts[product->parts[i]], !plan->split_glu);
        args.part[i].column = (int32_t)column_of(plan->w, product->parts[i]);
    }
    point_at_activations(slab, product, &args);
    if (product->path == FMK_CUDA_ONE)
        return launch_one(slab, product, &args);
    if (product->path == FMK_CUDA_MANY)
        return launch_many(slab, product, &args);
    if (product->path == FMK_CUDA_FEW)
        return launch_few(slab, product, &args);
    if (product->path == FMK_CUDA_WGMMA)
        return launch_wgmma(slab, product, &args);
    return product->path == FMK_CUDA_MMA ? launch_mma(slab, product, &args)
                                         : launch_plain(slab, product, &args);
}

/* ---- multiply: cuBLAS ---- */

/* Rows row .. row+rows-1 of a part, to `out`. */
static fmk_status gemm(struct slab *slab, const struct fmk_cuda_product *product, int64_t row, int64_t rows,
                       uint64_t out, fmk_dtype out_type, int64_t out_stride) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    const struct fmk_cuda_form *form = &plan->forms[product->form];
    const struct fmk_packed *part = &plan->w->parts[product->parts[0]];
    struct fmk_cublas_product g = {
        .in_type = form->type,
        .out = out,
        .out_type = out_type,
        .m = slab->end - slab->begin,
        .n = rows,
        .k = form->index ? part->k_packed : part->k,
        .out_stride = out_stride,
        .workspace = slab->workspace + plan->at_gemm,
        .workspace_bytes = FMK_GEMM_WORKSPACE,
    };
    if (form->direct) {
        g.in_stride = a->in_stride;
        g.in = address_of(a->in) + (uint64_t)(slab->begin * a->in_stride * fmk_dtype_size(a->in_type));
    } else {
        g.in_stride = form->width;
        g.in = slab->workspace + form->at;
    }
    if (product->path == FMK_CUDA_GEMM) {
        int64_t size = fmk_dtype_size(part->dtype);
        g.weights = (uint64_t)(uintptr_t)part->data + (uint64_t)slab->expert * part->expert_stride +
                    (uint64_t)row * part->stride;
        g.weight_stride = (int64_t)part->stride / size;
        return fmk_cublas_gemm(slab->order.queue, &g);
    }
    bool scaled = form->type == FMK_F16 && part->range;
    g.weights = slab->workspace + plan->at_decoded;
    g.weight_stride = plan->decoded_width;
    if (scaled) {
        g.alpha = (uint64_t)(uintptr_t)&part->range->scale;
        g.zero = (uint64_t)(uintptr_t)&part->range->zero;
    }
    fmk_status status = fmk_cuda_decode(slab->order.queue, part, slab->expert, row, rows, g.weights,
                                        form->type, g.weight_stride, scaled);
    return status ? status : fmk_cublas_gemm(slab->order.queue, &g);
}

/* Sums of a window become columns column .. column+count-1 of the output. */
static fmk_status finish(struct slab *slab, const struct fmk_packed *part, const struct fmk_packed *up,
                         int64_t row, int64_t count, int64_t column) {
    const struct fmk_cuda_plan *plan = slab->plan;
    int64_t stride = plan->split_glu ? 2 * plan->window : plan->window;
    struct fmk_finish_args args = {
        .rows = rows_set(slab),
        .sums = row_zero(slab, plan->at_sums, stride * 4),
        .stride = stride,
        .expert_stride = slab->rows * stride,
        .n = (int32_t)count,
        .up = (int32_t)plan->window,
        .column = (int32_t)column,
        .bias = part->bias ? part->bias + row : NULL,
        .up_bias = up && up->bias ? up->bias + row : NULL,
        .bias_stride = part->n,
        .out_rows = listed(slab, plan->at_out_rows),
        .expert_out_stride = plan->call->routing.expert_out_stride,
        .epilogue = epilogue(slab),
    };
    return fmk_cuda_finish_rows(&slab->order, &args, (uint32_t)plan->num_tiles, slab->experts);
}

/* One part without an activation. */
static fmk_status multiply_gemm(struct slab *slab, const struct fmk_cuda_product *product) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const fmk_linear_args *a = slab->args;
    const struct fmk_packed *part = &plan->w->parts[product->parts[0]];
    int64_t column = column_of(plan->w, product->parts[0]);
    fmk_status status = FMK_OK;
    for (int64_t row = 0; !status && row < part->n; row += plan->columns) {
        int64_t rows = fmk_min(plan->columns, part->n - row);
        if (plan->sums) {
            status = gemm(slab, product, row, rows, slab->workspace + plan->at_sums, FMK_F32, plan->window);
            if (!status)
                status = finish(slab, part, NULL, row, rows, column + row);
        } else {
            int64_t first = slab->begin * a->out_stride + column + row;
            status = gemm(slab, product, row, rows,
                          address_of(a->out) + (uint64_t)(first * fmk_dtype_size(a->out_type)), a->out_type,
                          a->out_stride);
        }
    }
    return status;
}

/* Gate and up of different kinds, or by cuBLAS: windows of both, then what joins them. */
static fmk_status multiply_split(struct slab *slab) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_packed *gate = &plan->w->parts[0], *up = &plan->w->parts[1];
    fmk_status status = FMK_OK;
    for (int64_t row = 0; !status && row < gate->n; row += plan->window) {
        int64_t end = fmk_min(row + plan->window, gate->n);
        for (int32_t i = 0; !status && i < plan->num_products; i++) {
            const struct fmk_cuda_product *product = &plan->products[i];
            if (product->path > FMK_CUDA_DECODE_GEMM)
                status = multiply(slab, product);
            for (int64_t r = row; !status && product->path <= FMK_CUDA_DECODE_GEMM && r < end;
                 r += plan->columns) {
                int64_t column = product->parts[0] * plan->window + r - row;
                status =
                    gemm(slab, product, r, fmk_min(plan->columns, end - r),
                         slab->workspace + plan->at_sums + 4 * (uint64_t)column, FMK_F32, 2 * plan->window);
            }
        }
        if (!status)
            status = finish(slab, gate, up, row, end - row, row);
    }
    return status;
}

/* ---- a slab, and all of them ---- */

static fmk_status reduce(struct slab *slab) {
    const struct fmk_cuda_plan *plan = slab->plan;
    const struct fmk_call *call = plan->call;
    const fmk_linear_args *a = slab->args;
    int64_t first = slab->begin * call->rows_per_token;
    struct fmk_reduce_args args = {
        .pairs = (const float *)((char *)at(slab, plan->at_pairs) - first * call->width * 4),
        .present = (const uint8_t *)at(slab, plan->at_present) - first,
        .width = (int32_t)call->width,
        .top_k = (int32_t)call->rows_per_token,
        .first = (int32_t)slab->begin,
        .m = (int32_t)slab->end,
        .m_dev = fmk_pointer(a->m_dev),
        .out = fmk_pointer(a->out),
        .addend = fmk_pointer(a->addend),
        .out_stride = a->out_stride,
        .addend_stride = a->addend_stride,
        .out_type = a->out_type,
        .addend_type = a->addend_type,
    };
    return fmk_cuda_reduce_rows(&slab->order, &args);
}

static fmk_status run_slab(struct slab *slab) {
    const struct fmk_cuda_plan *plan = slab->plan;
    fmk_status status = plan->routed ? route(slab) : FMK_OK;
    for (int32_t f = 0; !status && f < plan->num_forms; f++)
        if (!plan->forms[f].direct)
            status = gather(slab, &plan->forms[f]);
    if (!status && plan->split_glu)
        status = multiply_split(slab);
    for (int32_t i = 0; !status && !plan->split_glu && i < plan->num_products; i++)
        status = plan->products[i].path > FMK_CUDA_DECODE_GEMM ? multiply(slab, &plan->products[i])
                                                               : multiply_gemm(slab, &plan->products[i]);
    return !status && plan->call->reduce ? reduce(slab) : status;
}

static fmk_status run(struct fmk_queue *queue, const struct fmk_cuda_plan *plan) {
    const struct fmk_call *call = plan->call;
    bool batch = call->routing.kind == FMK_ROUTE_BATCH;
    int32_t experts = batch ? plan->w->num_experts : 1;
    struct slab slab = {
        .plan = plan,
        .order = {queue, call->args.flags & FMK_LINEAR_PDL},
        .args = &call->args,
        .workspace = address_of(call->args.workspace),
    };
    fmk_status status = FMK_OK;
    for (int64_t e = 0; !status && e < experts; e += plan->experts)
        for (int64_t begin = 0; !status && begin < call->args.m; begin += plan->units) {
            slab.begin = begin;
            slab.end = fmk_min(begin + plan->units, call->args.m);
            slab.base = plan->routed ? 0 : begin;
            slab.rows = plan->units * call->rows_per_token;
            slab.expert = batch ? (int32_t)e : call->routing.expert;
            slab.experts = (uint32_t)fmk_min(plan->experts, experts - e);
            status = run_slab(&slab);
        }
    return status;
}

fmk_status fmk_cuda_linear(struct fmk_queue *queue, const struct fmk_projection *w,
                           const struct fmk_call *call) {
    if (!call->args.m)
        return FMK_OK;
    const fmk_buffer *space = &call->args.workspace;
    uint64_t least = fmk_cuda_least(w, call), size = space->handle ? space->size : 0;
    if (size < least)
        return fmk_fail(FMK_EWORKSPACE, "workspace.size %llu is less than the least, %llu",
                        (unsigned long long)size, (unsigned long long)least);
    if (address_of(*space) % 256)
        return fmk_fail(FMK_EINVAL, "workspace is at address 0x%llx, which is not a multiple of 256",
                        (unsigned long long)address_of(*space));
    struct fmk_cuda_plan plan;
    fmk_cuda_plan_make(&plan, queue->ctx, w, call, size, true);
    CUcontext before;
    fmk_status status = fmk_cuda_enter(queue->ctx, &before);
    if (status)
        return status;
    status = run(queue, &plan);
    fmk_cuda_leave(queue->ctx, before);
    return status;
}
