/* Tables of what moves weights: dequantizing, loading from host memory, and what a call costs the host. */
#include "cuda_bench.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- dequantize ---- */

struct dequantizing {
    struct bench *bench;
    const struct copies *copies;
    fmk_buffer out;
};

static void dequantize_call(void *user, int i) {
    const struct dequantizing *d = user;
    check(fmk_weight_dequantize(d->bench->queue, d->copies->weights[i % d->copies->count], 0, &d->out,
                                FMK_F16, 0),
          "fmk_weight_dequantize");
}

void bench_dequantize(struct bench *bench) {
    const struct options *o = bench->options;
    printf("To f16, in a graph, weights cold. GB/s counts what is read and what is written; %% of this run's "
           "copy rate.\n\n"
           "| weights | NxK | us | p10-p90 | GB/s | of copy |\n|---|---|---|---|---|---|\n");
    for (int s = 0; s < o->num_shapes; s++)
        for (int f = 0; f < o->num_formats; f++) {
            int64_t n = o->shapes[s].n, k = o->shapes[s].k;
            struct source source;
            struct copies copies;
            source_make(&source, o->formats[f], n, k);
            copies_make(&copies, bench, &source);
            source_free(&source);
            double bytes = (double)copies.bytes + 2.0 * (double)(n * k);
            struct dequantizing d = {.bench = bench,
                                     .copies = &copies,
                                     .out.handle = gpu_allocate(&bench->gpu, 2 * (uint64_t)(n * k))};
            struct timing t = gpu_time(&bench->gpu, dequantize_call, &d,
                                       calls_of(copies.count, bytes / bench->floors.copy));
            printf("| %s | %" PRId64 "x%" PRId64 " | %.1f | %.1f-%.1f | %.0f | %.0f%% |\n", o->formats[f], n,
                   k, 1e6 * t.median, 1e6 * t.low, 1e6 * t.high, 1e-9 * bytes / t.median,
                   100 * bytes / t.median / bench->floors.copy);
            fflush(stdout);
            copies_free(&copies, bench);
            gpu_free(&bench->gpu, d.out.handle);
        }
}

/* ---- load ---- */

/* Watches how much of the device's memory is in use. */
struct watch {
    const struct gpu *gpu;
    pthread_t thread;
    atomic_bool stop;
    size_t before, peak; /* bytes in use */
};

static size_t in_use(const struct gpu *gpu) {
    size_t available, all;
    gpu_check(gpu, gpu->driver.MemGetInfo(&available, &all), "free device memory");
    return all - available;
}

static void *watch_memory(void *user) {
    enum { PERIOD_US = 500 };
    struct watch *watch = user;
    gpu_check(watch->gpu, watch->gpu->driver.CtxSetCurrent(watch->gpu->context), "the primary context");
    while (!atomic_load(&watch->stop)) {
        size_t now = in_use(watch->gpu);
        watch->peak = now > watch->peak ? now : watch->peak;
        usleep(PERIOD_US);
    }
    return NULL;
}

static void watch_begin(struct watch *watch, const struct gpu *gpu) {
    *watch = (struct watch){.gpu = gpu, .before = in_use(gpu)};
    watch->peak = watch->before;
    if (pthread_create(&watch->thread, NULL, watch_memory, watch))
        quit(EXIT_REFUSED, "no thread to watch memory");
}

static void watch_end(struct watch *watch) {
    size_t now = in_use(watch->gpu);
    atomic_store(&watch->stop, true);
    pthread_join(watch->thread, NULL);
    watch->peak = now > watch->peak ? now : watch->peak;
}

enum { LOAD_N = 28672, LOAD_K = 8192, MOST_WEIGHTS = 256 };

/* All sources as weights at once: seconds until the last is ready. Drops them again. */
static double load_once(struct bench *bench, fmk_queue *queue, struct source *sources, int count,
                        uint64_t *packed) {
    fmk_weight *weights[MOST_WEIGHTS];
    double begun = seconds();
    for (int i = 0; i < count; i++) {
        fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &sources[i].part, .num_parts = 1};
        check(fmk_weight_create(&weights[i], queue, &desc), "fmk_weight_create");
    }
    for (int i = 0; i < count; i++)
        check(fmk_weight_ready(weights[i], 1), "fmk_weight_ready");
    double took = seconds() - begun;
    *packed = 0;
    for (int i = 0; i < count; i++) {
        fmk_weight_info_t info = {.struct_size = sizeof info};
        check(fmk_weight_info(weights[i], &info), "fmk_weight_info");
        *packed += info.packed_size;
    }
    gpu_wait(&bench->gpu);
    for (int i = 0; i < count; i++)
        fmk_weight_destroy(weights[i], NULL);
    return took;
}

static void load_threads(struct bench *bench, const char *format, struct source *sources, int count,
                         int threads) {
    enum { REPEATS = 9 };
    fmk_context_desc desc = {.struct_size = sizeof desc,
                             .backend = FMK_BACKEND_CUDA,
                             .device = bench->options->device,
                             .cpu_threads = threads};
    fmk_context_info_t info = {.struct_size = sizeof info};
    fmk_context *context;
    fmk_queue *queue;
    check(fmk_context_create(&context, &desc), "fmk_context_create");
    check(fmk_context_info(context, &info), "fmk_context_info");
    check(fmk_queue_create(&queue, context, bench->gpu.stream), "fmk_queue_create");

    uint64_t bytes = 0, packed;
    for (int i = 0; i < count; i++)
        bytes += sources[i].bytes;
    double samples[REPEATS], beside[2]; /* device memory of the first load, and of one after it */
    double first = 0;
    for (int i = 0; i < 2; i++) {
        struct watch watch;
        watch_begin(&watch, &bench->gpu);
        double took = load_once(bench, queue, sources, count, &packed);
        watch_end(&watch);
        beside[i] = (double)(watch.peak - watch.before) - (double)packed;
        first = i ? first : took;
    }
    for (int i = 0; i < REPEATS; i++)
        samples[i] = load_once(bench, queue, sources, count, &packed);
    struct timing t = timing_of(samples, REPEATS);
    printf("| %s | %d x %.0f MB | %d | %.1f | %.1f | %.1f-%.1f | %.1f | %.0f%% | %.0f | %+.0f | %+.0f |\n",
           format, count, 1e-6 * (double)sources[0].bytes, info.threads, 1e3 * first, 1e3 * t.median,
           1e3 * t.low, 1e3 * t.high, 1e-9 * (double)bytes / t.median,
           100 * (double)bytes / t.median / bench->floors.upload, 1e-6 * (double)packed, 1e-6 * beside[0],
           1e-6 * beside[1]);
    fflush(stdout);
    fmk_queue_destroy(queue);
    fmk_context_destroy(context);
}

void bench_load(struct bench *bench) {
    const struct options *o = bench->options;
    printf(
        "fmk_weight_create and fmk_weight_ready of %dx%d matrices from pageable host memory that was written "
        "before, copied by so many threads; %% of this run's rate of copies from pinned memory. Beside: the "
        "most device memory that was in use, above what was before and the packed weights, during the "
        "first load of a context (with the kernels' code) and during the next.\n\n"
        "| weights | matrices | threads | first ms | ms | p10-p90 | GB/s | of upload | packed MB | beside, "
        "first MB | beside MB |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n",
        LOAD_N, LOAD_K);
    static const int each[] = {0, 1, 2, 4, 8};
    const int *threads = o->threads ? &o->threads : each;
    const int num_threads = o->threads || o->quick ? 1 : (int)(sizeof each / sizeof *each);
    for (int f = 0; f < o->num_formats; f++) {
        struct source sources[MOST_WEIGHTS];
        int count = 0;
        for (int64_t bytes = 0; bytes < o->load_bytes && count < MOST_WEIGHTS; count++) {
            source_make(&sources[count], o->formats[f], LOAD_N, LOAD_K);
            bytes += (int64_t)sources[count].bytes;
        }
        for (int t = 0; t < num_threads; t++)
            load_threads(bench, o->formats[f], sources, count, threads[t]);
        for (int i = 0; i < count; i++)
            source_free(&sources[i]);
    }
}

/* ---- host ---- */

static void launch_call(void *user, int i) {
    struct bench *bench = user;
    (void)i;
    reader_run(&bench->reader, &bench->gpu, bench->reader.sink, 16, false);
}

/* Seconds that the host spends in one call while the device's queue has room. */
static struct timing host_time(struct bench *bench, void (*call)(void *user, int i), void *user) {
    enum { BATCH = 100, BATCHES = 50 };
    double samples[BATCHES];
    for (int b = -1; b < BATCHES; b++) { /* the first is a warm-up */
        double begun = seconds();
        for (int i = 0; i < BATCH; i++)
            call(user, i);
        double took = (seconds() - begun) / BATCH;
        if (b >= 0)
            samples[b] = took;
        gpu_wait(&bench->gpu);
    }
    return timing_of(samples, BATCHES);
}

static void print_host(const char *what, struct timing t, double bare) {
    printf("| %s | %.2f | %.2f-%.2f | %+.2f |\n", what, 1e6 * t.median, 1e6 * t.low, 1e6 * t.high,
           1e6 * (t.median - bare));
    fflush(stdout);
}

void bench_host(struct bench *bench) {
    enum { SIDE = 1024 };
    const struct options *o = bench->options;
    printf("What one call costs the calling thread, outside of a graph.\n\n"
           "| call | us | p10-p90 | above the launch |\n|---|---|---|---|\n");
    struct timing bare = host_time(bench, launch_call, bench);
    print_host("cuLaunchKernelEx", bare, bare.median);
    for (int f = 0; f < o->num_formats; f++)
        for (int i = 0; i < o->num_m; i++) {
            struct source source;
            fmk_weight *weight;
            source_make(&source, o->formats[f], SIDE, SIDE);
            fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &source.part, .num_parts = 1};
            check(fmk_weight_create(&weight, bench->queue, &desc), "fmk_weight_create");
            check(fmk_weight_ready(weight, 1), "fmk_weight_ready");
            source_free(&source);
            struct copies copies = {.weights = &weight, .count = 1};
            uint64_t count = (uint64_t)(SIDE * o->m[i]);
            struct projections p = {.bench = bench,
                                    .copies = &copies,
                                    .args = {.struct_size = sizeof p.args,
                                             .m = o->m[i],
                                             .in_type = o->type,
                                             .out_type = o->type,
                                             .in.handle = gpu_random_normal(&bench->gpu, o->type, count),
                                             .out.handle = gpu_allocate(&bench->gpu, 4 * count)}};
            if (!projections_prepare(&p, 0))
                quit(EXIT_REFUSED, "%s", fmk_last_error());
            char *kernel = projections_kernel(&p);
            char *what =
                text_of("fmk_linear %s %dx%d M=%" PRId64 ", %s", o->formats[f], SIDE, SIDE, o->m[i], kernel);
            print_host(what, host_time(bench, projections_call, &p), bare.median);
            projections_free(&p);
            gpu_free(&bench->gpu, p.args.in.handle);
            gpu_free(&bench->gpu, p.args.out.handle);
            fmk_weight_destroy(weight, NULL);
            free(kernel);
            free(what);
        }
}
