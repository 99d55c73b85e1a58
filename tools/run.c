/* ferrumk run: out = in . W^T for one matrix of a checkpoint, activations and result as raw floats. */
#include "device.h"
#include "output.h"
#include "tool.h"
#include "verbs.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files of floats are little-endian");

struct arguments {
    const char *path, *tensor, *input, *output;
    int64_t m, expert;
    bool exact;
    struct device_options device;
};

enum { KEY_TENSOR = 256, KEY_EXPERT, KEY_INPUT, KEY_M, KEY_OUTPUT, KEY_EXACT };
static const struct argp_option options[] = {
    {"tensor", KEY_TENSOR, "NAME", 0, "the matrix, with or without .weight, .qweight or .B", 1},
    {"expert", KEY_EXPERT, "E", 0, "which of stacked experts (default 0)", 1},
    {"input", KEY_INPUT, "IN", 0, "activations: raw little-endian float32 [M][K]", 1},
    {"m", KEY_M, "M", 0, "rows of activations", 1},
    {"output", KEY_OUTPUT, "OUT", 0, "result: raw little-endian float32 [M][N], written whole or not at all",
     1},
    {"exact", KEY_EXACT, NULL, 0, "round no activation below float", 2},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->device;
        return 0;
    case KEY_TENSOR:
        a->tensor = arg;
        return 0;
    case KEY_EXPERT:
        a->expert = parse_number("--expert", arg, 0, INT32_MAX);
        return 0;
    case KEY_INPUT:
        a->input = arg;
        return 0;
    case KEY_M:
        a->m = parse_number("--m", arg, 1, INT64_C(1) << 40);
        return 0;
    case KEY_OUTPUT:
        a->output = arg;
        return 0;
    case KEY_EXACT:
        a->exact = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->path)
            quit(EXIT_USAGE, "one PATH is enough, \"%s\" is another", arg);
        a->path = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static float *read_rows(const char *path, int64_t m, int64_t k) {
    uint64_t want;
    if (__builtin_mul_overflow((uint64_t)m * sizeof(float), (uint64_t)k, &want) || want > SIZE_MAX)
        quit(EXIT_USAGE, "--m %" PRId64 " rows of k %" PRId64 " floats do not fit in memory", m, k);
    FILE *file = fopen(path, "rb");
    if (!file || fseeko(file, 0, SEEK_END))
        quit(EXIT_USAGE, "--input %s: %s", path, strerror(errno));
    uint64_t have = (uint64_t)ftello(file);
    if (have != want)
        quit(EXIT_USAGE,
             "--input %s has %" PRIu64 " bytes; m %" PRId64 " rows of k %" PRId64 " floats take %" PRIu64,
             path, have, m, k, want);
    float *rows = allocate_aligned(want);
    rewind(file);
    if (fread(rows, 1, want, file) != want)
        quit(EXIT_USAGE, "--input %s: %s", path, ferror(file) ? strerror(errno) : "it ends early");
    fclose(file);
    return rows;
}

int verb_run(int argc, char **argv) {
    static const struct argp_child children[] = {{&device_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "PATH",
        "Multiplies the activations of a file by one matrix of the checkpoint PATH. The bias that belongs to "
        "the matrix is added.",
        children,
        NULL,
        NULL};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    const char *missing = !a.path     ? "PATH"
                          : !a.tensor ? "--tensor"
                          : !a.input  ? "--input"
                          : !a.m      ? "--m"
                          : !a.output ? "--output"
                                      : NULL;
    if (missing)
        quit(EXIT_USAGE, "%s is missing; \"ferrumk run --help\" explains it", missing);

    struct device device;
    fmk_checkpoint *checkpoint = open_checkpoint(a.path);
    device_open(&device, &a.device);
    fmk_weight *weight = load_matrix(&device, checkpoint, a.tensor);
    fmk_weight_info_t info = {.struct_size = sizeof info};
    check(fmk_weight_info(weight, &info), NULL);
    if (a.expert >= (info.num_experts ? info.num_experts : 1))
        quit(EXIT_USAGE, "--expert %" PRId64 ": %s has %d experts", a.expert, a.tensor, info.num_experts);

    float *in = read_rows(a.input, a.m, info.k);
    uint64_t out_size;
    if (__builtin_mul_overflow((uint64_t)a.m * sizeof(float), (uint64_t)info.n, &out_size))
        quit(EXIT_USAGE, "--m %" PRId64 " rows of n %" PRId64 " floats do not fit in memory", a.m, info.n);
    float *out = allocate_aligned(out_size);
    uint64_t in_size = (uint64_t)(a.m * info.k) * sizeof *in;
    uint64_t rows = device_allocate(&device, in_size), result = device_allocate(&device, out_size);
    device_write(&device, rows, in, in_size);
    struct projection projection;
    projection_set(&projection, &device, weight, a.m, a.exact ? FMK_LINEAR_EXACT : 0, (int32_t)a.expert, rows,
                   result);
    projection_run(&projection);
    device_read(&device, out, result, out_size);
    device_free(&device, rows);
    device_free(&device, result);

    struct output file;
    output_begin(&file, a.output);
    output_write(&file, out, out_size);
    output_commit(&file);
    free(in);
    free(out);
    fmk_weight_destroy(weight, device.queue);
    device_close(&device);
    fmk_checkpoint_close(checkpoint);
    return 0;
}
