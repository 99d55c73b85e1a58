/* The context under test, cold weights and calls over them: see cuda_bench.h. */
#include "cuda_bench.h"

#include <stdlib.h>
#include <string.h>

/* ---- the context, and the header of what is printed ---- */

/* The kernel module's version, "" where the system does not say. */
static void module_version(char *text, int size) {
    FILE *file = fopen("/sys/module/nvidia/version", "r");
    *text = 0;
    if (!file)
        return;
    if (fgets(text, size, file))
        text[strcspn(text, "\n")] = 0;
    fclose(file);
}

void bench_open(struct bench *bench, int device, const char *disable) {
    gpu_open(&bench->gpu, device);
    fmk_context_desc desc = {
        .struct_size = sizeof desc, .backend = FMK_BACKEND_CUDA, .device = device, .disable = disable};
    check(fmk_context_create(&bench->context, &desc), "fmk_context_create");
    check(fmk_queue_create(&bench->queue, bench->context, bench->gpu.stream), "fmk_queue_create");
    reader_open(&bench->reader, &bench->gpu);
    floors_measure(&bench->floors, &bench->gpu, &bench->reader);
}

void bench_close(struct bench *bench) {
    fmk_queue_destroy(bench->queue);
    fmk_context_destroy(bench->context);
}

void bench_print_header(const struct bench *bench, const char *mode, const char *commit, int argc,
                        char **argv) {
    const struct gpu *gpu = &bench->gpu;
    char module[64];
    fmk_context_info_t info = {.struct_size = sizeof info};
    check(fmk_context_info(bench->context, &info), "fmk_context_info");
    module_version(module, sizeof module);
    printf("## %s\n\n%s, compute capability %d.%d, %d multiprocessors, L2 %d MB, memory %s; driver %s (CUDA "
           "%d.%d); "
           "cuBLAS %s; features in use: %s; %s; commit %s\n\n    ",
           mode, info.name, gpu->capability / 10, gpu->capability % 10, gpu->multiprocessors,
           gpu->l2_bytes >> 20, human_bytes(info.memory).text, *module ? module : "of unknown version",
           gpu->driver_version / 1000, gpu->driver_version % 1000 / 10, gpu->cublas ? "found" : "not found",
           info.features, fmk_build_info(), commit);
    for (int i = 0; i < argc; i++)
        printf("%s%s", i ? " " : "", argv[i]);
    printf("\n\n");
    fflush(stdout);
}

/* ---- copies ---- */

static const uint64_t cold_bytes = 300000000; /* of all copies: five times the L2 of the largest GPU known */

int cold_copies(uint64_t bytes) {
    int count = (int)((cold_bytes + bytes - 1) / bytes);
    return count < 2 ? 2 : count;
}

void copies_make(struct copies *copies, struct bench *bench, const struct source *source) {
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &source->part, .num_parts = 1};
    fmk_weight_info_t info = {.struct_size = sizeof info};
    copies->count = cold_copies(source->bytes);
    copies->weights = allocate((size_t)copies->count, sizeof *copies->weights);
    for (int i = 0; i < copies->count; i++)
        check(fmk_weight_create(&copies->weights[i], bench->queue, &desc), "fmk_weight_create");
    for (int i = 0; i < copies->count; i++)
        check(fmk_weight_ready(copies->weights[i], 1), "fmk_weight_ready");
    check(fmk_weight_info(copies->weights[0], &info), "fmk_weight_info");
    copies->bytes = info.bytes;
}

void copies_free(struct copies *copies, struct bench *bench) {
    gpu_wait(&bench->gpu);
    for (int i = 0; i < copies->count; i++)
        fmk_weight_destroy(copies->weights[i], NULL);
    free(copies->weights);
    *copies = (struct copies){0};
}

int calls_of(int copies, double seconds_of_one) {
    const double enough = 2e-3;
    const int most = 1024;
    int calls = 2 * copies;
    while (calls * seconds_of_one < enough && calls + copies <= most)
        calls += copies;
    return calls;
}

/* ---- projections ---- */

bool projections_prepare(struct projections *p, uint64_t limit) {
    uint64_t least, best;
    if (fmk_workspace_size(p->copies->weights[0], &p->args, &least, &best))
        return false;
    uint64_t size = limit && best > limit ? limit : best;
    size = size < least ? least : size;
    p->args.workspace = (fmk_buffer){.handle = size ? gpu_allocate(&p->bench->gpu, size) : 0, .size = size};
    for (int i = 0; i < p->copies->count; i++)
        if (fmk_prepare(p->bench->queue, p->copies->weights[i], &p->args)) {
            projections_free(p);
            return false;
        }
    return true;
}

void projections_free(struct projections *p) {
    gpu_wait(&p->bench->gpu);
    if (p->args.workspace.handle)
        gpu_free(&p->bench->gpu, p->args.workspace.handle);
    p->args.workspace = (fmk_buffer){0};
}

void projections_call(void *user, int i) {
    struct projections *p = user;
    check(fmk_linear(p->bench->queue, p->copies->weights[i % p->copies->count], &p->args), "fmk_linear");
}

char *kernel_of(const fmk_weight *weight, const fmk_linear_args *args, bool explain) {
    size_t size;
    check(fmk_explain(weight, args, NULL, 0, &size), "fmk_explain");
    char *text = allocate(size, 1);
    check(fmk_explain(weight, args, text, size, NULL), "fmk_explain");
    if (explain)
        fprintf(stderr, "%s", text);
    /* Its first line ends with ": KERNEL". */
    text[strcspn(text, "\n")] = 0;
    char *colon = strrchr(text, ':'),
         *kernel = text_of("%s", colon ? colon + 1 + strspn(colon + 1, " ") : text);
    free(text);
    return kernel;
}

char *projections_kernel(struct projections *p) {
    return kernel_of(p->copies->weights[0], &p->args, p->bench->options->explain);
}
