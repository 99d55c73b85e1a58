/* ferrumk verify: every matrix of a checkpoint, every expert, in both numeric modes, against the reference.
 *
 * The projections run over the whole matrix, as an engine's would. The reference is slow, so of large
 * matrices it computes some rows: runs spread evenly over N, made as shards by the CPU, which no kernel
 * under test has packed. Every weight is looked at for being finite.
 *
 * The error is that of a row of W against its own norm, averaged over the rows: where a few rows are much
 * larger than the rest, the plain quotient of norms is theirs alone and scatters as so few numbers do. */
#include "device.h"
#include "random.h"
#include "tool.h"
#include "verbs.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_M = 8, RUNS = 8, DEFAULT_ROWS = 256 };

/* Results that an error is taken over, and rows of activations, at least: the relative error of few of them
 * scatters widely (that of one may be anything) where the bounds are meant for a projection's worth. */
enum { ENOUGH = 8192, ENOUGH_ROWS = 32 };

/* Multiplications of the reference below which all rows of a matrix are compared. */
static const double WHOLE = 1 << 26;

static const double BOUND_DEFAULT = 6e-3, BOUND_EXACT = 1e-6;

struct arguments {
    const char *path;
    int64_t m[MAX_M];
    int num_m;
    int64_t seed, rows;
    bool json;
    struct device_options device;
};

enum { KEY_M = 256, KEY_SEED, KEY_ROWS, KEY_JSON };
static const struct argp_option options[] = {
    {"m", KEY_M, "LIST", 0, "rows of activations, up to 8 numbers (default 1,33)", 1},
    {"seed", KEY_SEED, "S", 0, "of the activations (default 1)", 1},
    {"rows", KEY_ROWS, "R", 0,
     "rows of W that the reference computes of a large matrix (default 256; 0 = all)", 1},
    {"json", KEY_JSON, NULL, 0, "one JSON object", 2},
    {0},
};

static void add_m(void *user, char *word) {
    struct arguments *a = user;
    if (a->num_m == MAX_M)
        quit(EXIT_USAGE, "--m takes %d numbers at most", MAX_M);
    a->m[a->num_m++] = parse_number("--m", word, 1, 1 << 20);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        *a = (struct arguments){.seed = 1, .rows = DEFAULT_ROWS};
        state->child_inputs[0] = &a->device;
        return 0;
    case KEY_M:
        a->num_m = 0;
        parse_list("--m", arg, add_m, a);
        return 0;
    case KEY_SEED:
        a->seed = parse_number("--seed", arg, 0, INT64_MAX);
        return 0;
    case KEY_ROWS:
        a->rows = parse_number("--rows", arg, 0, INT64_MAX);
        return 0;
    case KEY_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->path)
            quit(EXIT_USAGE, "one PATH is enough, \"%s\" is another", arg);
        a->path = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

/* Rows begin..end of W, as a weight of their own. */
struct run {
    int64_t begin, end;
    fmk_weight *weight;
};

/* What is known of one matrix: the worst over experts and m. */
struct verdict {
    char *refusal; /* why it could not be loaded, or NULL */
    double error_default, error_exact;
    int64_t rows, bad_weights; /* compared of each expert; not finite, of all */
};

static int64_t max_m(const struct arguments *a) {
    int64_t most = 0;
    for (int i = 0; i < a->num_m; i++)
        most = a->m[i] > most ? a->m[i] : most;
    return most;
}

static int choose_runs(const struct arguments *a, int64_t n, int64_t k, struct run runs[RUNS]) {
    if (!a->rows || n <= a->rows || (double)n * (double)k * (double)max_m(a) <= WHOLE) {
        runs[0] = (struct run){.end = n};
        return 1;
    }
    int count = a->rows < RUNS ? (int)a->rows : RUNS;
    int64_t length = a->rows / count;
    for (int i = 0; i < count; i++) {
        runs[i].begin = count == 1 ? 0 : (n - length) / (count - 1) * i;
        runs[i].end = runs[i].begin + length;
        runs[i].weight = NULL;
    }
    return count;
}

static void load_runs(struct device *device, fmk_checkpoint *checkpoint, const char *name, struct run *runs,
                      int count) {
    for (int i = 0; i < count; i++) {
        fmk_part part = {.struct_size = sizeof part};
        fmk_weight_desc desc = {.struct_size = sizeof desc,
                                .flags = FMK_WEIGHT_BORROW,
                                .parts = &part,
                                .num_parts = 1,
                                .source = checkpoint};
        check(fmk_checkpoint_find(checkpoint, name, &part, &desc.num_experts), NULL);
        part.n_begin = runs[i].begin;
        part.n_end = runs[i].end;
        check(fmk_weight_create(&runs[i].weight, device->queue, &desc), name);
    }
}

/* Weights of one expert that are not finite, read in slabs. norms[n]: the squares of each row, summed. */
static int64_t count_bad(struct device *device, fmk_weight *weight, int64_t n, int64_t k, int32_t expert,
                         double *norms) {
    int64_t slab = (1 << 22) / k + 1, bad = 0;
    slab = slab < n ? slab : n;
    float *values = allocate_aligned((uint64_t)(slab * k) * sizeof *values);
    int32_t *ids = allocate((size_t)slab, sizeof *ids);
    uint64_t device_values = device_allocate(device, (uint64_t)(slab * k) * sizeof *values);
    uint64_t device_ids = device_allocate(device, (uint64_t)slab * sizeof *ids);
    for (int64_t begin = 0; begin < n; begin += slab) {
        int64_t rows = n - begin < slab ? n - begin : slab;
        for (int64_t i = 0; i < rows; i++)
            ids[i] = (int32_t)(begin + i);
        fmk_rows_args args = {.struct_size = sizeof args,
                              .out_type = FMK_F32,
                              .m = rows,
                              .expert = expert,
                              .ids = device_buffer(device, device_ids),
                              .out = device_buffer(device, device_values)};
        device_write(device, device_ids, ids, (uint64_t)rows * sizeof *ids);
        check(fmk_rows(device->queue, weight, &args), NULL);
        device_read(device, values, device_values, (uint64_t)(rows * k) * sizeof *values);
        const float *value = values;
        for (int64_t i = 0; i < rows; i++) {
            norms[begin + i] = 0;
            for (const float *end = value + k; value < end; value++) {
                bad += !isfinite(*value);
                norms[begin + i] += (double)*value * *value;
            }
        }
    }
    free(values);
    free(ids);
    device_free(device, device_values);
    device_free(device, device_ids);
    return bad;
}

/* NaN counts as the worst error there is. */
static double worse(double a, double b) {
    return isnan(b) || b > a ? (isnan(b) ? INFINITY : b) : a;
}

/* Activations, what the reference makes of them, what may be expected of it, and room for a result. */
struct work {
    struct device *device, *cpu; /* which runs the reference */
    fmk_weight *weight;
    const struct run *runs;
    int count;
    int64_t n, k, width, rows;
    float *in, *out, *want; /* [rows][k], [rows][n], [rows][width] */
    uint64_t device_in, device_out;
    double *norms, *errors; /* [n]: squares expected of a result, and those of its errors, summed */
};

/* want [rows][width] from in, the runs side by side. */
static void run_reference(struct work *w, int64_t rows, int32_t expert) {
    int64_t column = 0;
    for (int i = 0; i < w->count; i++) {
        struct projection p;
        projection_set(&p, w->cpu, w->runs[i].weight, rows, FMK_LINEAR_REFERENCE, expert, (uintptr_t)w->in,
                       (uintptr_t)(w->want + column));
        p.args.out_stride = w->width;
        projection_prepare(&p);
        projection_run(&p);
        column += w->runs[i].end - w->runs[i].begin;
    }
}

/* Of N(0,1) activations a result squared is expected to be its row's norm, and the bias squared, which is
 * what the reference makes of zeros. */
static void expect(struct work *w, int32_t expert) {
    memset(w->in, 0, (size_t)w->k * sizeof *w->in);
    run_reference(w, 1, expert);
    const float *bias = w->want;
    for (int i = 0; i < w->count; i++)
        for (int64_t column = w->runs[i].begin; column < w->runs[i].end; column++, bias++)
            w->norms[column] += (double)*bias * *bias;
}

/* Adds the squared errors of m rows of results. Results that are not finite count where the reference is, and
 * only there. */
static void compare(struct work *w, const float *want, int64_t m) {
    for (int64_t row = 0; row < m; row++)
        for (int i = 0; i < w->count; i++)
            for (int64_t column = w->runs[i].begin; column < w->runs[i].end; column++, want++) {
                double difference = (double)w->out[row * w->n + column] - *want;
                w->errors[column] += isfinite(*want) ? difference * difference : 0;
            }
}

static double relative_error(const struct work *w, int64_t rows) {
    double sum = 0;
    for (int i = 0; i < w->count; i++)
        for (int64_t column = w->runs[i].begin; column < w->runs[i].end; column++)
            if (w->errors[column] != 0 && !isnan(w->norms[column]))
                sum += w->errors[column] / w->norms[column];
    return sqrt(sum / (double)(rows * w->width));
}

/* Calls of m rows each, over as many different rows as are enough. */
static double run_mode(struct work *w, int64_t m, uint32_t flags, int32_t expert) {
    memset(w->errors, 0, (size_t)w->n * sizeof *w->errors);
    int64_t begin = 0;
    do {
        struct projection p;
        projection_set(&p, w->device, w->weight, m, flags, expert,
                       w->device_in + (uint64_t)(begin * w->k) * sizeof *w->in, w->device_out);
        projection_run(&p);
        device_read(w->device, w->out, w->device_out, (uint64_t)(m * w->n) * sizeof *w->out);
        compare(w, w->want + begin * w->width, m);
        begin += m;
    } while (begin + m <= w->rows && (begin * w->width < ENOUGH || begin < ENOUGH_ROWS));
    return relative_error(w, begin);
}

static struct verdict verify(const struct arguments *a, struct device *device, struct device *cpu,
                             fmk_checkpoint *checkpoint, const fmk_entry *entry) {
    struct verdict verdict = {0};
    struct run runs[RUNS];
    struct work w = {
        .device = device, .cpu = cpu, .runs = runs, .n = entry->n, .k = entry->k, .rows = max_m(a)};
    w.count = choose_runs(a, w.n, w.k, runs);
    const char *name = entry->name;
    if (fmk_checkpoint_load(&w.weight, device->queue, checkpoint, &name, 1, NULL)) {
        verdict.refusal = text_of("%s", fmk_last_error());
        return verdict;
    }
    check(fmk_weight_ready(w.weight, 1), entry->name);
    load_runs(cpu, checkpoint, entry->name, runs, w.count);
    for (int i = 0; i < w.count; i++)
        w.width += runs[i].end - runs[i].begin;
    verdict.rows = w.width;
    if (w.rows * w.width < ENOUGH)
        w.rows = (ENOUGH + w.width - 1) / w.width;
    w.rows = w.rows < ENOUGH_ROWS ? ENOUGH_ROWS : w.rows;

    w.in = allocate_aligned((uint64_t)(w.rows * w.k) * sizeof *w.in);
    w.out = allocate_aligned((uint64_t)(w.rows * w.n) * sizeof *w.out);
    w.want = allocate_aligned((uint64_t)(w.rows * w.width) * sizeof *w.want);
    w.device_in = device_allocate(device, (uint64_t)(w.rows * w.k) * sizeof *w.in);
    w.device_out = device_allocate(device, (uint64_t)(w.rows * w.n) * sizeof *w.out);
    w.norms = allocate((size_t)w.n, sizeof *w.norms);
    w.errors = allocate((size_t)w.n, sizeof *w.errors);
    for (int32_t expert = 0; expert < (entry->num_experts ? entry->num_experts : 1); expert++) {
        verdict.bad_weights += count_bad(device, w.weight, w.n, w.k, expert, w.norms);
        expect(&w, expert);
        random_normal(w.in, w.rows * w.k, (uint64_t)a->seed);
        device_write(device, w.device_in, w.in, (uint64_t)(w.rows * w.k) * sizeof *w.in);
        run_reference(&w, w.rows, expert);
        for (int i = 0; i < a->num_m; i++) {
            verdict.error_default = worse(verdict.error_default, run_mode(&w, a->m[i], 0, expert));
            verdict.error_exact = worse(verdict.error_exact, run_mode(&w, a->m[i], FMK_LINEAR_EXACT, expert));
        }
    }
    free(w.in);
    free(w.out);
    free(w.want);
    device_free(device, w.device_in);
    device_free(device, w.device_out);
    free(w.norms);
    free(w.errors);
    for (int i = 0; i < w.count; i++)
        fmk_weight_destroy(runs[i].weight, cpu->queue);
    fmk_weight_destroy(w.weight, device->queue);
    return verdict;
}

static bool good(const struct verdict *v) {
    return !v->refusal && v->error_default <= BOUND_DEFAULT && v->error_exact <= BOUND_EXACT &&
           !v->bad_weights;
}

static void print(const fmk_entry *entry, const struct verdict *v) {
    char experts[32] = "";
    if (v->refusal) {
        printf("%-40s %-7s BAD: %s\n", entry->name, entry->format_name, v->refusal);
        return;
    }
    if (entry->num_experts)
        snprintf(experts, sizeof experts, " x %d experts", entry->num_experts);
    printf("%-40s %-7s %7" PRId64 " of %7" PRId64 " rows  %8.1e  %8.1e  %s%s\n", entry->name,
           entry->format_name, v->rows, entry->n, v->error_default, v->error_exact, good(v) ? "good" : "BAD",
           experts);
    if (v->bad_weights)
        printf("%-40s %" PRId64 " weights are not finite\n", "", v->bad_weights);
}

/* JSON knows no infinity. */
static json_t *json_error(double error) {
    return isfinite(error) ? json_real(error) : json_null();
}

static json_t *verdict_json(const fmk_entry *entry, const struct verdict *v) {
    json_t *object = json_object();
    json_put(object, "name", json_string(entry->name));
    json_put(object, "format", json_string(entry->format_name));
    json_put(object, "experts", json_integer(entry->num_experts));
    json_put(object, "rows_compared", json_integer(v->rows));
    json_put(object, "error_default", json_error(v->error_default));
    json_put(object, "error_exact", json_error(v->error_exact));
    json_put(object, "weights_not_finite", json_integer(v->bad_weights));
    if (v->refusal)
        json_put(object, "error", json_string(v->refusal));
    json_put(object, "good", json_boolean(good(v)));
    return object;
}

int verb_verify(int argc, char **argv) {
    static const struct argp_child children[] = {{&device_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "PATH",
        "Runs every matrix of a checkpoint, all experts, over N(0,1) activations and prints the relative L2 "
        "error against the CPU's reference, which sums in double: of each row of W against its own norm, "
        "averaged "
        "over the rows.\v"
        "The bounds are 6e-3 for the default mode and 1e-6 for the exact one. Exit status 1: an error above "
        "its bound, a weight that is not finite, a matrix that is refused, or nothing to check. Matrices in "
        "formats that cannot be read are named and "
        "skipped.",
        children,
        NULL,
        NULL};
    struct arguments a;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (!a.path)
        quit(EXIT_USAGE, "PATH is missing; \"ferrumk verify --help\" explains it");
    if (!a.num_m) {
        a.m[a.num_m++] = 1;
        a.m[a.num_m++] = 33;
    }

    struct device device, cpu;
    fmk_checkpoint *checkpoint = open_checkpoint(a.path);
    device_open(&device, &a.device);
    device_open_cpu(&cpu, &a.device);
    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    check(fmk_checkpoint_info(checkpoint, &info), NULL);
    struct progress progress;
    progress_begin(&progress, "verifying");
    json_t *list = json_array();
    uint64_t done = 0;
    int checked = 0, failed = 0, skipped = 0;
    if (!a.json)
        printf("%-40s %-7s %23s  %8s  %8s\n", "name", "format", "compared", "default", "exact");
    for (int32_t i = 0; i < info.num_entries; i++) {
        fmk_entry entry = {.struct_size = sizeof entry};
        check(fmk_checkpoint_entry(checkpoint, i, &entry), NULL);
        if (entry.kind == FMK_ENTRY_MATRIX) {
            struct verdict verdict = verify(&a, &device, &cpu, checkpoint, &entry);
            progress_end(&progress);
            checked++;
            failed += !good(&verdict);
            if (a.json)
                json_array_append_new(list, verdict_json(&entry, &verdict));
            else
                print(&entry, &verdict);
            free(verdict.refusal);
            fflush(stdout);
        } else if (entry.kind == FMK_ENTRY_UNSUPPORTED) {
            skipped++;
            if (!a.json)
                printf("%-40s %-7s unsupported, skipped\n", entry.name, entry.format_name);
        }
        done += entry.bytes;
        progress_step(&progress, done, info.bytes);
    }
    progress_end(&progress);
    if (a.json) {
        json_t *object = json_object();
        json_put(object, "checked", json_integer(checked));
        json_put(object, "failed", json_integer(failed));
        json_put(object, "unsupported", json_integer(skipped));
        json_put(object, "bound_default", json_real(BOUND_DEFAULT));
        json_put(object, "bound_exact", json_real(BOUND_EXACT));
        json_put(object, "matrices", list);
        print_json(object);
    } else {
        printf("\n%d matrices checked, %d bad (bounds %g default, %g exact), %d unsupported\n", checked,
               failed, BOUND_DEFAULT, BOUND_EXACT, skipped);
        json_decref(list);
    }
    device_close(&device);
    device_close(&cpu);
    fmk_checkpoint_close(checkpoint);
    return failed || !checked ? EXIT_REFUSED : 0;
}
