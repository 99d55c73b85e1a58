/* What quantizing costs: error and speed of fmk_quantize on normal and on heavy-tailed weights, in a Markdown
 * table; beside it ggml's published quantizers, when the path of its libggml-base.so is given.
 *
 *     quantize_rmse [libggml-base.so]
 *
 * Error: root of the mean squared difference, over the root of the mean square of the weights. Speed: median
 * of REPEATS runs in millions of weights a second of the thread's CPU time, and how far the slowest is from
 * the fastest; one thread, because ggml's functions have one. Both libraries' results are decoded by this
 * one's dequantize. */
#include "ferrumk.h"

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 512, K = 4096, COUNT = N * K, REPEATS = 5 };

typedef void peer_quantizer(const float *x, void *blocks, int64_t count);

struct figure {
    double error, speed, spread; /* spread in % */
};

static uint64_t random_state;

static double uniform(void) { /* xorshift64*, (0, 1) */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return ((double)(random_state * 0x2545f4914f6cdd1du >> 11) + 0.5) * 0x1p-53;
}

static double normal(void) {
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static double student_t4(void) {
    double chi_square = -2 * log(uniform()) - 2 * log(uniform());
    return normal() / sqrt(chi_square / 4);
}

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summarize(double times[REPEATS], struct figure *figure) {
    qsort(times, REPEATS, sizeof *times, compare);
    figure->speed = COUNT / times[REPEATS / 2] * 1e-6;
    figure->spread = 100 * (times[REPEATS - 1] / times[0] - 1);
}

static void stop(const char *what) {
    fprintf(stderr, "quantize_rmse: %s: %s\n", what, fmk_last_error());
    exit(1);
}

static double error_of(fmk_context *ctx, const fmk_part *part, const float *x) {
    fmk_queue *queue;
    fmk_weight *weight;
    float *values = malloc(COUNT * sizeof *values);
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = part, .num_parts = 1};
    fmk_buffer out = {.handle = (uint64_t)(uintptr_t)values, .size = COUNT * sizeof *values};
    if (!values || fmk_queue_create(&queue, ctx, NULL) || fmk_weight_create(&weight, queue, &desc) ||
        fmk_weight_dequantize(queue, weight, 0, &out, FMK_F32, 0))
        stop("dequantize");
    double error = 0, squares = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        double difference = (double)values[i] - (double)x[i];
        error += difference * difference;
        squares += (double)x[i] * (double)x[i];
    }
    fmk_weight_destroy(weight, NULL);
    fmk_queue_destroy(queue);
    free(values);
    return sqrt(error / squares);
}

static struct figure measure(fmk_context *ctx, fmk_format format, int32_t symmetric, const float *x,
                             uint8_t *out, peer_quantizer *peer) {
    struct figure figure;
    double times[REPEATS];
    bool gptq = format == FMK_FORMAT_GPTQ;
    fmk_quantize_args args = {.struct_size = sizeof args,
                              .format = format,
                              .n = N,
                              .k = K,
                              .group_size = gptq ? 128 : 0,
                              .symmetric = symmetric,
                              .in_type = FMK_F32,
                              .in = x,
                              .qweight = out,
                              .scales = out + COUNT,
                              .qzeros = out + COUNT + COUNT / 32};
    for (int i = 0; i < REPEATS; i++) {
        double start = cpu_seconds();
        if (peer)
            peer(x, out, COUNT);
        else if (fmk_quantize(ctx, &args))
            stop("quantize");
        times[i] = cpu_seconds() - start;
    }
    summarize(times, &figure);
    fmk_part part = {
        .struct_size = sizeof part, .format = format, .n = N, .k = K, .group_size = args.group_size};
    part.qweight.data.handle = (uint64_t)(uintptr_t)args.qweight;
    if (gptq) {
        part.scales.data.handle = (uint64_t)(uintptr_t)args.scales;
        part.qzeros.data.handle = (uint64_t)(uintptr_t)args.qzeros;
    }
    figure.error = error_of(ctx, &part, x);
    return figure;
}

static void *find(void *library, const char *name) {
    void *function = library ? dlsym(library, name) : NULL;
    if (library && !function)
        fprintf(stderr, "quantize_rmse: %s\n", dlerror());
    return function;
}

int main(int argc, char **argv) {
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (argc > 2 || (argc == 2 && !library)) {
        fprintf(stderr, "quantize_rmse: %s\n",
                argc > 2 ? "usage: quantize_rmse [libggml-base.so]" : dlerror());
        return 2;
    }
    fmk_context *ctx;
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_CPU, .cpu_threads = 1};
    if (fmk_context_create(&ctx, &desc))
        stop("context");
    const struct {
        const char *name;
        fmk_format format;
        int32_t symmetric;
        const char *peer;
    } rows[] = {
        {"Q4_K", FMK_FORMAT_Q4_K, 0, "quantize_row_q4_K_ref"},
        {"Q6_K", FMK_FORMAT_Q6_K, 0, "quantize_row_q6_K_ref"},
        {"GPTQ, groups of 128, symmetric", FMK_FORMAT_GPTQ, 1, NULL},
        {"GPTQ, groups of 128, asymmetric", FMK_FORMAT_GPTQ, 0, NULL},
    };
    const struct {
        const char *name;
        double (*draw)(void);
    } kinds[] = {{"N(0, 1)", normal}, {"Student t, 4 d.f.", student_t4}};
    float *x = malloc(COUNT * sizeof *x);
    uint8_t *out = malloc(2 * COUNT);
    if (!x || !out)
        stop("memory");
    printf("%d x %d weights, one thread, median of %d runs\n\n", N, K, REPEATS);
    printf("| weights | format | RMSE | Mweights/s (spread) | ggml RMSE | ggml Mweights/s (spread) |\n");
    printf("|---|---|---|---|---|---|\n");
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        random_state = 20260101;
        for (int64_t i = 0; i < COUNT; i++)
            x[i] = (float)kinds[kind].draw();
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            struct figure ours = measure(ctx, rows[i].format, rows[i].symmetric, x, out, NULL);
            printf("| %s | %s | %.5f | %.1f (%.0f%%) |", kinds[kind].name, rows[i].name, ours.error,
                   ours.speed, ours.spread);
            peer_quantizer *peer = rows[i].peer ? (peer_quantizer *)find(library, rows[i].peer) : NULL;
            if (peer) {
                struct figure theirs = measure(ctx, rows[i].format, 0, x, out, peer);
                printf(" %.5f | %.1f (%.0f%%) |\n", theirs.error, theirs.speed, theirs.spread);
            } else {
                printf(" | |\n");
            }
            fflush(stdout);
        }
    }
    free(out);
    free(x);
    fmk_context_destroy(ctx);
    if (library)
        dlclose(library);
    return 0;
}
