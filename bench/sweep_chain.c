/* A layer's projections one after another, as an engine runs them: the results of one are the activations of
 * the next, by way of a small kernel. Layers have weights of their own. */
#include "sweep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Llama-3.1-8B: q, k and v; o; gate and up; down. */
static const struct shape layer[] = {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};

enum { STEPS = sizeof layer / sizeof *layer, LAYERS = 4, MAX_CHAINS = MAX_CONTENDERS };

/* ---- the small kernel ---- */

/* out[row][column] = in[row][column] / 4, within +-2, for the first `width` columns: a block is a row's 256
 * columns. It lets the next kernel start at once, and waits for the one before. */
static const char between_source[] =
    ".version 7.8\n.target sm_90\n.address_size 64\n"
    ".visible .entry between(.param .u64 in, .param .u64 out, .param .u32 stride, .param .u32 width)\n{\n"
    ".reg .b16 %half;\n.reg .b32 %row, %column, %stride, %width, %at;\n.reg .f32 %x;\n.reg .b64 %in, %out, "
    "%offset;\n"
    "griddepcontrol.launch_dependents;\n"
    "ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nld.param.u32 %stride, [stride];\n"
    "ld.param.u32 %width, [width];\n"
    "mov.u32 %row, %ctaid.y;\nmov.u32 %column, %ctaid.x;\nshl.b32 %column, %column, 8;\nmov.u32 %at, "
    "%tid.x;\n"
    "add.u32 %column, %column, %at;\n"
    "mad.lo.u32 %at, %row, %stride, %column;\nmul.wide.u32 %offset, %at, 2;\nadd.u64 %in, %in, %offset;\n"
    "mad.lo.u32 %at, %row, %width, %column;\nmul.wide.u32 %offset, %at, 2;\nadd.u64 %out, %out, %offset;\n"
    "griddepcontrol.wait;\n"
    "ld.global.b16 %half, [%in];\ncvt.f32.f16 %x, %half;\nmul.f32 %x, %x, 0f3E800000;\n"
    "min.f32 %x, %x, 0f40000000;\nmax.f32 %x, %x, 0fC0000000;\ncvt.rn.f16.f32 %half, %x;\n"
    "st.global.b16 [%out], %half;\nret;\n}\n";

static void between(const struct gpu *gpu, CUfunction function, uint64_t in, uint64_t out, int64_t m,
                    int64_t stride, int64_t width) {
    enum { COLUMNS = 256 };
    uint32_t s = (uint32_t)stride, w = (uint32_t)width;
    void *arguments[] = {&in, &out, &s, &w};
    CUlaunchAttribute serialization = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                       .value.programmaticStreamSerializationAllowed = 1};
    CUlaunchConfig config = {.gridDimX = (unsigned)(width / COLUMNS),
                             .gridDimY = (unsigned)m,
                             .gridDimZ = 1,
                             .blockDimX = COLUMNS,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = gpu->stream,
                             .attrs = &serialization,
                             .numAttrs = 1};
    gpu_check(gpu, gpu->driver.LaunchKernelEx(&config, function, arguments, NULL), "the kernel between");
}

/* ---- a chain ---- */

struct chain {
    const struct gpu *gpu;
    const struct contender *who;
    CUfunction between;
    void *weights[LAYERS][STEPS];
    uint64_t in, out; /* the first is the small kernel's, the second the projection's */
    int64_t m;
    bool complete;
};

static int64_t next_k(int step) {
    return layer[(step + 1) % STEPS].k;
}

static struct bench_peer_call call_of(const struct chain *chain) {
    return (struct bench_peer_call){.m = chain->m,
                                    .type = chain->who->kind->type,
                                    .in = (void *)(uintptr_t)chain->in,
                                    .out = (void *)(uintptr_t)chain->out,
                                    .stream = chain->gpu->stream};
}

/* One layer. */
static void chain_call(void *user, int i) {
    const struct chain *chain = user;
    struct bench_peer_call call = call_of(chain);
    for (int step = 0; step < STEPS; step++) {
        if (chain->who->peer->run(chain->weights[i % LAYERS][step], &call))
            quit(EXIT_REFUSED, "%s refused a call that it was prepared for", chain->who->name);
        between(chain->gpu, chain->between, chain->out, chain->in, chain->m, layer[step].n, next_k(step));
    }
}

static bool chain_prepare(struct chain *chain) {
    struct bench_peer_call call = call_of(chain);
    for (int l = 0; l < LAYERS; l++)
        for (int step = 0; step < STEPS; step++) {
            char error[512] = "";
            if (chain->who->peer->prepare(chain->weights[l][step], &call, error, sizeof error)) {
                fprintf(stderr, "%s: %s: m %" PRId64 ": %s\n", program(), chain->who->name, chain->m, error);
                return false;
            }
        }
    return true;
}

static void chain_fill(struct chain *chain, int step, const struct source *from) {
    struct bench_peer_source source = source_for_peer(from);
    for (int l = 0; l < LAYERS && chain->complete; l++) {
        char error[512] = "";
        chain->weights[l][step] = chain->who->peer->create(chain->who->state, &source, error, sizeof error);
        if (!chain->weights[l][step]) {
            fprintf(stderr, "%s: %s: %s\n", program(), chain->who->name, error);
            chain->complete = false;
        }
    }
}

static void chain_free(struct chain *chain) {
    for (int l = 0; l < LAYERS; l++)
        for (int step = 0; step < STEPS; step++)
            if (chain->weights[l][step])
                chain->who->peer->destroy(chain->weights[l][step]);
}

/* ---- all of them ---- */

/* What two layers make of one in from the same beginning. */
static void results_of(const struct chain *chain, const void *begin, uint64_t bytes, void *out) {
    gpu_upload(chain->gpu, chain->in, begin, bytes);
    chain_call((void *)(uintptr_t)chain, 0);
    chain_call((void *)(uintptr_t)chain, 1);
    gpu_wait(chain->gpu);
    gpu_download(chain->gpu, out, chain->in, bytes);
}

static void measure_chains(struct sweep *sweep, struct chain *chains, int count, int64_t m) {
    enum { CALLS = 12 * LAYERS };
    const struct gpu *gpu = &sweep->bench.gpu;
    const uint64_t bytes = 2 * (uint64_t)(m * layer[0].k);
    int rounds = sweep->options->rounds, present = 0;
    struct gpu_graph graphs[MAX_CHAINS];
    const struct chain *of[MAX_CHAINS];
    uint16_t *begin = allocate_aligned(bytes), *results[MAX_CHAINS];
    random_halves(begin, (uint64_t)(m * layer[0].k), 11);
    for (int i = 0; i < count; i++) {
        chains[i].m = m;
        if (!chains[i].complete || !chain_prepare(&chains[i]))
            continue;
        results[present] = allocate_aligned(bytes);
        results_of(&chains[i], begin, bytes, results[present]);
        of[present++] = &chains[i];
    }
    for (int i = 0; i < present; i++)
        gpu_graph_make(&graphs[i], gpu, chain_call, (void *)(uintptr_t)of[i], CALLS);
    double *samples = allocate((size_t)(present * rounds), sizeof *samples);
    gpu_graphs_time(gpu, graphs, present, rounds, samples);

    struct timing times[MAX_CHAINS];
    for (int i = 0; i < present; i++)
        times[i] = timing_of(samples + i * rounds, rounds);
    for (int i = 0; i < present; i++) {
        printf("| %" PRId64 " | %s | %.2f | %.2f-%.2f |", m, of[i]->who->name, 1e6 * times[i].median,
               1e6 * times[i].low, 1e6 * times[i].high);
        for (int j = 0; j < 2; j++) /* ours come first */
            if (j < present && is_ours(of[j]->who))
                printf(" %.2f |", times[i].median / times[j].median);
            else
                printf(" |");
        if (is_ours(of[i]->who))
            printf(" %s |\n", memcmp(results[i], results[0], bytes) ? "OTHERS" : "same");
        else
            printf(" |\n");
    }
    for (int i = 0; i < present; i++) {
        gpu_graph_free(&graphs[i], gpu);
        free(results[i]);
    }
    free(samples);
    free(begin);
}

void sweep_chain(struct sweep *sweep) {
    const struct gpu *gpu = &sweep->bench.gpu;
    CUmodule module;
    CUfunction function;
    if (gpu->capability < 90)
        quit(EXIT_REFUSED, "a chain of dependent launches needs compute capability 9.0, not %d.%d",
             gpu->capability / 10, gpu->capability % 10);
    gpu_check(gpu, gpu->driver.ModuleLoadData(&module, between_source), "the kernel between projections");
    gpu_check(gpu, gpu->driver.ModuleGetFunction(&function, module, "between"), "between");
    int64_t most = 1, widest = 0;
    for (int64_t m = 1; m <= MAX_M; m++)
        most = sweep->options->m[m] ? m : most;
    for (int step = 0; step < STEPS; step++)
        widest = layer[step].n > widest ? layer[step].n : widest;

    struct chain *chains = allocate(MAX_CHAINS, sizeof *chains);
    uint64_t in = gpu_allocate(gpu, 2 * (uint64_t)(most * widest)),
             out = gpu_allocate(gpu, 2 * (uint64_t)(most * widest));
    for (int i = 0; i < sweep->num_contenders; i++)
        chains[i] = (struct chain){.gpu = gpu,
                                   .who = &sweep->contenders[i],
                                   .between = function,
                                   .in = in,
                                   .out = out,
                                   .complete = true};
    for (int step = 0; step < STEPS; step++) {
        struct source source;
        source_make(&source, "int4", layer[step].n, layer[step].k);
        for (int i = 0; i < sweep->num_contenders; i++)
            chain_fill(&chains[i], step, &source);
        source_free(&source);
    }
    printf("The four projections of a layer of Llama-3.1-8B (6144x4096, 4096x4096, 28672x4096, 4096x14336), "
           "each "
           "followed by a small kernel that makes its activations of the last one's results, lets the next "
           "kernel "
           "start at once, and is itself a dependent launch; %d layers in turn. us of a layer: median and "
           "tenths; "
           "how many times as long as ours; of ours: whether the results of two layers are the bits of the "
           "first line's.\n\n"
           "| M | | us of a layer | p10-p90 | of the first | of the second | bits "
           "|\n|---|---|---|---|---|---|---|\n",
           LAYERS);
    for (int64_t m = 1; m <= MAX_M; m++)
        if (sweep->options->m[m])
            measure_chains(sweep, chains, sweep->num_contenders, m);
    printf("\n");
    gpu_wait(gpu);
    for (int i = 0; i < sweep->num_contenders; i++)
        chain_free(&chains[i]);
    free(chains);
    gpu_free(gpu, in);
    gpu_free(gpu, out);
}
