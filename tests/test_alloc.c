/* Every allocation fails once: for each thing a program does with the library, the first allocation is
 * refused, then the second, and so on until none is left, in turn alone and with all that follow. Each time
 * the answer is FMK_ENOMEM and nothing stays allocated. The same for the caller's allocator. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "samples.h"
#include "tiny_model.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* Under a sanitizer the functions of the C library are its own, and only the library's calls are seen,
 * through the linker's --wrap. Elsewhere this program's definitions take the C library's place for every
 * library. */
#ifdef ALLOCATIONS_WRAPPED
#define OURS(name) __wrap_##name
#define REAL(name) __real_##name
enum { COUNTS_LIVE = 0 }; /* LeakSanitizer counts */
#else
#define OURS(name) name
#define REAL(name) __libc_##name
enum { COUNTS_LIVE = 1 };
#endif
void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t count, size_t size);
void *REAL(realloc)(void *old, size_t size);
void *REAL(memalign)(size_t align, size_t size);
void REAL(free)(void *memory);
void *OURS(malloc)(size_t size);
void *OURS(calloc)(size_t count, size_t size);
void *OURS(realloc)(void *old, size_t size);
void *OURS(memalign)(size_t align, size_t size);
void *OURS(aligned_alloc)(size_t align, size_t size);
int OURS(posix_memalign)(void **out, size_t align, size_t size);
void OURS(free)(void *memory);

static atomic_long countdown; /* allocations until one fails; 0 = none does */
static atomic_long live;
static atomic_bool failed, keep_failing;

static bool refused(void) {
    if (atomic_load(&failed) && atomic_load(&keep_failing))
        return true;
    if (atomic_load(&countdown) == 0 || atomic_fetch_sub(&countdown, 1) != 1)
        return false;
    atomic_store(&failed, true);
    return true;
}

static void *counted(void *memory) {
    if (memory)
        atomic_fetch_add(&live, 1);
    else
        errno = ENOMEM;
    return memory;
}

void *OURS(malloc)(size_t size) {
    return counted(refused() ? NULL : REAL(malloc)(size));
}

void *OURS(calloc)(size_t count, size_t size) {
    return counted(refused() ? NULL : REAL(calloc)(count, size));
}

void *OURS(realloc)(void *old, size_t size) {
    if (!old)
        return OURS(malloc)(size);
    if (refused()) {
        errno = ENOMEM;
        return NULL;
    }
    return REAL(realloc)(old, size);
}

void *OURS(memalign)(size_t align, size_t size) {
    return counted(refused() ? NULL : REAL(memalign)(align, size));
}

void *OURS(aligned_alloc)(size_t align, size_t size) {
    return OURS(memalign)(align, size);
}

int OURS(posix_memalign)(void **out, size_t align, size_t size) {
    void *memory = OURS(memalign)(align, size);
    if (!memory)
        return ENOMEM;
    *out = memory;
    return 0;
}

void OURS(free)(void *memory) {
    if (memory)
        atomic_fetch_sub(&live, 1);
    REAL(free)(memory);
}

/* Threads can run out as well: this many may still be made. */
static atomic_long threads_left = 1000000;

#ifdef ALLOCATIONS_WRAPPED
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg);
#else
static int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *),
                                 void *arg) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *found = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&real, &found, sizeof real);
    return real(thread, attr, body, arg);
}
#endif
int OURS(pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg);

int OURS(pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *arg) {
    return atomic_fetch_sub(&threads_left, 1) > 0 ? __real_pthread_create(thread, attr, body, arg) : EAGAIN;
}

/* ---- what is done ---- */

enum { N = 64, K = 256, M = 2 };
static struct ref_weight sources[NUM_SAMPLES];
static char *folder, *gguf, *safetensors;
static float in[M * K], out[M * 2 * N];
static unsigned char workspace[1 << 20] __attribute__((aligned(256)));

/* In what follows a failed step ends the work, and everything made so far is destroyed. */
static fmk_status weight_and_linear(const fmk_part *parts, int32_t num_parts, uint32_t flags,
                                    const fmk_allocator *allocator) {
    fmk_context_desc context = context_desc(1);
    if (allocator)
        context.allocator = *allocator;
    fmk_weight_desc desc = weight_desc(parts, num_parts);
    desc.flags = flags;
    fmk_linear_args args = linear_args(in, out, M, num_parts * N, K);
    fmk_context *ctx = NULL;
    fmk_queue *queue = NULL;
    fmk_weight *weight = NULL;
    uint64_t least, best, size, align;
    fmk_status status = fmk_context_create(&ctx, &context);
    if (!status)
        status = fmk_queue_create(&queue, ctx, NULL);
    if (!status)
        status = fmk_weight_storage(ctx, &desc, &size, &align);
    if (!status)
        status = fmk_weight_create(&weight, queue, &desc);
    if (!status)
        status = fmk_can_run(ctx, &desc, &args);
    if (!status)
        status = fmk_workspace_size(weight, &args, &least, &best);
    args.workspace = buffer(workspace, sizeof workspace);
    if (!status)
        status = fmk_prepare(queue, weight, &args);
    if (!status)
        status = fmk_linear(queue, weight, &args);
    if (!status)
        status = fmk_explain(weight, &args, (char *)workspace, sizeof workspace, NULL);
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    return status;
}

static fmk_status one_weight(int sample) {
    return weight_and_linear(&sources[sample].part, 1, 0, NULL);
}

static fmk_status borrowed_weight(int sample) {
    return weight_and_linear(&sources[sample].part, 1, FMK_WEIGHT_BORROW, NULL);
}

static fmk_status merged_weight(int sample) {
    fmk_part parts[2] = {sources[sample].part, sources[(sample + 1) % NUM_SAMPLES].part};
    return weight_and_linear(parts, 2, FMK_WEIGHT_GLU, NULL);
}

static fmk_status exported_weight(int sample) {
    static unsigned char packed[1 << 20] __attribute__((aligned(128)));
    fmk_context_desc context = context_desc(1);
    fmk_weight_desc desc = weight_desc(&sources[sample].part, 1);
    fmk_context *ctx = NULL;
    fmk_queue *queue = NULL;
    fmk_weight *weight = NULL, *again = NULL;
    uint64_t size = 0;
    fmk_status status = fmk_context_create(&ctx, &context);
    if (!status)
        status = fmk_queue_create(&queue, ctx, NULL);
    if (!status)
        status = fmk_weight_create(&weight, queue, &desc);
    if (!status)
        status = fmk_weight_export(weight, packed, sizeof packed, &size);
    fmk_part part = {
        .struct_size = sizeof part, .format = FMK_FORMAT_PACKED, .qweight = {.data = buffer(packed, size)}};
    fmk_weight_desc import = weight_desc(&part, 1);
    import.flags = sample % 2 ? FMK_WEIGHT_BORROW : 0;
    if (!status)
        status = fmk_weight_create(&again, queue, &import);
    fmk_weight_destroy(again, queue);
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    return status;
}

static fmk_status quantized(int index) {
    static float values[8 * K];
    static unsigned char qweight[8 * K], scales[8 * K], qzeros[8 * K];
    static const fmk_format formats[] = {FMK_FORMAT_Q4_K, FMK_FORMAT_Q6_K, FMK_FORMAT_GPTQ};
    fmk_context_desc context = context_desc(1);
    fmk_quantize_args args = {.struct_size = sizeof args,
                              .format = formats[index],
                              .n = 8,
                              .k = K,
                              .group_size = index == 2 ? 32 : 0,
                              .in_type = FMK_F32,
                              .in = values,
                              .qweight = qweight,
                              .scales = index == 2 ? scales : NULL,
                              .qzeros = index == 2 ? qzeros : NULL};
    fmk_context *ctx = NULL;
    fmk_status status = fmk_context_create(&ctx, &context);
    if (!status)
        status = fmk_quantize(ctx, &args);
    fmk_context_destroy(ctx);
    return status;
}

static fmk_status opened_checkpoint(int index) {
    fmk_checkpoint *checkpoint = NULL;
    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    fmk_entry entry = {.struct_size = sizeof entry};
    fmk_part part = {.struct_size = sizeof part};
    fmk_status status = fmk_checkpoint_open(&checkpoint, index == 0   ? gguf
                                                         : index == 1 ? safetensors
                                                                      : folder);
    if (!status)
        status = fmk_checkpoint_info(checkpoint, &info);
    for (int32_t i = 0; !status && i < info.num_entries; i++)
        status = fmk_checkpoint_entry(checkpoint, i, &entry);
    if (!status)
        status = fmk_checkpoint_find(checkpoint, index == 0 ? "blk.0.attn_q" : "model.layers.0.mlp.up_proj",
                                     &part, NULL);
    fmk_checkpoint_close(checkpoint);
    return status;
}

static fmk_status loaded_model(int index) {
    fmk_context_desc context = context_desc(1);
    fmk_weight_desc desc = {.struct_size = sizeof desc, .flags = index / 2 ? FMK_WEIGHT_BORROW : 0};
    fmk_context *ctx = NULL;
    fmk_queue *queue = NULL;
    fmk_checkpoint *checkpoint = NULL;
    fmk_model *model = NULL;
    fmk_status status = fmk_context_create(&ctx, &context);
    if (!status)
        status = fmk_queue_create(&queue, ctx, NULL);
    if (!status)
        status = fmk_checkpoint_open(&checkpoint, index % 2 ? safetensors : gguf);
    if (!status)
        status = fmk_model_load(&model, queue, checkpoint, &desc);
    fmk_checkpoint_close(checkpoint);
    fmk_model_destroy(model);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    return status;
}

/* ---- and how it is refused ---- */

/* Success is an answer too: what is nice to have, such as the processor's name, is done without. */
static bool right_answer(fmk_status status) {
    return status == FMK_OK || status == FMK_ENOMEM;
}

static void fail_each(const char *what, fmk_status (*work)(int), int index) {
    if (work(index)) { /* also makes what is made once per process */
        print_error("%s: %s\n", what, fmk_last_error());
        fail();
    }
    long allocations = 0, refusals = 0;
    for (int all_after = 0; all_after < 2; all_after++)
        for (long n = 1;; n++) {
            long before = atomic_load(&live);
            atomic_store(&failed, false);
            atomic_store(&keep_failing, all_after);
            atomic_store(&countdown, n);
            fmk_status status = work(index);
            atomic_store(&countdown, 0);
            atomic_store(&keep_failing, false);
            long leaked = COUNTS_LIVE ? atomic_load(&live) - before : 0;
            if (leaked || !right_answer(status)) {
                print_error("%s: allocation %ld refused: %s \"%s\", %ld left allocated\n", what, n,
                            fmk_status_name(status), status ? fmk_last_error() : "", leaked);
                fail();
            }
            refusals += status == FMK_ENOMEM;
            if (!atomic_load(&failed)) {
                assert_int_equal(status, FMK_OK);
                allocations = n - 1;
                break;
            }
        }
    assert_true(allocations > 0 && refusals > 0);
    print_message("%s: each of %ld allocations refused\n", what, allocations);
}

static int set_up(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("test_alloc");
    for (int i = 0; i < NUM_SAMPLES; i++)
        make_sample(&sources[i], i, N, K, &rng);
    folder = tiny_folder();
    gguf = tiny_gguf(folder);
    safetensors = tiny_safetensors(folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SAMPLES; i++)
        ref_free(&sources[i]);
    free(gguf);
    free(safetensors);
    tiny_remove(folder);
    return 0;
}

static void test_weights(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SAMPLES; i++) {
        fail_each(samples[i].name, one_weight, i);
        fail_each(samples[i].name, borrowed_weight, i);
        fail_each(samples[i].name, merged_weight, i);
        fail_each(samples[i].name, exported_weight, i);
    }
}

static void test_quantizers(void **state) {
    (void)state;
    fail_each("quantize to Q4_K", quantized, 0);
    fail_each("quantize to Q6_K", quantized, 1);
    fail_each("quantize to GPTQ", quantized, 2);
}

static void test_checkpoints(void **state) {
    (void)state;
    fail_each("open GGUF", opened_checkpoint, 0);
    fail_each("open safetensors", opened_checkpoint, 1);
}

static void test_models(void **state) {
    (void)state;
    fail_each("load GGUF", loaded_model, 0);
    fail_each("load safetensors", loaded_model, 1);
    fail_each("borrow GGUF", loaded_model, 2);
    fail_each("borrow safetensors", loaded_model, 3);
}

/* fmk_linear and fmk_rows allocate nothing, whatever they are asked. */
static void test_linear_allocates_nothing(void **state) {
    (void)state;
    fmk_context_desc context = context_desc(1);
    fmk_context *ctx;
    fmk_queue *queue;
    OK(fmk_context_create(&ctx, &context));
    OK(fmk_queue_create(&queue, ctx, NULL));
    for (int i = 0; i < NUM_SAMPLES; i++) {
        fmk_weight_desc desc = weight_desc(&sources[i].part, 1);
        fmk_weight *weight;
        int32_t ids[M] = {1, 2};
        OK(fmk_weight_create(&weight, queue, &desc));
        fmk_linear_args args = linear_args(in, out, M, N, K);
        args.workspace = buffer(workspace, sizeof workspace);
        fmk_rows_args rows = {.struct_size = sizeof rows,
                              .out_type = FMK_F32,
                              .m = M,
                              .ids = buffer(ids, sizeof ids),
                              .out = buffer(workspace, M * K * sizeof(float))};
        for (uint32_t flags = 0; flags <= FMK_LINEAR_REFERENCE; flags += flags ? flags : FMK_LINEAR_EXACT) {
            if (flags == FMK_LINEAR_REDUCE_TOP_K)
                continue;
            args.flags = flags;
            atomic_store(&failed, false);
            atomic_store(&countdown, 1);
            fmk_status status = fmk_linear(queue, weight, &args);
            if (!status)
                status = fmk_rows(queue, weight, &rows);
            bool allocated = atomic_load(&failed);
            atomic_store(&countdown, 0);
            OK(status);
            assert_false(allocated);
        }
        fmk_weight_destroy(weight, queue);
    }
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
}

/* A pool of which not all threads can be made is refused, and those that were made are gone. */
static void test_no_more_threads(void **state) {
    (void)state;
    enum { THREADS = 5 }; /* the caller is one of them */
    for (long left = 0; left < THREADS; left++) {
        fmk_context_desc context = context_desc(THREADS);
        fmk_context *ctx;
        atomic_store(&threads_left, left);
        fmk_status status = fmk_context_create(&ctx, &context);
        atomic_store(&threads_left, 1000000);
        assert_int_equal(status, left < THREADS - 1 ? FMK_ENOMEM : FMK_OK);
        assert_true((ctx == NULL) == (status != FMK_OK));
        fmk_context_destroy(ctx);
    }
}

/* ---- the caller's allocator ---- */

struct arena {
    long until_no; /* allocations until one is refused; 0 = none is */
    long live, made;
    uint64_t bytes;
    bool refused;
};

static uint64_t arena_alloc(void *user, void *native_stream, uint64_t size, uint64_t align,
                            fmk_memory memory) {
    struct arena *arena = user;
    void *made;
    assert_null(native_stream);
    assert_int_equal(memory, FMK_MEM_HOST);
    assert_true(size > 0 && align && (align & (align - 1)) == 0);
    if (arena->until_no && --arena->until_no == 0) {
        arena->refused = true;
        return 0;
    }
    if (posix_memalign(&made, align < sizeof(void *) ? sizeof(void *) : align, size))
        return 0;
    arena->live++;
    arena->made++;
    arena->bytes += size;
    return (uint64_t)(uintptr_t)made;
}

static void arena_release(void *user, void *native_stream, uint64_t handle, uint64_t size,
                          fmk_memory memory) {
    struct arena *arena = user;
    (void)native_stream;
    assert_int_equal(memory, FMK_MEM_HOST);
    arena->live--;
    arena->bytes -= size;
    free((void *)(uintptr_t)handle);
}

static void test_callers_allocator(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SAMPLES; i++)
        for (long n = 1;; n++) {
            struct arena arena = {.until_no = n};
            fmk_allocator allocator = {arena_alloc, arena_release, &arena};
            fmk_status status = weight_and_linear(&sources[i].part, 1, 0, &allocator);
            assert_int_equal(arena.live, 0);
            assert_int_equal(arena.bytes, 0);
            assert_int_equal(status, arena.refused ? FMK_ENOMEM : FMK_OK);
            if (!arena.refused) {
                assert_true(arena.made > 0);
                break;
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_quantizers),
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_linear_allocates_nothing),
        cmocka_unit_test(test_no_more_threads),
        cmocka_unit_test(test_callers_allocator),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
