/* One linear call on the CPU: cut into slabs that fit the workspace; in each, gather the activations, compute
 * the tiles, reduce over top-k where asked. The cut never changes a result: kernels promise that. */
#include "linear.h"

#include "../abi.h"
#include "../context.h"
#include "../error.h"
#include "../parallel.h"
#include "activations.h"
#include "epilogue.h"
#include "slab.h"

#include <string.h>

enum {
    ALIGN = 64,
    BEST_BYTES = 128 << 20, /* a slab grows no larger than this, whatever m is */
    SERIAL_WORK = 1 << 20   /* weights times rows, some 20 us: to wake the pool for less takes longer */
};

/* Everything about a call that is fixed before the first slab. */
struct plan {
    const struct fmk_projection *w;
    const struct fmk_call *call;
    const struct fmk_kernel *kernel[FMK_MAX_PARTS];
    struct fmk_slot slot[FMK_MAX_PARTS];
    int32_t slot_of[FMK_MAX_PARTS], slots;
    int32_t experts;
};

static void make_plan(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                      struct plan *plan) {
    plan->w = w;
    plan->call = call;
    plan->slots = 0;
    plan->experts = w->num_experts ? w->num_experts : 1;
    for (int32_t p = 0; p < w->num_parts; p++) {
        struct fmk_query query = fmk_kernel_query(ctx, w, call, p, 0);
        plan->kernel[p] = fmk_kernel_choose(&query);
        enum fmk_acts_form form = plan->kernel[p]->acts;
        int32_t s = 0;
        while (s < plan->slots &&
               (plan->slot[s].form != form || !fmk_acts_shared(plan->slot[s].part, &w->parts[p])))
            s++;
        if (s == plan->slots)
            plan->slot[plan->slots++] = (struct fmk_slot){
                .form = form,
                .part = &w->parts[p],
                .quantize = form == FMK_ACTS_F32 ? NULL : fmk_quantize_row_best(form, ctx->features)};
        plan->slot_of[p] = s;
    }
}

/* A slab's place in the workspace. */
struct room {
    struct fmk_slab slab;
    int64_t *tasks; /* [experts + 1]: tasks before each expert's */
    float *pairs;   /* REDUCE_TOP_K */
    uint8_t *present;
};

static void *take(char *base, int64_t *at, int64_t bytes) {
    void *here = base ? base + *at : NULL;
    *at += fmk_round_up(bytes, ALIGN);
    return here;
}

/* Lays out a slab of `units` units from base on (NULL: only counts) and answers the bytes. */
static int64_t lay_out(struct plan *plan, int64_t units, char *base, struct room *room) {
    const struct fmk_call *call = plan->call;
    int64_t rows = units * call->rows_per_token, at = 0;
    room->slab.first = take(base, &at, (plan->experts + 1) * 4ll);
    room->tasks = take(base, &at, (plan->experts + 1) * 8ll);
    room->slab.in = take(base, &at, rows * 8);
    room->slab.out = take(base, &at, rows * 8);
    room->slab.row = take(base, &at, rows * 4);
    room->slab.weight = call->routing.pair_weights.handle ? take(base, &at, rows * 4) : NULL;
    room->present = call->reduce ? take(base, &at, rows) : NULL;
    room->pairs = call->reduce ? take(base, &at, rows * call->width * 4) : NULL;
    for (int32_t s = 0; s < plan->slots; s++)
        at += fmk_acts_place(&plan->slot[s], rows, base ? base + at : NULL);
    return at;
}

/* Most units, of `most`, for which there is room in `bytes` or BEST_BYTES; 0 when not even one fits. */
static int64_t units_in(struct plan *plan, int64_t most, uint64_t bytes) {
    struct room room;
    if (bytes > BEST_BYTES)
        bytes = BEST_BYTES;
    /* A row takes 20 bytes and more: bounding their number keeps lay_out's products small. */
    int64_t low = 0, high = fmk_min(most, (int64_t)bytes / 20 / plan->call->rows_per_token);
    while (low < high) {
        int64_t middle = high - (high - low) / 2;
        if (lay_out(plan, middle, NULL, &room) <= (int64_t)bytes)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static int64_t units_at_most(const struct plan *plan) {
    return plan->call->rows / plan->call->rows_per_token;
}

void fmk_cpu_workspace(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                       uint64_t *least, uint64_t *best) {
    struct plan plan;
    struct room room;
    make_plan(ctx, w, call, &plan);
    int64_t most = units_at_most(&plan);
    *least = *best = 0;
    if (!most)
        return;
    *least = (uint64_t)lay_out(&plan, 1, NULL, &room);
    *best = (uint64_t)lay_out(&plan, fmk_max(1, units_in(&plan, most, BEST_BYTES)), NULL, &room);
}

/* ---- gather ---- */

struct gather {
    struct plan *plan;
    const struct room *room;
    int64_t runs; /* per row, of the longest slot */
};

/* The expert whose rows `row` is among. */
static int32_t expert_of(const struct plan *plan, const struct fmk_slab *slab, int64_t row) {
    int32_t low = 0, high = plan->experts - 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (slab->first[middle + 1] <= row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void gather_run(void *arg, int64_t i) {
    const struct gather *g = arg;
    const fmk_linear_args *a = &g->plan->call->args;
    int64_t row = i / g->runs, run = i % g->runs;
    const char *x = (const char *)fmk_pointer(a->in) + g->room->slab.in[row] * fmk_dtype_size(a->in_type);
    int32_t expert = expert_of(g->plan, &g->room->slab, row);
    for (int32_t s = 0; s < g->plan->slots; s++)
        fmk_acts_fill(&g->plan->slot[s], expert, x, a->in_type, row, run);
}

/* ---- multiply ---- */

struct multiply {
    const struct plan *plan;
    const struct room *room;
    struct fmk_epilogue epilogue;
    int32_t column_parts; /* parts that have tiles of their own: 1 when gate and up are fused */
    bool fused;
    int32_t tile_rows, columns; /* rows of a tile; tiles along N */
    int64_t tokens;             /* of a task: a multiple of FMK_TILE_M */
};

static int32_t tiles_of(const struct fmk_packed *part, int32_t tile_rows) {
    return (int32_t)((part->n + tile_rows - 1) / tile_rows);
}

static void run_kernel(const struct multiply *m, int32_t p, int32_t expert, int64_t row, int32_t rows,
                       int64_t first, int32_t tokens, float *out) {
    const struct plan *plan = m->plan;
    const struct fmk_packed *part = &plan->w->parts[p];
    struct fmk_tile tile = {
        .part = part,
        .data = part->data + (uint64_t)expert * part->expert_stride,
        .acts = &plan->slot[plan->slot_of[p]].acts,
        .row = row,
        .rows = rows,
        .token = first,
        .tokens = tokens,
        .out = out,
    };
    plan->kernel[p]->tile(&tile);
}

static const float *bias_of(const struct fmk_packed *part, int32_t expert, int64_t row) {
    return part->bias ? part->bias + expert * part->n + row : NULL;
}

static void multiply_task(void *arg, int64_t i) {
    const struct multiply *m = arg;
    const struct fmk_projection *w = m->plan->w;
    const struct fmk_slab *slab = &m->room->slab;
    int32_t expert = 0;
    while (m->room->tasks[expert + 1] <= i)
        expert++;
    i -= m->room->tasks[expert];

    /* Neighbouring tasks share weights, so that they meet them in the cache. */
    int64_t chunks = (slab->first[expert + 1] - slab->first[expert] + m->tokens - 1) / m->tokens;
    int64_t tile = i / chunks, chunk = i % chunks, column = 0;
    int32_t p = 0;
    while (p < m->column_parts - 1 && tile >= tiles_of(&w->parts[p], m->tile_rows)) {
        tile -= tiles_of(&w->parts[p], m->tile_rows);
        column += w->parts[p++].n;
    }
    const struct fmk_packed *part = &w->parts[p];
    int64_t row = tile * m->tile_rows;
    int32_t rows = (int32_t)fmk_min(m->tile_rows, part->n - row);
    int64_t first = slab->first[expert] + chunk * m->tokens;
    int64_t end = fmk_min(first + m->tokens, slab->first[expert + 1]);

    _Alignas(64) float out[FMK_TILE_M * FMK_TILE_N], up[FMK_TILE_M * FMK_TILE_N];
    for (; first < end; first += FMK_TILE_M) {
        int32_t tokens = (int32_t)fmk_min(FMK_TILE_M, end - first);
        run_kernel(m, p, expert, row, rows, first, tokens, out);
        if (m->fused) {
            run_kernel(m, 1, expert, row, rows, first, tokens, up);
            fmk_store_glu(&m->epilogue, out, up, bias_of(part, expert, row),
                          bias_of(&w->parts[1], expert, row), first, tokens, row, rows);
        } else {
            fmk_store_tile(&m->epilogue, out, bias_of(part, expert, row), first, tokens, column + row, rows);
        }
    }
}

/* Counts the tasks of a cut, and notes where each expert's begin. */
static int64_t count_tasks(struct multiply *m) {
    const struct fmk_slab *slab = &m->room->slab;
    m->columns = 0;
    for (int32_t p = 0; p < m->column_parts; p++)
        m->columns += tiles_of(&m->plan->w->parts[p], m->tile_rows);
    int64_t total = 0;
    for (int32_t e = 0; e < m->plan->experts; e++) {
        int64_t tokens = slab->first[e + 1] - slab->first[e];
        m->room->tasks[e] = total;
        total += m->columns * ((tokens + m->tokens - 1) / m->tokens);
    }
    m->room->tasks[m->plan->experts] = total;
    return total;
}

/* Wants a few tasks a thread: first by shorter runs of tokens, then by narrower tiles. */
static int64_t cut(struct multiply *m, int64_t threads) {
    m->tile_rows = FMK_TILE_N;
    m->tokens = fmk_max(FMK_TILE_M, fmk_round_up(m->room->slab.count, FMK_TILE_M));
    int64_t tasks = count_tasks(m);
    while (tasks < 4 * threads && m->tokens > FMK_TILE_M) {
        m->tokens = fmk_round_up(m->tokens / 2, FMK_TILE_M);
        tasks = count_tasks(m);
    }
    int32_t least = 8; /* rows: whole panels */
    for (int32_t p = 0; p < m->plan->w->num_parts; p++)
        least = (int32_t)fmk_max(least, m->plan->w->parts[p].layout->panel_rows);
    while (tasks < 4 * threads && m->tile_rows > least) {
        m->tile_rows /= 2;
        tasks = count_tasks(m);
    }
    return tasks;
}

/* ---- reduce ---- */

struct reduce {
    const struct fmk_epilogue *epilogue;
    const uint8_t *present;
    int64_t first_token;
};

static void reduce_task(void *arg, int64_t token) {
    const struct reduce *r = arg;
    fmk_reduce_token(r->epilogue, r->present, r->first_token, token);
}

/* ---- a slab ---- */

static void spread(struct fmk_context *ctx, bool serial, void (*body)(void *, int64_t), void *arg,
                   int64_t count) {
    if (!serial) {
        fmk_parallel(ctx, body, arg, count);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        body(arg, i);
}

static void run_slab(struct fmk_context *ctx, struct plan *plan, int64_t m, int64_t begin, int64_t end,
                     const struct room *room) {
    const struct fmk_call *call = plan->call;
    struct fmk_slab slab = room->slab;
    fmk_slab_fill(plan->w, call, m, begin, end, &slab);
    struct room here = {slab, room->tasks, room->pairs, room->present};

    bool serial = slab.count * plan->w->n <= SERIAL_WORK / plan->w->k;
    struct gather gather = {plan, &here, 1};
    for (int32_t s = 0; s < plan->slots; s++)
        gather.runs = fmk_max(gather.runs, (plan->slot[s].acts.k + FMK_ACTS_RUN - 1) / FMK_ACTS_RUN);
    spread(ctx, slab.count * plan->w->k <= SERIAL_WORK / 16, gather_run, &gather, slab.count * gather.runs);

    struct multiply multiply = {
        .plan = plan,
        .room = &here,
        .epilogue = {plan->w, call, &here.slab, room->pairs},
        .fused = call->args.act != FMK_ACT_NONE,
    };
    multiply.column_parts = multiply.fused ? 1 : plan->w->num_parts;
    int64_t tasks = cut(&multiply, serial ? 1 : ctx->info.threads);
    spread(ctx, serial, multiply_task, &multiply, tasks);

    if (call->reduce) {
        memset(room->present, 0, (size_t)((end - begin) * call->rows_per_token));
        for (int64_t i = 0; i < slab.count; i++)
            room->present[slab.row[i]] = 1;
        struct reduce reduce = {&multiply.epilogue, room->present, begin};
        spread(ctx, serial, reduce_task, &reduce, end - begin);
    }
}

static int64_t rows_there(const struct fmk_call *call) {
    const int32_t *there = fmk_pointer(call->args.m_dev);
    return there ? fmk_max(0, fmk_min(*there, call->args.m)) : call->args.m;
}

fmk_status fmk_cpu_linear(struct fmk_queue *queue, const struct fmk_projection *w,
                          const struct fmk_call *call) {
    int64_t m = rows_there(call);
    if (!m)
        return FMK_OK;
    struct plan plan;
    struct room room;
    make_plan(queue->ctx, w, call, &plan);
    const fmk_buffer *space = &call->args.workspace;
    int64_t least = lay_out(&plan, 1, NULL, &room);
    if (!space->handle || space->size < (uint64_t)least)
        return fmk_fail(FMK_EWORKSPACE, "workspace.size %llu is less than the least, %lld",
                        (unsigned long long)(space->handle ? space->size : 0), (long long)least);
    if ((space->handle + space->offset) % 256)
        return fmk_fail(FMK_EINVAL, "workspace is at address 0x%llx, which is not a multiple of 256",
                        (unsigned long long)(space->handle + space->offset));
    int64_t size = space->size < BEST_BYTES ? (int64_t)space->size : BEST_BYTES;
    fmk_status status = fmk_slab_check(w, call, m, fmk_pointer(*space), size);
    if (status)
        return status;

    int64_t units = fmk_slab_units(w, call, m);
    int64_t slab = fmk_max(1, units_in(&plan, units, space->size));
    lay_out(&plan, slab, fmk_pointer(*space), &room);
    for (int64_t begin = 0; begin < units; begin += slab)
        run_slab(queue->ctx, &plan, m, begin, fmk_min(begin + slab, units), &room);
    return FMK_OK;
}
