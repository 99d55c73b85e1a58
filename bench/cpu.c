/* The CPU backend, through the public header, beside other implementations in the same process: Markdown on
 * stdout, CSV in a file. Weights are cold: they rotate over copies three times as large as the last cache.
 * Everything that a figure is compared with is measured in the same run, in turns. */
#include "cpu_threads.h"
#include "tool.h"

#include <argp.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ---- */

static const struct {
    const char *name;
    void (*run)(struct bench *bench);
} modes[] = {
    {"ceilings", bench_ceilings},
    {"linear", bench_linear},
    {"latency", bench_latency},
    {"load", bench_load},
};

enum { NUM_MODES = sizeof modes / sizeof *modes };

static const char all_shapes[] = "4096x4096,6144x4096,28672x4096,4096x14336,14336x4096,151936x4096";

enum {
    KEY_SHAPES = 's',
    KEY_M = 'm',
    KEY_FORMATS = 'f',
    KEY_THREADS = 't',
    KEY_PEER = 'p',
    KEY_OURS = 'o',
    KEY_COMMIT = 'c',
    KEY_GROUP = 'g',
    KEY_WITHOUT = 0x100,
    KEY_DISABLE,
    KEY_SECONDS,
    KEY_PATIENCE,
    KEY_BUDGET,
    KEY_LEAST,
    KEY_CPU_TIME,
    KEY_CSV,
    KEY_ROWS
};

static const struct argp_option options[] = {
    {"shapes", KEY_SHAPES, "LIST", 0, "NxK,NxK, or all (default): those of an 8B model", 0},
    {"m", KEY_M, "LIST", 0, "rows of activations, ascending (default 1,2,4,8,16,32,64,128,512)", 0},
    {"formats", KEY_FORMATS, "LIST", 0, "of q4_k (default), q6_k, int4, int4_asym, f16, bf16, f32", 0},
    {"group-size", KEY_GROUP, "G", 0, "of int4 and int4_asym (default 128)", 0},
    {"threads", KEY_THREADS, "LIST", 0, "one stage each, on as many processors (default 1)", 0},
    {"peer", KEY_PEER, "FILE", 0, "a shared object with peers, as bench/peer.h has them; may be repeated", 0},
    {"without", KEY_WITHOUT, "LIST", 0, "contenders to leave out, by name", 0},
    {"ours", KEY_OURS, "LIST", 0, "of default (default), exact, fast, borrowed", 0},
    {"disable", KEY_DISABLE, "LIST", 0, "features that ours do without: avx512_vnni,amx_bf16", 0},
    {"seconds", KEY_SECONDS, "S", 0, "for each contender in each line (default 0.3)", 0},
    {"patience", KEY_PATIENCE, "S", 0, "who would need longer for one call sits the line out (default 60)",
     0},
    {"budget", KEY_BUDGET, "S", 0, "after so many seconds, lines of linear are left out (default 3600)", 0},
    {"least", KEY_LEAST, NULL, 0, "compare shortest times: for a machine that has other work", 0},
    {"cpu-time", KEY_CPU_TIME, NULL, 0, "linear: the calling thread's CPU time, likewise; for one thread", 0},
    {"load-rows", KEY_ROWS, "N", 0, "load: rows of the weight (default 65536)", 0},
    {"csv", KEY_CSV, "FILE", 0, "all figures, for bench/plot_cpu", 0},
    {"commit", KEY_COMMIT, "TEXT", 0, "what was built, for the header", 0},
    {0},
};

static void keep_word(const char *option, const char *words[], int *count, const char *word) {
    if (*count == MAX_LIST)
        quit(EXIT_USAGE, "%s has more than %d items", option, MAX_LIST);
    words[(*count)++] = text_of("%s", word);
}

static void keep_number(const char *option, int64_t numbers[], int *count, const char *word, int64_t most) {
    if (*count == MAX_LIST)
        quit(EXIT_USAGE, "%s has more than %d items", option, MAX_LIST);
    numbers[(*count)++] = parse_number(option, word, 1, most);
}

static void add_shape(void *user, char *word) {
    enum { MAX_SIDE = 1 << 20 };
    struct options *o = user;
    if (!strcmp(word, "all")) {
        parse_list("--shapes", all_shapes, add_shape, o);
        return;
    }
    char *x = strchr(word, 'x');
    if (!x)
        quit(EXIT_USAGE, "--shapes \"%s\" is neither all nor NxK", word);
    if (o->num_shapes == MAX_LIST)
        quit(EXIT_USAGE, "--shapes has more than %d items", MAX_LIST);
    *x = 0;
    o->shapes[o->num_shapes].n = parse_number("--shapes N", word, 1, MAX_SIDE);
    o->shapes[o->num_shapes++].k = parse_number("--shapes K", x + 1, 1, MAX_SIDE);
}

static void add_m(void *user, char *word) {
    struct options *o = user;
    keep_number("--m", o->m, &o->num_m, word, 65536);
}

static void add_threads(void *user, char *word) {
    struct options *o = user;
    keep_number("--threads", o->threads, &o->num_threads, word, CPU_SETSIZE);
}

static void add_format(void *user, char *word) {
    struct options *o = user;
    if (!source_knows(word))
        quit(EXIT_USAGE, "--formats \"%s\" is none of q4_k, q6_k, int4, int4_asym, f16, bf16, f32", word);
    keep_word("--formats", o->formats, &o->num_formats, word);
}

static void add_ours(void *user, char *word) {
    struct options *o = user;
    keep_word("--ours", o->ours, &o->num_ours, word);
}

static void add_without(void *user, char *word) {
    struct options *o = user;
    keep_word("--without", o->without, &o->num_without, word);
}

static double parse_seconds(const char *option, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= 3600))
        quit(EXIT_USAGE, "%s \"%s\" is not a number in 0..3600", option, text);
    return value;
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
    case KEY_GROUP:
        o->group_size = (int32_t)parse_number("--group-size", arg, 8, 1 << 20);
        return 0;
    case KEY_THREADS:
        parse_list("--threads", arg, add_threads, o);
        return 0;
    case KEY_PEER:
        keep_word("--peer", o->peers, &o->num_peers, arg);
        return 0;
    case KEY_WITHOUT:
        parse_list("--without", arg, add_without, o);
        return 0;
    case KEY_OURS:
        parse_list("--ours", arg, add_ours, o);
        return 0;
    case KEY_DISABLE:
        o->disable = arg;
        return 0;
    case KEY_SECONDS:
        o->seconds = parse_seconds("--seconds", arg);
        return 0;
    case KEY_PATIENCE:
        o->patience = parse_seconds("--patience", arg);
        return 0;
    case KEY_BUDGET:
        o->budget = parse_seconds("--budget", arg);
        return 0;
    case KEY_LEAST:
        o->least = true;
        return 0;
    case KEY_CPU_TIME:
        o->cpu_time = true;
        return 0;
    case KEY_ROWS:
        o->load_rows = parse_number("--load-rows", arg, 256, 1 << 20);
        return 0;
    case KEY_CSV:
        o->csv = arg;
        return 0;
    case KEY_COMMIT:
        o->commit = arg;
        return 0;
    case ARGP_KEY_ARG:
        keep_word("the list of modes", o->modes, &o->num_modes, arg);
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static bool wanted(const struct options *o, const char *mode) {
    bool found = !o->num_modes;
    for (int i = 0; i < o->num_modes; i++)
        found |= !strcmp(o->modes[i], mode);
    return found;
}

static void complete(struct options *o) {
    for (int i = 0; i < o->num_modes; i++) {
        size_t mode = 0;
        while (mode < NUM_MODES && strcmp(modes[mode].name, o->modes[i]))
            mode++;
        if (mode == NUM_MODES)
            quit(EXIT_USAGE, "mode \"%s\" is none of ceilings, linear, latency, load", o->modes[i]);
    }
    if (!o->num_shapes)
        parse_list("--shapes", "all", add_shape, o);
    if (!o->num_m)
        parse_list("--m", "1,2,4,8,16,32,64,128,512", add_m, o);
    if (!o->num_formats)
        parse_list("--formats", "q4_k", add_format, o);
    if (!o->num_threads)
        parse_list("--threads", "1", add_threads, o);
    if (!o->num_ours)
        parse_list("--ours", "default", add_ours, o);
    for (int i = 0; o->cpu_time && i < o->num_threads; i++)
        if (o->threads[i] != 1)
            quit(EXIT_USAGE, "--cpu-time says nothing of %" PRId64 " threads", o->threads[i]);
}

/* ---- the header ---- */

/* The processor's name, where the system tells it. */
static char *processor(void) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256], *name = NULL;
    while (file && !name && fgets(line, sizeof line, file))
        if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
            line[strcspn(line, "\n")] = 0;
            name = text_of("%s", strchr(line, ':') + 2);
        }
    if (file)
        fclose(file);
    return name ? name : text_of("a processor without a name");
}

static void print_header(const struct bench *bench, int argc, char **argv) {
    const struct options *o = bench->options;
    const fmk_context_info_t *info = &bench->cpu.info;
    char *name = processor();
    printf(
        "%s, %d processors, last-level cache %s, memory %s; features: %s; without: %s; %s; commit %s\n\n    ",
        name, CPU_COUNT(&bench->cpus), human_bytes(info->last_level_cache).text,
        human_bytes(info->memory).text, info->features, o->disable ? o->disable : "none", fmk_build_info(),
        o->commit);
    for (int i = 0; i < argc; i++)
        printf("%s%s", i ? " " : "", argv[i]);
    printf("\n\n");
    for (int i = 0; i < bench->num_contenders; i++)
        printf("- `%s`: %s\n", bench->contenders[i].peer->name, bench->contenders[i].peer->about);
    printf("\n%s%s times are compared.\n\n", o->least ? "Shortest" : "Median", o->cpu_time ? " CPU" : "");
    fflush(stdout);
    free(name);
}

/* Weights come and go by the gigabyte; pages that a contender has given back need not be made again for the
 * next. */
static void keep_freed_memory(void) {
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
}

int main(int argc, char **argv) {
    static const struct argp argp = {options,
                                     parse,
                                     "[ceilings|linear|latency|load]...",
                                     "Measures the CPU backend, and peers beside it, and prints Markdown "
                                     "tables.\vWithout a mode: all of them. "
                                     "linear: projections over cold weights. ceilings: what reading, copying "
                                     "and multiplying alone reach. latency: "
                                     "a small projection whose weight is in the cache. load: packing.",
                                     NULL,
                                     NULL,
                                     NULL};
    struct options o = {.commit = "unknown",
                        .seconds = 0.3,
                        .patience = 60,
                        .budget = 3600,
                        .group_size = 128,
                        .load_rows = 65536};
    set_program("bench_cpu");
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    complete(&o);

    keep_freed_memory();
    struct bench bench = {.options = &o, .begun = seconds()};
    if (sched_getaffinity(0, sizeof bench.cpus, &bench.cpus))
        quit(EXIT_REFUSED, "sched_getaffinity failed");
    if (o.csv && !(bench.csv = fopen(o.csv, "w")))
        quit(EXIT_USAGE, "--csv %s cannot be written", o.csv);
    contenders_list(&bench);
    device_open(&bench.cpu, &(struct device_options){.backend = "cpu"});
    print_header(&bench, argc, argv);
    for (bench.stage = 0; bench.stage < o.num_threads; bench.stage++) {
        bench.threads = (int32_t)o.threads[bench.stage];
        threads_confine(&bench, bench.threads);
        contenders_open(&bench);
        for (size_t mode = 0; mode < NUM_MODES; mode++)
            if (wanted(&o, modes[mode].name))
                modes[mode].run(&bench);
        contenders_close(&bench);
    }
    summary_print(&bench);
    if (bench.csv && fclose(bench.csv))
        quit(EXIT_REFUSED, "--csv %s was not written", o.csv);
    device_close(&bench.cpu);
    return 0;
}
