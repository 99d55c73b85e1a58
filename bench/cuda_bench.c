/* Cold weights and calls over them: see cuda_bench.h. */
#include "cuda_bench.h"

#include <stdlib.h>
#include <string.h>

/* ---- copies ---- */

static const uint64_t cold_bytes = 300000000; /* of all copies: five times the L2 of the largest GPU known */

void copies_make(struct copies *copies, struct bench *bench, const struct source *source) {
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &source->part, .num_parts = 1};
    fmk_weight_info_t info = {.struct_size = sizeof info};
    int count = (int)((cold_bytes + source->bytes - 1) / source->bytes);
    copies->count = count < 2 ? 2 : count;
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

char *projections_kernel(struct projections *p) {
    size_t size;
    check(fmk_explain(p->copies->weights[0], &p->args, NULL, 0, &size), "fmk_explain");
    char *text = allocate(size, 1);
    check(fmk_explain(p->copies->weights[0], &p->args, text, size, NULL), "fmk_explain");
    if (p->bench->options->explain)
        fprintf(stderr, "%s", text);
    /* Its first line ends with ": KERNEL". */
    text[strcspn(text, "\n")] = 0;
    char *colon = strrchr(text, ':'),
         *kernel = text_of("%s", colon ? colon + 1 + strspn(colon + 1, " ") : text);
    free(text);
    return kernel;
}
