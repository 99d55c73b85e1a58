/* What a caller can get wrong with contexts, queues and weights: each is a status and a sentence that names
 * the argument, and leaves every handle NULL. And in which order handles may go. */
#include "misuse.h"

enum { N = 64, K = 256, M = 3 };

static fmk_context *ctx;
static fmk_queue *queue;
static fmk_weight *weight;
static struct ref_weight source, stack;
static float in[M * K], out[M * N];
static int32_t numbers[16];
static fmk_linear_args args;
static void *workspace;

static int set_up(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("test_api_weights");
    fmk_context_desc desc = context_desc(1);
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    make_sample(&source, 3, N, K, &rng);
    fmk_weight_desc made = weight_desc(&source.part, 1);
    OK(fmk_weight_create(&weight, queue, &made));
    struct ref_spec spec = {.format = FMK_FORMAT_DENSE, .dtype = FMK_F16, .n = N, .k = K, .experts = 4};
    ref_make(&stack, &spec, &rng);
    args = linear_args(in, out, M, N, K);
    workspace = give_workspace(weight, &args);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    ref_free(&source);
    ref_free(&stack);
    free(workspace);
    return 0;
}

/* ---- contexts and queues ---- */

static fmk_status with_context_desc(const void *desc) {
    fmk_context *made = RUBBISH;
    fmk_status status = fmk_context_create(&made, desc);
    assert_true(status ? made == NULL : made != NULL);
    fmk_context_destroy(made);
    return status;
}

static void test_context(void **state) {
    (void)state;
    fmk_context_info_t info = {.struct_size = sizeof info};
    REFUSED(fmk_context_create(NULL, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_context_status(NULL), FMK_EINVAL, "ctx");
    REFUSED(fmk_context_info(NULL, &info), FMK_EINVAL, "ctx");
    REFUSED(fmk_context_info(ctx, NULL), FMK_EINVAL, "out");
    fmk_context_destroy(NULL);

    fmk_context_desc desc = context_desc(1);
    const struct wrong wrongs[] = {
        {FIELD(fmk_context_desc, backend), 99, FMK_EINVAL, FMK_ENODEVICE},
        {FIELD(fmk_context_desc, backend), -1, FMK_EINVAL, FMK_ENODEVICE},
        {FIELD(fmk_context_desc, device), 1, FMK_ENODEVICE, FMK_EINVAL},
        {FIELD(fmk_context_desc, device), -1, FMK_ENODEVICE, FMK_EINVAL},
        {FIELD(fmk_context_desc, cpu_threads), -1, 0, 0},
        {FIELD(fmk_context_desc, cpu_threads), INT32_MAX, 0, 0},
        {FIELD_OF(fmk_context_desc, allocator.alloc, "alloc"), 1, 0, 0},
        {FIELD_OF(fmk_context_desc, allocator.release, "alloc"), 1, 0, 0},
    };
    try_fields("context_create", &desc, sizeof desc, wrongs, COUNT(wrongs), with_context_desc);

    const fmk_backend others[] = {FMK_BACKEND_CUDA, FMK_BACKEND_VULKAN}; /* which may be here */
    for (size_t i = 0; i < COUNT(others); i++) {
        desc.backend = others[i];
        fmk_status status = with_context_desc(&desc);
        assert_true(status == FMK_OK || status == FMK_ENODEVICE);
    }

    fmk_vulkan_device handles = {.struct_size = sizeof handles};
    uint64_t size = 1;
    REFUSED(fmk_context_vulkan(NULL, &handles), FMK_EINVAL, "ctx");
    REFUSED(fmk_context_vulkan(ctx, &handles), FMK_EUNSUPPORTED, "VULKAN");
    REFUSED(fmk_context_pipeline_cache(NULL, NULL, 0, &size), FMK_EINVAL, "ctx");
    REFUSED(fmk_context_pipeline_cache(ctx, NULL, 0, NULL), FMK_EINVAL, "size");
    REFUSED(fmk_context_pipeline_cache(ctx, NULL, 0, &size), FMK_EUNSUPPORTED, "VULKAN");
    assert_int_equal(size, 0);
}

static void test_queue(void **state) {
    (void)state;
    fmk_queue *made = RUBBISH;
    REFUSED(fmk_queue_create(NULL, ctx, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_queue_create(&made, NULL, NULL), FMK_EINVAL, "ctx");
    assert_null(made);
    made = RUBBISH;
    REFUSED(fmk_queue_create(&made, ctx, numbers), FMK_EINVAL, "native");
    assert_null(made);
    REFUSED(fmk_queue_rebind(NULL, NULL), FMK_EINVAL, "queue");
    REFUSED(fmk_queue_rebind(queue, numbers), FMK_EINVAL, "native");
    OK(fmk_queue_rebind(queue, NULL));
    REFUSED(fmk_queue_wait(NULL), FMK_EINVAL, "queue");
    OK(fmk_queue_wait(queue));
    fmk_queue_destroy(NULL);
}

/* ---- weights ---- */

static fmk_status with_weight_desc(const void *desc) {
    fmk_weight *made = RUBBISH;
    uint64_t size = 0, align = 0;
    fmk_status status = fmk_weight_create(&made, queue, desc);
    assert_true(status ? made == NULL : made != NULL);
    fmk_weight_destroy(made, queue);
    /* What the shapes alone can tell, all three functions tell alike. */
    if (!status)
        OK(fmk_weight_storage(ctx, desc, &size, &align));
    return status;
}

static fmk_status with_part(const void *part) {
    fmk_weight_desc desc = weight_desc(part, 1);
    return with_weight_desc(&desc);
}

static void test_weight_arguments(void **state) {
    (void)state;
    fmk_weight_desc desc = weight_desc(&source.part, 1);
    fmk_weight *made = RUBBISH;
    uint64_t size, align;
    REFUSED(fmk_weight_create(NULL, queue, &desc), FMK_EINVAL, "out");
    REFUSED(fmk_weight_create(&made, NULL, &desc), FMK_EINVAL, "queue");
    assert_null(made);
    made = RUBBISH;
    REFUSED(fmk_weight_create(&made, queue, NULL), FMK_EINVAL, "desc");
    assert_null(made);
    REFUSED(fmk_weight_storage(NULL, &desc, &size, &align), FMK_EINVAL, "ctx");
    REFUSED(fmk_weight_storage(ctx, NULL, &size, &align), FMK_EINVAL, "desc");
    REFUSED(fmk_weight_storage(ctx, &desc, NULL, &align), FMK_EINVAL, "size");
    REFUSED(fmk_weight_storage(ctx, &desc, &size, NULL), FMK_EINVAL, "align");
    REFUSED(fmk_weight_retain(NULL), FMK_EINVAL, "weight");
    REFUSED(fmk_weight_ready(NULL, 0), FMK_EINVAL, "weight");
    fmk_weight_info_t info = {.struct_size = sizeof info};
    fmk_part_info part = {.struct_size = sizeof part};
    REFUSED(fmk_weight_info(NULL, &info), FMK_EINVAL, "weight");
    REFUSED(fmk_weight_info(weight, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_weight_part_info(NULL, 0, &part), FMK_EINVAL, "weight");
    REFUSED(fmk_weight_part_info(weight, 0, NULL), FMK_EINVAL, "out");
    REFUSED(fmk_weight_part_info(weight, 1, &part), FMK_EINVAL, "part");
    REFUSED(fmk_weight_part_info(weight, -1, &part), FMK_EINVAL, "part");
    REFUSED(fmk_weight_part_info(weight, INT32_MIN, &part), FMK_EINVAL, "part");
    fmk_weight_destroy(NULL, queue);
    fmk_weight_destroy(NULL, NULL);

    unsigned char byte;
    REFUSED(fmk_weight_export(NULL, NULL, 0, &size), FMK_EINVAL, "weight");
    REFUSED(fmk_weight_export(weight, NULL, 0, NULL), FMK_EINVAL, "size");
    REFUSED(fmk_weight_export(weight, &byte, 1, &size), FMK_EINVAL, "capacity");
    assert_true(size > 1);
}

static void test_weight_desc(void **state) {
    (void)state;
    fmk_weight_desc desc = weight_desc(&source.part, 1);
    const struct wrong wrongs[] = {
        {FIELD(fmk_weight_desc, flags), 0x80000000, FMK_EUNSUPPORTED, FMK_EINVAL},
        {FIELD(fmk_weight_desc, flags), 4, FMK_EUNSUPPORTED, FMK_EINVAL},
        {FIELD_OF(fmk_weight_desc, flags, ""), FMK_WEIGHT_GLU, 0, 0},
        {FIELD(fmk_weight_desc, parts), 0, 0, 0},
        {FIELD(fmk_weight_desc, num_parts), 0, 0, 0},
        {FIELD(fmk_weight_desc, num_parts), -1, 0, 0},
        {FIELD(fmk_weight_desc, num_parts), 65, 0, 0},
        {FIELD(fmk_weight_desc, num_parts), INT32_MAX, 0, 0},
        {FIELD(fmk_weight_desc, num_experts), -1, 0, 0},
        {FIELD_OF(fmk_weight_desc, num_experts, ""), INT32_MAX, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD(fmk_weight_desc, apply_bias), 2, 0, 0},
        {FIELD(fmk_weight_desc, apply_bias), -2, 0, 0},
        {FIELD(fmk_weight_desc, reserved), 1, FMK_EINVAL, FMK_EUNSUPPORTED},
    };
    try_fields("weight_create", &desc, sizeof desc, wrongs, COUNT(wrongs), with_weight_desc);

    /* The caller's memory: too little, and not aligned. */
    uint64_t size, align;
    OK(fmk_weight_storage(ctx, &desc, &size, &align));
    assert_true(size > 0 && align && (align & (align - 1)) == 0);
    char *memory = aligned_alloc(align, (size + 2 * align) / align * align);
    assert_non_null(memory);
    desc.storage = buffer(memory, size);
    OK(with_weight_desc(&desc));
    desc.storage = buffer(memory, size - 1);
    REFUSED(with_weight_desc(&desc), FMK_EINVAL, "storage");
    if (align > 1) {
        desc.storage = buffer(memory + 1, size);
        REFUSED(with_weight_desc(&desc), FMK_EINVAL, "storage");
    }
    free(memory);
}

static void test_part(void **state) {
    (void)state;
    const struct wrong wrongs[] = {
        {FIELD(fmk_part, format), 0, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD(fmk_part, format), 1000, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD(fmk_part, format), -1, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, format, "AWQ"), FMK_FORMAT_AWQ, FMK_EUNSUPPORTED, 0},
        {FIELD_OF(fmk_part, n, "n "), 0, 0, 0},
        {FIELD_OF(fmk_part, n, "n "), -1, 0, 0},
        {FIELD_OF(fmk_part, n, ""), INT64_MAX, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, n, ""), (int64_t)1 << 60, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, n, ""), N + 1, 0, 0},
        {FIELD_OF(fmk_part, k, "k "), 0, 0, 0},
        {FIELD_OF(fmk_part, k, "k "), -8, 0, 0},
        {FIELD_OF(fmk_part, k, ""), INT64_MAX, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, k, ""), (int64_t)1 << 60, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, k, ""), 2 * K, 0, 0},
        {FIELD(fmk_part, n_begin), -1, 0, 0},
        {FIELD(fmk_part, n_begin), N, 0, 0},
        {FIELD(fmk_part, n_begin), INT64_MAX, 0, 0},
        {FIELD(fmk_part, n_end), N + 1, 0, 0},
        {FIELD(fmk_part, n_end), -1, 0, 0},
        {FIELD(fmk_part, n_end), INT64_MIN, 0, 0},
        {FIELD(fmk_part, k_begin), -1, 0, 0},
        {FIELD(fmk_part, k_begin), K, 0, 0},
        {FIELD(fmk_part, k_end), K + 1, 0, 0},
        {FIELD(fmk_part, k_end), -1, 0, 0},
        {FIELD(fmk_part, group_size), 0, 0, 0},
        {FIELD(fmk_part, group_size), 7, 0, 0},
        {FIELD(fmk_part, group_size), -2, 0, 0},
        {FIELD(fmk_part, group_size), INT32_MIN, 0, 0},
        {FIELD(fmk_part, zero_point), 3, 0, 0},
        {FIELD(fmk_part, zero_point), -1, 0, 0},
        {FIELD(fmk_part, symmetric), 2, 0, 0},
        {FIELD(fmk_part, symmetric), -2, 0, 0},
        {FIELD(fmk_part, reserved), 1, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, qweight.data.handle, "qweight"), 0, 0, 0},
        {FIELD_OF(fmk_part, qweight.data.size, "qweight"), N * K / 2 - 1, FMK_EINVAL, FMK_EFORMAT},
        {FIELD_OF(fmk_part, qweight.dtype, "qweight"), 99, 0, 0},
        {FIELD_OF(fmk_part, qweight.dtype, "qweight"), FMK_F16, 0, 0},
        {FIELD_OF(fmk_part, qweight.memory, "qweight"), FMK_MEM_DEVICE, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, qweight.memory, "qweight"), 77, FMK_EINVAL, FMK_EUNSUPPORTED},
        {FIELD_OF(fmk_part, scales.data.handle, "scales"), 0, 0, 0},
        {FIELD_OF(fmk_part, scales.data.size, "scales"), 1, FMK_EINVAL, FMK_EFORMAT},
        {FIELD_OF(fmk_part, scales.dtype, "scales"), FMK_I32, 0, 0},
        {FIELD_OF(fmk_part, scales.dtype, "scales"), -7, 0, 0},
        {FIELD_OF(fmk_part, qzeros.data.size, "qzeros"), 1, FMK_EINVAL, FMK_EFORMAT},
        {FIELD_OF(fmk_part, qzeros.dtype, "qzeros"), FMK_F32, 0, 0},
    };
    try_fields("weight_create of a part", &source.part, sizeof source.part, wrongs, COUNT(wrongs), with_part);

    /* Optional tensors that are there but wrong. */
    const struct {
        const char *word;
        size_t offset;
        fmk_dtype right, wrong;
        uint64_t size;
    } optional[] = {
        {"g_idx", offsetof(fmk_part, g_idx), FMK_I32, FMK_F32, 4 * K},
        {"bias", offsetof(fmk_part, bias), FMK_F32, FMK_I32, 4 * N},
        {"n_order", offsetof(fmk_part, n_order), FMK_I32, FMK_F16, 4 * N},
    };
    int32_t *table = calloc(K, sizeof *table);
    assert_non_null(table);
    for (size_t i = 0; i < COUNT(optional); i++) {
        fmk_part part = source.part;
        fmk_tensor *tensor = (fmk_tensor *)((char *)&part + optional[i].offset);
        for (int32_t j = 0; j < K; j++)
            table[j] = strcmp(optional[i].word, "g_idx") ? j : j / source.part.group_size;
        *tensor = (fmk_tensor){.data = buffer(table, optional[i].size), .dtype = optional[i].right};
        OK(with_part(&part));
        tensor->data.size--;
        REFUSED_AS(with_part(&part), FMK_EINVAL, FMK_EFORMAT, optional[i].word);
        tensor->data.size++;
        tensor->dtype = optional[i].wrong;
        REFUSED(with_part(&part), FMK_EINVAL, optional[i].word);
    }

    /* Data that contradicts itself. */
    fmk_part part = source.part;
    part.g_idx = (fmk_tensor){.data = buffer(table, 4 * K), .dtype = FMK_I32};
    const int32_t bad_groups[] = {K / 64, -K / 64 - 1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNT(bad_groups); i++) {
        memset(table, 0, 4 * K);
        table[K - 1] = bad_groups[i];
        REFUSED_AS(with_part(&part), FMK_EINVAL, FMK_EFORMAT, "g_idx");
    }
    part = source.part;
    part.n_order = (fmk_tensor){.data = buffer(table, 4 * N), .dtype = FMK_I32};
    const int32_t bad_orders[] = {0, N, -1, INT32_MIN};
    for (size_t i = 0; i < COUNT(bad_orders); i++) {
        for (int32_t j = 0; j < N; j++)
            table[j] = j;
        table[N - 1] = bad_orders[i];
        REFUSED_AS(with_part(&part), FMK_EINVAL, FMK_EFORMAT, "n_order");
    }
    free(table);
}

static void test_parts_together(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("test_parts_together");
    struct ref_weight narrow;
    make_sample(&narrow, 0, N, K / 2, &rng);
    fmk_part parts[2] = {source.part, narrow.part};
    fmk_weight_desc desc = weight_desc(parts, 2);
    REFUSED(with_weight_desc(&desc), FMK_EINVAL, "parts[1]");
    parts[1] = source.part;
    OK(with_weight_desc(&desc));
    desc.flags = FMK_WEIGHT_GLU;
    OK(with_weight_desc(&desc));
    parts[1].n_end = N / 2;
    REFUSED(with_weight_desc(&desc), FMK_EINVAL, "GLU");
    parts[1] = source.part;
    parts[1].group_size = 7;
    REFUSED(with_weight_desc(&desc), FMK_EINVAL, "parts[1]");

    /* Experts lie expert_stride apart, and the last one must fit as well. */
    fmk_weight_desc stacked = weight_desc(&stack.part, 1);
    stacked.num_experts = 4;
    OK(with_weight_desc(&stacked));
    stacked.num_experts = 5;
    REFUSED_AS(with_weight_desc(&stacked), FMK_EINVAL, FMK_EFORMAT, "qweight");
    stacked.num_experts = 4;
    fmk_part part = stack.part;
    stacked.parts = &part;
    part.qweight.expert_stride = 0;
    REFUSED(with_weight_desc(&stacked), FMK_EINVAL, "expert_stride");
    part.qweight.expert_stride = UINT64_MAX / 2;
    REFUSED_AS(with_weight_desc(&stacked), FMK_EINVAL, FMK_EFORMAT, "qweight");
    ref_free(&narrow);

    /* K-quants are cut between super-blocks only. */
    struct ref_weight q4;
    make_sample(&q4, 7, N, 2 * K, &rng);
    OK(with_part(&q4.part));
    part = q4.part;
    part.k_begin = 128;
    REFUSED(with_part(&part), FMK_EINVAL, "k_begin");
    part = q4.part;
    part.k = K + 8;
    REFUSED(with_part(&part), FMK_EINVAL, "k ");
    part = q4.part;
    part.group_size = 32;
    REFUSED(with_part(&part), FMK_EINVAL, "group_size");
    ref_free(&q4);
}

static int32_t cancel(void *user, uint64_t done, uint64_t total) {
    assert_true(done <= total);
    return ++*(int32_t *)user;
}

static void test_cancel(void **state) {
    (void)state;
    int32_t calls = 0;
    fmk_weight_desc desc = weight_desc(&source.part, 1);
    desc.progress = cancel;
    desc.progress_user = &calls;
    assert_int_equal(with_weight_desc(&desc), FMK_ECANCELED);
    assert_int_equal(calls, 1);
    assert_true(fmk_last_error()[0]);
}

/* ---- errors and lifetimes ---- */

static void test_library(void **state) {
    (void)state;
    assert_int_equal(fmk_version(), FMK_VERSION_MAJOR << 16 | FMK_VERSION_MINOR << 8 | FMK_VERSION_PATCH);
    assert_non_null(strstr(fmk_build_info(), "cpu"));
    for (fmk_status status = FMK_ENOTPREPARED; status <= FMK_OK; status++)
        assert_int_equal(strncmp(fmk_status_name(status), "FMK_", 4), 0);
    assert_string_equal(fmk_status_name(1), "unknown status");
    assert_string_equal(fmk_status_name(INT32_MIN), "unknown status");
    /* A call that succeeds leaves the sentence of the last failure. */
    REFUSED(fmk_context_status(NULL), FMK_EINVAL, "ctx");
    char before[512];
    strcpy(before, fmk_last_error());
    OK(fmk_context_status(ctx));
    assert_string_equal(fmk_last_error(), before);
}

/* Parents may be destroyed before their children, in every order, and what is left keeps working. */
static void test_destroy_in_any_order(void **state) {
    (void)state;
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i = 0; i < 6; i++) {
        fmk_context_desc desc = context_desc(2);
        fmk_weight_desc made = weight_desc(&source.part, 1);
        fmk_context *c;
        fmk_queue *q;
        fmk_weight *w;
        OK(fmk_context_create(&c, &desc));
        OK(fmk_queue_create(&q, c, NULL));
        OK(fmk_weight_create(&w, q, &made));
        OK(fmk_weight_retain(w));
        for (int j = 0; j < 3; j++) {
            if (orders[i][j] == 0)
                fmk_context_destroy(c);
            if (orders[i][j] == 1)
                fmk_queue_destroy(q), q = NULL;
            if (orders[i][j] == 2)
                fmk_weight_destroy(w, q);
            if (q)
                OK(fmk_linear(q, w, &args));
            fmk_weight_info_t info = {.struct_size = sizeof info};
            OK(fmk_weight_info(w, &info));
        }
        fmk_weight_destroy(w, NULL);
    }
}

/* A weight of one context is not used on another one's queue. */
static void test_strangers(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(1);
    fmk_context *other;
    fmk_queue *stranger;
    OK(fmk_context_create(&other, &desc));
    OK(fmk_queue_create(&stranger, other, NULL));
    REFUSED(fmk_linear(stranger, weight, &args), FMK_EINVAL, "context");
    REFUSED(fmk_prepare(stranger, weight, &args), FMK_EINVAL, "context");
    fmk_queue_destroy(stranger);
    fmk_context_destroy(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_weight_arguments),
        cmocka_unit_test(test_weight_desc),
        cmocka_unit_test(test_part),
        cmocka_unit_test(test_parts_together),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_library),
        cmocka_unit_test(test_destroy_in_any_order),
        cmocka_unit_test(test_strangers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
