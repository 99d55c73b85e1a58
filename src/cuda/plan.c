#include "plan.h"

#include "../../kernels/rows.h"
#include "../abi.h"
#include "../context.h"
#include "../formats/source.h"
#include "device.h"
#include "linear.h"
#include "wgmma.h"

enum {
    ALIGN = 256,
    LEAST_UNITS = 8,
    GRID_Y = 65535,                /* blocks along y, and z, at most */
    DECODED_BYTES = 32 << 20,      /* of weights at once: they are read again out of the last cache. More, */
    MOST_DECODED_BYTES = 88 << 20, /* up to so many, where activations are few: then a GEMM of these */
    GEMM_TILE = 128, /* is too small to occupy the device by tiles of so many rows and columns */
    COLUMNS_MULTIPLE = 128
};

static int32_t experts_of(const struct fmk_projection *w) {
    return w->num_experts ? w->num_experts : 1;
}

static bool is_routed(const struct fmk_call *call) {
    return call->routing.kind == FMK_ROUTE_IDS || call->routing.kind == FMK_ROUTE_SORTED;
}

static int64_t units_of(const struct fmk_call *call) {
    return call->args.m; /* tokens; of BATCH each expert's rows */
}

int64_t fmk_cuda_plan_rows(const struct fmk_cuda_plan *plan, int64_t units) {
    return units * plan->call->rows_per_token *
           (plan->call->routing.kind == FMK_ROUTE_BATCH ? plan->experts : 1);
}

/* ---- forms of the activations ---- */

fmk_dtype fmk_cuda_gemm_type(const struct fmk_packed *part, fmk_dtype in_type) {
    /* Between two half precisions neither holds the other's numbers. Of quantized weights both hold enough.
     */
    return part->layout->family == FMK_FAMILY_DENSE && part->dtype != in_type ? FMK_F32 : in_type;
}

/* Without addresses: such as serves wherever `in` may lie. */
static bool is_aligned(const struct fmk_call *call, bool addresses) {
    const fmk_linear_args *a = &call->args;
    return addresses && (a->in.handle + a->in.offset) % 16 == 0 && a->in_stride % 8 == 0 &&
           call->routing.expert_in_stride % 8 == 0;
}

bool fmk_cuda_any_groups(const struct fmk_packed *part) {
    return part->layout->family == FMK_FAMILY_INT4 && (part->chunks != 4 || part->dtype == FMK_F32);
}

static struct fmk_cuda_form form_for(const struct fmk_call *call, const struct fmk_packed *part,
                                     enum fmk_cuda_path path, bool one, bool addresses) {
    const fmk_linear_args *a = &call->args;
    struct fmk_cuda_form form = {.type = a->in_type, .planes = 1};
    bool gemm = path == FMK_CUDA_GEMM || path == FMK_CUDA_DECODE_GEMM, plain = path >= FMK_CUDA_PLAIN;
    bool floats = one && part->layout->family != FMK_FAMILY_DENSE && !fmk_cuda_any_groups(part);
    bool few = path == FMK_CUDA_FEW; /* it takes any type, and one token in any order */
    if (path == FMK_CUDA_MMA && a->in_type == FMK_F32 && !floats) {
        form.type = FMK_BF16;
        form.planes = 3; /* 3 * 8 bits: all of a float's */
    } else if (path == FMK_CUDA_MMA && a->in_type == FMK_F16 && part->dtype == FMK_BF16 &&
               part->layout->family == FMK_FAMILY_DENSE) {
        form.type = FMK_BF16;
        form.planes = 2; /* 16 bits for f16's 11 */
    } else if (gemm) {
        form.type = fmk_cuda_gemm_type(part, a->in_type);
    }
    form.index = part->k_index && !plain ? part : NULL;
    form.direct = form.type == a->in_type && (!form.index || (few && one)) && !a->in_rows.handle;
    if (path == FMK_CUDA_MMA || path == FMK_CUDA_MANY || path == FMK_CUDA_WGMMA || path == FMK_CUDA_ONE)
        form.direct = form.direct && is_aligned(call, addresses) && part->k % 8 == 0;
    else if (gemm) /* which reads all rows, and counts in 32 bits */
        form.direct = form.direct && !a->m_dev.handle && a->in_stride <= INT32_MAX;
    form.width = form.direct ? part->k : fmk_round_up(form.index ? part->k_packed : part->k, 8);
    return form;
}

static int32_t add_form(struct fmk_cuda_plan *plan, struct fmk_cuda_form form) {
    int32_t f = 0;
    for (; f < plan->num_forms; f++) {
        const struct fmk_cuda_form *have = &plan->forms[f];
        if (have->direct == form.direct && have->type == form.type && have->planes == form.planes &&
            have->width == form.width && have->index == form.index)
            return f;
    }
    plan->forms[plan->num_forms++] = form;
    return f;
}

/* ---- products ---- */

static bool one_launch(const struct fmk_cuda_plan *plan, const struct fmk_cuda_product *product, int32_t form,
                       enum fmk_cuda_path path, const struct fmk_packed *part) {
    const struct fmk_packed *first = &plan->w->parts[product->parts[0]];
    return path >= FMK_CUDA_ONE && product->path == path && product->form == form &&
           product->num_parts < FMK_LAUNCH_PARTS && first->layout == part->layout &&
           first->k_packed == part->k_packed && fmk_cuda_any_groups(first) == fmk_cuda_any_groups(part) &&
           (path != FMK_CUDA_ONE || first->dtype == part->dtype);
}

static void add_product(struct fmk_cuda_plan *plan, int32_t p, enum fmk_cuda_path path, bool addresses) {
    const struct fmk_packed *part = &plan->w->parts[p];
    int32_t form = add_form(plan, form_for(plan->call, part, path, plan->one, addresses)), i = 0;
    while (i < plan->num_products && !one_launch(plan, &plan->products[i], form, path, part))
        i++;
    struct fmk_cuda_product *product = &plan->products[i];
    if (i == plan->num_products) {
        plan->num_products++;
        product->path = path;
        product->form = form;
        product->num_parts = 0;
        product->glu = false;
    }
    product->parts[product->num_parts++] = p;
}

/* Whether a GEMM's results are what the call wants, as they are. */
static bool nothing_to_finish(const struct fmk_call *call, const struct fmk_packed *part) {
    const fmk_linear_args *a = &call->args;
    fmk_dtype type = fmk_cuda_gemm_type(part, a->in_type);
    return !a->act && !part->bias && !a->addend.handle && !call->routing.pair_weights.handle &&
           !a->m_dev.handle && (a->out_type == type || a->out_type == FMK_F32) && a->out_stride <= INT32_MAX;
}

static void add_gemm(struct fmk_cuda_plan *plan, const struct fmk_packed *part, enum fmk_cuda_path path) {
    plan->gemm = true;
    plan->sums |= !nothing_to_finish(plan->call, part);
    if (path == FMK_CUDA_GEMM)
        return;
    fmk_dtype type = fmk_cuda_gemm_type(part, plan->call->args.in_type);
    if (!plan->decoded_type || type == FMK_F32)
        plan->decoded_type = type;
    plan->decoded_width = fmk_max(plan->decoded_width, fmk_round_up(part->k_packed, 8));
}

/* Gate and up in one kernel: it computes the same rows of both. */
static bool can_fuse(const struct fmk_cuda_plan *plan) {
    const struct fmk_packed *gate = &plan->w->parts[0], *up = &plan->w->parts[1];
    return plan->num_products == 1 && !plan->gemm && gate->dtype == up->dtype && gate->chunks == up->chunks &&
           gate->has_zeros == up->has_zeros && gate->stride == up->stride;
}

static bool is_narrow(const struct fmk_cuda_plan *plan, const struct fmk_cuda_product *product) {
    int64_t blocks = 0;
    for (int32_t i = 0; i < product->num_parts; i++)
        blocks += (plan->w->parts[product->parts[i]].n + 31) / 32;
    return product->path == FMK_CUDA_MMA && !product->glu && blocks < 2 * plan->multiprocessors;
}

/* More tokens to a block read the weights less often; fewer leave less of a tile empty. */
static int32_t tile_for(const struct fmk_cuda_plan *plan) {
    const struct fmk_call *call = plan->call;
    int64_t rows = plan->routed ? call->rows / experts_of(plan->w) : call->args.m;
    if (plan->one)
        return 1;
    for (int32_t i = 0; i < plan->num_products; i++)
        if (plan->products[i].path == FMK_CUDA_FEW)
            return rows <= 8 || call->args.in_type == FMK_F32 ? 8 : 16;
    /* How many rows of weights a block has may depend on the weight alone, and 16 go with 8 tokens. */
    for (int32_t i = 0; i < plan->num_products; i++)
        if (call->args.flags & FMK_LINEAR_BATCH_INVARIANT && plan->products[i].narrow)
            return 8;
    return rows <= 8 ? 8 : rows <= 16 ? 16 : 32;
}

/* ---- a slab's place in the workspace ---- */

static uint64_t take(uint64_t *at, int64_t bytes) {
    uint64_t here = *at;
    *at += (uint64_t)fmk_round_up(bytes, ALIGN);
    return here;
}

static int64_t tiles_at_most(const struct fmk_cuda_plan *plan, int64_t rows) {
    /* Whatever the tile: so that fewer rows never take more room. */
    return rows / 8 + fmk_min(experts_of(plan->w), rows) + 1;
}

/* Sets the offsets and answers the bytes. */
static uint64_t lay_out(struct fmk_cuda_plan *plan) {
    const struct fmk_call *call = plan->call;
    int64_t rows = fmk_cuda_plan_rows(plan, plan->units);
    uint64_t at = 0;
    if (plan->gemm)
        plan->at_gemm = take(&at, FMK_GEMM_WORKSPACE);
    if (plan->decoded_type)
        plan->at_decoded =
            take(&at, plan->columns * plan->decoded_width * fmk_dtype_size(plan->decoded_type));
    if (plan->sums)
        plan->at_sums = take(&at, rows * plan->window * (plan->split_glu ? 8 : 4));
    for (int32_t f = 0; f < plan->num_forms; f++) {
        struct fmk_cuda_form *form = &plan->forms[f];
        if (!form->direct)
            form->at = take(&at, rows * form->width * form->planes * fmk_dtype_size(form->type));
    }
    if (plan->routed) {
        bool ids = call->routing.kind == FMK_ROUTE_IDS;
        plan->small_route = (ids ? rows : call->rows) <= FMK_ROUTE_SMALL_PAIRS;
        plan->num_tiles = (int32_t)tiles_at_most(plan, rows);
        if (!plan->small_route) {
            plan->at_first = take(&at, 4ll * (experts_of(plan->w) + 1));
            plan->at_first_tile = take(&at, 4ll * (experts_of(plan->w) + 1));
        }
        plan->at_tiles = take(&at, plan->num_tiles * (int64_t)sizeof(struct fmk_token_tile));
        plan->at_in_rows = take(&at, rows * 4);
        plan->at_out_rows = take(&at, rows * 4);
    }
    if (call->reduce) {
        plan->at_pairs = take(&at, rows * call->width * 4);
        plan->at_present = take(&at, rows);
    }
    if (plan->room)
        plan->at_room = take(&at, (int64_t)plan->room);
    return at;
}

uint64_t fmk_cuda_least(const struct fmk_projection *w, const struct fmk_call *call) {
    const fmk_linear_args *a = &call->args;
    int64_t rows = fmk_min(units_of(call), LEAST_UNITS) * call->rows_per_token, arrays = 12, forms = 0;
    /* Bytes of all the forms that a number may be wanted in: itself, and three or two planes of bf16. */
    int64_t number = a->in_type == FMK_F32 ? 4 + 6 : a->in_type == FMK_F16 ? 2 + 4 : 2;
    forms += fmk_round_up(w->k, 8);
    for (int32_t p = 0; p < w->num_parts; p++)
        if (w->parts[p].k_index) {
            forms += fmk_round_up(w->parts[p].k_packed, 8);
            arrays++;
        }
    uint64_t bytes = (uint64_t)(rows * forms * number);
    if (a->act)
        bytes += (uint64_t)(rows * w->n * 4);
    if (is_routed(call)) {
        int64_t experts = experts_of(w), tiles = rows / 8 + fmk_min(experts, rows) + 1;
        bytes += (uint64_t)(8 * (experts + 1) + tiles * (int64_t)sizeof(struct fmk_token_tile) + 8 * rows);
    }
    if (call->reduce)
        bytes += (uint64_t)(rows * (4 * call->width + 1));
    return rows ? bytes + (uint64_t)(arrays * ALIGN) : 0;
}

/* ---- the slab ---- */

/* As many units as a grid can count. */
static int64_t units_at_most(const struct fmk_cuda_plan *plan) {
    int64_t units = units_of(plan->call), rows = (int64_t)LEAST_UNITS * GRID_Y;
    if (plan->routed) {
        int64_t experts = experts_of(plan->w);
        rows = experts <= GRID_Y / 2 ? 8 * (GRID_Y - 1 - experts) : 8 * (int64_t)(GRID_Y - 1) / 9;
    }
    if (plan->call->reduce)
        units = fmk_min(units, GRID_Y); /* a token each */
    return fmk_max(1, fmk_min(units, rows / plan->call->rows_per_token));
}

/* The largest *count in least .. most with which the slab fits; least when none does. */
static void fit(struct fmk_cuda_plan *plan, int64_t *count, int64_t least, int64_t most, uint64_t bytes) {
    while (least < most) {
        *count = most - (most - least) / 2;
        if (lay_out(plan) <= bytes)
            least = *count;
        else
            most = *count - 1;
    }
    *count = least;
}

/* The widest GEMM, and how far it may be cut. */
static void choose_columns(struct fmk_cuda_plan *plan) {
    plan->columns = 0;
    for (int32_t i = 0; i < plan->num_products; i++)
        if (plan->products[i].path <= FMK_CUDA_DECODE_GEMM)
            plan->columns = fmk_max(plan->columns, plan->w->parts[plan->products[i].parts[0]].n);
    if (plan->decoded_type) {
        int64_t row = plan->decoded_width * fmk_dtype_size(plan->decoded_type);
        int64_t token_tiles = (units_of(plan->call) + GEMM_TILE - 1) / GEMM_TILE;
        int64_t all = (int64_t)GEMM_TILE * plan->multiprocessors / token_tiles * row;
        int64_t bytes = fmk_max(DECODED_BYTES, fmk_min(MOST_DECODED_BYTES, all));
        int64_t columns = bytes / row / COLUMNS_MULTIPLE * COLUMNS_MULTIPLE;
        plan->columns = fmk_min(plan->columns, fmk_max(FMK_GEMM_LEAST_COLUMNS, columns));
    }
}

/* Where a kernel other than a GEMM makes gate or up, it makes all of it. */
static void choose_window(struct fmk_cuda_plan *plan) {
    plan->window = plan->columns;
    for (int32_t i = 0; plan->split_glu && i < plan->num_products; i++)
        if (plan->products[i].path > FMK_CUDA_DECODE_GEMM)
            plan->window = plan->w->n / 2;
}

/* What makes products faster but is not needed for them. */
static uint64_t room_for(const struct fmk_cuda_plan *plan, int32_t multiprocessors) {
    uint64_t room = 0;
    for (int32_t i = 0; i < plan->num_products; i++)
        if (plan->products[i].path == FMK_CUDA_WGMMA)
            room = fmk_wgmma_room(units_of(plan->call), multiprocessors);
    return room;
}

/* Narrower before shorter: a GEMM of fewer rows would decode the weights again. */
static void choose_slab(struct fmk_cuda_plan *plan, uint64_t bytes) {
    bool batch = plan->call->routing.kind == FMK_ROUTE_BATCH;
    plan->units = units_at_most(plan);
    plan->experts = batch ? fmk_min(experts_of(plan->w), GRID_Y) : 1;
    choose_columns(plan);
    choose_window(plan);
    if (lay_out(plan) > bytes)
        plan->room = 0;
    while (lay_out(plan) > bytes && plan->columns > FMK_GEMM_LEAST_COLUMNS) {
        int64_t half = fmk_round_up(plan->columns / 2, COLUMNS_MULTIPLE);
        plan->columns = fmk_max(FMK_GEMM_LEAST_COLUMNS, half);
        choose_window(plan);
    }
    if (lay_out(plan) <= bytes)
        return;
    if (batch)
        fit(plan, &plan->experts, 1, plan->experts, bytes);
    if (lay_out(plan) > bytes)
        fit(plan, &plan->units, 1, plan->units, bytes);
    lay_out(plan);
}

void fmk_cuda_plan_make(struct fmk_cuda_plan *plan, const struct fmk_context *ctx,
                        const struct fmk_projection *w, const struct fmk_call *call, uint64_t workspace,
                        bool addresses) {
    plan->w = w;
    plan->call = call;
    plan->multiprocessors = fmk_cuda_of(ctx)->multiprocessors;
    plan->routed = is_routed(call);
    plan->one = fmk_call_one(w, call);
    plan->num_forms = plan->num_products = 0;
    plan->split_glu = plan->gemm = plan->sums = false;
    plan->decoded_type = 0;
    plan->decoded_width = 0;
    plan->small_route = false;
    plan->num_tiles = 0;
    for (int32_t p = 0; p < w->num_parts; p++) {
        struct fmk_query query = fmk_kernel_query(ctx, w, call, p, workspace);
        const struct fmk_kernel *kernel = fmk_kernel_choose(&query);
        add_product(plan, p, kernel->path, addresses);
        if (kernel->path <= FMK_CUDA_DECODE_GEMM)
            add_gemm(plan, &w->parts[p], kernel->path);
    }
    if (call->args.act) {
        plan->products[0].glu = can_fuse(plan);
        plan->split_glu = !plan->products[0].glu;
        plan->sums |= plan->split_glu;
    }
    for (int32_t i = 0; i < plan->num_products; i++)
        plan->products[i].narrow = is_narrow(plan, &plan->products[i]);
    plan->tile = tile_for(plan);
    plan->room = room_for(plan, fmk_cuda_of(ctx)->multiprocessors);
    choose_slab(plan, workspace < FMK_BEST_WORKSPACE ? workspace : FMK_BEST_WORKSPACE);
}

uint32_t fmk_cuda_paths(const struct fmk_context *ctx, const struct fmk_projection *w,
                        const struct fmk_call *call, int32_t p) {
    /* The fewest rows from which on the choice is another: with more, cuBLAS only wants more workspace. */
    const int64_t counts[] = {1,
                              FMK_GEMM_M_DENSE + 1,
                              FMK_WGMMA_LEAST_M_SMALL,
                              FMK_WGMMA_LEAST_M_MEDIUM,
                              FMK_WGMMA_LEAST_M,
                              FMK_MANY_LEAST_M_ROWS,
                              FMK_MANY_LEAST_M,
                              FMK_GEMM_M_DECODE + 1,
                              FMK_MANY_MOST_M_FAST + 1,
                              FMK_MANY_MOST_M + 1,
                              FMK_WGMMA_MOST_M + 1};
    /* Where each expert has its own rows, some kernels' choice goes by these. */
    int64_t experts = call->routing.kind == FMK_ROUTE_BATCH ? w->num_experts : 1;
    uint32_t paths = 0;
    for (size_t i = 0; i < 2 * sizeof counts / sizeof counts[0]; i++) {
        struct fmk_call fewer = *call;
        fewer.rows = counts[i / 2] * (i % 2 ? experts : 1);
        if (fewer.rows > call->rows)
            continue;
        struct fmk_query query = fmk_kernel_query(ctx, w, &fewer, p, 0);
        for (int choice = 0; choice < 8; choice++) {
            query.one = choice & 1;
            query.workspace = choice & 2 ? FMK_BEST_WORKSPACE : 0;
            query.bare = choice & 4;
            paths |= 1u << fmk_kernel_choose(&query)->path;
        }
    }
    return paths;
}

/* Whether a slab is less than the call for want of workspace. */
static bool is_cut(const struct fmk_cuda_plan *plan) {
    struct fmk_cuda_plan whole = *plan;
    choose_columns(&whole);
    return plan->units < units_of(plan->call) || plan->columns < whole.columns ||
           (plan->call->routing.kind == FMK_ROUTE_BATCH && plan->experts < experts_of(plan->w));
}

void fmk_cuda_workspace(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                        uint64_t *least, uint64_t *best) {
    *least = *best = fmk_cuda_least(w, call);
    /* Calls of fewer rows may be served by other kernels. */
    const int64_t counts[] = {call->args.m, FMK_GEMM_M_DENSE, FMK_GEMM_M_DECODE, FMK_GEMM_M_DECODE + 1,
                              FMK_WGMMA_MOST_M};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (!counts[i] || counts[i] > call->args.m)
            continue;
        struct fmk_call fewer = *call;
        fewer.rows = call->rows / call->args.m * counts[i];
        fewer.args.m = counts[i];
        struct fmk_cuda_plan plan;
        fmk_cuda_plan_make(&plan, ctx, w, &fewer, FMK_BEST_WORKSPACE, false);
        /* A slab that is cut may take less than what is there, and fewer rows, uncut, all of it. */
        uint64_t bytes = is_cut(&plan) ? FMK_BEST_WORKSPACE : lay_out(&plan);
        if (plan.gemm) { /* with less it would not be chosen */
            uint64_t wanted = fmk_kernel_query(ctx, w, &fewer, 0, FMK_BEST_WORKSPACE).gemm_workspace;
            bytes = bytes > wanted ? bytes : wanted;
        }
        *best = bytes > *best ? bytes : *best;
    }
}
