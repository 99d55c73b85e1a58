/* One table of projections: fmk_linear with and without FMK_LINEAR_PDL, a kernel that only reads the same
 * bytes, cuBLAS on f16 weights, and the error against the reference kernel. And its counterpart for many
 * tokens: what dequantizing and cuBLAS would cost, and how much workspace it takes to be as fast. */
#include "cuda_bench.h"
#include "synthetic.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static const uint64_t small_workspace = UINT64_C(128) << 20;

/* ---- cuBLAS, with its own cold weights ---- */

struct dense {
    const struct gpu *gpu;
    uint64_t in, out, weights;
    int copies;
    int64_t m, n, k;
};

static void dense_call(void *user, int i) {
    const struct dense *d = user;
    uint64_t bytes = 2 * (uint64_t)(d->n * d->k);
    gpu_cublas(d->gpu, d->in, d->weights + bytes * (uint64_t)(i % d->copies), d->out, d->m, d->n, d->k);
}

/* Seconds of one product for each m. */
static void dense_times(struct bench *bench, int64_t n, int64_t k, uint64_t in, uint64_t out, double *times) {
    const struct options *o = bench->options;
    struct dense d = {.gpu = &bench->gpu, .in = in, .out = out, .n = n, .k = k};
    d.copies = (int)((300000000 + 2 * n * k - 1) / (2 * n * k));
    d.copies = d.copies < 2 ? 2 : d.copies;
    d.weights = gpu_random_halves(&bench->gpu, (uint64_t)(d.copies * n * k));
    for (int i = 0; i < o->num_m; i++) {
        d.m = o->m[i];
        double about = 2e-6 + 2.0 * (double)(n * k) / bench->floors.read +
                       2.0 * (double)(d.m * n * k) / bench->floors.product;
        times[i] = gpu_time(&bench->gpu, dense_call, &d, calls_of(d.copies, about)).median;
    }
    gpu_free(&bench->gpu, d.weights);
}

/* ---- the reader ---- */

struct reading {
    struct bench *bench;
    uint64_t data, bytes;
    int copies;
    bool early;
};

static void reading_call(void *user, int i) {
    const struct reading *r = user;
    reader_run(&r->bench->reader, &r->bench->gpu, r->data + r->bytes * (uint64_t)(i % r->copies), r->bytes,
               r->early);
}

/* ---- the error ---- */

/* Relative L2 of at most 8 rows of the result, spread over m, from the same rows by the reference kernel;
 * negative when that refuses. */
static double error_of(struct projections *p, int64_t n) {
    enum { ROWS = 8 };
    const struct gpu *gpu = &p->bench->gpu;
    const uint64_t size = dtype_size(p->args.out_type);
    int64_t rows = p->args.m < ROWS ? p->args.m : ROWS;
    int32_t ids[ROWS];
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(rows > 1 ? i * (p->args.m - 1) / (rows - 1) : 0);

    projections_call(p, 0);
    struct projections reference = *p;
    reference.args.flags = FMK_LINEAR_REFERENCE;
    reference.args.m = rows;
    reference.args.out_type = FMK_F32;
    reference.args.in_rows = (fmk_buffer){.handle = gpu_allocate(gpu, sizeof ids), .size = sizeof ids};
    reference.args.out = (fmk_buffer){.handle = gpu_allocate(gpu, (uint64_t)(rows * n) * 4)};
    gpu_upload(gpu, reference.args.in_rows.handle, ids, sizeof ids);
    double error = -1;
    if (projections_prepare(&reference, 0)) {
        projections_call(&reference, 0);
        gpu_wait(gpu);
        float *want = allocate_aligned((uint64_t)(rows * n) * 4),
              *got = allocate_aligned((uint64_t)(rows * n) * 4);
        char *raw = allocate_aligned((uint64_t)(rows * n) * size);
        gpu_download(gpu, want, reference.args.out.handle, (uint64_t)(rows * n) * 4);
        for (int64_t i = 0; i < rows; i++)
            gpu_download(gpu, raw + (uint64_t)(i * n) * size,
                         p->args.out.handle + (uint64_t)(ids[i] * n) * size, (uint64_t)n * size);
        struct device cpu;
        device_open(&cpu, &(struct device_options){.backend = "cpu", .threads = 1});
        convert(&cpu, raw, p->args.out_type, got, FMK_F32, rows, n);
        device_close(&cpu);
        double difference = 0, whole = 0;
        for (int64_t i = 0; i < rows * n; i++) {
            difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
            whole += (double)want[i] * want[i];
        }
        error = sqrt(difference / whole);
        free(want);
        free(got);
        free(raw);
        projections_free(&reference);
    }
    gpu_free(gpu, reference.args.in_rows.handle);
    gpu_free(gpu, reference.args.out.handle);
    return error;
}

/* ---- a shape ---- */

struct shape {
    int64_t n, k;
    uint64_t in, half_in, out; /* half_in: for cuBLAS */
    double dense[MAX_LIST];    /* seconds, by m; 0 = no cuBLAS */
    double fp32[MAX_LIST];     /* the same with partial sums in floats */
};

static void shape_open(struct shape *s, struct bench *bench, int64_t n, int64_t k) {
    const struct options *o = bench->options;
    int64_t most = 0;
    for (int i = 0; i < o->num_m; i++)
        most = o->m[i] > most ? o->m[i] : most;
    *s = (struct shape){.n = n,
                        .k = k,
                        .in = gpu_random_normal(&bench->gpu, o->type, (uint64_t)(most * k)),
                        .out = gpu_allocate(&bench->gpu, (uint64_t)(most * n) * dtype_size(o->type))};
    s->half_in = o->type == FMK_F16 ? s->in : gpu_random_normal(&bench->gpu, FMK_F16, (uint64_t)(most * k));
    if (bench->gpu.cublas) {
        dense_times(bench, n, k, s->half_in, s->out, s->dense);
        gpu_cublas_sums(&bench->gpu, true);
        dense_times(bench, n, k, s->half_in, s->out, s->fp32);
        gpu_cublas_sums(&bench->gpu, false);
    }
}

static void shape_close(struct shape *s, struct bench *bench) {
    gpu_free(&bench->gpu, s->in);
    if (s->half_in != s->in)
        gpu_free(&bench->gpu, s->half_in);
    gpu_free(&bench->gpu, s->out);
}

static struct projections projections_of(struct bench *bench, const struct shape *s,
                                         const struct copies *copies, int64_t m) {
    fmk_dtype type = bench->options->type;
    return (struct projections){.bench = bench,
                                .copies = copies,
                                .args = {.struct_size = sizeof(fmk_linear_args),
                                         .m = m,
                                         .in_type = type,
                                         .out_type = type,
                                         .in.handle = s->in,
                                         .out.handle = s->out}};
}

/* The time that bytes and operations take at the rates of this run. */
static double floor_of(const struct bench *bench, const struct shape *s, double bytes, int64_t m) {
    double moved = bytes / bench->floors.read;
    double computed = bench->floors.product > 0 ? 2.0 * (double)(m * s->n * s->k) / bench->floors.product : 0;
    return moved > computed ? moved : computed;
}

static void print_time(struct timing t) {
    printf(" %.2f | %.2f-%.2f |", 1e6 * t.median, 1e6 * t.low, 1e6 * t.high);
}

static const char *type_name(fmk_dtype type) {
    return type == FMK_F16 ? "f16" : type == FMK_BF16 ? "bf16" : "f32";
}

/* ---- few tokens ---- */

static void linear_format(struct bench *bench, const struct shape *s, const char *format) {
    const struct options *o = bench->options;
    struct source source;
    struct copies copies;
    source_make(&source, format, s->n, s->k);
    copies_make(&copies, bench, &source);
    source_free(&source);

    struct reading reading = {.bench = bench, .bytes = copies.bytes / 16 * 16, .copies = copies.count};
    reading.data = gpu_random_halves(&bench->gpu, (uint64_t)copies.count * copies.bytes / 2 + 8);
    int calls = calls_of(copies.count, 2e-6 + (double)copies.bytes / bench->floors.read);
    double plain = gpu_time(&bench->gpu, reading_call, &reading, calls).median;
    reading.early = true;
    double early = gpu_time(&bench->gpu, reading_call, &reading, calls).median;
    gpu_free(&bench->gpu, reading.data);

    for (int i = 0; i < o->num_m; i++) {
        int64_t m = o->m[i];
        struct projections p = projections_of(bench, s, &copies, m);
        printf("| %s | %" PRId64 "x%" PRId64 " | %" PRId64 " |", format, s->n, s->k, m);
        if (!projections_prepare(&p, 0)) {
            printf(" refused: %s |\n", fmk_last_error());
            continue;
        }
        char *kernel = projections_kernel(&p);
        double least = floor_of(bench, s, (double)copies.bytes, m);
        calls = calls_of(copies.count, 2e-6 + least);
        struct timing off = gpu_time(&bench->gpu, projections_call, &p, calls);
        p.args.flags = FMK_LINEAR_PDL;
        struct timing on = gpu_time(&bench->gpu, projections_call, &p, calls);
        p.args.flags = 0;
        double error = error_of(&p, s->n); /* last: the reference's doubles would lower the clock */
        double best = on.median < off.median ? on.median : off.median;
        print_time(off);
        print_time(on);
        printf(" %.2f | %.2f | %.2f | %.0f | %.0f%% |", 1e6 * plain, 1e6 * early, 1e6 * least,
               1e-9 * (double)copies.bytes / best, 100 * least / best);
        if (s->dense[i] > 0)
            printf(" %.2f | %.2f | %.2f |", 1e6 * s->dense[i], s->dense[i] / best, 1e6 * s->fp32[i]);
        else
            printf(" | | |");
        printf(error < 0 ? " - |" : " %.1e |", error);
        printf(" %s |\n", kernel);
        fflush(stdout);
        free(kernel);
        projections_free(&p);
    }
    copies_free(&copies, bench);
}

void bench_linear(struct bench *bench) {
    const struct options *o = bench->options;
    printf(
        "Activations and results are %s; ggml's are f32: --type f32 is what compares with it.\n\n"
        "us: median and tenths of a call in a graph; \"early\": with FMK_LINEAR_PDL; \"reader\": a kernel "
        "that only reads as many bytes; \"floor\": the larger of bytes / read rate and operations / cuBLAS "
        "rate; GB/s of weights and %% of the floor by the faster of both; \"x cuBLAS\": how many times as "
        "fast as cuBLAS on f16 weights and activations; \"fp32 sums\": cuBLAS told to add up partial sums as "
        "floats, as the library does; error: relative L2 from the reference kernel.\n\n"
        "| weights | NxK | M | us | p10-p90 | early us | p10-p90 | reader us | early reader us | floor us "
        "| GB/s | of floor | cuBLAS us | x cuBLAS | fp32 sums us | error | kernel |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        type_name(o->type));
    for (int i = 0; i < o->num_shapes; i++) {
        struct shape shape;
        shape_open(&shape, bench, o->shapes[i].n, o->shapes[i].k);
        for (int f = 0; f < o->num_formats; f++)
            linear_format(bench, &shape, o->formats[f]);
        shape_close(&shape, bench);
    }
}

/* ---- many tokens ---- */

static void prefill_format(struct bench *bench, const struct shape *s, const char *format) {
    const struct options *o = bench->options;
    struct source source;
    struct copies copies;
    source_make(&source, format, s->n, s->k);
    copies_make(&copies, bench, &source);
    source_free(&source);
    /* Dequantizing reads the packed weight and writes it as f16. */
    double pass = ((double)copies.bytes + 2.0 * (double)(s->n * s->k)) / bench->floors.copy;
    for (int i = 0; i < o->num_m; i++) {
        int64_t m = o->m[i];
        double sum = s->dense[i] + pass;
        struct projections p = projections_of(bench, s, &copies, m);
        printf("| %s | %" PRId64 "x%" PRId64 " | %" PRId64 " |", format, s->n, s->k, m);
        if (!projections_prepare(&p, 0)) {
            printf(" refused: %s |\n", fmk_last_error());
            continue;
        }
        char *kernel = projections_kernel(&p);
        uint64_t best_size = p.args.workspace.size;
        double error = error_of(&p, s->n);
        int calls = calls_of(copies.count, sum);
        struct timing best = gpu_time(&bench->gpu, projections_call, &p, calls);
        projections_free(&p);
        struct timing small = best;
        if (best_size > small_workspace) {
            if (!projections_prepare(&p, small_workspace))
                quit(EXIT_REFUSED, "%s", fmk_last_error());
            small = gpu_time(&bench->gpu, projections_call, &p, calls);
            projections_free(&p);
        }
        print_time(best);
        printf(" %.0f |", 1e-6 * (double)best_size);
        print_time(small);
        printf(" %.1f | %.1f | %.1f | %.2f | %.0f |", 1e6 * s->dense[i], 1e6 * pass,
               1e6 * (s->dense[i] + 1.25 * pass), best.median / sum,
               2e-12 * (double)(m * s->n * s->k) / best.median);
        printf(error < 0 ? " - |" : " %.1e |", error);
        printf(" %s |\n", kernel);
        fflush(stdout);
        free(kernel);
    }
    copies_free(&copies, bench);
}

void bench_prefill(struct bench *bench) {
    const struct options *o = bench->options;
    if (!bench->gpu.cublas)
        quit(EXIT_REFUSED, "prefill compares with cuBLAS: put libcublas.so.13 where the loader finds it");
    printf(
        "Activations and results are %s. \"pass\": packed weights read and f16 written, at this run's copy "
        "rate; \"bound\": cuBLAS + 1.25 passes; \"of sum\": our time / (cuBLAS + pass).\n\n"
        "| weights | NxK | M | us | p10-p90 | workspace MB | us with 128 MiB | p10-p90 | cuBLAS us | pass "
        "us | bound us | of sum | TFLOP/s | error | kernel |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        type_name(o->type));
    for (int i = 0; i < o->num_shapes; i++) {
        struct shape shape;
        shape_open(&shape, bench, o->shapes[i].n, o->shapes[i].k);
        for (int f = 0; f < o->num_formats; f++)
            prefill_format(bench, &shape, o->formats[f]);
        shape_close(&shape, bench);
    }
}
