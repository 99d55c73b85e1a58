/* Plans of random calls, made without a GPU: whatever workspace a call has, from the least on, each array of
 * a slab has room in it, apart from the others; and a row that a call can choose is one that fmk_prepare
 * loads. */
#include "samples.h"

#include "abi.h"
#include "context.h"
#include "cuda/device.h"
#include "cuda/plan.h"
#include "formats/source.h"

enum { CALLS = 200000, MOST_ARRAYS = 80 };

/* ---- a random weight: numbers alone ---- */

static const int64_t edges[] = {1, 8, 16, 17, 250, 256, 257, 4096, 11008, 28672, 57344, 152064};

static int64_t edge(struct ref_rng *rng) {
    return edges[ref_below(rng, sizeof edges / sizeof edges[0])];
}

static void random_part(struct fmk_packed *part, int64_t n, int64_t k, struct ref_rng *rng) {
    static const struct fmk_range range;
    static const int32_t index;
    static const enum fmk_layout_id ids[] = {FMK_LAYOUT_DENSE_ROWS, FMK_LAYOUT_INT4_T16, FMK_LAYOUT_INT4_T64,
                                             FMK_LAYOUT_Q4_K_T16, FMK_LAYOUT_Q6_K_T16};
    const struct fmk_layout *layout = fmk_layout_by_id(ids[ref_below(rng, k % 256 ? 3 : 5)]);
    bool int4 = layout->family == FMK_FAMILY_INT4, dense = layout->family == FMK_FAMILY_DENSE;
    *part = (struct fmk_packed){.layout = layout, .n = n, .k = k, .k_packed = k, .experts = 1};
    part->dtype =
        dense || int4 ? (fmk_dtype)(1 + ref_below(rng, layout->id == FMK_LAYOUT_INT4_T64 ? 2 : 3)) : 0;
    part->range = dense ? NULL : &range;
    part->stride = dense ? (uint64_t)(k * fmk_dtype_size(part->dtype)) : 16;
    if (int4) {
        part->chunks = 1 << ref_below(rng, 3);
        part->k_index = ref_below(rng, 2) ? &index : NULL;
        part->k_packed = fmk_round_up(part->k_index ? k + ref_below(rng, 3 * k) : k, 128);
    }
}

static void random_weight(struct fmk_projection *w, struct fmk_packed *parts, struct ref_rng *rng) {
    int64_t k = edge(rng), n = edge(rng);
    *w = (struct fmk_projection){.k = k, .parts = parts, .num_parts = 1 + (int32_t)ref_below(rng, 4)};
    w->glu = ref_below(rng, 3) == 0;
    if (w->glu)
        w->num_parts = 2;
    if (ref_below(rng, 2))
        w->num_experts = 1 << ref_below(rng, 21);
    for (int32_t p = 0; p < w->num_parts; p++) {
        random_part(&parts[p], w->glu ? n : edge(rng), k, rng);
        w->n += parts[p].n;
    }
}

static bool random_call(struct fmk_call *call, const struct fmk_projection *w, struct ref_rng *rng) {
    fmk_routing routing = {.struct_size = sizeof routing};
    fmk_linear_args args = {.struct_size = sizeof args};
    const fmk_buffer there = {.handle = 256};
    args.m = 1 + ref_below(rng, 1ll << ref_below(rng, 21));
    args.in_type = (fmk_dtype)(1 + ref_below(rng, 3));
    args.out_type = (fmk_dtype)(1 + ref_below(rng, 3));
    args.act = w->glu ? (fmk_act)ref_below(rng, 2) : 0;
    args.flags = ref_below(rng, 4) ? 0 : 1u << ref_below(rng, 6);
    if (args.flags & 4)
        args.flags = 0; /* no flag */
    args.m_dev = ref_below(rng, 3) ? (fmk_buffer){0} : there;
    if (w->num_experts) {
        args.routing = &routing;
        routing.kind = (fmk_route)ref_below(rng, 4);
        routing.ids = routing.offsets = there;
        routing.pairs = ref_below(rng, 2) ? there : (fmk_buffer){0};
        routing.top_k = 1 + (int32_t)ref_below(rng, 9);
        routing.expert_out_stride = args.m * w->n;
    }
    return !fmk_call_check(NULL, w, &args, false, call);
}

/* ---- a slab's arrays ---- */

struct arrays {
    struct {
        const char *name;
        uint64_t begin, end;
    } of[MOST_ARRAYS];
    int count;
};

static void add(struct arrays *arrays, const char *name, uint64_t at, int64_t bytes) {
    assert_true(arrays->count < MOST_ARRAYS && bytes >= 0);
    arrays->of[arrays->count].name = name;
    arrays->of[arrays->count].begin = at;
    arrays->of[arrays->count++].end = at + (uint64_t)bytes;
}

static void list_arrays(const struct fmk_cuda_plan *plan, struct arrays *arrays) {
    int64_t rows = fmk_cuda_plan_rows(plan, plan->units), experts = fmk_max(1, plan->w->num_experts);
    arrays->count = 0;
    if (plan->gemm)
        add(arrays, "gemm", plan->at_gemm, FMK_GEMM_WORKSPACE);
    if (plan->decoded_type)
        add(arrays, "decoded", plan->at_decoded,
            plan->columns * plan->decoded_width * fmk_dtype_size(plan->decoded_type));
    if (plan->sums)
        add(arrays, "sums", plan->at_sums, rows * plan->window * (plan->split_glu ? 8 : 4));
    for (int32_t f = 0; f < plan->num_forms; f++) {
        const struct fmk_cuda_form *form = &plan->forms[f];
        if (!form->direct)
            add(arrays, "form", form->at, rows * form->width * form->planes * fmk_dtype_size(form->type));
    }
    if (plan->routed) {
        if (!plan->small_route) {
            add(arrays, "first", plan->at_first, 4 * (experts + 1));
            add(arrays, "first_tile", plan->at_first_tile, 4 * (experts + 1));
        }
        add(arrays, "tiles", plan->at_tiles, plan->num_tiles * (int64_t)sizeof(struct fmk_token_tile));
        add(arrays, "in_rows", plan->at_in_rows, 4 * rows);
        add(arrays, "out_rows", plan->at_out_rows, 4 * rows);
        /* Of each expert all tiles but one are full. */
        int64_t most = rows / plan->tile + fmk_min(experts, rows);
        assert_true(plan->num_tiles >= fmk_min(most, rows));
        assert_true(plan->num_tiles <= 65535);
    }
    if (plan->call->reduce) {
        add(arrays, "pairs", plan->at_pairs, rows * plan->call->width * 4);
        add(arrays, "present", plan->at_present, rows);
    }
}

static void check_slab(const struct fmk_cuda_plan *plan, uint64_t workspace) {
    struct arrays arrays;
    list_arrays(plan, &arrays);
    assert_true(plan->units >= 1 && plan->units <= plan->call->args.m);
    assert_true(plan->units <= 8 * 65535 && plan->experts <= 65535);
    for (int i = 0; i < arrays.count; i++) {
        assert_int_equal(arrays.of[i].begin % 256, 0);
        if (arrays.of[i].end > workspace)
            fail_msg("%s ends at %llu of %llu; m %lld k %lld n %lld", arrays.of[i].name,
                     (unsigned long long)arrays.of[i].end, (unsigned long long)workspace,
                     (long long)plan->call->args.m, (long long)plan->w->k, (long long)plan->w->n);
        for (int j = 0; j < i; j++)
            assert_true(arrays.of[i].end <= arrays.of[j].begin || arrays.of[j].end <= arrays.of[i].begin);
    }
}

/* ---- calls ---- */

/* Sizes at which something changes, and some between. */
static uint64_t random_workspace(const struct fmk_context *ctx, const struct fmk_projection *w,
                                 const struct fmk_call *call, struct ref_rng *rng) {
    uint64_t least = fmk_cuda_least(w, call);
    uint64_t wanted = fmk_kernel_query(ctx, w, call, 0, 0).gemm_workspace;
    uint64_t sizes[] = {least,
                        least + 1,
                        wanted - 1,
                        wanted,
                        FMK_BEST_WORKSPACE,
                        UINT64_MAX,
                        least + (uint64_t)ref_below(rng, 200 << 20)};
    uint64_t size = sizes[ref_below(rng, sizeof sizes / sizeof sizes[0])];
    return size < least ? least : size;
}

/* What fmk_prepare loads for `most` serves fewer rows. */
static void check_prepared(const struct fmk_context *ctx, const struct fmk_projection *w,
                           const struct fmk_call *most, struct ref_rng *rng) {
    struct fmk_call fewer = *most;
    fewer.args.m = 1 + ref_below(rng, ref_below(rng, 2) ? most->args.m : fmk_min(most->args.m, 80));
    fewer.rows = most->rows / most->args.m * fewer.args.m;
    for (int32_t p = 0; p < w->num_parts; p++) {
        struct fmk_query query = fmk_kernel_query(ctx, w, &fewer, p, random_workspace(ctx, w, &fewer, rng));
        enum fmk_cuda_path path = fmk_kernel_choose(&query)->path;
        if (!(fmk_cuda_paths(ctx, w, most, p) >> path & 1))
            fail_msg("part %d, m %lld of %lld: path %d is not prepared", p, (long long)fewer.args.m,
                     (long long)most->args.m, path);
    }
}

static void test_slabs(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("slabs");
    struct fmk_cuda device = {.multiprocessors = 132};
    int64_t made = 0, gemms = 0;
    for (int i = 0; i < CALLS / (quick() ? 10 : 1); i++) {
        struct fmk_context ctx = {.backend = &fmk_cuda_backend, .device = &device};
        ctx.features = ref_below(&rng, 4) ? FMK_CUDA_SM90 | FMK_CUDA_CUBLAS : FMK_CUDA_SM90;
        struct fmk_packed parts[4];
        struct fmk_projection w;
        struct fmk_call call;
        random_weight(&w, parts, &rng);
        if (!random_call(&call, &w, &rng))
            continue;
        uint64_t workspace = random_workspace(&ctx, &w, &call, &rng);
        struct fmk_cuda_plan plan;
        fmk_cuda_plan_make(&plan, &ctx, &w, &call, workspace, ref_below(&rng, 2));
        check_slab(&plan, workspace);
        check_prepared(&ctx, &w, &call, &rng);
        made++;
        gemms += plan.gemm;
    }
    print_message("%lld plans, %lld with cuBLAS\n", (long long)made, (long long)gemms);
    assert_true(made > 1000 && gemms > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_slabs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
