/* What can go wrong on a GPU: memory of the wrong side, calls that were not prepared, too little memory, a
 * stream that is being captured, a caller that cancels. Each is a status and a sentence; the context works
 * on. And what loading a weight takes of the device's memory. */
#include "resident.h"

enum { N = 64, K = 256, M = 5 };

/* After a refusal everything works. */
static void assert_usable(struct bench *b, struct ref_rng *rng) {
    OK(fmk_context_status(b->ctx));
    struct ref_spec spec = sample_spec(1, N, K);
    struct resident r = resident_of(b, &spec, FMK_F16, FMK_F32, M, 0, rng);
    OK(fmk_prepare(b->queue, r.weight, &r.args));
    OK(fmk_linear(b->queue, r.weight, &r.args));
    gpu_wait(test_stream());
    uint8_t *out = resident_out(&r);
    double want[M * N];
    for (int m = 0; m < M; m++)
        expect_row(&r.part, 1, 0, &r.in, m, want + m * N);
    struct matrix got = {FMK_F32, M, N, N, r.out_size, out};
    assert_close(&got, want, bound_of(0, FMK_F16, FMK_F32, M, K), "after a refusal");
    free(out);
    free_resident(&r, b);
}

static void test_memory_of_the_host(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/host");
    struct bench b = open_bench(1);
    struct ref_spec spec = sample_spec(7, N, K);
    struct resident r = resident_of(&b, &spec, FMK_F16, FMK_F16, M, 0, &rng);
    struct matrix out = matrix(FMK_F16, M, N, N);
    int32_t m_dev = M, rows[M] = {0};
    fmk_linear_args args = r.args;
    args.in = buffer_of(&r.in);
    REFUSED(fmk_prepare(b.queue, r.weight, &args), FMK_EINVAL, "in is");
    args = r.args;
    args.out = buffer_of(&out);
    REFUSED(fmk_prepare(b.queue, r.weight, &args), FMK_EINVAL, "out is");
    args = r.args;
    args.m_dev = buffer(&m_dev, sizeof m_dev);
    REFUSED(fmk_prepare(b.queue, r.weight, &args), FMK_EINVAL, "m_dev is");
    args = r.args;
    args.in_rows = buffer(rows, sizeof rows);
    REFUSED(fmk_prepare(b.queue, r.weight, &args), FMK_EINVAL, "in_rows is");
    args = r.args;
    uint8_t *space = fenced(r.args.workspace.size + 256);
    args.workspace = buffer(space, r.args.workspace.size + 256);
    REFUSED(fmk_prepare(b.queue, r.weight, &args), FMK_EINVAL, "workspace is");
    release(space, r.args.workspace.size + 256);
    OK(fmk_prepare(b.queue, r.weight, &r.args));
    free_matrix(&out);
    free_resident(&r, &b);
    assert_usable(&b, &rng);
    close_bench(&b);
}

static void test_not_prepared(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/prepared");
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct bench b = open_bench(1);
        struct ref_spec spec = sample_spec(s, N, K);
        struct resident r = resident_of(&b, &spec, FMK_F32, FMK_F32, M, FMK_LINEAR_REFERENCE, &rng);
        REFUSED(fmk_linear(b.queue, r.weight, &r.args), FMK_ENOTPREPARED, "fmk_prepare");
        uint8_t *out = resident_out(&r);
        for (size_t i = 0; i < r.out_size; i++)
            assert_int_equal(out[i], POISON);
        free(out);
        OK(fmk_prepare(b.queue, r.weight, &r.args));
        OK(fmk_linear(b.queue, r.weight, &r.args));
        free_resident(&r, &b);
        close_bench(&b);
    }
}

static void test_workspace(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/workspace");
    struct bench b = open_bench(1);
    int least_of_some = 0;
    for (int s = 0; s < NUM_SAMPLES; s++)
        for (int t = 0; t < 2; t++) {
            struct ref_spec spec = sample_spec(s, N, K);
            struct resident r = resident_of(&b, &spec, t ? FMK_F16 : FMK_F32, FMK_F32, 33, 0, &rng);
            uint64_t least, best;
            OK(fmk_workspace_size(r.weight, &r.args, &least, &best));
            OK(fmk_prepare(b.queue, r.weight, &r.args));
            r.args.workspace.size = least;
            OK(fmk_prepare(b.queue, r.weight, &r.args));
            OK(fmk_linear(b.queue, r.weight, &r.args));
            if (least) {
                least_of_some++;
                r.args.workspace.size = least - 1;
                REFUSED(fmk_linear(b.queue, r.weight, &r.args), FMK_EWORKSPACE, "workspace");
            }
            free_resident(&r, &b);
        }
    print_message("%d calls need a workspace\n", least_of_some);
    assert_usable(&b, &rng);
    close_bench(&b);
}

/* ---- allocators ---- */

struct account {
    int64_t live, peak, calls,
        refuse_from; /* refuse_from: the call from which on the answer is no, 0 = none */
    void *stream;
};

static uint64_t account_alloc(void *user, void *stream, uint64_t size, uint64_t align, fmk_memory memory) {
    struct account *a = user;
    if (++a->calls >= a->refuse_from && a->refuse_from)
        return 0;
    if (memory != FMK_MEM_DEVICE)
        return (uint64_t)(uintptr_t)aligned_alloc(align, (size + align - 1) / align * align);
    assert_ptr_equal(stream, a->stream);
    a->live += (int64_t)size;
    a->peak = a->live > a->peak ? a->live : a->peak;
    return gpu_alloc(size);
}

static void account_release(void *user, void *stream, uint64_t handle, uint64_t size, fmk_memory memory) {
    struct account *a = user;
    (void)stream;
    if (memory != FMK_MEM_DEVICE) {
        free((void *)(uintptr_t)handle);
        return;
    }
    a->live -= (int64_t)size;
    gpu_free(handle);
}

static struct bench open_accounted(struct account *a, uint64_t staging) {
    fmk_context_desc desc = context_desc(2);
    a->stream = test_stream();
    desc.allocator = (fmk_allocator){account_alloc, account_release, a};
    desc.staging_bytes = staging;
    return bench_of(&desc);
}

static void test_allocator(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/allocator");
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct account account = {0};
        struct bench b = open_accounted(&account, 0);
        struct ref_weight part;
        make_sample(&part, s, N, K, &rng);
        fmk_weight *weight = make_weight(&b, &part, 1, 0);
        assert_true(account.live > 0);
        fmk_weight_destroy(weight, b.queue);
        assert_int_equal(account.live, 0);
        int64_t calls = account.calls;
        fmk_weight_desc desc = weight_desc(&part.part, 1);
        for (account.refuse_from = 1; account.refuse_from <= calls; account.refuse_from++) {
            account.calls = 0;
            fmk_status status = fmk_weight_create(&weight, b.queue, &desc);
            if (!status) { /* what the first weight left behind needs no second call */
                fmk_weight_destroy(weight, b.queue);
                break;
            }
            assert_int_equal(status, FMK_ENOMEM);
            assert_null(weight);
            assert_true(strlen(fmk_last_error()) > 0);
            assert_int_equal(account.live, 0);
        }
        assert_true(account.refuse_from > 1);
        account.refuse_from = 0;
        assert_usable(&b, &rng);
        assert_int_equal(account.live, 0);
        ref_free(&part);
        close_bench(&b);
    }
}

/* All of the device's memory taken by others: creation answers ENOMEM, and works when there is room again. */
static void test_out_of_memory(void **state) {
    (void)state;
    if (quick()) {
        print_message("skipped: it would fill the machine's memory\n");
        skip();
    }
    struct ref_rng rng = ref_rng_start("errors/memory");
    struct bench b = open_bench(2);
    assert_usable(&b, &rng);           /* what loading takes is taken */
    const int64_t n = 8192, k = 16384; /* 256 MiB */
    uint16_t *zeros = calloc((size_t)(n * k), sizeof *zeros);
    assert_non_null(zeros);
    fmk_part part = {.struct_size = sizeof part,
                     .format = FMK_FORMAT_DENSE,
                     .n = n,
                     .k = k,
                     .qweight = {.data = buffer(zeros, (size_t)(n * k) * sizeof *zeros), .dtype = FMK_F16}};
    fmk_weight_desc desc = weight_desc(&part, 1);
    uint64_t taken[64];
    int count = 0;
    CUDA(CtxSetCurrent(primary_context()));
    for (size_t size = (size_t)1 << 38; size >= (size_t)32 << 20 && count < 64;)
        if (cuda.MemAlloc(&taken[count], size))
            size /= 2;
        else
            count++;
    CUDA(CtxSetCurrent(NULL));
    fmk_weight *weight;
    REFUSED(fmk_weight_create(&weight, b.queue, &desc), FMK_ENOMEM, "268435456");
    assert_null(weight);
    OK(fmk_context_status(b.ctx));
    while (count--)
        gpu_free(taken[count]);
    OK(fmk_weight_create(&weight, b.queue, &desc));
    OK(fmk_weight_ready(weight, 1));
    fmk_weight_destroy(weight, b.queue);
    assert_usable(&b, &rng);
    free(zeros);
    close_bench(&b);
}

/* ---- captures ---- */

static void test_capturing(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/capture");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_weight part;
        make_sample(&part, s, N, K, &rng);
        fmk_weight_desc desc = weight_desc(&part.part, 1);
        fmk_weight *weight;
        capture_begin(test_stream());
        REFUSED_AS(fmk_weight_create(&weight, b.queue, &desc), FMK_EINVAL, FMK_EDEVICE, "captur");
        assert_null(weight);
        free_instance(capture_end(test_stream())); /* the capture is as good as before */
        OK(fmk_weight_create(&weight, b.queue, &desc));
        OK(fmk_weight_ready(weight, 1));
        fmk_weight_destroy(weight, b.queue);
        ref_free(&part);
    }
    assert_usable(&b, &rng);
    close_bench(&b);
}

/* ---- loading ---- */

struct watch {
    int calls, cancel_at;
    size_t most_used, unused_before;
};

static int32_t watch(void *user, uint64_t done, uint64_t total) {
    struct watch *w = user;
    assert_true(done <= total);
    size_t unused = gpu_memory_unused();
    size_t used = unused < w->unused_before ? w->unused_before - unused : 0;
    w->most_used = used > w->most_used ? used : w->most_used;
    return ++w->calls == w->cancel_at;
}

static void test_cancel(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/cancel");
    struct account account = {0};
    struct bench b = open_accounted(&account, 1 << 20); /* small, so that it takes many steps */
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_weight part;
        make_sample(&part, s, 16 * N, 4 * K, &rng);
        fmk_weight_desc desc = weight_desc(&part.part, 1);
        struct watch w = {.unused_before = gpu_memory_unused()};
        desc.progress = watch;
        desc.progress_user = &w;
        fmk_weight *weight;
        OK(fmk_weight_create(&weight, b.queue, &desc));
        OK(fmk_weight_ready(weight, 1));
        fmk_weight_destroy(weight, b.queue);
        int calls = w.calls;
        assert_true(calls > 0);
        for (int at = 1; at <= calls; at++) {
            w = (struct watch){.cancel_at = at, .unused_before = w.unused_before};
            REFUSED(fmk_weight_create(&weight, b.queue, &desc), FMK_ECANCELED, "progress");
            assert_null(weight);
            assert_int_equal(account.live, 0);
        }
        ref_free(&part);
    }
    assert_usable(&b, &rng);
    close_bench(&b);
}

/* A weight of about 100 MB of random bytes, and what the device's memory holds at most while it is made: the
 * packed weight and the staging budget, and 8 MB that the driver may round up by. */
static void test_staging(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("errors/staging");
    enum { STAGING = 8 << 20, SLACK = 8 << 20 };
    static const fmk_format formats[] = {FMK_FORMAT_DENSE, FMK_FORMAT_GPTQ, FMK_FORMAT_Q4_K, FMK_FORMAT_Q6_K};
    const int64_t k = 4096, n = quick() ? 1024 : 40960;
    for (int i = 0; i < 4; i++) {
        struct account account = {0};
        struct bench b = open_accounted(&account, STAGING);
        int64_t bytes = formats[i] == FMK_FORMAT_DENSE  ? n * k * 2
                        : formats[i] == FMK_FORMAT_GPTQ ? n * k / 2
                        : formats[i] == FMK_FORMAT_Q4_K ? n * k / 256 * 144
                                                        : n * k / 256 * 210;
        uint32_t *data = malloc((size_t)bytes);
        uint16_t *scales = malloc((size_t)(n * k / 128 * 2));
        assert_non_null(data);
        assert_non_null(scales);
        for (int64_t j = 0; j < bytes / 4; j++)
            data[j] = (uint32_t)ref_next(&rng) & 0x3bff3bff; /* no f16 in it is infinite or not a number */
        for (int64_t j = 0; j < n * k / 128; j++)
            scales[j] = 0x2000;
        fmk_part part = {.struct_size = sizeof part, .format = formats[i], .k = k};
        if (formats[i] == FMK_FORMAT_GPTQ) {
            part.group_size = 128;
            part.scales = (fmk_tensor){.data = buffer(scales, (size_t)(n * k / 128 * 2)), .dtype = FMK_F16};
        }
        part.qweight = (fmk_tensor){.data = buffer(data, (size_t)bytes)};
        if (formats[i] == FMK_FORMAT_DENSE)
            part.qweight.dtype = FMK_F16;
        fmk_weight_desc desc = weight_desc(&part, 1);
        fmk_weight *weight;
        part.n = 64; /* loads the kernels, and makes the staging buffers */
        OK(fmk_weight_create(&weight, b.queue, &desc));
        OK(fmk_weight_ready(weight, 1));
        fmk_weight_destroy(weight, b.queue);
        part.n = n;
        struct watch w = {.unused_before = gpu_memory_unused()};
        desc.progress = watch;
        desc.progress_user = &w;
        account.peak = 0;
        OK(fmk_weight_create(&weight, b.queue, &desc));
        OK(fmk_weight_ready(weight, 1));
        uint64_t size, align;
        OK(fmk_weight_storage(b.ctx, &desc, &size, &align));
        print_message(
            "format %d: packed %.1f MB, allocated at most %.1f MB, device memory used at most %.1f MB\n",
            formats[i], (double)size * 1e-6, (double)account.peak * 1e-6, (double)w.most_used * 1e-6);
        assert_true(account.peak <= (int64_t)size + STAGING);
        assert_true(w.most_used <= size + STAGING + SLACK);
        fmk_weight_destroy(weight, b.queue);
        assert_int_equal(account.live, 0);
        free(data);
        free(scales);
        close_bench(&b);
    }
}

/* Experts' biases may be as far apart as memory goes: more than what the driver takes for a pitch. */
static void test_far_apart(void **state) {
    (void)state;
    const uint64_t stride = (UINT64_C(1) << 31) + 256, size = stride + N * sizeof(float);
    struct ref_rng rng = ref_rng_start("errors/far");
    struct bench b = open_bench(1);
    struct ref_spec spec = {
        .format = FMK_FORMAT_DENSE, .n = N, .k = K, .experts = 2, .dtype = FMK_F16, .bias = FMK_F32};
    struct ref_weight part;
    ref_make(&part, &spec, &rng);
    uint64_t far = gpu_alloc(size);
    for (int e = 0; e < 2; e++)
        gpu_write(far + (uint64_t)e * stride,
                  (char *)(uintptr_t)part.part.bias.data.handle + (uint64_t)e * part.part.bias.expert_stride,
                  N * sizeof(float));
    const fmk_tensor here = part.part.bias;
    part.part.bias.data = (fmk_buffer){.handle = far, .size = size};
    part.part.bias.memory = FMK_MEM_DEVICE;
    part.part.bias.expert_stride = stride;
    fmk_weight *weight = make_weight(&b, &part, 1, 0);
    part.part.bias = here;
    struct matrix in = random_matrix(FMK_F32, M, K, K, &rng), out = matrix(FMK_F32, M, N, N);
    fmk_routing one = {.struct_size = sizeof one, .kind = FMK_ROUTE_NONE, .expert = 1};
    fmk_linear_args args = {.struct_size = sizeof args,
                            .m = M,
                            .in_type = FMK_F32,
                            .out_type = FMK_F32,
                            .in = buffer_of(&in),
                            .out = buffer_of(&out),
                            .routing = &one};
    OK(call(&b, weight, &args, true));
    double want[M * N];
    for (int m = 0; m < M; m++)
        expect_row(&part, 1, 1, &in, m, want + m * N);
    assert_close(&out, want, bound_of(0, FMK_F32, FMK_F32, M, K), "far apart");
    free_matrix(&in);
    free_matrix(&out);
    fmk_weight_destroy(weight, b.queue);
    gpu_free(far);
    ref_free(&part);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_the_host),
        cmocka_unit_test(test_not_prepared),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_allocator),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_capturing),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_staging),
        cmocka_unit_test(test_far_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
