/* ferrumk bench: microseconds, GB/s and GFLOP/s of shapes and formats. Weights are cold: each call takes the
 * next of enough copies to fill the last-level cache three times. */
#include "measure.h"
#include "random.h"
#include "synthetic.h"
#include "tool.h"
#include "verbs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHAPES = 32, MAX_FORMATS = 8, MAX_M = 16 };

struct shape {
    char name[24];
    int64_t n, k;
};

struct arguments {
    struct shape shapes[MAX_SHAPES];
    const char *formats[MAX_FORMATS];
    int64_t m[MAX_M];
    int num_shapes, num_formats, num_m;
    int32_t group_size, copies;
    double enough;
    bool exact, csv, json;
    const char *type;
    struct device_options device;
};

/* Projections of one layer, with q, k, v and gate, up merged, and the head. */
static const struct {
    const char *name;
    int64_t hidden, intermediate, heads, kv_heads, head_dim, vocab;
} models[] = {
    {"llama-3.2-1b", 2048, 8192, 32, 8, 64, 128256},    {"llama-3.1-8b", 4096, 14336, 32, 8, 128, 128256},
    {"llama-3.1-70b", 8192, 28672, 64, 8, 128, 128256}, {"qwen3-0.6b", 1024, 3072, 16, 8, 128, 151936},
    {"qwen3-8b", 4096, 12288, 32, 8, 128, 151936},      {"qwen3-32b", 5120, 25600, 64, 8, 128, 151936},
};

enum {
    KEY_MODEL = 256,
    KEY_FORMATS,
    KEY_M,
    KEY_GROUP,
    KEY_COPIES,
    KEY_SECONDS,
    KEY_TYPE,
    KEY_EXACT,
    KEY_CSV,
    KEY_JSON
};
static const struct argp_option options[] = {
    {"model", KEY_MODEL, "NAME", 0,
     "the shapes of llama-3.2-1b, llama-3.1-8b, llama-3.1-70b, qwen3-0.6b, qwen3-8b or qwen3-32b", 1},
    {"formats", KEY_FORMATS, "LIST", 0,
     "of f32, f16, bf16, q4_k, q6_k, gptq, gptq_asym (default q4_k,q6_k,gptq)", 1},
    {"group-size", KEY_GROUP, "G", 0, "of gptq (default 128; -1 = all of K)", 1},
    {"m", KEY_M, "LIST", 0, "rows of activations (default 1,64)", 1},
    {"copies", KEY_COPIES, "C", 0, "of each weight, 1 = warm (default: three times the last-level cache)", 1},
    {"seconds", KEY_SECONDS, "S", 0, "to measure each line for, at least (default 0.3)", 1},
    {"type", KEY_TYPE, "T", 0, "of activations and results: f32, f16 or bf16 (default f32; on a GPU f16)", 1},
    {"exact", KEY_EXACT, NULL, 0, "round no activation below float", 2},
    {"csv", KEY_CSV, NULL, 0, "comma-separated values, first line their names", 2},
    {"json", KEY_JSON, NULL, 0, "one JSON object", 2},
    {0},
};

static void add_shape(struct arguments *a, const char *name, int64_t n, int64_t k) {
    if (a->num_shapes == MAX_SHAPES)
        quit(EXIT_USAGE, "there are more than %d shapes", MAX_SHAPES);
    struct shape *shape = &a->shapes[a->num_shapes++];
    snprintf(shape->name, sizeof shape->name, "%s", name);
    shape->n = n;
    shape->k = k;
}

static void add_model(struct arguments *a, const char *name) {
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strcmp(models[i].name, name))
            continue;
        int64_t hidden = models[i].hidden, q = models[i].heads * models[i].head_dim;
        add_shape(a, "qkv", q + 2 * models[i].kv_heads * models[i].head_dim, hidden);
        add_shape(a, "o", hidden, q);
        add_shape(a, "gate_up", 2 * models[i].intermediate, hidden);
        add_shape(a, "down", hidden, models[i].intermediate);
        add_shape(a, "lm_head", models[i].vocab, hidden);
        return;
    }
    quit(EXIT_USAGE, "--model \"%s\" is not known; \"ferrumk bench --help\" lists those that are", name);
}

static void parse_shape(struct arguments *a, char *text) {
    enum { MAX_SIDE = 1 << 24 };
    char *x = strchr(text, 'x');
    if (!x)
        quit(EXIT_USAGE, "the shape \"%s\" is not NxK, such as 4096x14336", text);
    *x = 0;
    int64_t n = parse_number("N", text, 1, MAX_SIDE), k = parse_number("K", x + 1, 1, MAX_SIDE);
    *x = 'x';
    add_shape(a, text, n, k);
}

static void add_m(void *user, char *word) {
    struct arguments *a = user;
    if (a->num_m == MAX_M)
        quit(EXIT_USAGE, "--m takes %d numbers at most", MAX_M);
    a->m[a->num_m++] = parse_number("--m", word, 1, 1 << 20);
}

static void add_format(void *user, char *word) {
    struct arguments *a = user;
    if (!synthetic_knows(word))
        quit(EXIT_USAGE, "--formats \"%s\" is none of %s", word, synthetic_formats);
    if (a->num_formats == MAX_FORMATS)
        quit(EXIT_USAGE, "--formats takes %d names at most", MAX_FORMATS);
    a->formats[a->num_formats++] = text_of("%s", word);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    char *end;
    switch (key) {
    case ARGP_KEY_INIT:
        *a = (struct arguments){.group_size = 128, .enough = 0.3};
        state->child_inputs[0] = &a->device;
        return 0;
    case KEY_MODEL:
        add_model(a, arg);
        return 0;
    case KEY_FORMATS:
        parse_list("--formats", arg, add_format, a);
        return 0;
    case KEY_GROUP:
        a->group_size = (int32_t)parse_number("--group-size", arg, -1, INT32_MAX);
        return 0;
    case KEY_M:
        parse_list("--m", arg, add_m, a);
        return 0;
    case KEY_COPIES:
        a->copies = (int32_t)parse_number("--copies", arg, 1, 1 << 20);
        return 0;
    case KEY_SECONDS:
        a->enough = strtod(arg, &end);
        if (end == arg || *end || !(a->enough >= 0 && a->enough <= 3600))
            quit(EXIT_USAGE, "--seconds \"%s\" is not a number in 0..3600", arg);
        return 0;
    case KEY_TYPE:
        type_of_name(arg);
        a->type = arg;
        return 0;
    case KEY_EXACT:
        a->exact = true;
        return 0;
    case KEY_CSV:
        a->csv = true;
        return 0;
    case KEY_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        parse_shape(a, arg);
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

/* Copies of one weight, and a projection on each. */
struct rotation {
    fmk_weight **weights;
    struct projection *projections;
    int count;
    uint64_t bytes; /* that one call reads */
};

/* copies 0: as many as fill the cache. */
static void rotation_make(struct rotation *r, struct device *device, const fmk_part *part, int32_t copies) {
    enum { TIMES_CACHE = 3, UNKNOWN_CACHE = 32 << 20 };
    uint64_t cache = device->info.last_level_cache ? device->info.last_level_cache : UNKNOWN_CACHE;
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = part, .num_parts = 1};
    fmk_weight *first;
    fmk_weight_info_t info = {.struct_size = sizeof info};
    check(fmk_weight_create(&first, device->queue, &desc), NULL);
    check(fmk_weight_ready(first, 1), NULL);
    check(fmk_weight_info(first, &info), NULL);
    r->bytes = info.bytes;
    r->count = copies ? copies : (int)((TIMES_CACHE * cache + info.bytes - 1) / info.bytes);
    r->weights = allocate((size_t)r->count, sizeof *r->weights);
    r->projections = allocate((size_t)r->count, sizeof *r->projections);
    r->weights[0] = first;
    for (int i = 1; i < r->count; i++) {
        check(fmk_weight_create(&r->weights[i], device->queue, &desc), NULL);
        check(fmk_weight_ready(r->weights[i], 1), NULL);
    }
}

static void rotation_free(struct rotation *r, struct device *device) {
    for (int i = 0; i < r->count; i++)
        fmk_weight_destroy(r->weights[i], device->queue);
    free(r->weights);
    free(r->projections);
}

static void call(void *user, int i) {
    struct rotation *r = user;
    projection_run(&r->projections[i % r->count]);
}

/* One line of the result. */
struct line {
    const struct shape *shape;
    const char *format, *kernel;
    int64_t m;
    int copies;
    struct timing timing;
    double gb_per_s, gflop_per_s;
};

static void print_line(const struct arguments *a, const struct line *l, json_t *list) {
    const struct timing *t = &l->timing;
    if (a->json) {
        json_t *object = json_object();
        json_put(object, "name", json_string(l->shape->name));
        json_put(object, "n", json_integer(l->shape->n));
        json_put(object, "k", json_integer(l->shape->k));
        json_put(object, "format", json_string(l->format));
        json_put(object, "m", json_integer(l->m));
        json_put(object, "kernel", json_string(l->kernel));
        json_put(object, "copies", json_integer(l->copies));
        json_put(object, "calls", json_integer(t->calls));
        json_put(object, "us_median", json_real(1e6 * t->median));
        json_put(object, "us_p10", json_real(1e6 * t->low));
        json_put(object, "us_p90", json_real(1e6 * t->high));
        json_put(object, "gb_per_s", json_real(l->gb_per_s));
        json_put(object, "gflop_per_s", json_real(l->gflop_per_s));
        json_array_append_new(list, object);
    } else if (a->csv) {
        printf("%s,%" PRId64 ",%" PRId64 ",%s,%" PRId64 ",%s,%d,%d,%.2f,%.2f,%.2f,%.3f,%.3f\n",
               l->shape->name, l->shape->n, l->shape->k, l->format, l->m, l->kernel, l->copies, t->calls,
               1e6 * t->median, 1e6 * t->low, 1e6 * t->high, l->gb_per_s, l->gflop_per_s);
    } else {
        printf("%-13s %6" PRId64 " x %5" PRId64 " %-9s %4" PRId64 "  %-22s %9.1f %9.1f %9.1f %6.2f %8.1f\n",
               l->shape->name, l->shape->n, l->shape->k, l->format, l->m, l->kernel, 1e6 * t->median,
               1e6 * t->low, 1e6 * t->high, l->gb_per_s, l->gflop_per_s);
    }
    fflush(stdout);
}

/* Activations [m][k] of N(0,1), in the device's memory. */
static uint64_t random_rows(struct device *device, struct device *cpu, fmk_dtype type, int64_t m, int64_t k) {
    uint64_t size = (uint64_t)(m * k) * dtype_size(type);
    float *values = allocate_aligned((uint64_t)(m * k) * sizeof *values);
    void *rows = allocate_aligned(size);
    random_normal(values, m * k, 1);
    convert(cpu, values, FMK_F32, rows, type, m, k);
    uint64_t memory = device_allocate(device, size);
    device_write(device, memory, rows, size);
    free(values);
    free(rows);
    return memory;
}

static void bench(const struct arguments *a, struct device *device, struct device *cpu,
                  const struct shape *shape, const char *format, json_t *list) {
    struct synthetic source;
    struct rotation rotation;
    fmk_dtype type = type_of_name(a->type);
    synthetic_make(&source, cpu, format, shape->n, shape->k, a->group_size);
    rotation_make(&rotation, device, &source.part, a->copies);
    synthetic_free(&source);
    for (int i = 0; i < a->num_m; i++) {
        int64_t m = a->m[i];
        uint64_t in = random_rows(device, cpu, type, m, shape->k);
        uint64_t out = device_allocate(device, (uint64_t)(m * shape->n) * dtype_size(type));
        for (int c = 0; c < rotation.count; c++) {
            struct projection *projection = &rotation.projections[c];
            projection_set(projection, device, rotation.weights[c], m, a->exact ? FMK_LINEAR_EXACT : 0, 0, in,
                           out);
            projection_set_type(projection, type);
        }
        char *kernel = projection_kernels(&rotation.projections[0]);
        struct line line = {
            .shape = shape, .format = format, .kernel = kernel, .m = m, .copies = rotation.count};
        line.timing = measure(device, call, &rotation, 2, a->enough);
        double flop = 2.0 * (double)m * (double)shape->n * (double)shape->k;
        line.gb_per_s = 1e-9 * (double)rotation.bytes / line.timing.median;
        line.gflop_per_s = 1e-9 * flop / line.timing.median;
        print_line(a, &line, list);
        free(kernel);
        device_free(device, in);
        device_free(device, out);
    }
    rotation_free(&rotation, device);
}

int verb_bench(int argc, char **argv) {
    static const struct argp_child children[] = {{&device_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "[NxK...]",
        "Times projections over random weights that no call finds in the cache.\v"
        "Without shapes or --model: llama-3.1-8b. us is the median; a tenth of the calls took less than p10, "
        "a "
        "tenth more than p90. GB/s counts the bytes of the packed weight alone.",
        children,
        NULL,
        NULL};
    struct arguments a;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (!a.num_shapes)
        add_model(&a, "llama-3.1-8b");
    if (!a.num_formats)
        parse_list("--formats", "q4_k,q6_k,gptq", add_format, &a);
    if (!a.num_m)
        parse_list("--m", "1,64", add_m, &a);

    struct device device, cpu; /* which makes the weights */
    device_open(&device, &a.device);
    device_open_cpu(&cpu, &a.device);
    if (!a.type)
        a.type = device.gpu ? "f16" : "f32";
    json_t *list = json_array();
    if (a.csv)
        printf("name,n,k,format,m,kernel,copies,calls,us_median,us_p10,us_p90,gb_per_s,gflop_per_s\n");
    else if (!a.json)
        printf("%s; %s; %d threads; %s, %s; %s\n\n%-13s %6s   %5s %-9s %4s  %-22s %9s %9s %9s %6s %8s\n",
               device.info.name, device.info.features, device.info.threads,
               a.exact ? "exact" : "default mode", a.type, fmk_build_info(), "name", "N", "K", "format", "M",
               "kernel", "us", "p10", "p90", "GB/s", "GFLOP/s");
    for (int s = 0; s < a.num_shapes; s++)
        for (int f = 0; f < a.num_formats; f++)
            bench(&a, &device, &cpu, &a.shapes[s], a.formats[f], list);
    if (a.json) {
        json_t *object = json_object();
        json_put(object, "library", json_string(fmk_build_info()));
        json_put(object, "device", json_string(device.info.name));
        json_put(object, "features", json_string(device.info.features));
        json_put(object, "threads", json_integer(device.info.threads));
        json_put(object, "exact", json_boolean(a.exact));
        json_put(object, "type", json_string(a.type));
        json_put(object, "lines", list);
        print_json(object);
    } else {
        json_decref(list);
    }
    for (int f = 0; f < a.num_formats; f++)
        free((char *)(uintptr_t)a.formats[f]);
    device_close(&device);
    device_close(&cpu);
    return 0;
}
