/* INT4 projections on one GPU: time against m, of ours and of peers given on the command line, in one
 * process, from cold weights, replayed as CUDA graphs in turns. Markdown tables on stdout, rows of numbers in
 * a CSV file. */
#include "sweep.h"

#include <argp.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- modes ---- */

static void run_points(struct sweep *sweep) {
    sweep_run(sweep);
    print_points(sweep);
    print_means(sweep);
    print_goals(sweep, false);
}

static void run_curve(struct sweep *sweep) {
    sweep_run(sweep);
    print_means(sweep);
    print_goals(sweep, true);
    print_cliffs(sweep);
}

static void run_kinds(struct sweep *sweep) {
    sweep_run(sweep);
    print_kinds(sweep);
    print_kind_goals(sweep);
}

static const struct {
    const char *name;
    void (*run)(struct sweep *sweep);
    const char *m, *kinds; /* defaults */
    double refine;
    int rounds;
} modes[] = {
    {"points", run_points, "1,2,4,8,16,32,64,128,256,512,1024,2048,4096", "int4", 0, 15},
    {"curve", run_curve, "fine", "int4", 1.15, 7},
    {"kinds", run_kinds, "1,8,16,64,256",
     "int4,int4_g32,int4_g64,int4_channel,int4_asym,int4_act_order,int4:bf16", 0, 15},
    {"chain", sweep_chain, "1,16", "int4", 0, 25},
};

enum { NUM_MODES = sizeof modes / sizeof *modes };

/* ---- options ---- */

static const char all_shapes[] = "4096x4096,6144x4096,4096x14336,28672x4096,8192x8192,10240x8192,8192x28672,"
                                 "57344x8192";

enum {
    KEY_SHAPES = 's',
    KEY_M = 'm',
    KEY_KINDS = 'k',
    KEY_PEER = 'p',
    KEY_WITHOUT = 'w',
    KEY_ROUNDS = 'r',
    KEY_COMMIT = 'c',
    KEY_DEVICE = 'd',
    KEY_CSV = 'o',
    KEY_SECONDS = 't',
    KEY_DISABLE = 0x100,
    KEY_REFINE
};

static const struct argp_option options[] = {
    {"shapes", KEY_SHAPES, "LIST", 0, "NxK,NxK, or all (default); not for chain", 0},
    {"m", KEY_M, "LIST", 0,
     "M, A-B, A-B:STEP, or fine: all to 64, then fewer and fewer, both at and behind the ends of tiles", 0},
    {"kinds", KEY_KINDS, "LIST", 0,
     "int4, int4_g32, int4_g64, int4_channel, int4_asym, int4_act_order; each with :f16 (default) or :bf16",
     0},
    {"peer", KEY_PEER, "FILE", 0, "a shared object with peers (peer.h); may be given often", 0},
    {"without", KEY_WITHOUT, "LIST", 0, "contenders to leave out, by name", 0},
    {"rounds", KEY_ROUNDS, "R", 0, "replays of each graph", 0},
    {"refine", KEY_REFINE, "F", 0,
     "measure between two m that differ by more than this factor, down to neighbours", 0},
    {"seconds", KEY_SECONDS, "S", 0, "begin no point later than S seconds from the start", 0},
    {"csv", KEY_CSV, "FILE", 0, "all results as rows of numbers", 0},
    {"commit", KEY_COMMIT, "TEXT", 0, "what was built, for the header", 0},
    {"device", KEY_DEVICE, "I", 0, "index of the GPU (default 0)", 0},
    {"disable", KEY_DISABLE, "LIST", 0, "features that ours is to do without: sm90, cublas", 0},
    {0},
};

static void add_shape(void *user, char *word) {
    enum { MAX_SIDE = 1 << 20 };
    struct sweep_options *o = user;
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
    o->shapes[o->num_shapes].n = parse_number("--shapes N", word, 256, MAX_SIDE);
    o->shapes[o->num_shapes++].k = parse_number("--shapes K", x + 1, 256, MAX_SIDE);
    if (o->shapes[o->num_shapes - 1].n % 8 || o->shapes[o->num_shapes - 1].k % 128)
        quit(EXIT_USAGE, "--shapes: N must be a multiple of 8 and K of 128");
}

/* Tiles end at multiples of powers of two: at such a place one m more costs most. */
static void add_fine(struct sweep_options *o) {
    for (int m = 1; m <= MAX_M; m++) {
        int step = m <= 64 ? 1 : m <= 257 ? 16 : m <= 1025 ? 64 : 256;
        if (m % step == 0 || m % step == 1)
            o->m[m] = true;
    }
}

static void add_m(void *user, char *word) {
    struct sweep_options *o = user;
    if (!strcmp(word, "fine")) {
        add_fine(o);
        return;
    }
    char *step = strchr(word, ':'), *end = strchr(word, '-');
    if (step)
        *step++ = 0;
    if (end)
        *end++ = 0;
    int64_t first = parse_number("--m", word, 1, MAX_M),
            last = end ? parse_number("--m", end, first, MAX_M) : first,
            by = step ? parse_number("--m step", step, 1, MAX_M) : 1;
    for (int64_t m = first; m <= last; m += by)
        o->m[m] = true;
}

static void add_kind(void *user, char *word) {
    struct sweep_options *o = user;
    char *name = text_of("%s", word), *type = strchr(word, ':');
    if (type)
        *type++ = 0;
    bool bf16 = type && !strcmp(type, "bf16");
    if (strncmp(word, "int4", 4) || !source_knows(word))
        quit(EXIT_USAGE, "--kinds \"%s\" is none of the int4 formats of --help", word);
    if (type && !bf16 && strcmp(type, "f16"))
        quit(EXIT_USAGE, "--kinds \"%s\": the type is neither f16 nor bf16", name);
    if (o->num_kinds == MAX_KINDS)
        quit(EXIT_USAGE, "--kinds has more than %d items", MAX_KINDS);
    o->kinds[o->num_kinds++] = (struct kind){.name = name,
                                             .format = text_of("%s", word),
                                             .type = bf16 ? "bf16" : "f16",
                                             .dtype = bf16 ? FMK_BF16 : FMK_F16};
}

static void add_without(void *user, char *word) {
    struct sweep_options *o = user;
    if (o->num_without == MAX_LIST)
        quit(EXIT_USAGE, "--without has more than %d items", MAX_LIST);
    o->without[o->num_without++] = text_of("%s", word);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    enum { MAX_ROUNDS = 1000 };
    struct sweep_options *o = state->input;
    switch (key) {
    case KEY_SHAPES:
        parse_list("--shapes", arg, add_shape, o);
        return 0;
    case KEY_M:
        parse_list("--m", arg, add_m, o);
        return 0;
    case KEY_KINDS:
        parse_list("--kinds", arg, add_kind, o);
        return 0;
    case KEY_PEER:
        if (o->num_peers == MAX_LIST)
            quit(EXIT_USAGE, "--peer is given more than %d times", MAX_LIST);
        o->peers[o->num_peers++] = arg;
        return 0;
    case KEY_WITHOUT:
        parse_list("--without", arg, add_without, o);
        return 0;
    case KEY_ROUNDS:
        o->rounds = (int)parse_number("--rounds", arg, 1, MAX_ROUNDS);
        return 0;
    case KEY_REFINE:
        o->refine = strtod(arg, NULL);
        if (!(o->refine > 1))
            quit(EXIT_USAGE, "--refine \"%s\" is not a factor above 1", arg);
        return 0;
    case KEY_SECONDS:
        o->seconds = (double)parse_number("--seconds", arg, 1, 86400);
        return 0;
    case KEY_CSV:
        o->csv = arg;
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
    case ARGP_KEY_ARG:
        if (o->mode)
            argp_error(state, "one mode at a time");
        o->mode = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static size_t mode_of(struct sweep_options *o) {
    size_t mode = 0;
    while (mode < NUM_MODES && strcmp(modes[mode].name, o->mode))
        mode++;
    if (mode == NUM_MODES)
        quit(EXIT_USAGE, "mode \"%s\" is none of points, curve, kinds, chain", o->mode);
    bool any = false;
    for (int m = 1; m <= MAX_M; m++)
        any |= o->m[m];
    if (!any)
        parse_list("--m", modes[mode].m, add_m, o);
    if (!o->num_shapes)
        parse_list("--shapes", "all", add_shape, o);
    if (!o->num_kinds)
        parse_list("--kinds", modes[mode].kinds, add_kind, o);
    if (!o->rounds)
        o->rounds = modes[mode].rounds;
    if (!o->refine)
        o->refine = modes[mode].refine;
    return mode;
}

/* ---- the program ---- */

static void print_head(const struct sweep *sweep, int argc, char **argv) {
    const char *said = NULL;
    bench_print_header(&sweep->bench, sweep->options->mode, sweep->options->commit, argc, argv);
    for (int i = 0; i < sweep->num_contenders; i++) {
        const struct bench_peer *peer = sweep->contenders[i].peer;
        if (peer->about != said)
            printf("- %s: %s\n", peer->name, peer->about);
        said = peer->about;
    }
    printf("\n");
    floors_print(&sweep->bench.floors);
}

int main(int argc, char **argv) {
    static const struct argp argp = {
        options,
        parse,
        "points|curve|kinds|chain",
        "Time against M on one GPU, of this library and of peers.\v"
        "points: some m, all contenders, and what they come to over the shapes. curve: "
        "many m, and where a step is steep. kinds: groups, zero points, act-order, bf16. "
        "chain: a layer's projections one after another.",
        NULL,
        NULL,
        NULL};
    static struct sweep_options o = {.commit = "unknown"};
    set_program("sweep");
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (!o.mode)
        o.mode = "points";
    size_t mode = mode_of(&o);

    struct sweep sweep = {.options = &o, .begun = seconds()};
    bench_open(&sweep.bench, o.device, o.disable);
    device_open(&sweep.cpu, &(struct device_options){.backend = "cpu", .threads = 1});
    sweep.csv = o.csv ? fopen(o.csv, "w") : NULL;
    if (o.csv && !sweep.csv)
        quit(EXIT_USAGE, "--csv %s: it cannot be written", o.csv);
    contenders_open(&sweep);
    if (!sweep.num_contenders)
        quit(EXIT_USAGE, "there is nobody to be measured");
    print_head(&sweep, argc, argv);
    modes[mode].run(&sweep);
    if (sweep.late)
        printf("Incomplete: after %.0f seconds no further point was begun.\n\n", o.seconds);
    contenders_close(&sweep);
    for (int i = 0; i < sweep.num_results; i++)
        free(sweep.results[i].kernel);
    free(sweep.results);
    if (sweep.csv)
        fclose(sweep.csv);
    device_close(&sweep.cpu);
    bench_close(&sweep.bench);
    return 0;
}
