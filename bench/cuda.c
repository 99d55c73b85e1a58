/* The CUDA backend on one GPU, through the public header: Markdown tables on stdout, under a header that
 * names the machine. Weights are cold: they rotate over copies five times as large as the largest L2 cache.
 * Everything that a figure is compared with is measured in the same run. */
#include "cuda_bench.h"

#include <argp.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ---- */

static const struct {
    const char *name;
    void (*run)(struct bench *bench);
    const char *shapes, *m; /* defaults */
    const char *quick_shapes, *quick_m;
} modes[] = {
    {"linear", bench_linear, "all", "1,2,4,8,16,32,64,128,512", "quick", "1"},
    {"prefill", bench_prefill, "28672x4096,8192x8192,57344x8192", "512,1024,2048,4096", "57344x8192", "4096"},
    {"dequantize", bench_dequantize, "57344x8192", "1", "57344x8192", "1"},
    {"load", bench_load, "quick", "1", "quick", "1"},
    {"host", bench_host, "quick", "1,512", "quick", "1"},
};

enum { NUM_MODES = sizeof modes / sizeof *modes };

static const char quick_shapes[] = "28672x4096,57344x8192";
static const char all_shapes[] = "4096x4096,6144x4096,4096x14336,14336x4096,28672x4096,8192x8192,10240x8192,"
                                 "8192x28672,57344x8192";

enum {
    KEY_SHAPES = 's',
    KEY_M = 'm',
    KEY_FORMATS = 'f',
    KEY_TYPE = 't',
    KEY_QUICK = 'q',
    KEY_COMMIT = 'c',
    KEY_DEVICE = 'd',
    KEY_EXPLAIN = 'e',
    KEY_THREADS = 'j',
    KEY_DISABLE = 0x100,
    KEY_BYTES
};

static const struct argp_option options[] = {
    {"shapes", KEY_SHAPES, "LIST", 0, "quick, all, or NxK,NxK (load and host have shapes of their own)", 0},
    {"m", KEY_M, "LIST", 0, "rows of activations", 0},
    {"formats", KEY_FORMATS, "LIST", 0,
     "default q4_k,q6_k,int4,f16; also int4_g32, int4_g64, int4_channel, int4_asym, int4_act_order", 0},
    {"type", KEY_TYPE, "TYPE", 0, "of activations and results: f16 (default), bf16 or f32", 0},
    {"quick", KEY_QUICK, NULL, 0, "the key figures, in less than a minute", 0},
    {"commit", KEY_COMMIT, "TEXT", 0, "what was built, for the header", 0},
    {"device", KEY_DEVICE, "I", 0, "index of the GPU (default 0)", 0},
    {"disable", KEY_DISABLE, "LIST", 0, "features to do without: sm90, cublas", 0},
    {"explain", KEY_EXPLAIN, NULL, 0, "fmk_explain of each line, on stderr", 0},
    {"threads", KEY_THREADS, "T", 0,
     "load: of the context (default: all cores, and unless --quick 1, 2, 4 and 8)", 0},
    {"load-bytes", KEY_BYTES, "B", 0, "load: of all matrices together, about (default 2000000000)", 0},
    {0},
};

static void add_shape(void *user, char *word) {
    enum { MAX_SIDE = 1 << 20 };
    struct options *o = user;
    if (!strcmp(word, "quick") || !strcmp(word, "all")) {
        parse_list("--shapes", *word == 'q' ? quick_shapes : all_shapes, add_shape, o);
        return;
    }
    char *x = strchr(word, 'x');
    if (!x)
        quit(EXIT_USAGE, "--shapes \"%s\" is not quick, all, or NxK", word);
    if (o->num_shapes == MAX_LIST)
        quit(EXIT_USAGE, "--shapes has more than %d items", MAX_LIST);
    *x = 0;
    o->shapes[o->num_shapes].n = parse_number("--shapes N", word, 256, MAX_SIDE);
    o->shapes[o->num_shapes++].k = parse_number("--shapes K", x + 1, 256, MAX_SIDE);
}

static void add_m(void *user, char *word) {
    enum { MAX_M = 65536 };
    struct options *o = user;
    if (o->num_m == MAX_LIST)
        quit(EXIT_USAGE, "--m has more than %d items", MAX_LIST);
    o->m[o->num_m++] = parse_number("--m", word, 1, MAX_M);
}

static void add_format(void *user, char *word) {
    struct options *o = user;
    if (!source_knows(word))
        quit(EXIT_USAGE, "--formats \"%s\" is none of %s", word, source_names);
    if (o->num_formats == MAX_LIST)
        quit(EXIT_USAGE, "--formats has more than %d items", MAX_LIST);
    o->formats[o->num_formats++] = text_of("%s", word);
}

static fmk_dtype type_of(const char *word) {
    static const struct {
        const char *name;
        fmk_dtype type;
    } types[] = {{"f16", FMK_F16}, {"bf16", FMK_BF16}, {"f32", FMK_F32}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, word))
            return types[i].type;
    quit(EXIT_USAGE, "--type \"%s\" is none of f16, bf16, f32", word);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *o = state->input;
    switch (key) {
    case KEY_SHAPES:
        parse_list("--shapes", arg, add_shape, o);
        return 0;
    case KEY_M:
        parse_list("--m", arg, add_m, o);
        return 0;
    case KEY_FORMATS:
        parse_list("--formats", arg, add_format, o);
        return 0;
    case KEY_TYPE:
        o->type = type_of(arg);
        return 0;
    case KEY_QUICK:
        o->quick = true;
        return 0;
    case KEY_COMMIT:
        o->commit = arg;
        return 0;
    case KEY_DEVICE:
        o->device = (int)parse_number("--device", arg, 0, 1023);
        return 0;
    case KEY_DISABLE:
        o->disable = arg;
        return 0;
    case KEY_EXPLAIN:
        o->explain = true;
        return 0;
    case KEY_THREADS:
        o->threads = (int)parse_number("--threads", arg, 1, 1024);
        return 0;
    case KEY_BYTES:
        o->load_bytes = parse_number("--load-bytes", arg, 1, INT64_C(1) << 38);
        return 0;
    case ARGP_KEY_ARG:
        if (o->mode)
            argp_error(state, "one mode at a time");
        o->mode = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static size_t mode_of(struct options *o) {
    size_t mode = 0;
    while (mode < NUM_MODES && strcmp(modes[mode].name, o->mode))
        mode++;
    if (mode == NUM_MODES)
        quit(EXIT_USAGE, "mode \"%s\" is none of linear, prefill, dequantize, load, host", o->mode);
    if (!o->num_shapes)
        parse_list("--shapes", o->quick ? modes[mode].quick_shapes : modes[mode].shapes, add_shape, o);
    if (!o->num_m)
        parse_list("--m", o->quick ? modes[mode].quick_m : modes[mode].m, add_m, o);
    if (!o->num_formats)
        parse_list("--formats", "q4_k,q6_k,int4,f16", add_format, o);
    return mode;
}

/* ---- the program ---- */

int main(int argc, char **argv) {
    static const struct argp argp = {options,
                                     parse,
                                     "linear|prefill|dequantize|load|host",
                                     "Measures the CUDA backend on one GPU and prints a Markdown table.\v"
                                     "linear: fmk_linear beside a kernel that only reads, and cuBLAS on f16. "
                                     "prefill: many tokens, beside cuBLAS "
                                     "and a dequantizing pass. dequantize: weights to f16. load: host memory "
                                     "to packed weights. host: what a call "
                                     "costs the calling thread.",
                                     NULL,
                                     NULL,
                                     NULL};
    struct options o = {.commit = "unknown", .type = FMK_F16, .load_bytes = 2000000000};
    set_program("bench_cuda");
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (!o.mode)
        o.mode = "linear";
    size_t mode = mode_of(&o);

    struct bench bench = {.options = &o};
    bench_open(&bench, o.device, o.disable);
    bench_print_header(&bench, o.mode, o.commit, argc, argv);
    floors_print(&bench.floors);
    modes[mode].run(&bench);
    bench_close(&bench);
    return 0;
}
