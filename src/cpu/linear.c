/* One linear call on the CPU: cut into slabs that fit the workspace; in each, gather the activations, compute
 * the tiles, reduce over top-k where asked. The cut never changes a result: kernels promise that. */
#include "linear.h"

#include "../abi.h"
#include "../context.h"
#include "../error.h"
#include "../parallel.h"
#include "activations.h"
#include "epilogue.h"
#include "features.h"
#include "slab.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ALIGN = 64,
    BEST_BYTES = 128 << 20, /* a slab grows no larger than this, whatever m is */
    ALONE_NS = 30000,       /* of work for which the pool is not woken */
    ALONE_VALUES = 1 << 16  /* of activations, likewise */
};

/* Everything about a call that is fixed before the first slab. */
struct plan {
    const struct fmk_projection *w;
    const struct fmk_call *call;
    const struct fmk_kernel *kernel[FMK_MAX_PARTS];
    struct fmk_slot slot[FMK_MAX_PARTS];
    int32_t slot_of[FMK_MAX_PARTS], slots;
    int32_t experts;
    int32_t streams;     /* of tiles */
    bool sheets;         /* some part's kernel is a gemm kernel */
    int32_t sheet_rows;  /* that all of them take at once */
    int64_t sheet_bytes; /* that each is content with */
    int32_t decode_cost, fetch_cost;
    int32_t workers; /* that have room for a sheet and sums of their own, where there are sheets */
};

/* Of one part's kernel, which is NULL where it takes tiles. */
static void add_sheets(struct plan *plan, const struct fmk_gemm *gemm) {
    plan->sheet_rows = (int32_t)fmk_min(plan->sheet_rows, gemm ? gemm->rows : FMK_TILE_N);
    if (!gemm)
        return;
    plan->sheets = true;
    plan->sheet_bytes = fmk_max(plan->sheet_bytes, gemm->sheet_bytes);
    plan->decode_cost = (int32_t)fmk_max(plan->decode_cost, gemm->decode_cost);
    plan->fetch_cost = (int32_t)fmk_max(plan->fetch_cost, gemm->fetch_cost);
}

static void make_plan(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                      struct plan *plan) {
    plan->w = w;
    plan->call = call;
    plan->slots = 0;
    plan->sheets = false;
    plan->sheet_rows = INT32_MAX;
    plan->sheet_bytes = 0;
    plan->decode_cost = plan->fetch_cost = 0;
    plan->workers = 1;
    plan->experts = w->num_experts ? w->num_experts : 1;
    plan->streams = ctx->features & FMK_CPU_STREAMS ? 4 : 1;
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
                .quantize = form == FMK_ACTS_F32 ? NULL : fmk_quantize_row_best(form, ctx->features),
                .load = fmk_load_acts_best(ctx->features)};
        plan->slot_of[p] = s;
        add_sheets(plan, plan->kernel[p]->gemm);
    }
}

/* A slab's place in the workspace. */
struct room {
    struct fmk_slab slab;
    int64_t *tasks; /* [experts + 1]: tasks before each expert's */
    float *pairs;   /* REDUCE_TOP_K */
    uint8_t *present;
    uint8_t *sheets; /* [workers]: a sheet, then sums of sum_tokens tokens, then those of `up` */
    int64_t sum_tokens, sums, sheet_stride; /* sums in bytes */
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
    room->sum_tokens = fmk_min(rows, fmk_gemm_tokens(plan->sheet_rows));
    room->sums = plan->sheet_rows * room->sum_tokens * (int64_t)sizeof(float);
    room->sheet_stride = fmk_round_up(plan->sheet_bytes, ALIGN) + (call->args.act ? 2 : 1) * room->sums;
    room->sheets = plan->sheets ? take(base, &at, plan->workers * room->sheet_stride) : NULL;
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

/* The same, with as many workers as there are threads, unless a smaller slab would be the price. */
static int64_t units_for(struct plan *plan, int32_t threads, int64_t most, uint64_t bytes) {
    plan->workers = 1;
    int64_t units = units_in(plan, most, bytes);
    if (!plan->sheets)
        return units;
    for (plan->workers = threads; plan->workers > 1; plan->workers = (plan->workers + 1) / 2)
        if (units_in(plan, most, bytes) >= fmk_min(units, FMK_TILE_M))
            return units_in(plan, most, bytes);
    return units;
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
    int64_t units = units_for(&plan, ctx->info.threads, most, BEST_BYTES);
    *best = (uint64_t)lay_out(&plan, fmk_max(1, units), NULL, &room);
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
    int64_t tokens;             /* of a task: a multiple of FMK_TILE_M, but where there are sheets */
    int64_t tasks, workers;
    atomic_int_least64_t next; /* task that a worker takes */
};

static int32_t tiles_of(const struct fmk_packed *part, int32_t tile_rows) {
    return (int32_t)((part->n + tile_rows - 1) / tile_rows);
}

/* One task: some rows of a part times some tokens of an expert. */
struct task {
    int32_t p, expert, rows;
    int64_t row, column; /* in the part; in the output */
    int64_t first, end;  /* tokens */
};

static struct task find_task(const struct multiply *m, int64_t i) {
    const struct fmk_projection *w = m->plan->w;
    const struct fmk_slab *slab = &m->room->slab;
    struct task task = {0};
    while (m->room->tasks[task.expert + 1] <= i)
        task.expert++;
    i -= m->room->tasks[task.expert];

    /* Neighbouring tasks share weights, so that they meet them in the cache. */
    int64_t begin = slab->first[task.expert], end = slab->first[task.expert + 1];
    int64_t chunks = (end - begin + m->tokens - 1) / m->tokens;
    int64_t tile = i / chunks, chunk = i % chunks;
    while (task.p < m->column_parts - 1 && tile >= tiles_of(&w->parts[task.p], m->tile_rows)) {
        tile -= tiles_of(&w->parts[task.p], m->tile_rows);
        task.column += w->parts[task.p++].n;
    }
    task.row = tile * m->tile_rows;
    task.rows = (int32_t)fmk_min(m->tile_rows, w->parts[task.p].n - task.row);
    task.column += task.row;
    task.first = begin + chunk * m->tokens;
    task.end = fmk_min(task.first + m->tokens, end);
    return task;
}

static void run_tile(const struct multiply *m, const struct task *task, int32_t p, int64_t first,
                     int32_t tokens, float *out) {
    const struct plan *plan = m->plan;
    const struct fmk_packed *part = &plan->w->parts[p];
    struct fmk_tile tile = {
        .part = part,
        .data = part->data + (uint64_t)task->expert * part->expert_stride,
        .acts = &plan->slot[plan->slot_of[p]].acts,
        .row = task->row,
        .rows = task->rows,
        .token = first,
        .tokens = tokens,
        .out = out,
        .streams = plan->streams,
    };
    plan->kernel[p]->tile(&tile);
}

/* All tokens of the task, by sheets where the part's kernel takes them. */
static void run_sheets(const struct multiply *m, const struct task *task, int32_t p, void *sheet,
                       float *out) {
    const struct plan *plan = m->plan;
    const struct fmk_packed *part = &plan->w->parts[p];
    struct fmk_gemm_job job = {
        .part = part,
        .data = part->data + (uint64_t)task->expert * part->expert_stride,
        .acts = &plan->slot[plan->slot_of[p]].acts.gemm,
        .row = task->row,
        .rows = task->rows,
        .token = task->first,
        .tokens = (int32_t)(task->end - task->first),
        .sheet = sheet,
        .out = out,
        .group = m->room->sum_tokens * FMK_TILE_N,
    };
    if (plan->kernel[p]->gemm) {
        plan->kernel[p]->gemm->run(&job);
        return;
    }
    for (int64_t first = task->first; first < task->end; first += FMK_TILE_M, out += FMK_TILE_M * FMK_TILE_N)
        run_tile(m, task, p, first, (int32_t)fmk_min(FMK_TILE_M, task->end - first), out);
}

static const float *bias_of(const struct fmk_packed *part, const struct task *task) {
    return part->bias ? part->bias + task->expert * part->n + task->row : NULL;
}

static void finish(const struct multiply *m, const struct task *task, int64_t first, int32_t tokens,
                   const float *out, const float *up) {
    const struct fmk_packed *parts = m->plan->w->parts;
    if (m->fused)
        fmk_store_glu(&m->epilogue, out, up, bias_of(&parts[task->p], task), bias_of(&parts[1], task), first,
                      tokens, task->row, task->rows);
    else
        fmk_store_tile(&m->epilogue, out, bias_of(&parts[task->p], task), first, tokens, task->column,
                       task->rows);
}

/* Sums lie in groups of 64 rows. A few tokens at a time, so that the pages of their outputs, which may lie
 * far apart, are found once for all groups. */
static void finish_sheets(const struct multiply *m, const struct task *all, const float *out,
                          const float *up) {
    enum { TOKENS = 8 };
    const int64_t group = m->room->sum_tokens * FMK_TILE_N;
    for (int64_t first = all->first; first < all->end; first += TOKENS) {
        int32_t tokens = (int32_t)fmk_min(TOKENS, all->end - first);
        struct task task = *all;
        for (int32_t row = 0; row < all->rows; row += FMK_TILE_N) {
            int64_t at = row / FMK_TILE_N * group + (first - all->first) * FMK_TILE_N;
            task.rows = (int32_t)fmk_min(all->rows - row, FMK_TILE_N);
            finish(m, &task, first, tokens, out + at, up + at);
            task.row += FMK_TILE_N;
            task.column += FMK_TILE_N;
        }
    }
}

static void multiply_task(const struct multiply *m, int64_t i) {
    struct task task = find_task(m, i);
    _Alignas(64) float out[FMK_TILE_M * FMK_TILE_N], up[FMK_TILE_M * FMK_TILE_N];
    for (int64_t first = task.first; first < task.end; first += FMK_TILE_M) {
        int32_t tokens = (int32_t)fmk_min(FMK_TILE_M, task.end - first);
        run_tile(m, &task, task.p, first, tokens, out);
        if (m->fused)
            run_tile(m, &task, 1, first, tokens, up);
        finish(m, &task, first, tokens, out, up);
    }
}

/* Takes tasks until there are none. Tasks that follow one another in memory are taken together, of what is
 * left half a worker's share: so each reads in one place for long, and all end at about the same time. */
static void multiply_worker(void *arg, int64_t worker) {
    struct multiply *m = arg;
    (void)worker;
    for (int64_t begin = atomic_load(&m->next); begin < m->tasks;) {
        int64_t end = begin + fmk_max(1, (m->tasks - begin) / (2 * m->workers));
        if (!atomic_compare_exchange_weak(&m->next, &begin, end))
            continue; /* begin is what it is now */
        for (; begin < end; begin++)
            multiply_task(m, begin);
        begin = atomic_load(&m->next);
    }
}

/* Takes tasks until there are none: a sheet's room is a worker's, and there are as many as have some. */
static void multiply_sheets(void *arg, int64_t worker) {
    struct multiply *m = arg;
    uint8_t *sheet = m->room->sheets + worker * m->room->sheet_stride;
    float *out = (float *)(sheet + fmk_round_up(m->plan->sheet_bytes, ALIGN)), *up = out;
    if (m->fused)
        up += m->room->sums / (int64_t)sizeof(float);
    for (int64_t i; (i = atomic_fetch_add(&m->next, 1)) < m->tasks;) {
        struct task task = find_task(m, i);
        run_sheets(m, &task, task.p, sheet, out);
        if (m->fused)
            run_sheets(m, &task, 1, sheet, up);
        finish_sheets(m, &task, out, up);
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
static int64_t cut(struct multiply *m) {
    m->tile_rows = FMK_TILE_N;
    m->tokens = fmk_max(FMK_TILE_M, fmk_round_up(m->room->slab.count, FMK_TILE_M));
    int64_t tasks = count_tasks(m);
    while (m->workers > 1 && tasks < 4 * m->workers && m->tokens > FMK_TILE_M) {
        m->tokens = fmk_round_up(m->tokens / 2, FMK_TILE_M);
        tasks = count_tasks(m);
    }
    int32_t least = 8; /* rows: whole panels */
    for (int32_t p = 0; p < m->plan->w->num_parts; p++)
        least = (int32_t)fmk_max(least, m->plan->w->parts[p].layout->panel_rows);
    while (m->workers > 1 && tasks < 4 * m->workers && m->tile_rows > least) {
        m->tile_rows /= 2;
        tasks = count_tasks(m);
    }
    return tasks;
}

/* Where there are sheets: what takes least. Narrow tasks fetch activations more often and short ones decode
 * more often; at the end workers wait for one another, half a task on average. */
static int64_t cut_sheets(struct multiply *m) {
    const struct plan *plan = m->plan;
    const int64_t most_tokens = m->room->sum_tokens;
    int64_t best = INT64_MAX, longest = 0, best_tokens = most_tokens;
    int32_t best_rows = plan->sheet_rows;
    for (int32_t e = 0; e < plan->experts; e++)
        longest = fmk_max(longest, m->room->slab.first[e + 1] - m->room->slab.first[e]);
    for (m->tile_rows = plan->sheet_rows; m->tile_rows >= FMK_STRIP; m->tile_rows /= 2)
        for (int64_t cuts = (longest + most_tokens - 1) / most_tokens; cuts; cuts *= 2) {
            m->tokens = fmk_min(fmk_round_up((longest + cuts - 1) / cuts, FMK_STRIP), most_tokens);
            int64_t turns = (count_tasks(m) + m->workers - 1) / m->workers;
            int64_t tokens = fmk_min(m->tokens, longest);
            int64_t task = m->tile_rows * (tokens + plan->decode_cost) + tokens * plan->fetch_cost;
            int64_t cost = (2 * turns + (m->workers > 1)) * task;
            if (cost < best) {
                best = cost;
                best_rows = m->tile_rows;
                best_tokens = m->tokens;
            }
            if (m->tokens <= FMK_STRIP)
                break;
        }
    m->tile_rows = best_rows;
    m->tokens = best_tokens;
    return count_tasks(m);
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

static void spread(struct fmk_context *ctx, bool alone, void (*body)(void *, int64_t), void *arg,
                   int64_t count) {
    if (!alone) {
        fmk_parallel(ctx, body, arg, count);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        body(arg, i);
}

/* Whether a slab takes so little time that the calling thread works alone. Of weights one thread reads some
 * 24 bytes per ns, of products it makes some 100 of int8 or 32 of float. */
static bool works_alone(const struct plan *plan, const struct fmk_slab *slab) {
    const struct fmk_projection *w = plan->w;
    double read = 0, multiply = 0;
    for (int32_t p = 0; p < w->num_parts; p++) {
        const struct fmk_packed *part = &w->parts[p];
        bool floats = plan->kernel[p]->acts == FMK_ACTS_F32;
        read += (double)part->bytes / part->experts * (double)fmk_min(slab->count, part->experts) / 24;
        multiply += (double)slab->count * (double)part->n * (double)part->k / (floats ? 32 : 100);
    }
    return fmax(read, multiply) <= ALONE_NS;
}

static void run_slab(struct fmk_context *ctx, struct plan *plan, int64_t m, int64_t begin, int64_t end,
                     const struct room *room) {
    const struct fmk_call *call = plan->call;
    struct fmk_slab slab = room->slab;
    fmk_slab_fill(plan->w, call, m, begin, end, &slab);
    struct room here = *room;
    here.slab = slab;

    bool alone = works_alone(plan, &slab);
    struct gather gather = {plan, &here, 1};
    for (int32_t s = 0; s < plan->slots; s++)
        gather.runs = fmk_max(gather.runs, (plan->slot[s].acts.k + FMK_ACTS_RUN - 1) / FMK_ACTS_RUN);
    spread(ctx, slab.count * plan->w->k <= ALONE_VALUES, gather_run, &gather, slab.count * gather.runs);

    struct multiply multiply = {
        .plan = plan,
        .room = &here,
        .epilogue = {plan->w, call, &here.slab, room->pairs},
        .fused = call->args.act != FMK_ACT_NONE,
    };
    multiply.column_parts = multiply.fused ? 1 : plan->w->num_parts;
    multiply.workers = alone ? 1 : plan->sheets ? plan->workers : ctx->info.threads;
    multiply.tasks = plan->sheets ? cut_sheets(&multiply) : cut(&multiply);
    spread(ctx, alone, plan->sheets ? multiply_sheets : multiply_worker, &multiply,
           fmk_min(multiply.workers, multiply.tasks));

    if (call->reduce) {
        memset(room->present, 0, (size_t)((end - begin) * call->rows_per_token));
        for (int64_t i = 0; i < slab.count; i++)
            room->present[slab.row[i]] = 1;
        struct reduce reduce = {&multiply.epilogue, room->present, begin};
        spread(ctx, alone, reduce_task, &reduce, end - begin);
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
    int64_t slab = fmk_max(1, units_for(&plan, queue->ctx->info.threads, units, space->size));
    lay_out(&plan, slab, fmk_pointer(*space), &room);
    for (int64_t begin = 0; begin < units; begin += slab)
        run_slab(queue->ctx, &plan, m, begin, fmk_min(begin + slab, units), &room);
    return FMK_OK;
}
