#include "plan.h"

#include "../abi.h"
#include "../context.h"
#include "../../kernels/vulkan/args.h"

enum {
    ALIGN = 256,
    GRID_Y = 65535, /* workgroups along y, on any device */
    LEAST_TILE = 8,
    GEMM_TILE = 32,       /* entries of a tile where experts have many rows */
    HALVES_COLUMNS = 128, /* halves: rows have multiples of it, */
    HALVES_BEHIND = 8,    /* and room for a float behind them, in columns; */
    HALVES_ROWS = 16      /* kernels of few tokens read so many rows, whatever is in them */
};

static int32_t experts_of(const struct fmk_projection *w) {
    return w->num_experts ? w->num_experts : 1;
}

/* ---- forms of the activations ---- */

static bool is_aligned(const struct fmk_call *call) {
    const fmk_linear_args *a = &call->args;
    int64_t size = fmk_dtype_size(a->in_type);
    return (a->in.handle + a->in.offset) % 16 == 0 && a->in_stride * size % 16 == 0 &&
           call->routing.expert_in_stride * size % 16 == 0 && a->in_stride <= UINT32_MAX;
}

/* The plain kernel reads anything but rows that are listed by in_rows. */
static struct fmk_vk_form form_for(const struct fmk_call *call, const struct fmk_packed *part, int32_t path,
                                   bool addresses) {
    const fmk_linear_args *a = &call->args;
    bool plain = path == FMK_VULKAN_PLAIN || path == FMK_VULKAN_DOUBLE;
    bool halves = path == FMK_VULKAN_HALF || path == FMK_VULKAN_FEW || path == FMK_VULKAN_COOPMAT;
    if (halves)
        return (struct fmk_vk_form){.halves = true,
                                    .width = fmk_round_up(part->k_packed, HALVES_COLUMNS),
                                    .index = part->k_index ? part : NULL};
    struct fmk_vk_form form = {.index = part->k_index && !plain ? part : NULL};
    form.direct = !form.index && !a->in_rows.handle && a->in_stride <= UINT32_MAX;
    if (!plain) /* which take all of the packed columns, in eights */
        form.direct =
            form.direct && part->k == part->k_packed && part->k % 8 == 0 && addresses && is_aligned(call);
    form.width = form.direct || plain ? part->k : fmk_round_up(part->k_packed, 8);
    return form;
}

static int32_t add_form(struct fmk_vk_plan *plan, struct fmk_vk_form form) {
    int32_t f = 0;
    for (; f < plan->num_forms; f++) {
        const struct fmk_vk_form *have = &plan->forms[f];
        if (have->direct == form.direct && have->halves == form.halves && have->width == form.width &&
            have->index == form.index)
            return f;
    }
    plan->forms[plan->num_forms++] = form;
    return f;
}

/* ---- a slab's place in the workspace ---- */

static uint64_t take(uint64_t *at, int64_t bytes) {
    uint64_t here = *at;
    *at += (uint64_t)fmk_round_up(bytes, ALIGN);
    return here;
}

static int64_t rows_of(const struct fmk_vk_plan *plan, int64_t units) {
    return units * plan->call->rows_per_token;
}

int64_t fmk_vk_form_row(const struct fmk_vk_plan *plan, const struct fmk_vk_form *form) {
    return form->halves ? 2 * (form->width + HALVES_BEHIND)
                        : form->width * fmk_dtype_size(plan->call->args.in_type);
}

/* Sets the offsets and answers the bytes. */
static uint64_t lay_out(struct fmk_vk_plan *plan) {
    const struct fmk_call *call = plan->call;
    int64_t rows = rows_of(plan, plan->units);
    uint64_t at = 0;
    for (int32_t f = 0; f < plan->num_forms; f++)
        if (!plan->forms[f].direct)
            plan->forms[f].at =
                take(&at, fmk_vk_form_row(plan, &plan->forms[f]) *
                              (plan->forms[f].halves ? fmk_round_up(rows, HALVES_ROWS) : rows));
    if (plan->split_glu)
        plan->at_sums = take(&at, rows * plan->w->n * 4);
    if (plan->routed) {
        /* Whatever the tile: so that fewer rows never take more room. */
        plan->num_tiles = (int32_t)(rows / LEAST_TILE + fmk_min(experts_of(plan->w), rows) + 1);
        plan->at_lists = take(&at, plan->num_tiles * (int64_t)sizeof(struct fmk_vk_tile) + rows * 8);
        plan->at_counts = take(&at, 4ll * (experts_of(plan->w) + 1));
    }
    if (call->reduce) {
        plan->at_pairs = take(&at, rows * call->width * 4);
        plan->at_present = take(&at, rows * 4);
    }
    return at;
}

/* As many units as a grid can count. */
static int64_t units_at_most(const struct fmk_vk_plan *plan) {
    int64_t rows = GRID_Y; /* of the gather, which has one along y */
    if (plan->routed)
        rows = (GRID_Y - fmk_min(experts_of(plan->w), GRID_Y / 2)) * (int64_t)LEAST_TILE / 9;
    return fmk_max(1, fmk_min(plan->call->args.m, rows / plan->call->rows_per_token));
}

static void choose_slab(struct fmk_vk_plan *plan, uint64_t bytes) {
    int64_t least = 1, most = units_at_most(plan);
    while (least < most) {
        plan->units = most - (most - least) / 2;
        if (lay_out(plan) <= bytes)
            least = plan->units;
        else
            most = plan->units - 1;
    }
    plan->units = least;
    lay_out(plan);
}

/* ---- the plan ---- */

/* Gate and up in one kernel: it computes the same rows of both. */
static bool can_fuse(const struct fmk_vk_plan *plan) {
    const struct fmk_packed *gate = &plan->w->parts[0], *up = &plan->w->parts[1];
    const struct fmk_vk_product *first = &plan->products[0], *second = &plan->products[1];
    return first->path == FMK_VULKAN_GEMV && second->path == first->path && first->form == second->form &&
           gate->layout == up->layout && gate->dtype == up->dtype && gate->chunks == up->chunks &&
           gate->stride == up->stride && gate->expert_stride == up->expert_stride &&
           gate->k_packed == up->k_packed;
}

void fmk_vk_plan_make(struct fmk_vk_plan *plan, const struct fmk_context *ctx, const struct fmk_projection *w,
                      const struct fmk_call *call, uint64_t workspace, bool addresses) {
    plan->w = w;
    plan->call = call;
    plan->routed = call->routing.kind == FMK_ROUTE_IDS || call->routing.kind == FMK_ROUTE_SORTED;
    plan->num_forms = plan->num_products = 0;
    plan->num_tiles = 0;
    bool all_gemm = true;
    for (int32_t p = 0; p < w->num_parts; p++) {
        struct fmk_query query = fmk_kernel_query(ctx, w, call, p, workspace);
        const struct fmk_kernel *kernel = fmk_kernel_choose(&query);
        plan->products[plan->num_products++] = (struct fmk_vk_product){
            kernel->path, p, add_form(plan, form_for(call, &w->parts[p], kernel->path, addresses)), false};
        all_gemm = all_gemm && kernel->path == FMK_VULKAN_GEMM;
    }
    plan->tile = all_gemm ? GEMM_TILE : fmk_call_one(w, call) ? 1 : LEAST_TILE;
    plan->split_glu = false;
    if (call->args.act && can_fuse(plan)) {
        plan->products[0].glu = true;
        plan->num_products = 1;
    } else if (call->args.act) {
        plan->split_glu = true;
    }
    choose_slab(plan, workspace < FMK_BEST_WORKSPACE ? workspace : FMK_BEST_WORKSPACE);
}

/* Which kernels serve it, and with them what is gathered and fused, depends on m; the sizes here are of
 * whatever takes most. */
static uint64_t bytes_of(const struct fmk_context *ctx, const struct fmk_projection *w,
                         const struct fmk_call *call, int64_t units) {
    struct fmk_vk_plan plan;
    fmk_vk_plan_make(&plan, ctx, w, call, UINT64_MAX, false);
    plan.split_glu = call->args.act != FMK_ACT_NONE;
    plan.units = fmk_min(units, plan.units);
    return lay_out(&plan);
}

static uint64_t bytes_for(const struct fmk_context *ctx, const struct fmk_projection *w,
                          const struct fmk_call *call, int64_t units) {
    struct fmk_call few = *call;
    few.args.m = fmk_min(call->args.m, FMK_VULKAN_FEW_MOST);
    few.rows = call->rows / call->args.m * few.args.m;
    uint64_t all = bytes_of(ctx, w, call, units), least = bytes_of(ctx, w, &few, units);
    return all > least ? all : least;
}

void fmk_vk_workspace(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                      uint64_t *least, uint64_t *best) {
    *least = *best = 0;
    if (!call->args.m)
        return;
    *least = bytes_for(ctx, w, call, 1);
    uint64_t all = bytes_for(ctx, w, call, call->args.m);
    *best = all < FMK_BEST_WORKSPACE ? all : FMK_BEST_WORKSPACE;
    *best = *best > *least ? *best : *least;
}
