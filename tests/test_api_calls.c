/* What a caller can get wrong with calls: linear, routing, rows, quantizers: each is a status and a sentence
 * that names the argument, and leaves every handle NULL. */
#include "misuse.h"

enum { N = 64, K = 256, M = 3 };

static fmk_context *ctx;
static fmk_queue *queue;
static fmk_weight *weight, *experts, *glu;
static struct ref_weight source, stack;
static float in[M * K], out[M * N], both[M * K + M * N];
static int32_t numbers[64];
static fmk_linear_args args;
static void *workspace;

static int set_up(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("test_api_calls");
    fmk_context_desc desc = context_desc(1);
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    make_sample(&source, 3, N, K, &rng);
    fmk_weight_desc made = weight_desc(&source.part, 1);
    OK(fmk_weight_create(&weight, queue, &made));
    struct ref_spec spec = {.format = FMK_FORMAT_DENSE, .dtype = FMK_F16, .n = N, .k = K, .experts = 4};
    ref_make(&stack, &spec, &rng);
    made = weight_desc(&stack.part, 1);
    made.num_experts = 4;
    OK(fmk_weight_create(&experts, queue, &made));
    fmk_part halves[2] = {source.part, source.part};
    made = weight_desc(halves, 2);
    made.flags = FMK_WEIGHT_GLU;
    OK(fmk_weight_create(&glu, queue, &made));
    args = linear_args(in, out, M, N, K);
    workspace = give_workspace(weight, &args);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fmk_weight_destroy(weight, queue);
    fmk_weight_destroy(experts, NULL);
    fmk_weight_destroy(glu, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    ref_free(&source);
    ref_free(&stack);
    free(workspace);
    return 0;
}

/* ---- linear ---- */

static fmk_status with_linear_args(const void *changed) {
    return fmk_linear(queue, weight, changed);
}

static fmk_status with_prepare_args(const void *changed) {
    return fmk_prepare(queue, weight, changed);
}

static fmk_status with_workspace_args(const void *changed) {
    uint64_t least, best;
    return fmk_workspace_size(weight, changed, &least, &best);
}

static fmk_status with_can_run_args(const void *changed) {
    fmk_weight_desc desc = weight_desc(&source.part, 1);
    return fmk_can_run(ctx, &desc, changed);
}

static fmk_status with_explain_args(const void *changed) {
    return fmk_explain(weight, changed, NULL, 0, NULL);
}

static void test_linear_arguments(void **state) {
    (void)state;
    uint64_t least, best;
    char text[64];
    fmk_weight_desc desc = weight_desc(&source.part, 1);
    REFUSED(fmk_linear(NULL, weight, &args), FMK_EINVAL, "queue");
    REFUSED(fmk_linear(queue, NULL, &args), FMK_EINVAL, "weight");
    REFUSED(fmk_linear(queue, weight, NULL), FMK_EINVAL, "args");
    REFUSED(fmk_prepare(NULL, weight, &args), FMK_EINVAL, "queue");
    REFUSED(fmk_prepare(queue, NULL, &args), FMK_EINVAL, "weight");
    REFUSED(fmk_prepare(queue, weight, NULL), FMK_EINVAL, "max");
    REFUSED(fmk_workspace_size(NULL, &args, &least, &best), FMK_EINVAL, "weight");
    REFUSED(fmk_workspace_size(weight, NULL, &least, &best), FMK_EINVAL, "args");
    REFUSED(fmk_workspace_size(weight, &args, NULL, &best), FMK_EINVAL, "least");
    REFUSED(fmk_workspace_size(weight, &args, &least, NULL), FMK_EINVAL, "best");
    REFUSED(fmk_can_run(NULL, &desc, &args), FMK_EINVAL, "ctx");
    REFUSED(fmk_can_run(ctx, NULL, &args), FMK_EINVAL, "desc");
    REFUSED(fmk_can_run(ctx, &desc, NULL), FMK_EINVAL, "args");
    REFUSED(fmk_explain(NULL, &args, text, sizeof text, NULL), FMK_EINVAL, "weight");
    REFUSED(fmk_explain(weight, NULL, text, sizeof text, NULL), FMK_EINVAL, "args");
    REFUSED(fmk_explain(weight, &args, NULL, 10, NULL), FMK_EINVAL, "text");

    /* A text that does not fit is cut, and still ends. */
    size_t needed, again;
    OK(fmk_explain(weight, &args, NULL, 0, &needed));
    assert_true(needed > sizeof text);
    for (size_t cap = 1; cap <= sizeof text; cap *= 2) {
        memset(text, 'x', sizeof text);
        OK(fmk_explain(weight, &args, text, cap, &again));
        assert_int_equal(again, needed);
        assert_int_equal(strlen(text), cap - 1);
    }
}

static const struct wrong wrong_shapes[] = {
    {FIELD(fmk_linear_args, flags), 0x40000000, FMK_EUNSUPPORTED, FMK_EINVAL},
    {FIELD(fmk_linear_args, flags), 64, FMK_EUNSUPPORTED, FMK_EINVAL},
    {FIELD_OF(fmk_linear_args, flags, "REDUCE_TOP_K"), FMK_LINEAR_REDUCE_TOP_K, 0, 0},
    {FIELD_OF(fmk_linear_args, m, "m "), -1, 0, 0},
    {FIELD_OF(fmk_linear_args, m, "m "), INT64_MIN, 0, 0},
    {FIELD_OF(fmk_linear_args, m, ""), INT64_MAX, FMK_EINVAL, FMK_EUNSUPPORTED},
    {FIELD(fmk_linear_args, in_type), 0, 0, 0},
    {FIELD(fmk_linear_args, in_type), FMK_I32, 0, 0},
    {FIELD(fmk_linear_args, in_type), 99, 0, 0},
    {FIELD(fmk_linear_args, out_type), 0, 0, 0},
    {FIELD(fmk_linear_args, out_type), FMK_U8, 0, 0},
    {FIELD(fmk_linear_args, out_type), -5, 0, 0},
    {FIELD(fmk_linear_args, act), 4, 0, 0},
    {FIELD(fmk_linear_args, act), -1, 0, 0},
    {FIELD_OF(fmk_linear_args, act, "GLU"), FMK_ACT_SILU_MUL, 0, 0},
    {FIELD(fmk_linear_args, in_stride), K - 1, 0, 0},
    {FIELD(fmk_linear_args, in_stride), -K, 0, 0},
    {FIELD(fmk_linear_args, in_stride), 1, 0, 0},
    {FIELD_OF(fmk_linear_args, in_stride, "in"), INT64_MAX, 0, 0},
    {FIELD(fmk_linear_args, out_stride), N - 1, 0, 0},
    {FIELD(fmk_linear_args, out_stride), -1, 0, 0},
    {FIELD_OF(fmk_linear_args, out_stride, "out"), INT64_MAX / 2, 0, 0},
};

static const struct wrong wrong_buffers[] = {
    {FIELD_OF(fmk_linear_args, in.handle, "in"), 0, 0, 0},
    {FIELD_OF(fmk_linear_args, in.size, "in"), M *K * 4 - 1, 0, 0},
    {FIELD_OF(fmk_linear_args, in_stride, "in"), 2 * K, 0, 0},
    {FIELD_OF(fmk_linear_args, out.handle, "out"), 0, 0, 0},
    {FIELD_OF(fmk_linear_args, out.size, "out"), sizeof out - 1, 0, 0},
    {FIELD_OF(fmk_linear_args, out_stride, "out"), 2 * N, 0, 0},
    {FIELD_OF(fmk_linear_args, workspace.handle, "workspace"), 0, FMK_EWORKSPACE, FMK_EINVAL},
    {FIELD_OF(fmk_linear_args, workspace.size, "workspace"), 0, FMK_EWORKSPACE, FMK_EINVAL},
    {FIELD_OF(fmk_linear_args, workspace.size, "workspace"), 1, FMK_EWORKSPACE, 0},
    {FIELD_OF(fmk_linear_args, workspace.offset, "workspace"), 8, FMK_EINVAL, 0},
};

static void test_linear_fields(void **state) {
    (void)state;
    try_fields("linear", &args, sizeof args, wrong_shapes, COUNT(wrong_shapes), with_linear_args);
    try_fields("linear", &args, sizeof args, wrong_buffers, COUNT(wrong_buffers), with_linear_args);
    try_fields("prepare", &args, sizeof args, wrong_shapes, COUNT(wrong_shapes), with_prepare_args);
    try_fields("workspace_size", &args, sizeof args, wrong_shapes, COUNT(wrong_shapes), with_workspace_args);
    try_fields("explain", &args, sizeof args, wrong_shapes, COUNT(wrong_shapes), with_explain_args);
    try_fields("can_run", &args, sizeof args, wrong_shapes, COUNT(wrong_shapes), with_can_run_args);
}

/* A workspace of every size below `least` is refused, from there on every size is enough. */
static void test_workspace(void **state) {
    (void)state;
    uint64_t least, best;
    OK(fmk_workspace_size(weight, &args, &least, &best));
    assert_true(least > 0 && best >= least);
    fmk_linear_args changed = args;
    for (uint64_t size = 0; size <= best; size = size < least - 1 ? least - 1
                                                 : size < least   ? least
                                                                  : size * 2) {
        changed.workspace.size = size;
        if (size < least)
            REFUSED_AS(fmk_linear(queue, weight, &changed), FMK_EWORKSPACE, size ? 0 : FMK_EINVAL,
                       "workspace");
        else
            OK(fmk_linear(queue, weight, &changed));
    }
}

static void test_overlap(void **state) {
    (void)state;
    fmk_linear_args changed = args;
    changed.in = buffer(both, M * K * sizeof(float));
    const size_t offsets[] = {0, 4, M * K / 2, M * K - 1};
    for (size_t i = 0; i < COUNT(offsets); i++) {
        changed.out = buffer(both + offsets[i], M * N * sizeof(float));
        REFUSED(fmk_linear(queue, weight, &changed), FMK_EINVAL, "overlap");
        changed.out.size = 0; /* not told, and known all the same */
        REFUSED(fmk_linear(queue, weight, &changed), FMK_EINVAL, "overlap");
    }
    changed.out = buffer(both + M * K, M * N * sizeof(float));
    OK(fmk_linear(queue, weight, &changed));
}

static void test_linear_nothing(void **state) {
    (void)state;
    fmk_linear_args nothing = args;
    nothing.m = 0;
    memset(out, 0x55, sizeof out);
    float before[COUNT(out)];
    memcpy(before, out, sizeof out);
    OK(fmk_linear(queue, weight, &nothing));
    nothing.in = nothing.out = nothing.workspace = (fmk_buffer){0};
    OK(fmk_linear(queue, weight, &nothing));
    assert_memory_equal(out, before, sizeof out);
}

static void test_addend(void **state) {
    (void)state;
    float addend[M * N] = {0};
    fmk_linear_args added = args;
    added.addend = buffer(addend, sizeof addend);
    added.addend_type = FMK_F32;
    const struct wrong wrongs[] = {
        {FIELD(fmk_linear_args, addend_type), 0, 0, 0},
        {FIELD(fmk_linear_args, addend_type), FMK_I32, 0, 0},
        {FIELD(fmk_linear_args, addend_stride), N - 1, 0, 0},
        {FIELD(fmk_linear_args, addend_stride), -1, 0, 0},
        {FIELD_OF(fmk_linear_args, addend.size, "addend"), 4 * M * N - 1, 0, 0},
    };
    try_fields("linear with addend", &added, sizeof added, wrongs, COUNT(wrongs), with_linear_args);
    added.addend = added.out;
    OK(fmk_linear(queue, weight, &added));
    added.addend_type = FMK_F16;
    added.addend.size = 0;
    REFUSED(fmk_linear(queue, weight, &added), FMK_EINVAL, "addend");
}

static void test_in_rows(void **state) {
    (void)state;
    fmk_linear_args gathered = args;
    int32_t rows[M] = {0, 0, 1};
    gathered.in_rows = buffer(rows, sizeof rows);
    OK(fmk_linear(queue, weight, &gathered));
    gathered.in_rows.size--;
    REFUSED(fmk_linear(queue, weight, &gathered), FMK_EINVAL, "in_rows");
    gathered.in_rows.size++;
    rows[1] = -1;
    REFUSED(fmk_linear(queue, weight, &gathered), FMK_EINVAL, "in_rows");
    rows[1] = M; /* past the input, whose size was told */
    REFUSED(fmk_linear(queue, weight, &gathered), FMK_EINVAL, "in_rows");
}

static void test_glu(void **state) {
    (void)state;
    fmk_linear_args call = args;
    uint64_t least, best;
    call.act = FMK_ACT_SILU_MUL;
    OK(fmk_workspace_size(glu, &call, &least, &best));
    void *larger = aligned_alloc(256, (best + 255) / 256 * 256);
    assert_non_null(larger);
    call.workspace = buffer(larger, best);
    OK(fmk_linear(queue, glu, &call));
    call.out_stride = N - 1;
    REFUSED(fmk_linear(queue, glu, &call), FMK_EINVAL, "out_stride");
    free(larger);
}

/* ---- routing ---- */

static const fmk_linear_args *routed_base;

static fmk_status with_routing(const void *routing) {
    fmk_linear_args routed = *routed_base;
    routed.routing = routing;
    return fmk_linear(queue, experts, &routed);
}

static void test_routing(void **state) {
    (void)state;
    for (int32_t i = 0; i < 64; i++)
        numbers[i] = i % 4;
    static float pairs_out[2 * M * N];
    fmk_routing ids = {
        .struct_size = sizeof ids, .kind = FMK_ROUTE_IDS, .top_k = 2, .ids = buffer(numbers, 2 * M * 4)};
    fmk_linear_args routed = linear_args(in, pairs_out, M, N, K);
    routed.out.size = sizeof pairs_out;
    routed.routing = &ids;
    void *memory = give_workspace(experts, &routed);
    routed_base = &routed;
    const struct wrong wrong_ids[] = {
        {FIELD(fmk_routing, kind), 4, 0, 0},
        {FIELD(fmk_routing, kind), -1, 0, 0},
        {FIELD(fmk_routing, top_k), 0, 0, 0},
        {FIELD(fmk_routing, top_k), -1, 0, 0},
        {FIELD_OF(fmk_routing, top_k, ""), INT32_MAX, 0, 0},
        {FIELD(fmk_routing, in_per_pair), 2, 0, 0},
        {FIELD_OF(fmk_routing, ids.handle, "ids"), 0, 0, 0},
        {FIELD_OF(fmk_routing, ids.size, "ids"), 2 * M * 4 - 1, 0, 0},
        {FIELD_OF(fmk_routing, pair_weights.size, "pair_weights"), 0, 0, 0},
    };
    try_fields("linear routed by ids", &ids, sizeof ids, wrong_ids, COUNT(wrong_ids) - 1, with_routing);

    fmk_routing one = {.struct_size = sizeof one, .kind = FMK_ROUTE_NONE, .expert = 3};
    const struct wrong wrong_one[] = {
        {FIELD(fmk_routing, expert), 4, 0, 0},
        {FIELD(fmk_routing, expert), -1, 0, 0},
    };
    try_fields("linear of one expert", &one, sizeof one, wrong_one, COUNT(wrong_one), with_routing);

    int32_t offsets[5] = {0, 1, 1, 2, 3};
    fmk_routing sorted = {
        .struct_size = sizeof sorted, .kind = FMK_ROUTE_SORTED, .offsets = buffer(offsets, sizeof offsets)};
    const struct wrong wrong_sorted[] = {
        {FIELD_OF(fmk_routing, offsets.handle, "offsets"), 0, 0, 0},
        {FIELD_OF(fmk_routing, offsets.size, "offsets"), sizeof offsets - 1, 0, 0},
    };
    try_fields("linear of sorted rows", &sorted, sizeof sorted, wrong_sorted, COUNT(wrong_sorted),
               with_routing);
    /* Host memory is looked at: offsets that would lead outside are refused. */
    const int32_t bad_offsets[][5] = {
        {1, 1, 1, 2, 3}, {0, 2, 1, 2, 3}, {0, 1, 1, 2, 4}, {0, 0, 0, 0, -1}, {-3, 1, 1, 2, 3}};
    for (size_t i = 0; i < COUNT(bad_offsets); i++) {
        memcpy(offsets, bad_offsets[i], sizeof offsets);
        REFUSED(with_routing(&sorted), FMK_EINVAL, "offsets");
    }

    fmk_routing batch = {
        .struct_size = sizeof batch, .kind = FMK_ROUTE_BATCH, .expert_in_stride = 0, .expert_out_stride = 0};
    fmk_linear_args single = linear_args(in, pairs_out, 1, N, K);
    single.workspace = routed.workspace;
    single.in.size = 0;
    single.out.size = sizeof pairs_out;
    routed_base = &single;
    batch.expert_out_stride = N;
    OK(with_routing(&batch)); /* a stride of 0 reads one input for all experts */
    batch.expert_out_stride = 1;
    REFUSED(with_routing(&batch), FMK_EINVAL, "expert_out_stride");
    batch.expert_out_stride = N;
    batch.expert_in_stride = -1;
    REFUSED(with_routing(&batch), FMK_EINVAL, "expert_in_stride");
    free(memory);
}

static void test_route_sort(void **state) {
    (void)state;
    for (int32_t i = 0; i < 64; i++)
        numbers[i] = i % 4;
    int32_t offsets[5], pairs[6];
    fmk_routing ids = {
        .struct_size = sizeof ids, .kind = FMK_ROUTE_IDS, .top_k = 2, .ids = buffer(numbers, 24)};
    fmk_routing sorted = {.struct_size = sizeof sorted,
                          .kind = FMK_ROUTE_SORTED,
                          .top_k = 2,
                          .offsets = buffer(offsets, sizeof offsets),
                          .pairs = buffer(pairs, sizeof pairs)};
    OK(fmk_route_sort(queue, &ids, 3, 4, &sorted));
    REFUSED(fmk_route_sort(NULL, &ids, 3, 4, &sorted), FMK_EINVAL, "queue");
    REFUSED(fmk_route_sort(queue, NULL, 3, 4, &sorted), FMK_EINVAL, "ids");
    REFUSED(fmk_route_sort(queue, &ids, 3, 4, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_route_sort(queue, &ids, -1, 4, &sorted), FMK_EINVAL, "m ");
    REFUSED(fmk_route_sort(queue, &ids, INT64_MAX, 4, &sorted), FMK_EINVAL, "");
    REFUSED(fmk_route_sort(queue, &ids, 3, 0, &sorted), FMK_EINVAL, "num_experts");
    REFUSED(fmk_route_sort(queue, &ids, 3, -1, &sorted), FMK_EINVAL, "num_experts");
    REFUSED(fmk_route_sort(queue, &ids, 4, 4, &sorted), FMK_EINVAL, "ids");
    REFUSED(fmk_route_sort(queue, &ids, 3, 5, &sorted), FMK_EINVAL, "offsets");
    fmk_routing changed = sorted;
    changed.pairs.size--;
    REFUSED(fmk_route_sort(queue, &ids, 3, 4, &changed), FMK_EINVAL, "pairs");
    changed = sorted;
    changed.offsets.handle = 0;
    REFUSED(fmk_route_sort(queue, &ids, 3, 4, &changed), FMK_EINVAL, "offsets");
    changed = ids;
    changed.kind = FMK_ROUTE_BATCH;
    REFUSED(fmk_route_sort(queue, &changed, 3, 4, &sorted), FMK_EINVAL, "kind");
    changed = ids;
    changed.top_k = 0;
    REFUSED(fmk_route_sort(queue, &changed, 3, 4, &sorted), FMK_EINVAL, "top_k");
}

/* ---- rows and dequantize ---- */

static fmk_status with_rows(const void *rows) {
    return fmk_rows(queue, weight, rows);
}

static void test_rows(void **state) {
    (void)state;
    int32_t ids[2] = {0, -1};
    float rows_out[2 * K];
    fmk_rows_args rows = {.struct_size = sizeof rows,
                          .out_type = FMK_F32,
                          .m = 2,
                          .ids = buffer(ids, sizeof ids),
                          .out = buffer(rows_out, sizeof rows_out)};
    REFUSED(fmk_rows(NULL, weight, &rows), FMK_EINVAL, "queue");
    REFUSED(fmk_rows(queue, NULL, &rows), FMK_EINVAL, "weight");
    REFUSED(fmk_rows(queue, weight, NULL), FMK_EINVAL, "args");
    const struct wrong wrongs[] = {
        {FIELD(fmk_rows_args, out_type), 0, 0, 0},
        {FIELD(fmk_rows_args, out_type), FMK_I32, 0, 0},
        {FIELD_OF(fmk_rows_args, m, "m "), -1, 0, 0},
        {FIELD_OF(fmk_rows_args, m, ""), INT64_MAX, 0, 0},
        {FIELD_OF(fmk_rows_args, m, "ids"), 3, 0, 0},
        {FIELD(fmk_rows_args, out_stride), K - 1, 0, 0},
        {FIELD(fmk_rows_args, out_stride), -1, 0, 0},
        {FIELD_OF(fmk_rows_args, out_stride, "out"), INT64_MAX, 0, 0},
        {FIELD(fmk_rows_args, expert), 1, 0, 0},
        {FIELD(fmk_rows_args, expert), -1, 0, 0},
        {FIELD(fmk_rows_args, reserved), 1, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_rows_args, ids.handle, "ids"), 0, 0, 0},
        {FIELD_OF(fmk_rows_args, ids.size, "ids"), 7, 0, 0},
        {FIELD_OF(fmk_rows_args, out.handle, "out"), 0, 0, 0},
        {FIELD_OF(fmk_rows_args, out.size, "out"), sizeof rows_out - 1, 0, 0},
    };
    try_fields("rows", &rows, sizeof rows, wrongs, COUNT(wrongs), with_rows);
}

static void test_dequantize(void **state) {
    (void)state;
    float *values = malloc(N * K * sizeof *values);
    assert_non_null(values);
    fmk_buffer all = buffer(values, N * K * sizeof *values), less = all, none = {0};
    less.size--;
    OK(fmk_weight_dequantize(queue, weight, 0, &all, FMK_F32, 0));
    REFUSED(fmk_weight_dequantize(NULL, weight, 0, &all, FMK_F32, 0), FMK_EINVAL, "queue");
    REFUSED(fmk_weight_dequantize(queue, NULL, 0, &all, FMK_F32, 0), FMK_EINVAL, "weight");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, NULL, FMK_F32, 0), FMK_EINVAL, "out");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &none, FMK_F32, 0), FMK_EINVAL, "out");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &less, FMK_F32, 0), FMK_EINVAL, "out");
    REFUSED(fmk_weight_dequantize(queue, weight, 1, &all, FMK_F32, 0), FMK_EINVAL, "expert");
    REFUSED(fmk_weight_dequantize(queue, weight, -1, &all, FMK_F32, 0), FMK_EINVAL, "expert");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &all, 0, 0), FMK_EINVAL, "out_type");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &all, FMK_I32, 0), FMK_EINVAL, "out_type");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &all, FMK_F32, K - 1), FMK_EINVAL, "out_stride");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &all, FMK_F32, -1), FMK_EINVAL, "out_stride");
    REFUSED(fmk_weight_dequantize(queue, weight, 0, &all, FMK_F32, INT64_MAX), FMK_EINVAL, "out");
    free(values);
}

/* ---- quantizers ---- */

static fmk_status with_quantize(const void *quantize) {
    return fmk_quantize(ctx, quantize);
}

static fmk_status with_quantize_size(const void *quantize) {
    uint64_t sizes[3];
    return fmk_quantize_size(quantize, &sizes[0], &sizes[1], &sizes[2]);
}

static void test_quantize(void **state) {
    (void)state;
    static float values[8 * K];
    unsigned char qweight[8 * K / 2], scales[8 * K / 32 * 2], qzeros[8 * K / 32 / 2];
    for (int i = 0; i < 8 * K; i++)
        values[i] = (float)(i % 17) - 8;
    fmk_quantize_args gptq = {.struct_size = sizeof gptq,
                              .format = FMK_FORMAT_GPTQ,
                              .n = 8,
                              .k = K,
                              .group_size = 32,
                              .in_type = FMK_F32,
                              .in = values,
                              .qweight = qweight,
                              .scales = scales,
                              .qzeros = qzeros};
    uint64_t sizes[3];
    OK(fmk_quantize_size(&gptq, &sizes[0], &sizes[1], &sizes[2]));
    assert_int_equal(sizes[0], sizeof qweight);
    assert_int_equal(sizes[1], sizeof scales);
    assert_int_equal(sizes[2], sizeof qzeros);
    REFUSED(fmk_quantize_size(NULL, &sizes[0], &sizes[1], &sizes[2]), FMK_EINVAL, "args");
    REFUSED(fmk_quantize_size(&gptq, NULL, &sizes[1], &sizes[2]), FMK_EINVAL, "qweight");
    REFUSED(fmk_quantize_size(&gptq, &sizes[0], NULL, &sizes[2]), FMK_EINVAL, "scales");
    REFUSED(fmk_quantize_size(&gptq, &sizes[0], &sizes[1], NULL), FMK_EINVAL, "qzeros");
    REFUSED(fmk_quantize(NULL, &gptq), FMK_EINVAL, "ctx");
    REFUSED(fmk_quantize(ctx, NULL), FMK_EINVAL, "args");
    const struct wrong shapes[] = {
        {FIELD(fmk_quantize_args, format), 0, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD(fmk_quantize_args, format), FMK_FORMAT_MARLIN, FMK_EUNSUPPORTED, FMK_EINVAL},
        {FIELD(fmk_quantize_args, format), 99, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_quantize_args, n, "n "), 0, 0, 0},
        {FIELD_OF(fmk_quantize_args, n, "n "), -8, 0, 0},
        {FIELD_OF(fmk_quantize_args, n, "n "), 7, 0, 0},
        {FIELD_OF(fmk_quantize_args, n, ""), (int64_t)1 << 60, 0, 0},
        {FIELD_OF(fmk_quantize_args, k, "k "), 0, 0, 0},
        {FIELD_OF(fmk_quantize_args, k, "k "), -8, 0, 0},
        {FIELD_OF(fmk_quantize_args, k, "k "), K - 1, 0, 0},
        {FIELD_OF(fmk_quantize_args, k, ""), (int64_t)1 << 62, 0, 0},
        {FIELD(fmk_quantize_args, group_size), 0, 0, 0},
        {FIELD(fmk_quantize_args, group_size), 7, 0, 0},
        {FIELD(fmk_quantize_args, group_size), -2, 0, 0},
        {FIELD(fmk_quantize_args, symmetric), 2, 0, 0},
        {FIELD(fmk_quantize_args, in_type), 0, 0, 0},
        {FIELD(fmk_quantize_args, in_type), FMK_I32, 0, 0},
        {FIELD(fmk_quantize_args, scales_type), FMK_I32, 0, 0},
        {FIELD(fmk_quantize_args, scales_type), -1, 0, 0},
    };
    try_fields("quantize_size", &gptq, sizeof gptq, shapes, COUNT(shapes), with_quantize_size);
    try_fields("quantize", &gptq, sizeof gptq, shapes, COUNT(shapes), with_quantize);
    const struct wrong pointers[] = {
        {FIELD_OF(fmk_quantize_args, in, "in"), 0, 0, 0},
        {FIELD(fmk_quantize_args, in_stride), K - 1, 0, 0},
        {FIELD(fmk_quantize_args, in_stride), -1, 0, 0},
        {FIELD_OF(fmk_quantize_args, in_stride, ""), INT64_MAX, 0, 0},
        {FIELD(fmk_quantize_args, qweight), 0, 0, 0},
        {FIELD(fmk_quantize_args, scales), 0, 0, 0},
        {FIELD(fmk_quantize_args, qzeros), 0, 0, 0},
    };
    try_fields("quantize", &gptq, sizeof gptq, pointers, COUNT(pointers), with_quantize);
    fmk_quantize_args q4 = gptq;
    q4.format = FMK_FORMAT_Q4_K;
    q4.group_size = 0;
    q4.k = K / 2;
    REFUSED(fmk_quantize(ctx, &q4), FMK_EINVAL, "k ");
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < COUNT(bad); i++) {
        float kept = values[3 * K + 5];
        values[3 * K + 5] = bad[i];
        REFUSED(fmk_quantize(ctx, &gptq), FMK_EINVAL, "finite");
        values[3 * K + 5] = kept;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_arguments),
        cmocka_unit_test(test_linear_fields),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_linear_nothing),
        cmocka_unit_test(test_addend),
        cmocka_unit_test(test_in_rows),
        cmocka_unit_test(test_glu),
        cmocka_unit_test(test_routing),
        cmocka_unit_test(test_route_sort),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_dequantize),
        cmocka_unit_test(test_quantize),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
