/* The demo: opens checkpoints as any engine would, through fmk_model, runs every projection of every layer
 * for decode (one row) and prefill (64 rows) on every backend found, and checks each against the reference. A
 * processor that plays a Vulkan device is left out.
 *
 *     demo PATH...
 *
 * One pass runs all projections in the model's order, so that a projection finds its weights as cold as
 * decoding does: the others have gone through the cache since. Times are medians over the passes. */
#include "device.h"
#include "measure.h"
#include "random.h"
#include "tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PREFILL = 64, MAX_PASSES = 200, LEAST_PASSES = 3, CHECKED_ROWS = 2 };
static const double SECONDS_EACH = 2; /* for decode, and for prefill */

/* The whole model that the files' layers are taken from: Llama 3.1 8B. */
enum { ALL_LAYERS = 32, ALL_VOCAB = 128256 };

struct line {
    const char *label;
    int32_t layer; /* -1 = the head */
    fmk_weight *weight;
    fmk_weight_info_t info;
    fmk_act act;
    struct projection decode, prefill;
    uint64_t in, out; /* [PREFILL][k], [PREFILL][n], of the device */
    double *decode_samples, *prefill_samples;
    struct timing decode_time, prefill_time;
    double error;
    char *formats, *kernels;
};

static const struct {
    const char *label;
    fmk_role role;
    fmk_act act;
} roles[] = {
    {"qkv", FMK_ROLE_QKV, FMK_ACT_NONE},
    {"o", FMK_ROLE_O, FMK_ACT_NONE},
    {"gate_up", FMK_ROLE_GATE_UP, FMK_ACT_SILU_MUL},
    {"down", FMK_ROLE_DOWN, FMK_ACT_NONE},
};
enum { NUM_ROLES = sizeof roles / sizeof *roles };

static void line_open(struct line *line, struct device *device, fmk_model *model, int32_t layer,
                      const char *label, fmk_role role, fmk_act act) {
    *line = (struct line){.label = label, .layer = layer, .act = act, .info.struct_size = sizeof line->info};
    check(fmk_model_weight(model, layer < 0 ? 0 : layer, role, &line->weight), label);
    check(fmk_weight_info(line->weight, &line->info), label);
    uint64_t in_size = (uint64_t)(PREFILL * line->info.k) * sizeof(float);
    line->in = device_allocate(device, in_size);
    line->out = device_allocate(device, (uint64_t)(PREFILL * line->info.n) * sizeof(float));
    line->decode_samples = allocate(MAX_PASSES, sizeof *line->decode_samples);
    line->prefill_samples = allocate(MAX_PASSES, sizeof *line->prefill_samples);
    float *in = allocate_aligned(in_size);
    random_normal(in, PREFILL * line->info.k, (uint64_t)(role + 100 * layer));
    device_write(device, line->in, in, in_size);
    free(in);
    projection_set(&line->decode, device, line->weight, 1, 0, 0, line->in, line->out);
    projection_set(&line->prefill, device, line->weight, PREFILL, 0, 0, line->in, line->out);
    line->formats = projection_formats(&line->decode);
    line->kernels = projection_kernels(&line->decode);
}

static void line_close(struct line *line, struct device *device) {
    device_free(device, line->in);
    device_free(device, line->out);
    free(line->decode_samples);
    free(line->prefill_samples);
    free(line->formats);
    free(line->kernels);
}

/* ---- time ---- */

static double *samples_of(const struct line *line, bool prefill) {
    return prefill ? line->prefill_samples : line->decode_samples;
}

static void run_pass(struct device *device, struct line *lines, int count, bool prefill, int pass) {
    enum { AT_ONCE = DRIVER_MARKS - 1 };
    for (int begin = 0; begin < count; begin += AT_ONCE) {
        int some = count - begin < AT_ONCE ? count - begin : AT_ONCE;
        struct line *line = &lines[begin];
        device_mark(device, 0);
        for (int i = 0; i < some; i++) {
            projection_run(prefill ? &line[i].prefill : &line[i].decode);
            device_mark(device, i + 1);
        }
        device_wait(device);
        for (int i = 0; i < some; i++)
            samples_of(&line[i], prefill)[pass] = device_seconds(device, i, i + 1);
    }
}

static void run_passes(struct device *device, struct line *lines, int count, bool prefill) {
    double begun = seconds();
    int passes = 0;
    while (passes < MAX_PASSES && (passes < LEAST_PASSES || seconds() - begun < SECONDS_EACH))
        run_pass(device, lines, count, prefill, passes++);
    for (int i = 0; i < count; i++) {
        if (prefill)
            lines[i].prefill_time = timing_of(lines[i].prefill_samples, passes);
        else
            lines[i].decode_time = timing_of(lines[i].decode_samples, passes);
    }
}

/* ---- error ---- */

static double relative_error(const float *got, const float *want, int64_t count) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)got[i] - want[i];
        difference += d * d;
        norm += (double)want[i] * want[i];
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}

/* The worst of: decode's row, prefill's first and last row, all columns each. Before the activation, which
 * is put on only for the timing: what it makes of an error is its own. */
static void check_line(struct line *line, struct device *device) {
    static const int32_t rows[CHECKED_ROWS] = {0, PREFILL - 1};
    int64_t n = line->info.n;
    uint64_t row_size = (uint64_t)n * sizeof(float);
    float *want = allocate_aligned(CHECKED_ROWS * row_size), *got = allocate_aligned(row_size);
    uint64_t device_want = device_allocate(device, CHECKED_ROWS * row_size);
    uint64_t device_rows = device_allocate(device, sizeof rows);
    device_write(device, device_rows, rows, sizeof rows);
    struct projection reference;
    projection_set(&reference, device, line->weight, CHECKED_ROWS, FMK_LINEAR_REFERENCE, 0, line->in,
                   device_want);
    reference.args.in_rows = device_buffer(device, device_rows);
    projection_prepare(&reference);
    projection_run(&reference);
    device_read(device, want, device_want, CHECKED_ROWS * row_size);
    projection_run(&line->decode);
    device_read(device, got, line->out, row_size);
    line->error = relative_error(got, want, n);
    projection_run(&line->prefill);
    for (int i = 0; i < CHECKED_ROWS; i++) {
        device_read(device, got, line->out + (uint64_t)rows[i] * row_size, row_size);
        double error = relative_error(got, want + i * n, n);
        line->error = error > line->error ? error : line->error;
    }
    free(want);
    free(got);
    device_free(device, device_want);
    device_free(device, device_rows);
    line->decode.args.act = line->prefill.args.act = line->act;
    projection_prepare(&line->decode);
    projection_prepare(&line->prefill);
}

/* ---- the table ---- */

static void print_line(const struct line *line) {
    char label[32], shape[32];
    if (line->layer < 0)
        snprintf(label, sizeof label, "  %s", line->label);
    else
        snprintf(label, sizeof label, "%d %s", line->layer, line->label);
    snprintf(shape, sizeof shape, "%" PRId64 " x %" PRId64, line->info.n, line->info.k);
    double decode = line->decode_time.median, prefill = line->prefill_time.median;
    double flop = 2.0 * PREFILL * (double)line->info.n * (double)line->info.k;
    char *kernels = text_of("%s", line->kernels), *rest = kernels;
    const char *first = strsep(&rest, "+");
    printf("%-9s %13s  %-11s %-22s %8.0f %6.2f  %8.0f %7.1f   %7.1e\n", label, shape, line->formats, first,
           1e6 * decode, 1e-9 * (double)line->info.bytes / decode, 1e6 * prefill, 1e-9 * flop / prefill,
           line->error);
    while (rest)
        printf("%38s%s\n", "+", strsep(&rest, "+"));
    free(kernels);
}

/* Projections alone, of the whole model: layers and head are scaled from those that were timed. */
static void print_speed(const struct line *lines, int count, int layers, int64_t vocab) {
    double decode = 0, prefill = 0, head = 0;
    for (int i = 0; i < count; i++) {
        if (lines[i].layer < 0) {
            head = lines[i].decode_time.median * ALL_VOCAB / (double)vocab;
            continue;
        }
        decode += lines[i].decode_time.median * ALL_LAYERS / layers;
        prefill += lines[i].prefill_time.median * ALL_LAYERS / layers;
    }
    printf("\nAll %d layers and a head of %d words would take %.1f ms a token in decode: %.1f tokens/s,\n"
           "and %.0f ms for %d tokens of prefill with one row of the head: %.1f tokens/s.\n",
           ALL_LAYERS, ALL_VOCAB, 1e3 * (decode + head), 1 / (decode + head), 1e3 * (prefill + head), PREFILL,
           PREFILL / (prefill + head));
    printf("(The %d layers' times x %d, and the head's x %.2f; projections only.)\n", layers,
           ALL_LAYERS / layers, ALL_VOCAB / (double)vocab);
}

static bool run_model(struct device *device, const char *path) {
    fmk_checkpoint *checkpoint = open_checkpoint(path);
    fmk_checkpoint_info_t file = {.struct_size = sizeof file};
    fmk_model_info_t info = {.struct_size = sizeof info};
    fmk_model *model;
    check(fmk_checkpoint_info(checkpoint, &file), NULL);
    double begun = seconds();
    check(fmk_model_load(&model, device->queue, checkpoint, NULL), path);
    device_wait(device);
    double loaded = seconds() - begun;
    check(fmk_model_info(model, &info), path);
    printf("\n%s\n  %s, %s of %s, loaded in %.2f s\n", path, info.architecture,
           *file.quantization ? file.quantization : "not quantized", human_bytes(file.bytes).text, loaded);

    int count = info.num_layers * NUM_ROLES + 1;
    struct line *lines = allocate((size_t)count, sizeof *lines);
    for (int32_t layer = 0; layer < info.num_layers; layer++)
        for (int r = 0; r < NUM_ROLES; r++)
            line_open(&lines[layer * NUM_ROLES + r], device, model, layer, roles[r].label, roles[r].role,
                      roles[r].act);
    line_open(&lines[count - 1], device, model, -1, "lm_head", FMK_ROLE_LM_HEAD, FMK_ACT_NONE);

    bool good = true;
    for (int i = 0; i < count; i++) {
        check_line(&lines[i], device);
        good &= lines[i].error <= 6e-3;
    }
    run_passes(device, lines, count, false);
    run_passes(device, lines, count, true);

    printf("\n%-9s %13s  %-11s %-22s %15s  %16s\n", "", "", "", "", "decode, M = 1", "prefill, M = 64");
    printf("%-9s %13s  %-11s %-22s %8s %6s  %8s %7s   %7s\n", "layer", "N x K", "format", "kernel", "us",
           "GB/s", "us", "GFLOP/s", "error");
    for (int i = 0; i < count; i++)
        print_line(&lines[i]);
    print_speed(lines, count, info.num_layers, info.vocab);
    if (!good)
        printf("An error is above 6e-3.\n");
    for (int i = 0; i < count; i++)
        line_close(&lines[i], device);
    free(lines);
    fmk_model_destroy(model);
    fmk_checkpoint_close(checkpoint);
    return good;
}

/* What FMK_BACKEND_AUTO finds: a GPU, where there is one. */
static int32_t automatic_backend(void) {
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_AUTO};
    fmk_context_info_t info = {.struct_size = sizeof info};
    fmk_context *context;
    check(fmk_context_create(&context, &desc), NULL);
    check(fmk_context_info(context, &info), NULL);
    fmk_context_destroy(context);
    return info.backend;
}

int main(int argc, char **argv) {
    static const char *const backends[] = {"cpu", "cuda", "vulkan"};
    set_program("demo");
    if (argc < 2)
        quit(EXIT_USAGE, "the arguments are the checkpoints to run, PATH...");
    bool good = true;
    for (size_t b = 0; b < sizeof backends / sizeof *backends; b++) {
        fmk_context_desc desc = {.struct_size = sizeof desc, .backend = backend_of_name(backends[b])};
        fmk_context *probe;
        if (fmk_context_create(&probe, &desc)) {
            printf("\n== %s: not found: %s\n", backends[b], fmk_last_error());
            continue;
        }
        fmk_context_destroy(probe);
        if (desc.backend == FMK_BACKEND_VULKAN && automatic_backend() == FMK_BACKEND_CPU) {
            printf("\n== vulkan: left out: its only devices are processors\n");
            continue;
        }
        struct device device;
        device_open(&device, &(struct device_options){.backend = backends[b]});
        printf("\n== %s: %s; %s; %d thread%s\n", backends[b], device.info.name, device.info.features,
               device.info.threads, device.info.threads == 1 ? "" : "s");
        for (int i = 1; i < argc; i++)
            good &= run_model(&device, argv[i]);
        device_close(&device);
    }
    puts("\nerror: relative L2 distance from sums in double, over all columns of decode's row and of "
         "prefill's "
         "first\nand last, before the activation; the bound is 6e-3. GB/s counts the packed weight. gate_up "
         "is "
         "timed with\nsilu(gate) * up fused.");
    return good ? 0 : EXIT_REFUSED;
}
