/* What only Vulkan has: devices of the caller's and of the library's own, limits, pipelines and their cache,
 * command buffers and submissions, memory of the host that is read where it lies. */
#include "../calls.h"
#include "../device_vulkan.h"

#include "error.h"
#include "vulkan/device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { N = 64, K = 512 };

static fmk_linear_args args_for(const struct matrix *in, struct matrix *out, int64_t m) {
    return (fmk_linear_args){.struct_size = sizeof(fmk_linear_args),
                             .m = m,
                             .in_type = in->type,
                             .out_type = out->type,
                             .in = buffer_of(in),
                             .out = buffer_of(out)};
}

/* A weight of Q4_K, and one row for it, in the tests' device. */
struct subject {
    struct ref_weight part;
    struct matrix in, out;
    fmk_weight *weight;
    uint64_t memory; /* in, out and workspace, each aligned to 256 */
    fmk_linear_args args;
};

static void make_subject(struct subject *s, struct bench *b, struct ref_rng *rng) {
    uint64_t least, best;
    const struct ref_spec spec = {.format = FMK_FORMAT_Q4_K, .n = N, .k = K};
    ref_make(&s->part, &spec, rng);
    s->in = random_matrix(FMK_F32, 1, K, K, rng);
    s->out = matrix(FMK_F32, 1, N, N);
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &s->part.part, .num_parts = 1};
    OK(fmk_weight_create(&s->weight, b->queue, &desc));
    s->args = args_for(&s->in, &s->out, 1);
    OK(fmk_workspace_size(s->weight, &s->args, &least, &best));
    s->memory = gpu_alloc(4096 + 4096 + best + 256);
    gpu_write(s->memory, s->in.data, s->in.size);
    s->args.in = gpu_buffer(s->memory, K * 4);
    s->args.out = gpu_buffer(s->memory + 4096, N * 4);
    s->args.workspace = gpu_buffer(s->memory + 8192, best + 256);
}

static void free_subject(struct subject *s, struct bench *b) {
    fmk_weight_destroy(s->weight, b->queue);
    gpu_free(s->memory);
    free_matrix(&s->in);
    free_matrix(&s->out);
    ref_free(&s->part);
}

static void assert_product(struct subject *s) {
    gpu_read(s->out.data, s->memory + 4096, N * 4);
    double want[N];
    expect_row(&s->part, 1, 0, &s->in, 0, want);
    assert_close(&s->out, want, 1e-5, "product");
}

/* ---- devices ---- */

static void test_own_device(void **state) {
    (void)state;
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN};
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_vulkan_device handles = {.struct_size = sizeof handles};
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_context_vulkan(ctx, &handles));
    assert_true(handles.instance && handles.physical_device && handles.device && handles.queue);
    assert_true(handles.device != vulkan_handles()->device);
    OK(fmk_queue_create(&queue, ctx, NULL));
    struct ref_rng rng = ref_rng_start("vulkan/own");
    struct ref_weight part;
    const struct ref_spec spec = {.format = FMK_FORMAT_Q6_K, .n = N, .k = K};
    ref_make(&part, &spec, &rng);
    fmk_weight_desc weight_desc = {.struct_size = sizeof weight_desc, .parts = &part.part, .num_parts = 1};
    fmk_weight *weight;
    OK(fmk_weight_create(&weight, queue, &weight_desc));
    uint64_t size;
    OK(fmk_weight_export(weight, NULL, 0, &size)); /* comes back from the device as it went there */
    uint8_t *bytes = malloc(size), *again = malloc(size);
    OK(fmk_weight_export(weight, bytes, size, &size));
    fmk_part packed = {.struct_size = sizeof packed,
                       .format = FMK_FORMAT_PACKED,
                       .qweight.data = {.handle = (uintptr_t)bytes, .size = size}};
    fmk_weight_desc packed_desc = {.struct_size = sizeof packed_desc, .parts = &packed, .num_parts = 1};
    fmk_weight *copy;
    OK(fmk_weight_create(&copy, queue, &packed_desc));
    OK(fmk_weight_export(copy, again, size, &size));
    assert_memory_equal(bytes, again, size);
    fmk_context_destroy(ctx); /* in any order */
    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_weight_destroy(copy, NULL);
    free(bytes);
    free(again);
    ref_free(&part);
}

static fmk_status with_native(const fmk_vulkan_device *native) {
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .native = native};
    fmk_context *ctx = NULL;
    fmk_status status = fmk_context_create(&ctx, &desc);
    fmk_context_destroy(ctx);
    return status;
}

static void test_handles(void **state) {
    (void)state;
    fmk_vulkan_device h = *vulkan_handles();
    OK(with_native(&h));
    h.struct_size = 0;
    REFUSED(with_native(&h), FMK_EINVAL, "native");
    h = *vulkan_handles();
    h.queue = NULL;
    REFUSED(with_native(&h), FMK_EINVAL, "native.queue is NULL");
    h = *vulkan_handles();
    h.extras = 1u << 31;
    REFUSED(with_native(&h), FMK_EINVAL, "native.extras");
    h = *vulkan_handles();
    h.queue_family = 77;
    REFUSED(with_native(&h), FMK_EINVAL, "native.queue_family 77");
    h = *vulkan_handles();
    h.lock_queue = free;
    REFUSED(with_native(&h), FMK_EINVAL, "native.unlock_queue");
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .device = 9999};
    fmk_context *ctx;
    REFUSED(fmk_context_create(&ctx, &desc), FMK_ENODEVICE, "device 9999");
}

static int locked, locks;

static void lock(void *user) {
    assert_ptr_equal(user, &locks);
    assert_int_equal(locked++, 0);
    locks++;
}

static void unlock(void *user) {
    (void)user;
    assert_int_equal(--locked, 0);
}

static void test_lock(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("vulkan/lock");
    fmk_vulkan_device h = *vulkan_handles();
    h.lock_queue = lock;
    h.unlock_queue = unlock;
    h.lock_user = &locks;
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .native = &h};
    struct bench b = {0};
    struct subject s;
    OK(fmk_context_create(&b.ctx, &desc));
    OK(fmk_queue_create(&b.queue, b.ctx, NULL));
    make_subject(&s, &b, &rng);
    assert_true(locks > 0);
    OK(fmk_prepare(b.queue, s.weight, &s.args));
    int before = locks;
    OK(fmk_linear(b.queue, s.weight, &s.args));
    assert_int_equal(locks, before + 1);
    OK(fmk_queue_wait(b.queue));
    assert_product(&s);
    free_subject(&s, &b);
    fmk_queue_destroy(b.queue);
    fmk_context_destroy(b.ctx);
}

/* AUTO leaves out devices that are a CPU, as Mesa's lavapipe is. */
static void test_auto(void **state) {
    (void)state;
    fmk_context *ctx;
    fmk_context_info_t info = {.struct_size = sizeof info};
    OK(fmk_context_create(&ctx, NULL));
    OK(fmk_context_info(ctx, &info));
    assert_null(strstr(info.name, "llvmpipe"));
    fmk_context_destroy(ctx);
}

/* ---- what a device must have ---- */

static void test_limits(void **state) {
    (void)state;
    struct fmk_vk_functions vk;
    struct fmk_vk_device_info real, small;
    OK(fmk_vk_open(NULL, &vk));
    OK(fmk_vk_open_instance(vulkan_handles()->instance, &vk));
    fmk_vk_device_ask(&vk, vulkan_handles()->physical_device, &real);
    OK(fmk_vk_device_serves(&real));
    struct {
        const char *name;
        uint32_t *value, made;
    } wants[] = {
        {"1.1", &small.properties.apiVersion, VK_API_VERSION_1_1},
        {"bufferDeviceAddress", &small.features12.bufferDeviceAddress, 0},
        {"shaderInt64", &small.features.shaderInt64, 0},
        {"storageBuffer16BitAccess", &small.features11.storageBuffer16BitAccess, 0},
        {"storageBuffer8BitAccess", &small.features12.storageBuffer8BitAccess, 0},
        {"maxPushConstantsSize is 127", &small.properties.limits.maxPushConstantsSize, 127},
        {"maxComputeSharedMemorySize is 16383", &small.properties.limits.maxComputeSharedMemorySize, 16383},
        {"maxComputeWorkGroupInvocations is 127", &small.properties.limits.maxComputeWorkGroupInvocations,
         127},
        {"maxComputeWorkGroupSize[0] is 127", &small.properties.limits.maxComputeWorkGroupSize[0], 127},
        {"maxComputeWorkGroupCount[0] is 65534", &small.properties.limits.maxComputeWorkGroupCount[0], 65534},
        {"maxComputeWorkGroupCount[1] is 65534", &small.properties.limits.maxComputeWorkGroupCount[1], 65534},
    };
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        small = real;
        *wants[i].value = wants[i].made;
        REFUSED(fmk_vk_device_serves(&small), FMK_ENODEVICE, wants[i].name);
    }
}

/* A weight that is larger than an allocation may be is refused when it is made, and nothing is left of it. */
static void test_largest_allocation(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("vulkan/allocation");
    fmk_context_desc desc = {
        .struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .native = vulkan_handles()};
    fmk_context *ctx;
    fmk_queue *queue;
    OK(fmk_context_create(&ctx, &desc));
    OK(fmk_queue_create(&queue, ctx, NULL));
    fmk_vulkan_of(ctx)->info.most_allocation = 4096;
    struct ref_weight part;
    const struct ref_spec spec = {.format = FMK_FORMAT_DENSE, .dtype = FMK_F32, .n = 8, .k = 256};
    ref_make(&part, &spec, &rng);
    fmk_weight_desc weight_desc = {.struct_size = sizeof weight_desc, .parts = &part.part, .num_parts = 1};
    fmk_weight *weight;
    REFUSED(fmk_weight_create(&weight, queue, &weight_desc), FMK_EUNSUPPORTED, "maxMemoryAllocationSize");
    assert_null(weight);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    ref_free(&part);
}

/* ---- pipelines ---- */

static void test_not_prepared(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("vulkan/prepare");
    fmk_context_desc desc = {
        .struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .native = vulkan_handles()};
    struct bench b = {0};
    struct subject s;
    OK(fmk_context_create(&b.ctx, &desc));
    OK(fmk_queue_create(&b.queue, b.ctx, NULL));
    make_subject(&s, &b, &rng);
    REFUSED(fmk_linear(b.queue, s.weight, &s.args), FMK_ENOTPREPARED, "fmk_prepare");
    OK(fmk_queue_wait(b.queue));
    OK(fmk_prepare(b.queue, s.weight, &s.args));
    for (int i = 0; i < 100; i++) /* more than a queue has in flight */
        OK(fmk_linear(b.queue, s.weight, &s.args));
    OK(fmk_queue_wait(b.queue));
    assert_product(&s);

    uint64_t size = 0, written;
    OK(fmk_context_pipeline_cache(b.ctx, NULL, 0, &size));
    assert_true(size > 0);
    uint8_t *blob = malloc(size);
    REFUSED(fmk_context_pipeline_cache(b.ctx, blob, size - 1, &written), FMK_EINVAL, "capacity");
    OK(fmk_context_pipeline_cache(b.ctx, blob, size, &written));
    free_subject(&s, &b);
    fmk_queue_destroy(b.queue);
    fmk_context_destroy(b.ctx);

    desc.pipeline_cache = blob;
    desc.pipeline_cache_size = written;
    fmk_context *ctx;
    OK(fmk_context_create(&ctx, &desc));
    fmk_context_destroy(ctx);
    free(blob);
}

/* ---- threads ---- */

struct worker {
    fmk_context *ctx;
    struct subject *subject;
    fmk_status status;
};

/* Makes a weight, prepares, and multiplies, on a queue of its own; assertions belong to the main thread. */
static void *work(void *argument) {
    struct worker *w = argument;
    struct subject *s = w->subject;
    fmk_queue *queue = NULL;
    fmk_weight *copy = NULL;
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &s->part.part, .num_parts = 1};
    w->status = fmk_queue_create(&queue, w->ctx, NULL);
    for (int i = 0; i < 20 && !w->status; i++) {
        w->status = fmk_weight_create(&copy, queue, &desc);
        if (!w->status)
            w->status = fmk_prepare(queue, copy, &s->args);
        if (!w->status)
            w->status = fmk_linear(queue, i % 2 ? copy : s->weight, &s->args);
        fmk_weight_destroy(copy, queue);
    }
    if (!w->status)
        w->status = fmk_queue_wait(queue);
    fmk_queue_destroy(queue);
    return NULL;
}

/* They share a context: its VkQueue, its staging memory and its pipelines. */
static void test_threads(void **state) {
    (void)state;
    enum { THREADS = 4 };
    struct ref_rng rng = ref_rng_start("vulkan/threads");
    fmk_context_desc desc = {
        .struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .native = vulkan_handles()};
    struct bench b = {0};
    struct subject subjects[THREADS];
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    OK(fmk_context_create(&b.ctx, &desc));
    OK(fmk_queue_create(&b.queue, b.ctx, NULL));
    for (int i = 0; i < THREADS; i++) {
        make_subject(&subjects[i], &b, &rng);
        workers[i] = (struct worker){b.ctx, &subjects[i], FMK_OK};
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(workers[i].status, FMK_OK);
        assert_product(&subjects[i]);
        free_subject(&subjects[i], &b);
    }
    fmk_queue_destroy(b.queue);
    fmk_context_destroy(b.ctx);
}

/* ---- the caller's command buffers ---- */

/* A command buffer with calls in it can be submitted over and over: nothing of a call is in the library. */
static void test_recorded(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("vulkan/recorded");
    const struct vulkan_functions *vk = vulkan_functions();
    const fmk_vulkan_device *h = vulkan_handles();
    VkCommandPoolCreateInfo create = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                      .queueFamilyIndex = h->queue_family};
    VkCommandPool pool;
    vulkan_ok(vk->CreateCommandPool(h->device, &create, NULL, &pool), "CreateCommandPool", __FILE__,
              __LINE__);
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = pool,
                                            .commandBufferCount = 1};
    VkCommandBuffer commands;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkFenceCreateInfo unsignalled = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkFence fence;
    vulkan_ok(vk->AllocateCommandBuffers(h->device, &allocate, &commands), "AllocateCommandBuffers", __FILE__,
              __LINE__);
    vulkan_ok(vk->CreateFence(h->device, &unsignalled, NULL, &fence), "CreateFence", __FILE__, __LINE__);
    struct bench b = open_bench(1);
    struct subject s;
    make_subject(&s, &b, &rng);
    OK(fmk_prepare(b.queue, s.weight, &s.args));
    OK(fmk_queue_rebind(b.queue, commands));
    vulkan_ok(vk->BeginCommandBuffer(commands, &begin), "BeginCommandBuffer", __FILE__, __LINE__);
    OK(fmk_linear(b.queue, s.weight, &s.args));
    vulkan_ok(vk->EndCommandBuffer(commands), "EndCommandBuffer", __FILE__, __LINE__);
    for (int i = 0; i < 3; i++) {
        for (int64_t k = 0; k < K; k++)
            ((float *)s.in.data)[k] *= -0.5f;
        gpu_write(s.memory, s.in.data, s.in.size);
        VkSubmitInfo submit = {
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
        vulkan_ok(vk->QueueSubmit(h->queue, 1, &submit, fence), "QueueSubmit", __FILE__, __LINE__);
        vulkan_ok(vk->WaitForFences(h->device, 1, &fence, VK_TRUE, UINT64_MAX), "WaitForFences", __FILE__,
                  __LINE__);
        vulkan_ok(vk->ResetFences(h->device, 1, &fence), "ResetFences", __FILE__, __LINE__);
        assert_product(&s);
    }
    OK(fmk_queue_rebind(b.queue, test_stream()));
    free_subject(&s, &b);
    close_bench(&b);
}

/* ---- zero-copy ---- */

/* Blocks in a map of pages, somewhere in it: what is written there later is what the device multiplies by. */
static void test_borrowed_host(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("vulkan/borrow");
    struct bench b = open_bench(1);
    fmk_context_info_t info = {.struct_size = sizeof info};
    OK(fmk_context_info(b.ctx, &info));
    if (!strstr(info.features, "import")) {
        close_bench(&b);
        skip();
    }
    const struct ref_spec spec = {.format = FMK_FORMAT_Q4_K, .n = N, .k = K};
    struct ref_weight part, other;
    ref_make(&part, &spec, &rng);
    ref_make(&other, &spec, &rng);
    size_t bytes = (size_t)part.part.qweight.data.size, offset = 4096 + 96, size = 64 << 10;
    uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED && offset + bytes < size);
    memcpy(map + offset, (const void *)(uintptr_t)part.part.qweight.data.handle, bytes);
    fmk_part in_map = part.part;
    in_map.qweight.data = (fmk_buffer){.handle = (uintptr_t)map, .offset = offset, .size = bytes};
    fmk_weight_desc desc = {
        .struct_size = sizeof desc, .flags = FMK_WEIGHT_BORROW, .parts = &in_map, .num_parts = 1};
    uint64_t storage, align;
    OK(fmk_weight_storage(b.ctx, &desc, &storage, &align));
    assert_int_equal(storage, 0);
    fmk_weight *weight;
    fmk_weight_info_t made = {.struct_size = sizeof made};
    OK(fmk_weight_create(&weight, b.queue, &desc));
    OK(fmk_weight_info(weight, &made));
    assert_int_equal(made.borrowed, 1);
    const struct ref_weight *held[] = {&part, &other};
    for (int i = 0; i < 2; i++) {
        memcpy(map + offset, (const void *)(uintptr_t)held[i]->part.qweight.data.handle, bytes);
        struct matrix in = random_matrix(FMK_F32, 3, K, K, &rng), out = matrix(FMK_F32, 3, N, N);
        double want[3 * N];
        for (int64_t m = 0; m < 3; m++)
            expect_row(held[i], 1, 0, &in, m, want + m * N);
        fmk_linear_args args = args_for(&in, &out, 3);
        OK(call(&b, weight, &args, true));
        assert_close(&out, want, 1e-5, "borrowed");
        free_matrix(&in);
        free_matrix(&out);
    }
    fmk_weight_destroy(weight, b.queue);
    munmap(map, size);
    ref_free(&part);
    ref_free(&other);
    close_bench(&b);
}

int main(void) {
    if (!on_gpu())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_device),    cmocka_unit_test(test_handles),
        cmocka_unit_test(test_lock),          cmocka_unit_test(test_auto),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_largest_allocation),
        cmocka_unit_test(test_not_prepared),  cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_borrowed_host), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
