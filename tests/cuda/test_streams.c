/* Streams and CUDA contexts: several queues at work at once, each with a workspace of its own; queues that
 * follow another stream; contexts beside each other; and the CUcontext that a thread had is the one it has
 * afterwards. */
#include "resident.h"

#include <pthread.h>
#include <stdio.h>

enum { STREAMS = 4, M = 24 };

static int rounds(void) {
    return quick() ? 2 : 25;
}

/* What one stream works with; weight and activations are shared. */
struct lane {
    void *stream;
    fmk_queue *queue;
    struct resident *shared;
    fmk_linear_args args;
    fmk_status status;
    char sentence[512];
};

static void open_lane(struct lane *l, struct bench *b, struct resident *shared) {
    *l = (struct lane){.stream = gpu_stream(), .shared = shared, .args = shared->args};
    OK(fmk_queue_create(&l->queue, b->ctx, l->stream));
    l->args.out.handle = gpu_alloc(shared->out_size);
    l->args.workspace.handle = gpu_alloc(shared->args.workspace.size);
    OK(fmk_prepare(l->queue, shared->weight, &l->args));
}

static void close_lane(struct lane *l) {
    gpu_wait(l->stream);
    fmk_queue_destroy(l->queue);
    gpu_stream_free(l->stream);
    gpu_free(l->args.out.handle);
    gpu_free(l->args.workspace.handle);
}

static void check_lane(const struct lane *l, const uint8_t *want, const char *what) {
    gpu_wait(l->stream);
    struct resident r = {.args = l->args, .out_size = l->shared->out_size};
    assert_out_is(&r, want, what);
}

static void *work(void *lane_) { /* assertions belong to the main thread */
    struct lane *l = lane_;
    for (int i = 0; i < rounds() && !l->status; i++)
        l->status = fmk_linear(l->queue, l->shared->weight, &l->args);
    snprintf(l->sentence, sizeof l->sentence, "%s", l->status ? fmk_last_error() : "");
    return NULL;
}

static uint8_t *alone(struct bench *b, struct resident *r) {
    OK(fmk_prepare(b->queue, r->weight, &r->args));
    OK(fmk_linear(b->queue, r->weight, &r->args));
    gpu_wait(test_stream());
    return resident_out(r);
}

static void test_at_once(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("streams/at_once");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s += quick() ? 2 : 1)
        for (int64_t m = M; m <= (quick() ? M : 4 * M); m *= 4) {
            struct ref_spec spec = sample_spec(s, quick() ? 64 : 192, 512);
            struct resident r = resident_of(&b, &spec, FMK_F16, FMK_F32, m, 0, &rng);
            uint8_t *want = alone(&b, &r);
            struct lane lanes[STREAMS];
            for (int i = 0; i < STREAMS; i++)
                open_lane(&lanes[i], &b, &r);
            for (int round = 0; round < rounds(); round++) /* of one thread */
                for (int i = 0; i < STREAMS; i++)
                    OK(fmk_linear(lanes[i].queue, r.weight, &lanes[i].args));
            for (int i = 0; i < STREAMS; i++)
                check_lane(&lanes[i], want, samples[s].name);
            pthread_t threads[STREAMS]; /* of many */
            for (int i = 0; i < STREAMS; i++) {
                gpu_fill(lanes[i].args.out.handle, POISON, r.out_size);
                assert_int_equal(pthread_create(&threads[i], NULL, work, &lanes[i]), 0);
            }
            for (int i = 0; i < STREAMS; i++)
                pthread_join(threads[i], NULL);
            for (int i = 0; i < STREAMS; i++) {
                if (lanes[i].status)
                    fail_msg("%s", lanes[i].sentence);
                check_lane(&lanes[i], want, samples[s].name);
                close_lane(&lanes[i]);
            }
            free(want);
            free_resident(&r, &b);
        }
    close_bench(&b);
}

/* A queue follows another stream without being prepared again, also one that is being captured. */
static void test_rebind(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("streams/rebind");
    struct bench b = open_bench(1);
    for (int s = 0; s < NUM_SAMPLES; s++) {
        struct ref_spec spec = sample_spec(s, 128, 512);
        struct resident r = resident_of(&b, &spec, FMK_F16, FMK_F16, 2 * M, 0, &rng);
        uint8_t *want = alone(&b, &r);
        void *other = gpu_stream();
        gpu_fill(r.args.out.handle, POISON, r.out_size);
        OK(fmk_queue_rebind(b.queue, other));
        OK(fmk_linear(b.queue, r.weight, &r.args));
        gpu_wait(other);
        assert_out_is(&r, want, "rebound");
        gpu_fill(r.args.out.handle, POISON, r.out_size);
        capture_begin(other);
        OK(fmk_linear(b.queue, r.weight, &r.args));
        void *graph = capture_end(other);
        replay(graph, test_stream()); /* a graph belongs to no stream */
        assert_out_is(&r, want, "rebound and captured");
        free_instance(graph);
        REFUSED(fmk_queue_rebind(b.queue, NULL), FMK_EINVAL, "native");
        OK(fmk_queue_rebind(b.queue, test_stream()));
        gpu_stream_free(other);
        free(want);
        free_resident(&r, &b);
    }
    close_bench(&b);
}

/* ---- contexts ---- */

static void *current(void) {
    void *context;
    CUDA(CtxGetCurrent(&context));
    return context;
}

/* Every kind of call of a context, with `found` current. */
static void check_left_as_found(const fmk_context_desc *desc, void *stream, void *found,
                                struct ref_rng *rng) {
    struct bench b;
    CUDA(CtxSetCurrent(found));
    OK(fmk_context_create(&b.ctx, desc));
    assert_ptr_equal(current(), found);
    OK(fmk_queue_create(&b.queue, b.ctx, stream));
    assert_ptr_equal(current(), found);
    struct ref_weight part;
    make_sample(&part, 7, 64, 256, rng);
    fmk_weight_desc wanted = weight_desc(&part.part, 1);
    fmk_weight *weight;
    OK(fmk_weight_create(&weight, b.queue, &wanted));
    assert_ptr_equal(current(), found);
    OK(fmk_weight_ready(weight, 1));
    assert_ptr_equal(current(), found);
    fmk_linear_args args = {.struct_size = sizeof args, .m = 1, .in_type = FMK_F16, .out_type = FMK_F16};
    OK(fmk_prepare(b.queue, weight, &args));
    assert_ptr_equal(current(), found);
    REFUSED(fmk_linear(b.queue, weight, &args), FMK_EINVAL, "in");
    assert_ptr_equal(current(), found);
    uint64_t size;
    OK(fmk_weight_export(weight, NULL, 0, &size));
    void *bytes = malloc(size);
    OK(fmk_weight_export(weight, bytes, size, &size));
    assert_ptr_equal(current(), found);
    free(bytes);
    fmk_weight_destroy(weight, b.queue);
    assert_ptr_equal(current(), found);
    fmk_queue_destroy(b.queue);
    assert_ptr_equal(current(), found);
    fmk_context_destroy(b.ctx);
    assert_ptr_equal(current(), found);
    ref_free(&part);
    CUDA(CtxSetCurrent(NULL));
}

static void test_contexts(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("streams/contexts");
    fmk_context_desc desc = context_desc(1); /* and so the driver is open */
    if (!cuda.CtxCreate) {
        print_message("skipped: this driver has no cuCtxCreate_v4\n");
        skip();
    }
    void *own, *stream;
    CUDA(CtxCreate(&own, NULL, 0, 0)); /* and makes it current */
    CUDA(StreamCreate(&stream, 1));
    CUDA(CtxSetCurrent(NULL));
    void *found[] = {NULL, primary_context(), own};
    for (int i = 0; i < 3; i++) {
        desc.native = NULL;
        check_left_as_found(&desc, test_stream(), found[i], &rng);
        desc.native = own;
        check_left_as_found(&desc, stream, found[i], &rng);
    }
    struct bench primary = open_bench(1), given = {0};
    OK(fmk_context_create(&given.ctx, &desc));
    REFUSED(fmk_queue_create(&given.queue, given.ctx, test_stream()), FMK_EINVAL, "another CUcontext");
    assert_null(given.queue);
    REFUSED(fmk_queue_rebind(primary.queue, stream), FMK_EINVAL, "another CUcontext");
    OK(fmk_queue_create(&given.queue, given.ctx, stream));
    close_bench(&given);
    close_bench(&primary);
    CUDA(CtxSetCurrent(own));
    CUDA(StreamDestroy(stream));
    CUDA(CtxSetCurrent(NULL));
    CUDA(CtxDestroy(own));
}

/* Two contexts of one device give the same bytes, and refuse each other's weights. */
static void test_two_contexts(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("streams/two");
    struct bench a = open_bench(1), b = open_bench(1);
    struct ref_spec spec = sample_spec(3, 128, 256);
    struct resident r = resident_of(&a, &spec, FMK_BF16, FMK_F32, M, 0, &rng), other = r;
    uint8_t *want = alone(&a, &r);
    other.weight = make_weight(&b, &r.part, 1, 0);
    gpu_fill(r.args.out.handle, POISON, r.out_size);
    free(alone(&b, &other));
    assert_out_is(&r, want, "the same in another context");
    REFUSED(fmk_prepare(b.queue, r.weight, &r.args), FMK_EINVAL, "context");
    REFUSED(fmk_linear(b.queue, r.weight, &r.args), FMK_EINVAL, "context");
    REFUSED(fmk_linear(a.queue, other.weight, &r.args), FMK_EINVAL, "context");
    fmk_weight_destroy(other.weight, b.queue);
    free(want);
    free_resident(&r, &a);
    close_bench(&b);
    close_bench(&a);
}

/* Context, queue and weight in every order; what is left works until its turn comes. */
static void test_destroy_order(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("streams/destroy");
    static const char *const orders[] = {"cqw", "cwq", "qcw", "qwc", "wcq", "wqc"};
    for (int i = 0; i < 6; i++) {
        struct bench b = open_bench(1);
        struct ref_spec spec = sample_spec(6, 64, 256);
        struct resident r = resident_of(&b, &spec, FMK_F16, FMK_F16, M, 0, &rng);
        free(alone(&b, &r));
        bool queue = true, weight = true;
        for (const char *which = orders[i]; *which; which++) {
            if (*which == 'c')
                fmk_context_destroy(b.ctx);
            if (*which == 'q')
                fmk_queue_destroy(b.queue);
            if (*which == 'w')
                fmk_weight_destroy(r.weight, queue ? b.queue : NULL);
            queue = queue && *which != 'q';
            weight = weight && *which != 'w';
            if (queue && weight)
                OK(fmk_linear(b.queue, r.weight, &r.args));
            gpu_wait(test_stream());
        }
        r.weight = NULL;
        free_resident(&r, &b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once),       cmocka_unit_test(test_rebind),
        cmocka_unit_test(test_contexts),      cmocka_unit_test(test_two_contexts),
        cmocka_unit_test(test_destroy_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
