/* Random weights and calls through the public API, each against the same sums in double: formats, shapes,
 * shards, orders, experts, packing, routing, epilogues, types, strides, workspaces and threads in whatever
 * combination comes up. A failure prints the seed of its case: FMK_TEST_SEED=that runs it first. */
#include "calls.h"

#include <pthread.h>
#include <time.h>

enum { MAX_PARTS = 3, MAX_EXPERTS = 5, MAX_TOP_K = 4, MAX_M = 70, CALLS = 4 };

static double seconds_to_run(void) {
    return quick() ? 2 : 8;
}

static bool chance(struct ref_rng *rng, int percent) {
    return ref_below(rng, 100) < percent;
}

static int64_t between(struct ref_rng *rng, int64_t low, int64_t high) {
    return low + ref_below(rng, high - low + 1);
}

static fmk_dtype random_float(struct ref_rng *rng) {
    return (fmk_dtype)between(rng, FMK_F16, FMK_F32);
}

/* ---- threads of the engine's own ---- */

struct half {
    void (*body)(void *arg, int64_t i);
    void *arg;
    int64_t first, count;
};

static void *run_half(void *half_) {
    const struct half *h = half_;
    for (int64_t i = h->first; i < h->count; i += 2)
        h->body(h->arg, i);
    return NULL;
}

/* Odd ones on another thread; even ones here, last first. */
static void own_parallel_for(void *user, void (*body)(void *arg, int64_t i), void *arg, int64_t count) {
    ++*(int *)user;
    struct half odd = {body, arg, 1, count};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_half, &odd), 0);
    for (int64_t i = (count - 1) / 2 * 2; i >= 0; i -= 2)
        body(arg, i);
    pthread_join(thread, NULL);
}

static struct bench random_bench(struct ref_rng *rng, int *parallel_calls) {
    fmk_context_desc desc = context_desc((int32_t)between(rng, 1, 3));
    if (chance(rng, 30)) {
        desc.parallel_for = own_parallel_for;
        desc.parallel_user = parallel_calls;
    }
    return bench_of(&desc);
}

/* ---- weights ---- */

/* A weight, what it was made of, and the numbers that it must hold. */
struct subject {
    struct ref_weight parts[MAX_PARTS];
    int num_parts;
    int32_t experts; /* as in the descriptor */
    bool glu;
    int64_t n, k;
    double *values; /* [experts][n][k] */
    double *bias;   /* [experts][n], as apply_bias has it */
    fmk_weight *weight;
    uint8_t *storage, *packed; /* the caller's memory that it lies in, or NULL */
    size_t storage_size, packed_size;
};

static struct ref_spec random_spec(struct ref_rng *rng) {
    static const fmk_format formats[] = {FMK_FORMAT_DENSE,   FMK_FORMAT_GPTQ,   FMK_FORMAT_GPTQ,
                                         FMK_FORMAT_GPTQ_V2, FMK_FORMAT_MARLIN, FMK_FORMAT_Q4_K,
                                         FMK_FORMAT_Q6_K};
    static const int32_t sizes[] = {-1, 8, 24, 32, 32, 40, 64, 128, 1000};
    struct ref_spec spec = {.format = formats[ref_below(rng, 7)], .dtype = random_float(rng)};
    if (chance(rng, 50))
        spec.bias = random_float(rng);
    if (chance(rng, 30))
        spec.misalign = (int32_t)between(rng, 1, 7);
    if (spec.format == FMK_FORMAT_MARLIN && spec.dtype == FMK_F32)
        spec.dtype = FMK_F16;
    if (spec.format != FMK_FORMAT_DENSE && spec.format < FMK_FORMAT_Q4_K)
        spec.group_size = sizes[ref_below(rng, 9)];
    if (spec.format == FMK_FORMAT_GPTQ || spec.format == FMK_FORMAT_GPTQ_V2) {
        spec.zeros = (enum ref_zeros)ref_below(rng, 4);
        spec.groups = chance(rng, 50) ? (enum ref_groups)ref_below(rng, 5) : REF_GROUPS_NONE;
    }
    return spec;
}

/* What k and a shard's ends along it are multiples of. */
static int64_t k_multiple(fmk_format format) {
    return format == FMK_FORMAT_MARLIN  ? 16
           : format >= FMK_FORMAT_Q4_K  ? 256
           : format == FMK_FORMAT_DENSE ? 1
                                        : 8;
}

static int64_t k_cut(fmk_format format) {
    return format == FMK_FORMAT_GPTQ || format == FMK_FORMAT_GPTQ_V2 ? 1 : k_multiple(format);
}

/* A part whose shard is rows x columns. */
static void make_part(struct ref_weight *made, struct ref_spec spec, int64_t rows, int64_t columns,
                      int32_t experts, struct ref_rng *rng) {
    int64_t cut = k_cut(spec.format), whole = k_multiple(spec.format);
    int64_t k_begin = chance(rng, 40) ? between(rng, 0, 40) / cut * cut + (chance(rng, 30) ? cut : 0) : 0;
    int64_t n_begin = chance(rng, 40) ? between(rng, 0, 20) : 0;
    spec.k = k_begin + columns + (chance(rng, 40) ? between(rng, 0, 40) / cut * cut : 0);
    spec.k = (spec.k + whole - 1) / whole * whole;
    spec.n = n_begin + rows + (chance(rng, 40) ? between(rng, 0, 20) : 0);
    if (spec.format == FMK_FORMAT_MARLIN)
        spec.n = (spec.n + 63) / 64 * 64;
    spec.experts = experts;
    ref_make(made, &spec, rng);
    made->part.n_begin = n_begin;
    made->part.n_end = n_begin + rows == spec.n && chance(rng, 50) ? 0 : n_begin + rows;
    made->part.k_begin = k_begin;
    made->part.k_end = k_begin + columns == spec.k && chance(rng, 50) ? 0 : k_begin + columns;
    if (spec.zeros == REF_ZEROS_RANDOM)
        made->part.symmetric = -1;
    if (spec.zeros == REF_ZEROS_ABSENT && chance(rng, 50))
        made->part.symmetric = 1;
    if (chance(rng, 30)) {
        int32_t all = experts ? experts : 1, *order = malloc((size_t)(all * rows) * sizeof *order);
        assert_non_null(order);
        for (int32_t e = 0; e < all; e++)
            ref_shuffle(rng, order + e * rows, rows);
        ref_set_order(made, order, rows);
        free(order);
    }
}

static void tabulate(struct subject *s, int32_t apply_bias) {
    int32_t experts = s->experts ? s->experts : 1;
    s->values = calloc((size_t)(experts * s->n * s->k), sizeof *s->values);
    s->bias = calloc((size_t)(experts * s->n), sizeof *s->bias);
    assert_non_null(s->values);
    assert_non_null(s->bias);
    double *value = s->values, *bias = s->bias;
    for (int32_t e = 0; e < experts; e++)
        for (int p = 0; p < s->num_parts; p++) {
            const struct ref_weight *part = &s->parts[p];
            bool adds = apply_bias > 0 || (apply_bias == 0 && part->part.k_begin == 0);
            for (int64_t row = 0; row < ref_rows(part); row++) {
                *bias++ = adds ? ref_bias(part, e, row) : 0;
                for (int64_t k = 0; k < s->k; k++)
                    *value++ = ref_value(part, e, row, k);
            }
        }
}

/* A weight that borrows nothing needs its sources no more: they are overwritten. */
static void scribble(const fmk_tensor *tensor) {
    if (tensor->data.handle)
        memset((char *)(uintptr_t)tensor->data.handle + tensor->data.offset, 0xee, tensor->data.size);
}

static void forget_sources(struct subject *s) {
    for (int p = 0; p < s->num_parts; p++) {
        scribble(&s->parts[p].part.qweight);
        scribble(&s->parts[p].part.scales);
        scribble(&s->parts[p].part.qzeros);
        scribble(&s->parts[p].part.g_idx);
        scribble(&s->parts[p].part.bias);
        scribble(&s->parts[p].part.n_order);
    }
}

static int32_t told_all(void *user, uint64_t done, uint64_t total) {
    uint64_t *seen = user;
    assert_true(done >= seen[0] && done <= total && (!seen[1] || seen[1] == total));
    seen[0] = done;
    seen[1] = total;
    return 0;
}

static void create(struct subject *s, struct bench *b, struct ref_rng *rng) {
    fmk_part parts[MAX_PARTS];
    fmk_weight_desc desc = desc_of(parts, s->parts, s->num_parts);
    uint64_t size, align, seen[2] = {0};
    desc.flags = (s->glu ? FMK_WEIGHT_GLU : 0u) | (chance(rng, 40) ? FMK_WEIGHT_BORROW : 0u);
    desc.apply_bias = (int32_t)between(rng, -1, 1);
    desc.progress = told_all;
    desc.progress_user = seen;
    tabulate(s, desc.apply_bias);
    OK(fmk_weight_storage(b->ctx, &desc, &size, &align));
    if (size && chance(rng, 40)) {
        s->storage_size = size;
        s->storage = storage_alloc(size);
        assert_int_equal((uintptr_t)s->storage % align, 0);
        desc.storage = buffer(s->storage, size);
    }
    OK(run_create(&s->weight, b->queue, &desc));
    assert_true(seen[0] == seen[1]);
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_weight_info(s->weight, &info));
    assert_int_equal(info.n, s->n);
    assert_int_equal(info.k, s->k);
    assert_int_equal(info.num_experts, s->experts);
    assert_int_equal(info.glu, s->glu);
    assert_true(!info.borrowed || desc.flags & FMK_WEIGHT_BORROW);
    if (!info.borrowed)
        forget_sources(s);
}

/* The same weight once more, out of its exported bytes. */
static void import(struct subject *s, struct bench *b, struct ref_rng *rng) {
    uint64_t size;
    OK(fmk_weight_export(s->weight, NULL, 0, &size));
    s->packed = fenced(s->packed_size = size);
    OK(fmk_weight_export(s->weight, s->packed, size, &size));
    fmk_weight_destroy(s->weight, chance(rng, 50) ? b->queue : NULL);
    forget_sources(s);
    fmk_part part = {
        .struct_size = sizeof part, .format = FMK_FORMAT_PACKED, .qweight.data = buffer(s->packed, size)};
    fmk_weight_desc desc = weight_desc(&part, 1);
    uint64_t seen[2] = {0};
    desc.flags = chance(rng, 50) ? FMK_WEIGHT_BORROW : 0u;
    desc.progress = told_all;
    desc.progress_user = seen;
    OK(run_create(&s->weight, b->queue, &desc));
    /* A GPU borrows nothing from the host's memory. */
    assert_true(seen[0] == seen[1] && (on_gpu() || seen[1] == (desc.flags ? 0 : size)));
    uint64_t again;
    OK(fmk_weight_export(s->weight, NULL, 0, &again));
    assert_int_equal(again, size);
    uint8_t *second = fenced(size);
    OK(fmk_weight_export(s->weight, second, size, &again));
    assert_memory_equal(second, s->packed, size);
    release(second, size);
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_weight_info(s->weight, &info));
    assert_true(desc.flags & FMK_WEIGHT_BORROW ? on_gpu() || info.borrowed : !info.borrowed);
    if (!info.borrowed)
        memset(s->packed, 0xee, size);
}

static void make_subject(struct subject *s, struct bench *b, struct ref_rng *rng) {
    *s = (struct subject){.glu = chance(rng, 35)};
    struct ref_spec specs[MAX_PARTS];
    s->num_parts = s->glu ? 2 : (int)between(rng, 1, MAX_PARTS);
    s->experts = chance(rng, 50) ? (int32_t)between(rng, 1, MAX_EXPERTS) : 0;
    int64_t multiple = 1, rows = between(rng, 1, 80);
    for (int p = 0; p < s->num_parts; p++) {
        specs[p] = random_spec(rng);
        multiple = multiple > k_cut(specs[p].format) ? multiple : k_cut(specs[p].format);
    }
    s->k = (between(rng, 1, chance(rng, 50) ? 70 : 600) + multiple - 1) / multiple * multiple;
    for (int p = 0; p < s->num_parts; p++) {
        if (!s->glu)
            rows = between(rng, 1, 80);
        make_part(&s->parts[p], specs[p], rows, s->k, s->experts, rng);
        s->n += rows;
    }
    create(s, b, rng);
    if (chance(rng, 30))
        import(s, b, rng);
}

static void free_subject(struct subject *s, struct bench *b, struct ref_rng *rng) {
    /* any order */
    bool queue_first = chance(rng, 50);
    if (chance(rng, 50)) {
        if (!b->shared)
            fmk_context_destroy(b->ctx);
        b->ctx = NULL;
    }
    if (queue_first)
        fmk_queue_destroy(b->queue);
    fmk_weight_destroy(s->weight, queue_first ? NULL : b->queue);
    if (!queue_first)
        fmk_queue_destroy(b->queue);
    if (!b->shared)
        fmk_context_destroy(b->ctx);
    free_borrowed_sources();
    if (s->storage)
        storage_free(s->storage, s->storage_size);
    if (s->packed)
        release(s->packed, s->packed_size);
    for (int p = 0; p < s->num_parts; p++)
        ref_free(&s->parts[p]);
    free(s->values);
    free(s->bias);
}

/* Each value is one product or difference, of float factors: a few roundings. */
static void check_values(const struct subject *s, struct bench *b, struct ref_rng *rng) {
    int32_t experts = s->experts ? s->experts : 1, expert = (int32_t)ref_below(rng, experts);
    int64_t stride = s->k + between(rng, 0, 3);
    struct matrix all = matrix(FMK_F32, s->n, s->k, stride), some = matrix(FMK_F32, 5, s->k, stride);
    fmk_buffer out = buffer_of(&all);
    OK(run_dequantize(b->queue, s->weight, expert, &out, FMK_F32, stride));
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t k = 0; k < s->k; k++) {
            double want = s->values[(expert * s->n + n) * s->k + k];
            if (!(fabs(at(&all, n, k) - want) <= 1e-6 * fabs(want) + 1e-7))
                fail_msg("dequantized [%d][%lld][%lld]: want %g got %g", expert, (long long)n, (long long)k,
                         want, at(&all, n, k));
        }
    assert_gaps_untouched(&all);
    int32_t ids[5];
    for (int i = 0; i < 5; i++)
        ids[i] = (int32_t)between(rng, -1, s->n);
    fmk_rows_args args = {.struct_size = sizeof args,
                          .out_type = FMK_F32,
                          .m = 5,
                          .out_stride = stride,
                          .expert = expert,
                          .ids = buffer(ids, sizeof ids),
                          .out = buffer_of(&some)};
    OK(run_rows(b->queue, s->weight, &args));
    for (int i = 0; i < 5; i++)
        for (int64_t k = 0; k < s->k; k++)
            assert_true(at(&some, i, k) == (ids[i] < 0 || ids[i] >= s->n ? 0 : at(&all, ids[i], k)));
    assert_gaps_untouched(&some);
    free_matrix(&all);
    free_matrix(&some);
}

/* ---- calls ---- */

/* One row of the product: which expert makes it of which input, and where it goes. */
struct job {
    int32_t expert;
    int64_t in, out; /* first element */
    int64_t addend;  /* row */
    int64_t token;   /* REDUCE_TOP_K */
    double weight;
};

struct trial {
    const struct subject *s;
    fmk_linear_args args;
    fmk_routing routing;
    struct matrix in, addend; /* one row of all elements, as they lie */
    double *x;                /* of in */
    uint8_t *out, *before;
    size_t out_size;
    int64_t width, there; /* columns of out; tokens really there */
    bool pairs, reduce;
    int32_t m_dev, in_rows[MAX_M], ids[MAX_M * MAX_TOP_K], order[MAX_M * MAX_TOP_K], offsets[MAX_EXPERTS + 1];
    float weights[MAX_M * MAX_TOP_K];
    struct job jobs[MAX_M * MAX_TOP_K + MAX_M * MAX_EXPERTS];
    int num_jobs;
};

static void add_job(struct trial *t, int32_t expert, int64_t in, int64_t out, int64_t row, int64_t token) {
    double weight = t->routing.pair_weights.handle ? (double)t->weights[row] : 1;
    t->jobs[t->num_jobs++] = (struct job){expert, in, out, t->reduce ? token : row, token, weight};
}

/* Pairs in the order of their experts, as fmk_route_sort has them: m_dev may leave some out. */
static void jobs_of_pairs(struct trial *t) {
    const fmk_linear_args *a = &t->args;
    int32_t top_k = t->routing.top_k;
    for (int64_t pair = 0; pair < t->there * top_k; pair++) {
        int64_t expert = (int64_t)t->ids[pair] - t->routing.expert_base;
        if (t->ids[pair] < 0 || expert < 0 || expert >= t->s->experts)
            continue;
        int64_t in = t->routing.in_per_pair ? pair : pair / top_k;
        add_job(t, (int32_t)expert, in * a->in_stride, pair * a->out_stride, pair, pair / top_k);
    }
}

static void route_pairs(struct trial *t, struct bench *b, struct ref_rng *rng) {
    fmk_routing *r = &t->routing;
    int64_t m = t->args.m;
    r->top_k = (int32_t)between(rng, 1, MAX_TOP_K);
    r->expert_base = chance(rng, 50) ? (int32_t)between(rng, -3, 9) : 0;
    r->in_per_pair = chance(rng, 50);
    for (int64_t i = 0; i < m * r->top_k; i++)
        t->ids[i] = chance(rng, 15) ? -1 : r->expert_base + (int32_t)between(rng, -1, t->s->experts);
    if (r->kind == FMK_ROUTE_IDS) {
        r->ids = buffer(t->ids, (size_t)(m * r->top_k) * sizeof *t->ids);
        return;
    }
    fmk_routing ids = *r, sorted = {.struct_size = sizeof sorted};
    ids.kind = FMK_ROUTE_IDS;
    ids.ids = buffer(t->ids, sizeof t->ids);
    sorted.offsets = r->offsets = buffer(t->offsets, (size_t)(t->s->experts + 1) * sizeof *t->offsets);
    sorted.pairs = r->pairs = buffer(t->order, sizeof t->order);
    OK(run_route_sort(b->queue, &ids, m, t->s->experts, &sorted));
}

static void route_rows(struct trial *t, struct ref_rng *rng) {
    int64_t at = 0, m = t->args.m;
    t->offsets[0] = 0;
    for (int32_t e = 0; e < t->s->experts; e++)
        t->offsets[e + 1] = (int32_t)(at += chance(rng, 30) ? 0 : ref_below(rng, m - at + 1));
    t->routing.offsets = buffer(t->offsets, (size_t)(t->s->experts + 1) * sizeof *t->offsets);
}

static void choose_route(struct trial *t, struct bench *b, struct ref_rng *rng) {
    fmk_routing *r = &t->routing;
    r->struct_size = sizeof *r;
    bool experts = t->s->experts;
    if (!experts && chance(rng, 80))
        return;
    t->args.routing = r;
    r->kind = experts ? (fmk_route)between(rng, FMK_ROUTE_NONE, FMK_ROUTE_BATCH) : FMK_ROUTE_NONE;
    t->pairs = r->kind == FMK_ROUTE_IDS || (r->kind == FMK_ROUTE_SORTED && chance(rng, 60));
    if (r->kind == FMK_ROUTE_NONE)
        r->expert = experts ? (int32_t)ref_below(rng, t->s->experts) : 0;
    if (t->pairs)
        route_pairs(t, b, rng);
    else if (r->kind == FMK_ROUTE_SORTED)
        route_rows(t, rng);
    t->reduce = t->pairs && chance(rng, 40);
    if (r->kind != FMK_ROUTE_BATCH && chance(rng, 40))
        r->pair_weights =
            buffer(t->weights, (size_t)(t->args.m * (t->pairs ? r->top_k : 1)) * sizeof *t->weights);
}

/* Strides, and the elements that `in` and `out` take. */
static void choose_strides(struct trial *t, int64_t *in_size, int64_t *out_size, struct ref_rng *rng) {
    fmk_linear_args *a = &t->args;
    fmk_routing *r = &t->routing;
    int64_t rows = t->pairs ? a->m * r->top_k : a->m, k = t->s->k;
    int64_t in_rows = t->pairs && !r->in_per_pair ? a->m : rows, out_rows = t->reduce ? a->m : rows;
    a->in_stride = k + (chance(rng, 50) ? ref_below(rng, 9) : 0);
    a->out_stride = t->width + (chance(rng, 50) ? ref_below(rng, 9) : 0);
    if (r->kind != FMK_ROUTE_BATCH) {
        if (!t->pairs && r->kind == FMK_ROUTE_NONE && chance(rng, 30)) {
            in_rows = between(rng, 1, 9);
            for (int64_t i = 0; i < a->m; i++)
                t->in_rows[i] = (int32_t)ref_below(rng, in_rows);
            a->in_rows = buffer(t->in_rows, (size_t)a->m * sizeof *t->in_rows);
        }
        *in_size = (in_rows - 1) * a->in_stride + k;
        *out_size = (out_rows - 1) * a->out_stride + t->width;
        return;
    }
    int64_t experts = t->s->experts;
    if (chance(rng, 50)) { /* [experts][m] */
        r->expert_in_stride = a->m * a->in_stride + ref_below(rng, 5);
        r->expert_out_stride = a->m * a->out_stride + ref_below(rng, 5);
    } else { /* [m][experts]; sometimes the same input for all */
        r->expert_in_stride = chance(rng, 30) ? 0 : a->in_stride;
        r->expert_out_stride = a->out_stride;
        a->in_stride *= experts;
        a->out_stride *= experts;
    }
    *in_size = (a->m - 1) * a->in_stride + (experts - 1) * r->expert_in_stride + k;
    *out_size = (a->m - 1) * a->out_stride + (experts - 1) * r->expert_out_stride + t->width;
}

static void list_jobs(struct trial *t) {
    const fmk_linear_args *a = &t->args;
    const fmk_routing *r = &t->routing;
    if (t->pairs) {
        jobs_of_pairs(t);
    } else if (r->kind == FMK_ROUTE_BATCH) {
        for (int32_t e = 0; e < t->s->experts; e++)
            for (int64_t i = 0; i < t->there; i++)
                add_job(t, e, e * r->expert_in_stride + i * a->in_stride,
                        e * r->expert_out_stride + i * a->out_stride, i, i);
    } else if (r->kind == FMK_ROUTE_SORTED) {
        for (int32_t e = 0; e < t->s->experts; e++)
            for (int64_t i = t->offsets[e]; i < t->offsets[e + 1] && i < t->there; i++)
                add_job(t, e, i * a->in_stride, i * a->out_stride, i, i);
    } else {
        for (int64_t i = 0; i < t->there; i++)
            add_job(t, r->expert, (a->in_rows.handle ? t->in_rows[i] : i) * a->in_stride, i * a->out_stride,
                    i, i);
    }
}

static void choose_addend(struct trial *t, int64_t out_size, struct ref_rng *rng) {
    fmk_linear_args *a = &t->args;
    int64_t width = t->reduce ? t->width : t->s->n,
            rows = t->pairs && !t->reduce ? a->m * t->routing.top_k : a->m;
    if (t->routing.kind == FMK_ROUTE_BATCH || chance(rng, 50))
        return;
    if (width == t->width && chance(rng, 40)) {
        a->addend = a->out;
        a->addend_type = a->out_type;
        a->addend_stride = a->out_stride;
        t->addend = matrix(a->out_type, 1, out_size, out_size);
        for (int64_t i = 0; i < out_size; i++)
            ref_store(a->out_type, t->out + i * ref_size(a->out_type), ref_normal(rng));
        memcpy(t->addend.data, t->out, t->out_size);
        return;
    }
    a->addend_type = random_float(rng);
    a->addend_stride = width + (chance(rng, 50) ? ref_below(rng, 9) : 0);
    int64_t size = (rows - 1) * a->addend_stride + width;
    t->addend = random_matrix(a->addend_type, 1, size, size, rng);
    a->addend = buffer_of(&t->addend);
}

static void choose_call(struct trial *t, const struct subject *s, struct bench *b, struct ref_rng *rng) {
    *t = (struct trial){.s = s, .args = {.struct_size = sizeof t->args}};
    fmk_linear_args *a = &t->args;
    static const uint32_t modes[] = {0, FMK_LINEAR_EXACT, FMK_LINEAR_REFERENCE, FMK_LINEAR_FAST_REDUCE};
    a->flags = modes[ref_below(rng, 4)] | (chance(rng, 30) ? FMK_LINEAR_BATCH_INVARIANT : 0u);
    a->m = between(rng, 1, chance(rng, 60) ? 9 : MAX_M);
    a->in_type = random_float(rng);
    a->out_type = random_float(rng);
    for (int i = 0; i < MAX_M * MAX_TOP_K; i++)
        t->weights[i] = (float)ref_normal(rng);
    choose_route(t, b, rng);
    if (t->reduce)
        a->flags |= FMK_LINEAR_REDUCE_TOP_K;
    if (s->glu && chance(rng, 75))
        a->act = (fmk_act)between(rng, FMK_ACT_SILU_MUL, FMK_ACT_SWIGLU_CLAMP);
    if (chance(rng, 30)) {
        a->act_alpha = 1.5f;
        a->act_limit = 2;
    }
    t->width = a->act ? s->n / 2 : s->n;
    int64_t in_size, out_size;
    choose_strides(t, &in_size, &out_size, rng);
    t->there = a->m;
    if (chance(rng, 30)) {
        t->m_dev = (int32_t)between(rng, -1, a->m + 2);
        a->m_dev = buffer(&t->m_dev, sizeof t->m_dev);
        t->there = t->m_dev < 0 ? 0 : t->m_dev < a->m ? t->m_dev : a->m;
    }
    t->in = random_matrix(a->in_type, 1, in_size, in_size, rng);
    a->in = buffer_of(&t->in);
    t->x = malloc((size_t)in_size * sizeof *t->x);
    assert_non_null(t->x);
    for (int64_t i = 0; i < in_size; i++)
        t->x[i] = at(&t->in, 0, i);
    t->out_size = (size_t)(out_size * ref_size(a->out_type));
    t->out = fenced(t->out_size);
    a->out = buffer(t->out, t->out_size);
    choose_addend(t, out_size, rng);
    t->before = malloc(t->out_size);
    assert_non_null(t->before);
    memcpy(t->before, t->out, t->out_size);
    list_jobs(t);
}

/* ---- what a call should give ---- */

/* A number, and how far off a right answer may be. */
struct known {
    double value, slack;
};

/* What the default mode may be off by, of a sum whose weights have this square, products this square and
 * products these magnitudes: eight standard deviations of independent roundings. On the CPU each activation
 * is rounded by up to half a step of the largest / 127, and with FAST_REDUCE each weight likewise. On a GPU
 * each weight may be rounded to the activations' type, off by 0.72 / sqrt(3) = 0.42 units (see gpu_bound) or,
 * where it is small in f16, half of 2^-24; float activations stay within 1e-5; and tensor cores cut, not
 * round, at 2^-24 of the sum so far at every 16th k. On Vulkan both factors may be rounded to f16 and 32
 * products be summed there (bound_of: 4.5 units); if they have one sign, such a sum grows evenly, and its
 * roundings are sqrt(32^3 / 3) units of a product: 18.5 of all that there are, over the root of their number.
 */
static double default_slack(const struct trial *t, double largest, double heaviest, double weights,
                            double inputs, double products, double size) {
    if (!on_gpu()) {
        double fast = t->args.flags & FMK_LINEAR_FAST_REDUCE ? heaviest * sqrt(inputs) : 0;
        return 8 / 127.0 / sqrt(12) * (largest * sqrt(weights) + fast);
    }
    if (test_backend() == FMK_BACKEND_VULKAN)
        return 8 * 0.42 * 0x1p-11 * (4.5 * sqrt(products) + 18.5 / sqrt((double)t->s->k) * size) +
               0x1p-25 * sqrt(inputs) + 0x1p-29 * largest * sqrt(weights);
    double unit = t->args.in_type == FMK_F16    ? 0.42 * 0x1p-11
                  : t->args.in_type == FMK_BF16 ? 0.42 * 0x1p-8
                                                : 1e-5;
    return 8 * (unit * sqrt(products) + 0x1p-25 * sqrt(inputs)) + ((double)t->s->k / 16 + 1) * 0x1p-24 * size;
}

/* Column n of a job before the activation. Float sums err by a few parts in 10^7 of the sum of magnitudes. */
static struct known product(const struct trial *t, const struct job *job, int64_t n) {
    const struct subject *s = t->s;
    const double *w = s->values + (job->expert * s->n + n) * s->k;
    double sum = s->bias[job->expert * s->n + n], size = fabs(sum), largest = 0, heaviest = 0;
    double weights = 0, inputs = 0, products = 0;
    for (int64_t k = 0; k < s->k; k++) {
        double x = t->x[job->in + k];
        sum += x * w[k];
        size += fabs(x * w[k]);
        weights += w[k] * w[k];
        inputs += x * x;
        products += x * x * w[k] * w[k];
        largest = fmax(largest, fabs(x));
        heaviest = fmax(heaviest, fabs(w[k]));
    }
    if (t->args.addend.handle && !t->reduce) {
        double delta = at(&t->addend, 0, job->addend * t->args.addend_stride + n);
        sum += delta;
        size += fabs(delta);
    }
    bool rounds = !(t->args.flags & (FMK_LINEAR_EXACT | FMK_LINEAR_REFERENCE));
    double slack = rounds ? default_slack(t, largest, heaviest, weights, inputs, products, size) : 0;
    return (struct known){sum, 1e-6 * size + slack};
}

/* Activations have slopes of at most 1.13 in the gate, and grow with it no faster than it does. */
static struct known result(const struct trial *t, const struct job *job, int64_t n) {
    struct known out = product(t, job, n);
    if (t->args.act) {
        struct known gate = out, up = product(t, job, t->s->n / 2 + n);
        double limit = t->args.act_limit ? (double)t->args.act_limit : 7;
        double factor = fabs(up.value) + up.slack;
        if (t->args.act == FMK_ACT_SWIGLU_CLAMP)
            factor = (factor < limit ? factor : limit) + 1;
        out.value = act_of(&t->args, gate.value, up.value);
        out.slack = 1.13 * gate.slack * factor + (fabs(gate.value) + gate.slack) * (up.slack + 2e-6 * factor);
    }
    out.value *= job->weight;
    out.slack = out.slack * fabs(job->weight) + 1e-6 * fabs(out.value);
    return out;
}

static void check_element(struct trial *t, int64_t element, struct known want, const char *what) {
    fmk_dtype type = t->args.out_type;
    double got = ref_number(type, t->out + element * ref_size(type));
    double step = type == FMK_F16 ? 0x1p-11 : type == FMK_BF16 ? 0x1p-8 : 0x1p-24;
    want.slack += step * (fabs(want.value) + want.slack) + 0x1p-25;
    if (!(fabs(got - want.value) <= want.slack))
        fail_msg("%s at element %lld: want %g +- %g got %g", what, (long long)element, want.value, want.slack,
                 got);
    memcpy(t->before + element * ref_size(type), t->out + element * ref_size(type), (size_t)ref_size(type));
}

static void check_sums(struct trial *t) {
    for (int64_t token = 0; token < t->there; token++)
        for (int64_t n = 0; n < t->width; n++) {
            struct known sum = {0};
            for (int j = 0; j < t->num_jobs; j++)
                if (t->jobs[j].token == token) {
                    struct known one = result(t, &t->jobs[j], n);
                    sum.value += one.value;
                    sum.slack += one.slack + 1e-6 * fabs(one.value);
                }
            if (t->args.addend.handle) {
                double delta = at(&t->addend, 0, token * t->args.addend_stride + n);
                sum.value += delta;
                sum.slack += 1e-6 * fabs(delta);
            }
            check_element(t, token * t->args.out_stride + n, sum, "top-k sum");
        }
}

/* Every element that a row of the product names is right, and no other was written. */
static void check_out(struct trial *t) {
    if (t->reduce) {
        check_sums(t);
    } else {
        for (int j = 0; j < t->num_jobs; j++)
            for (int64_t n = 0; n < t->width; n++)
                check_element(t, t->jobs[j].out + n, result(t, &t->jobs[j], n), "out");
    }
    assert_memory_equal(t->out, t->before, t->out_size);
}

static size_t choose_workspace(const struct trial *t, struct ref_rng *rng) {
    uint64_t least, best;
    OK(fmk_workspace_size(t->s->weight, &t->args, &least, &best));
    assert_true(least <= best);
    return (size_t)(chance(rng, 40)   ? least
                    : chance(rng, 50) ? best
                                      : (uint64_t)between(rng, (int64_t)least, (int64_t)best));
}

static void run(struct trial *t, struct bench *b, size_t size) {
    uint8_t *space = workspace_alloc(size);
    t->args.workspace = buffer(space, size);
    OK(run_linear(b->queue, t->s->weight, &t->args));
    workspace_free(space, size);
}

/* A row's bits depend neither on m nor on its place. */
static void check_alone(const struct trial *t, struct bench *b, struct ref_rng *rng) {
    fmk_linear_args a = t->args;
    if (!(a.flags & FMK_LINEAR_BATCH_INVARIANT) || t->routing.kind != FMK_ROUTE_NONE || a.in_rows.handle ||
        a.addend.handle || t->routing.pair_weights.handle || !t->there)
        return;
    int64_t row = ref_below(rng, t->there);
    struct matrix out = matrix(a.out_type, 1, t->width, t->width);
    a.m = 1;
    a.m_dev = (fmk_buffer){0};
    a.in.offset = (uint64_t)(row * a.in_stride * ref_size(a.in_type));
    a.in.size -= a.in.offset;
    a.out = buffer_of(&out);
    OK(call(b, t->s->weight, &a, chance(rng, 50)));
    assert_memory_equal(out.data, t->out + row * a.out_stride * ref_size(a.out_type), out.size);
    free_matrix(&out);
}

static void check_call(const struct subject *s, struct bench *b, struct ref_rng *rng) {
    static struct trial trial;
    struct trial *t = &trial;
    choose_call(t, s, b, rng);
    uint8_t *start = malloc(t->out_size), *first = malloc(t->out_size);
    assert_non_null(start);
    assert_non_null(first);
    memcpy(start, t->out, t->out_size);
    size_t workspace = choose_workspace(t, rng);
    run(t, b, workspace);
    check_out(t);
    /* Neither the workspace nor the threads change a bit; on a GPU its size may choose another kernel. */
    memcpy(first, t->out, t->out_size);
    memcpy(t->out, start, t->out_size);
    run(t, b, on_gpu() ? workspace : choose_workspace(t, rng));
    assert_memory_equal(t->out, first, t->out_size);
    check_alone(t, b, rng);
    free(start);
    free(first);
    free(t->before);
    free(t->x);
    release(t->out, t->out_size);
    free_matrix(&t->in);
    free_matrix(&t->addend);
}

static uint64_t last_seed;

static int tell_seed(void **state) {
    (void)state;
    print_message("the last case: FMK_TEST_SEED=%llu\n", (unsigned long long)last_seed);
    return 0;
}

static void test_random(void **state) {
    (void)state;
    struct ref_rng seeds = ref_rng_start("random");
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int cases = 0;
    do {
        struct ref_rng rng = {last_seed = cases ? ref_next(&seeds) : seeds.state};
        int parallel_calls = 0;
        struct subject s;
        struct bench b = random_bench(&rng, &parallel_calls);
        make_subject(&s, &b, &rng);
        check_values(&s, &b, &rng);
        for (int i = 0; i < CALLS; i++)
            check_call(&s, &b, &rng);
        free_subject(&s, &b, &rng);
        cases++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) * 1e-9 <
             seconds_to_run());
    print_message("%d weights, %d calls\n", cases, CALLS * cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_random, tell_seed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
