/* Every call of the driver and of cuBLAS fails once: for each function the first call that a program causes,
 * then the second, and so on until none is left. Each time the answer is a status and a sentence, nothing
 * stays behind, the thread's context is as before, and what was made earlier still works. */
#include "resident.h"

#include "cuda/cublas.h"
#include "cuda/driver.h"

/* ---- the tables, with one entry changed ---- */

/* An entry takes at most as many arguments as cuBLAS's product; those of other functions are passed on alike.
 */
enum { ARGUMENTS = 19 };
typedef int entry(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                  uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                  uintptr_t, uintptr_t, uintptr_t);

static entry *real;    /* what stood there */
static long countdown; /* calls until the one that fails; 0 = it has */
static int answer;     /* its result */
static bool undoes;    /* it takes something back: done all the same */

static int counted(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f, uintptr_t g,
                   uintptr_t h, uintptr_t i, uintptr_t j, uintptr_t k, uintptr_t l, uintptr_t m, uintptr_t n,
                   uintptr_t o, uintptr_t p, uintptr_t q, uintptr_t r, uintptr_t s) {
    if (countdown && !--countdown) {
        if (undoes)
            real(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s);
        return answer;
    }
    return real(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s);
}

static struct fmk_driver *driver; /* the library's own table */

/* ---- what is alive ---- */

static struct fmk_driver plain; /* the table as it was */
static struct { long events, streams, memory, pinned, modules, contexts; } live;

static CUresult event_create(CUevent *event, unsigned flags) {
    CUresult result = plain.EventCreate(event, flags);
    live.events += !result;
    return result;
}
static CUresult event_destroy(CUevent event) {
    live.events--;
    return plain.EventDestroy(event);
}
static CUresult stream_create(CUstream *stream, unsigned flags) {
    CUresult result = plain.StreamCreate(stream, flags);
    live.streams += !result;
    return result;
}
static CUresult stream_destroy(CUstream stream) {
    live.streams--;
    return plain.StreamDestroy(stream);
}
static CUresult mem_alloc(CUdeviceptr *address, size_t bytes) {
    CUresult result = plain.MemAlloc(address, bytes);
    live.memory += !result;
    return result;
}
static CUresult mem_free(CUdeviceptr address) {
    live.memory--;
    return plain.MemFree(address);
}
static CUresult mem_host_alloc(void **address, size_t bytes, unsigned flags) {
    CUresult result = plain.MemHostAlloc(address, bytes, flags);
    live.pinned += !result;
    return result;
}
static CUresult mem_free_host(void *address) {
    live.pinned--;
    return plain.MemFreeHost(address);
}
static CUresult module_load(CUmodule *module, const void *image) {
    CUresult result = plain.ModuleLoadData(module, image);
    live.modules += !result;
    return result;
}
static CUresult module_unload(CUmodule module) {
    live.modules--;
    return plain.ModuleUnload(module);
}
static CUresult primary_retain(CUcontext *context, CUdevice device) {
    CUresult result = plain.DevicePrimaryCtxRetain(context, device);
    live.contexts += !result;
    return result;
}
static CUresult primary_release(CUdevice device) {
    live.contexts--;
    return plain.DevicePrimaryCtxRelease(device);
}

static void watch_driver(void) {
    const struct fmk_driver *table;
    OK(fmk_driver_open(&table));
    driver = (struct fmk_driver *)(uintptr_t)table;
    plain = *driver;
    driver->EventCreate = event_create;
    driver->EventDestroy = event_destroy;
    driver->StreamCreate = stream_create;
    driver->StreamDestroy = stream_destroy;
    driver->MemAlloc = mem_alloc;
    driver->MemFree = mem_free;
    driver->MemHostAlloc = mem_host_alloc;
    driver->MemFreeHost = mem_free_host;
    driver->ModuleLoadData = module_load;
    driver->ModuleUnload = module_unload;
    driver->DevicePrimaryCtxRetain = primary_retain;
    driver->DevicePrimaryCtxRelease = primary_release;
}

/* ---- what is done ---- */

enum { N = 64, K = 256, M = 9, EXPERTS = 3, TOP_K = 2, PACKED = 1 << 20 };

/* Memory of the device that all runs share. */
static struct ref_weight sources[NUM_SAMPLES], experts;
static fmk_buffer in, out, workspace, ids, offsets, pairs;
static unsigned char packed[PACKED] __attribute__((aligned(256)));

static fmk_buffer resident_buffer(size_t size) {
    fmk_buffer made = {.handle = gpu_alloc(size), .size = size};
    gpu_fill(made.handle, 0, size);
    return made;
}

static fmk_linear_args args_of(int64_t m) {
    return (fmk_linear_args){.struct_size = sizeof(fmk_linear_args),
                             .m = m,
                             .in_type = FMK_F16,
                             .out_type = FMK_F32,
                             .in = in,
                             .out = out,
                             .workspace = workspace};
}

/* Each step, as long as all went well. */
static fmk_status use(fmk_queue *queue, fmk_weight *weight, fmk_linear_args args) {
    fmk_rows_args rows = {.struct_size = sizeof rows, .out_type = FMK_F16, .m = 2, .ids = ids, .out = out};
    uint64_t size;
    fmk_status status = fmk_weight_ready(weight, 1);
    if (!status)
        status = fmk_prepare(queue, weight, &args);
    if (!status)
        status = fmk_linear(queue, weight, &args);
    if (!status)
        status = fmk_rows(queue, weight, &rows);
    if (!status)
        status = fmk_weight_dequantize(queue, weight, 0, &out, FMK_F16, 0);
    return status ? status : fmk_weight_export(weight, packed, sizeof packed, &size);
}

static fmk_status make_and_use(fmk_context *ctx, fmk_queue *queue, const fmk_weight_desc *desc,
                               fmk_linear_args args) {
    fmk_weight *weight = NULL, *again = NULL;
    uint64_t size, align;
    fmk_status status = fmk_weight_storage(ctx, desc, &size, &align);
    if (!status)
        status = fmk_weight_create(&weight, queue, desc);
    if (status)
        assert_null(weight);
    else
        status = use(queue, weight, args);
    if (!status) {
        fmk_part part = {.struct_size = sizeof part,
                         .format = FMK_FORMAT_PACKED,
                         .qweight = {.data = buffer(packed, sizeof packed)}};
        fmk_weight_desc import = weight_desc(&part, 1);
        status = fmk_weight_create(&again, queue, &import);
    }
    fmk_weight_destroy(again, queue);
    fmk_weight_destroy(weight, queue);
    return status;
}

static fmk_status all_work(fmk_context *ctx, fmk_queue *queue) {
    fmk_status status = FMK_OK;
    for (int s = 0; s < NUM_SAMPLES && !status; s++) {
        fmk_part parts[2] = {sources[s].part, sources[(s + 1) % NUM_SAMPLES].part};
        fmk_weight_desc desc = weight_desc(parts, s % 2 + 1);
        fmk_linear_args args = args_of(s % 3 ? M : 70); /* 70: cuBLAS multiplies decoded weights */
        desc.flags = s % 2 ? FMK_WEIGHT_GLU : 0;
        args.act = s % 2 ? FMK_ACT_SILU_MUL : 0;
        status = make_and_use(ctx, queue, &desc, args);
    }
    if (status)
        return status;
    fmk_weight_desc desc = weight_desc(&experts.part, 1);
    fmk_routing routing = {.struct_size = sizeof routing, .kind = FMK_ROUTE_IDS, .top_k = TOP_K, .ids = ids};
    fmk_routing sorted = {.struct_size = sizeof sorted, .offsets = offsets, .pairs = pairs};
    fmk_linear_args args = args_of(M);
    desc.num_experts = EXPERTS;
    args.routing = &routing;
    args.flags = FMK_LINEAR_REDUCE_TOP_K;
    status = fmk_route_sort(queue, &routing, M, EXPERTS, &sorted);
    return status ? status : make_and_use(ctx, queue, &desc, args);
}

static fmk_status whole_life(fmk_context **keep) {
    fmk_context_desc desc = context_desc(1);
    fmk_context *ctx = NULL;
    fmk_queue *queue = NULL;
    desc.staging_bytes = 1 << 20;
    fmk_status status = fmk_context_create(&ctx, &desc);
    if (!status)
        status = fmk_queue_create(&queue, ctx, test_stream());
    if (!status)
        status = all_work(ctx, queue);
    if (status)
        assert_true(fmk_last_error()[0]);
    gpu_wait(test_stream());
    fmk_queue_destroy(queue);
    if (keep)
        *keep = ctx;
    else
        fmk_context_destroy(ctx);
    return status;
}

/* ---- one call fails ---- */

static const struct {
    const char *name;
    size_t at; /* in the table */
    bool undoes;
} functions[] = {
    {"cuDeviceGet", offsetof(struct fmk_driver, DeviceGet), false},
    {"cuDeviceGetCount", offsetof(struct fmk_driver, DeviceGetCount), false},
    {"cuDeviceGetName", offsetof(struct fmk_driver, DeviceGetName), false},
    {"cuDeviceGetAttribute", offsetof(struct fmk_driver, DeviceGetAttribute), false},
    {"cuDeviceTotalMem", offsetof(struct fmk_driver, DeviceTotalMem), false},
    {"cuDevicePrimaryCtxRetain", offsetof(struct fmk_driver, DevicePrimaryCtxRetain), false},
    {"cuDevicePrimaryCtxRelease", offsetof(struct fmk_driver, DevicePrimaryCtxRelease), true},
    {"cuCtxGetCurrent", offsetof(struct fmk_driver, CtxGetCurrent), false},
    {"cuStreamCreate", offsetof(struct fmk_driver, StreamCreate), false},
    {"cuStreamDestroy", offsetof(struct fmk_driver, StreamDestroy), true},
    {"cuStreamGetCtx", offsetof(struct fmk_driver, StreamGetCtx), false},
    {"cuStreamIsCapturing", offsetof(struct fmk_driver, StreamIsCapturing), false},
    {"cuStreamSynchronize", offsetof(struct fmk_driver, StreamSynchronize), true},
    {"cuEventCreate", offsetof(struct fmk_driver, EventCreate), false},
    {"cuEventRecord", offsetof(struct fmk_driver, EventRecord), false},
    {"cuEventQuery", offsetof(struct fmk_driver, EventQuery), false},
    {"cuEventSynchronize", offsetof(struct fmk_driver, EventSynchronize), true},
    {"cuEventDestroy", offsetof(struct fmk_driver, EventDestroy), true},
    {"cuMemAlloc", offsetof(struct fmk_driver, MemAlloc), false},
    {"cuMemFree", offsetof(struct fmk_driver, MemFree), true},
    {"cuMemHostAlloc", offsetof(struct fmk_driver, MemHostAlloc), false},
    {"cuMemFreeHost", offsetof(struct fmk_driver, MemFreeHost), true},
    {"cuMemcpyHtoDAsync", offsetof(struct fmk_driver, MemcpyHtoDAsync), false},
    {"cuMemcpyDtoHAsync", offsetof(struct fmk_driver, MemcpyDtoHAsync), false},
    {"cuMemcpyDtoDAsync", offsetof(struct fmk_driver, MemcpyDtoDAsync), false},
    {"cuMemcpy2DAsync", offsetof(struct fmk_driver, Memcpy2DAsync), false},
    {"cuMemsetD8Async", offsetof(struct fmk_driver, MemsetD8Async), false},
    {"cuPointerGetAttributes", offsetof(struct fmk_driver, PointerGetAttributes), false},
    {"cuModuleLoadData", offsetof(struct fmk_driver, ModuleLoadData), false},
    {"cuModuleGetFunction", offsetof(struct fmk_driver, ModuleGetFunction), false},
    {"cuModuleUnload", offsetof(struct fmk_driver, ModuleUnload), true},
    {"cuLaunchKernel", offsetof(struct fmk_driver, LaunchKernel), false},
    {"cuLaunchKernelEx", offsetof(struct fmk_driver, LaunchKernelEx), false},
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static void exchange(void *table, size_t at, entry *with) {
    memcpy(&real, (char *)table + at, sizeof real);
    memcpy((char *)table + at, &with, sizeof with);
}

static void put_back(void *table, size_t at) {
    memcpy((char *)table + at, &real, sizeof real);
}

#define ENTRY "cuCtxGetCurrent"

/* But for what a thread could not give back that could not even ask for its context. */
static void assert_nothing_left(const char *name, long call) {
    if (!strcmp(name, ENTRY)) {
        memset(&live, 0, sizeof live);
        return;
    }
    if (live.events || live.streams || live.memory || live.pinned || live.modules || live.contexts)
        fail_msg("%s, call %ld fails: left are %ld events, %ld streams, %ld allocations, %ld pinned, %ld "
                 "modules, %ld contexts",
                 name, call, live.events, live.streams, live.memory, live.pinned, live.modules,
                 live.contexts);
}

static void *current(void) {
    void *context;
    CUDA(CtxGetCurrent(&context));
    return context;
}

static void test_driver(void **state) {
    (void)state;
    long failures = 0;
    OK(whole_life(NULL));
    assert_nothing_left("nothing", 0);
    for (int f = 0; f < FUNCTIONS; f++) {
        long call = 1, step = 1;
        for (;; call += step) {
            step = call / (quick() ? 4 : 16) + 1;
            countdown = call;
            answer = CUDA_ERROR_OUT_OF_MEMORY;
            undoes = functions[f].undoes;
            exchange(driver, functions[f].at, counted);
            fmk_status status = whole_life(NULL);
            bool reached = !countdown;
            countdown = 0;
            put_back(driver, functions[f].at);
            if (current())
                fail_msg("%s, call %ld fails: another context is current", functions[f].name, call);
            assert_nothing_left(functions[f].name, call);
            if (!reached)
                break;
            failures++;
            if (status && status != FMK_ENOMEM && status != FMK_EINVAL && status != FMK_ENODEVICE)
                fail_msg("%s, call %ld fails: %s: %s", functions[f].name, call, fmk_status_name(status),
                         fmk_last_error());
        }
    }
    print_message("%ld failures\n", failures);
    assert_true(failures > FUNCTIONS);
    OK(whole_life(NULL));
}

/* A context that is there already: it works on. */
static void test_afterwards(void **state) {
    (void)state;
    struct bench b = open_bench(1);
    OK(all_work(b.ctx, b.queue));
    for (int f = 0; f < FUNCTIONS; f++)
        for (long call = 1; strcmp(functions[f].name, ENTRY) && call < 1000; call += call / 2 + 1) {
            countdown = call;
            answer = CUDA_ERROR_UNKNOWN;
            undoes = functions[f].undoes;
            exchange(driver, functions[f].at, counted);
            fmk_status status = all_work(b.ctx, b.queue);
            bool reached = !countdown;
            countdown = 0;
            put_back(driver, functions[f].at);
            assert_null(current());
            if (!reached)
                break;
            if (status)
                assert_true(fmk_last_error()[0]);
            OK(fmk_context_status(b.ctx));
            OK(all_work(b.ctx, b.queue));
        }
    close_bench(&b);
    assert_nothing_left("some", 0);
}

/* cuBLAS: its functions one after the other, in whichever order its table has them. */
static void test_cublas(void **state) {
    (void)state;
    enum { TABLE = 7, EXECUTION_FAILED = 13, DESTROY = 1 };
    const void *table = fmk_cublas_open();
    if (!table) {
        print_message("SKIPPED: no cuBLAS\n");
        skip();
    }
    for (int f = 0; f < TABLE; f++)
        for (long call = 1; call < 100; call++) {
            countdown = call;
            answer = EXECUTION_FAILED;
            undoes = f == DESTROY;
            exchange((void *)(uintptr_t)table, (size_t)f * sizeof(entry *), counted);
            fmk_status status = whole_life(NULL);
            bool reached = !countdown;
            countdown = 0;
            put_back((void *)(uintptr_t)table, (size_t)f * sizeof(entry *));
            assert_null(current());
            assert_nothing_left("cuBLAS", call);
            if (!reached)
                break;
            assert_int_equal(status, undoes ? FMK_OK : FMK_EDEVICE);
        }
    OK(whole_life(NULL));
}

/* After a sticky error everything says so, and can be destroyed. */
static void test_lost(void **state) {
    (void)state;
    for (int f = 0; f < FUNCTIONS; f++)
        for (long call = 1; call < 1000; call += call + 1) {
            countdown = call;
            answer = CUDA_ERROR_ILLEGAL_ADDRESS;
            undoes = functions[f].undoes;
            exchange(driver, functions[f].at, counted);
            fmk_context *ctx = NULL;
            fmk_status status = whole_life(&ctx);
            bool reached = !countdown;
            countdown = 0;
            put_back(driver, functions[f].at);
            if (reached && status == FMK_ELOST && ctx) {
                fmk_queue *queue;
                assert_int_equal(fmk_context_status(ctx), FMK_ELOST);
                REFUSED(fmk_queue_create(&queue, ctx, test_stream()), FMK_ELOST, "ILLEGAL_ADDRESS");
                assert_null(queue);
            } else if (reached && status && status != FMK_ELOST) {
                fail_msg("%s, call %ld fails: %s: %s", functions[f].name, call, fmk_status_name(status),
                         fmk_last_error());
            }
            fmk_context_destroy(ctx);
            assert_null(current());
            if (!reached)
                break;
        }
    memset(&live, 0, sizeof live); /* what a dead context holds nobody can give back */
    OK(whole_life(NULL));
}

static int set_up(void **state) {
    (void)state;
    struct ref_rng rng = ref_rng_start("failures");
    struct ref_spec spec = sample_spec(7, N, K);
    int32_t chosen[M * TOP_K];
    watch_driver();
    spec.experts = EXPERTS;
    ref_make(&experts, &spec, &rng);
    for (int s = 0; s < NUM_SAMPLES; s++)
        make_sample(&sources[s], s, N, K, &rng);
    in = resident_buffer(80 * K * 4);
    out = resident_buffer(80 * 2 * N * K * 4);
    workspace = resident_buffer(64 << 20);
    ids = resident_buffer(sizeof chosen);
    offsets = resident_buffer(4 * (EXPERTS + 1));
    pairs = resident_buffer(sizeof chosen);
    for (int i = 0; i < M * TOP_K; i++)
        chosen[i] = i % EXPERTS;
    gpu_write(ids.handle, chosen, sizeof chosen);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int s = 0; s < NUM_SAMPLES; s++)
        ref_free(&sources[s]);
    ref_free(&experts);
    fmk_buffer *buffers[] = {&in, &out, &workspace, &ids, &offsets, &pairs};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        gpu_free(buffers[i]->handle);
    *driver = plain;
    return 0;
}

int main(void) {
    if (!on_gpu()) {
        print_message("SKIPPED: FERRUMK_TEST_BACKEND is not cuda\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_driver),
        cmocka_unit_test(test_afterwards),
        cmocka_unit_test(test_cublas),
        cmocka_unit_test(test_lost),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
