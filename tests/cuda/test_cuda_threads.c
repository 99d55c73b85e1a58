/* Threads that share a context, each with a queue of its own: they load kernels, make weights through the
 * same few slots of pinned memory, prepare, multiply and export at once, and each finds what it finds alone.
 */
#include "resident.h"

#include <pthread.h>

enum { THREADS = 4, N = 64, K = 512, M = 3, PACKED = 1 << 18 };

struct worker {
    fmk_context *ctx;
    void *stream;
    fmk_buffer in, out, workspace;
    const struct ref_weight *parts; /* [NUM_SAMPLES] */
    uint8_t *got;                   /* [NUM_SAMPLES][PACKED + out] */
    fmk_status status;
    char sentence[256];
};

enum { OUT_SIZE = M * N * 4, RESULT = PACKED + OUT_SIZE };

static fmk_status one_part(struct worker *w, fmk_queue *queue, int sample) {
    fmk_weight_desc desc = weight_desc(&w->parts[sample].part, 1);
    fmk_linear_args args = {.struct_size = sizeof args,
                            .m = M,
                            .in_type = FMK_F16,
                            .out_type = FMK_F32,
                            .in = w->in,
                            .out = w->out,
                            .workspace = w->workspace};
    uint8_t *result = w->got + (size_t)sample * RESULT;
    uint64_t size;
    fmk_weight *weight = NULL;
    fmk_status status = fmk_weight_create(&weight, queue, &desc);
    if (!status)
        status = fmk_prepare(queue, weight, &args);
    if (!status)
        status = fmk_linear(queue, weight, &args);
    if (!status)
        status = fmk_weight_export(weight, result, PACKED, &size);
    fmk_weight_destroy(weight, queue);
    if (!status)
        gpu_read(result + PACKED, w->out.handle, OUT_SIZE);
    return status;
}

static void *work(void *worker) { /* assertions belong to the main thread */
    struct worker *w = worker;
    fmk_queue *queue = NULL;
    w->status = fmk_queue_create(&queue, w->ctx, w->stream);
    for (int s = 0; s < NUM_SAMPLES && !w->status; s++)
        w->status = one_part(w, queue, s);
    strncpy(w->sentence, fmk_last_error(), sizeof w->sentence - 1);
    fmk_queue_destroy(queue);
    return NULL;
}

static fmk_buffer resident_buffer(size_t size) {
    fmk_buffer made = {.handle = gpu_alloc(size), .size = size};
    gpu_fill(made.handle, 0x11, size); /* f16 and f32 of it are small numbers */
    return made;
}

static struct worker worker_of(fmk_context *ctx, const struct ref_weight *parts) {
    struct worker w = {.ctx = ctx, .stream = gpu_stream(), .parts = parts};
    w.in = resident_buffer(M * K * 2);
    w.out = resident_buffer(OUT_SIZE);
    w.workspace = resident_buffer(4 << 20);
    w.got = calloc(NUM_SAMPLES, RESULT);
    assert_non_null(w.got);
    return w;
}

static void check_and_free(struct worker *w, const uint8_t *want) {
    if (w->status)
        fail_msg("%s: %s", fmk_status_name(w->status), w->sentence);
    for (int s = 0; s < NUM_SAMPLES; s++)
        if (memcmp(want + (size_t)s * RESULT, w->got + (size_t)s * RESULT, RESULT))
            fail_msg("%s is another than what one thread alone makes", samples[s].name);
    gpu_free(w->in.handle);
    gpu_free(w->out.handle);
    gpu_free(w->workspace.handle);
    gpu_stream_free(w->stream);
}

static void test_at_once(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("threads");
    struct ref_weight parts[NUM_SAMPLES];
    for (int s = 0; s < NUM_SAMPLES; s++)
        make_sample(&parts[s], s, N, K, &rng);
    uint8_t *want = NULL;
    for (int round = 0; round < (quick() ? 3 : 10); round++) {
        fmk_context_desc desc = context_desc(round % 2 + 1);
        fmk_context *ctx;
        desc.staging_bytes = 1; /* the smallest: they must wait for each other's slots */
        OK(fmk_context_create(&ctx, &desc));
        struct worker workers[THREADS];
        pthread_t threads[THREADS];
        int count = round ? THREADS : 1;
        for (int i = 0; i < count; i++)
            workers[i] = worker_of(ctx, parts);
        for (int i = 0; i < count; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
        for (int i = 0; i < count; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < count; i++) {
            check_and_free(&workers[i], round ? want : workers[i].got);
            if (round)
                free(workers[i].got);
            else
                want = workers[i].got;
        }
        fmk_context_destroy(ctx);
    }
    free(want);
    for (int s = 0; s < NUM_SAMPLES; s++)
        ref_free(&parts[s]);
}

int main(void) {
    if (!on_gpu()) {
        print_message("SKIPPED: FERRUMK_TEST_BACKEND is not cuda\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
