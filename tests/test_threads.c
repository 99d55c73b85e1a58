/* Many threads on one context: each with its own queue and workspace, on shared weights, while others make
 * and destroy weights; every result is bit for bit that of one thread alone. And fork. Meant to be run under
 * ThreadSanitizer as well. */
#include "samples.h"

#include <pthread.h>
#include <stdio.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 128, K = 512, MOST_M = 33, CALLERS = 6, ROUNDS = 12 };

static const int64_t token_counts[] = {1, 5, MOST_M};
static struct ref_weight sources[NUM_SAMPLES];
static float in[MOST_M * K];
static float want[NUM_SAMPLES][3][MOST_M * N]; /* by one thread */

/* Computes every sample's product for every token count. A queue and a workspace belong to one thread. */
static void multiply(fmk_queue *queue, fmk_weight *const *weights, int sample, int count, float *out) {
    int64_t m = token_counts[count];
    fmk_linear_args args = linear_args(in, out, m, N, K);
    void *workspace = give_workspace(weights[sample], &args);
    OK(fmk_prepare(queue, weights[sample], &args));
    OK(fmk_linear(queue, weights[sample], &args));
    free(workspace);
}

static int set_up(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("test_threads");
    for (int i = 0; i < NUM_SAMPLES; i++)
        make_sample(&sources[i], i, N, K, &rng);
    fill_normal(in, MOST_M * K, &rng);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SAMPLES; i++)
        ref_free(&sources[i]);
    return 0;
}

static void make_all(fmk_queue *queue, fmk_weight **weights) {
    for (int i = 0; i < NUM_SAMPLES; i++) {
        fmk_weight_desc desc = weight_desc(&sources[i].part, 1);
        OK(fmk_weight_create(&weights[i], queue, &desc));
    }
}

/* ---- many callers ---- */

struct shared {
    fmk_context *ctx;
    fmk_weight *weights[NUM_SAMPLES];
    atomic_int differ, failed, working;
};

/* Assertions of cmocka jump, which other threads must not: they count. */
static bool fine(struct shared *shared, fmk_status status) {
    if (status) {
        print_error("%s: %s\n", fmk_status_name(status), fmk_last_error());
        atomic_fetch_add(&shared->failed, 1);
    }
    return status == FMK_OK;
}

static void *caller(void *shared_) {
    struct shared *shared = shared_;
    fmk_queue *queue;
    float *out = malloc(sizeof want[0][0]);
    void *workspace = NULL;
    uint64_t largest = 0;
    if (!out || !fine(shared, fmk_queue_create(&queue, shared->ctx, NULL)))
        return NULL;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < NUM_SAMPLES; i++) {
            int count = (round + i) % 3;
            int64_t m = token_counts[count];
            fmk_linear_args args = linear_args(in, out, m, N, K);
            uint64_t least, best;
            if (!fine(shared, fmk_workspace_size(shared->weights[i], &args, &least, &best)))
                continue;
            if (best > largest) {
                free(workspace);
                largest = (best + 255) / 256 * 256;
                workspace = aligned_alloc(256, largest);
            }
            args.workspace = buffer(workspace, best);
            memset(out, 0xff, sizeof want[0][0]);
            if (fine(shared, fmk_linear(queue, shared->weights[i], &args)) &&
                memcmp(out, want[i][count], (size_t)(m * N) * sizeof *out)) {
                print_error("%s, m %lld: another result than alone\n", samples[i].name, (long long)m);
                atomic_fetch_add(&shared->differ, 1);
            }
        }
    fmk_queue_destroy(queue);
    free(workspace);
    free(out);
    atomic_fetch_sub(&shared->working, 1);
    return NULL;
}

/* Makes, asks, retains and destroys while the callers work. */
static void *maker(void *shared_) {
    struct shared *shared = shared_;
    fmk_queue *queue;
    if (!fine(shared, fmk_queue_create(&queue, shared->ctx, NULL)))
        return NULL;
    for (int i = 0; atomic_load(&shared->working) > 0 || i < NUM_SAMPLES; i++) {
        fmk_weight_desc desc = weight_desc(&sources[i % NUM_SAMPLES].part, 1);
        fmk_weight *weight;
        fmk_weight_info_t info = {.struct_size = sizeof info};
        fmk_context_info_t about = {.struct_size = sizeof about};
        if (fine(shared, fmk_weight_create(&weight, queue, &desc))) {
            fine(shared, fmk_weight_retain(weight));
            fine(shared, fmk_weight_info(weight, &info));
            fine(shared, fmk_weight_ready(weight, 1));
            fmk_weight_destroy(weight, queue);
            fmk_weight_destroy(weight, NULL);
        }
        fmk_weight *common = shared->weights[i % NUM_SAMPLES];
        fine(shared, fmk_weight_retain(common));
        fine(shared, fmk_weight_info(common, &info));
        fine(shared, fmk_context_info(shared->ctx, &about));
        fmk_weight_destroy(common, NULL);
    }
    fmk_queue_destroy(queue);
    return NULL;
}

/* Each thread reads its own sentence. */
static void *blunderer(void *shared_) {
    struct shared *shared = shared_;
    fmk_context_desc desc = context_desc(1);
    char number[16];
    int32_t mine = -1000 - (int32_t)(((uintptr_t)&desc >> 12) % 100000);
    snprintf(number, sizeof number, "%d", mine);
    desc.cpu_threads = mine;
    for (int i = 0; i < 200; i++) {
        fmk_context *ctx;
        if (fmk_context_create(&ctx, &desc) != FMK_EINVAL || !strstr(fmk_last_error(), number))
            atomic_fetch_add(&shared->failed, 1);
    }
    return NULL;
}

static void run_together(fmk_context_desc *desc) {
    struct shared shared = {.working = CALLERS};
    fmk_queue *queue;
    OK(fmk_context_create(&shared.ctx, desc));
    OK(fmk_queue_create(&queue, shared.ctx, NULL));
    make_all(queue, shared.weights);
    pthread_t threads[CALLERS + 4];
    for (int i = 0; i < CALLERS + 4; i++) {
        void *(*body)(void *) = i < CALLERS ? caller : i < CALLERS + 2 ? maker : blunderer;
        assert_int_equal(pthread_create(&threads[i], NULL, body, &shared), 0);
    }
    for (int i = 0; i < CALLERS + 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(shared.failed, 0);
    assert_int_equal(shared.differ, 0);
    for (int i = 0; i < NUM_SAMPLES; i++)
        fmk_weight_destroy(shared.weights[i], queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(shared.ctx);
}

static void test_alone(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(1);
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_weight *weights[NUM_SAMPLES];
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    make_all(queue, weights);
    for (int i = 0; i < NUM_SAMPLES; i++) {
        for (int count = 0; count < 3; count++)
            multiply(queue, weights, i, count, want[i][count]);
        double error = linear_error(&sources[i], in, want[i][0]);
        print_message("%s: relative error %.1e\n", samples[i].name, error);
        assert_true(error <= 1e-2); /* one token, 8-bit activations: 0.5 % give or take the few columns */
        fmk_weight_destroy(weights[i], queue);
    }
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
}

static void test_our_pool(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(3);
    run_together(&desc);
}

static void test_no_pool(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(1);
    run_together(&desc);
}

/* ---- the caller's parallel_for ---- */

struct engine {
    atomic_llong calls, bodies;
};

struct work {
    void (*body)(void *arg, int64_t i);
    void *arg;
    int64_t count;
    atomic_llong next;
};

static void *take_turns(void *work_) {
    struct work *work = work_;
    for (int64_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;)
        work->body(work->arg, work->count - 1 - i); /* backwards: any order is allowed */
    return NULL;
}

static void parallel_for(void *user, void (*body)(void *arg, int64_t i), void *arg, int64_t count) {
    struct engine *engine = user;
    struct work work = {.body = body, .arg = arg, .count = count};
    pthread_t helper;
    bool helped = !pthread_create(&helper, NULL, take_turns, &work);
    take_turns(&work);
    if (helped)
        pthread_join(helper, NULL);
    atomic_fetch_add(&engine->calls, 1);
    atomic_fetch_add(&engine->bodies, count);
}

static void test_parallel_for(void **state) {
    (void)state;
    struct engine engine = {0};
    fmk_context_desc desc = context_desc(4);
    desc.parallel_for = parallel_for;
    desc.parallel_user = &engine;
    run_together(&desc);
    print_message("parallel_for: %lld calls, %lld bodies\n", (long long)engine.calls,
                  (long long)engine.bodies);
    assert_true(engine.calls > 0 && engine.bodies > engine.calls);
}

/* ---- contexts come and go ---- */

static void *come_and_go(void *shared_) {
    struct shared *shared = shared_;
    for (int i = 0; i < 8; i++) {
        fmk_context_desc desc = context_desc(2);
        fmk_context *ctx;
        fmk_queue *queue;
        fmk_weight *weight;
        fmk_weight_desc made = weight_desc(&sources[i].part, 1);
        if (!fine(shared, fmk_context_create(&ctx, &desc)))
            continue;
        if (fine(shared, fmk_queue_create(&queue, ctx, NULL))) {
            fmk_context_destroy(ctx);
            if (fine(shared, fmk_weight_create(&weight, queue, &made)))
                fmk_weight_destroy(weight, queue);
            fmk_queue_destroy(queue);
        }
    }
    return NULL;
}

static void test_contexts(void **state) {
    (void)state;
    struct shared shared = {0};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &shared), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(shared.failed, 0);
}

/* ---- fork ---- */

/* Answers the number of the child's check that failed, 0 if none did. */
static int exit_of(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Runs first, when the process has made no context yet: parent and child may both begin afterwards. */
static void test_fork_before(void **state) {
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        fmk_context_desc desc = context_desc(1);
        fmk_context *ctx;
        _exit(fmk_context_create(&ctx, &desc) || fmk_context_status(ctx));
    }
    assert_int_equal(exit_of(child), 0);
}

static void test_fork_after(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(2);
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_weight *weight, *another;
    fmk_weight_desc made = weight_desc(&sources[7].part, 1);
    float out[N];
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    OK(fmk_weight_create(&weight, queue, &made));
    fmk_linear_args args = linear_args(in, out, 1, N, K);
    void *workspace = give_workspace(weight, &args);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        fmk_queue *other = NULL;
        if (fmk_context_status(ctx) != FMK_EFORKED || !fmk_last_error()[0])
            _exit(1);
        if (fmk_linear(queue, weight, &args) != FMK_EFORKED)
            _exit(2);
        if (fmk_weight_create(&another, queue, &made) != FMK_EFORKED || another)
            _exit(3);
        if (fmk_queue_create(&other, ctx, NULL) != FMK_EFORKED || other)
            _exit(4);
        if (fmk_prepare(queue, weight, &args) != FMK_EFORKED)
            _exit(5);
        /* Destroying is allowed, and neither waits nor touches what the parent uses. */
        fmk_weight_destroy(weight, queue);
        fmk_queue_destroy(queue);
        fmk_context_destroy(ctx);
        _exit(0);
    }
    assert_int_equal(exit_of(child), 0);
    OK(fmk_context_status(ctx));
    OK(fmk_linear(queue, weight, &args));
    free(workspace);
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork_before),  cmocka_unit_test(test_alone),
        cmocka_unit_test(test_our_pool),     cmocka_unit_test(test_no_pool),
        cmocka_unit_test(test_parallel_for), cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_fork_after),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
