/* Results: the CSV file, tables, geometric means over the shapes, and goals. */
#include "sweep.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- keeping ---- */

static void write_row(FILE *csv, const struct result *r) {
    fprintf(csv, "%s,%s,%s,%" PRId64 ",%" PRId64 ",%" PRId64 ",%s", r->who->peer->name, r->who->kind->format,
            r->who->kind->type, r->shape.n, r->shape.k, r->m, r->kernel);
    fprintf(csv, ",%.3f,%.3f,%.3f,%d,%" PRIu64 ",%.3f,%.3f,%.3e,%d\n", 1e6 * r->time.median,
            1e6 * r->time.low, 1e6 * r->time.high, r->time.calls, r->bytes, 1e6 * r->read[0],
            1e6 * r->read[1], r->error, r->repeats);
    fflush(csv);
}

void result_add(struct sweep *sweep, const struct result *result) {
    if (sweep->num_results == sweep->room) {
        sweep->room = sweep->room ? 2 * sweep->room : 1024;
        sweep->results = realloc(sweep->results, (size_t)sweep->room * sizeof *sweep->results);
        if (!sweep->results)
            quit(EXIT_REFUSED, "no memory for %d results", sweep->room);
    }
    if (sweep->csv && !sweep->num_results)
        fprintf(sweep->csv, "name,format,type,n,k,m,kernel,us,us_p10,us_p90,replays,bytes,read_us,read_early_"
                            "us,error,repeats\n");
    sweep->results[sweep->num_results++] = *result;
    if (sweep->csv)
        write_row(sweep->csv, result);
}

/* ---- finding ---- */

static bool same_point(const struct result *a, const struct result *b) {
    return a->m == b->m && a->shape.n == b->shape.n && a->shape.k == b->shape.k;
}

/* The result of `peer` at the point of `at`, with the same kind of weight. */
static const struct result *beside(const struct sweep *sweep, const struct result *at, const char *peer) {
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i];
        if (same_point(r, at) && r->who->kind == at->who->kind && !strcmp(r->who->peer->name, peer))
            return r;
    }
    return NULL;
}

/* The fastest of the others, without those whose results are wrong. */
static const struct result *best_beside(const struct sweep *sweep, const struct result *at) {
    const struct result *best = NULL;
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i];
        if (same_point(r, at) && r->who->kind == at->who->kind && !is_ours(r->who) && r->error < WRONG &&
            (!best || r->time.median < best->time.median))
            best = r;
    }
    return best;
}

/* Whether no earlier result is of this point. */
static bool first_of_point(const struct sweep *sweep, const struct result *result) {
    for (const struct result *r = sweep->results; r < result; r++)
        if (same_point(r, result))
            return false;
    return true;
}

/* ---- points ---- */

static void print_cell(const struct result *r) {
    if (r)
        printf(" %.2f | %.2f-%.2f |", 1e6 * r->time.median, 1e6 * r->time.low, 1e6 * r->time.high);
    else
        printf(" | |");
}

static const struct result *result_of(const struct sweep *sweep, const struct result *at,
                                      const struct contender *who) {
    for (int i = 0; i < sweep->num_results; i++)
        if (same_point(&sweep->results[i], at) && sweep->results[i].who == who)
            return &sweep->results[i];
    return NULL;
}

void print_points(const struct sweep *sweep) {
    printf("us: median and tenths of a call in a graph; \"read\": a kernel that only reads as many bytes, by "
           "plain and by dependent launches; \"faster\": how many times as fast as the fastest peer; error: "
           "relative L2 of ours against float64, and the largest of the peers'; \"bits\": whether ours came "
           "out the same twice.\n\n| NxK | M |");
    for (int c = 0; c < sweep->num_contenders; c++)
        printf(" %s us | p10-p90 |", sweep->contenders[c].name);
    printf(" read us | early | fastest peer | faster | error | peers' | bits | kernel |\n|---|---|");
    for (int c = 0; c < sweep->num_contenders; c++)
        printf("---|---|");
    printf("---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *at = &sweep->results[i];
        if (!first_of_point(sweep, at))
            continue;
        double error = 0, peers_error = 0;
        bool repeats = true;
        printf("| %" PRId64 "x%" PRId64 " | %" PRId64 " |", at->shape.n, at->shape.k, at->m);
        for (int c = 0; c < sweep->num_contenders; c++) {
            const struct result *r = result_of(sweep, at, &sweep->contenders[c]);
            print_cell(r);
            if (!r)
                continue;
            double *worst = is_ours(r->who) ? &error : &peers_error;
            *worst = r->error > *worst || isnan(r->error) ? r->error : *worst;
            repeats &= r->repeats || !is_ours(r->who);
        }
        const struct result *best = best_beside(sweep, at);
        printf(" %.2f | %.2f |", 1e6 * at->read[0], 1e6 * at->read[1]);
        if (best && best != at)
            printf(" %s | %.2f |", best->who->name, best->time.median / at->time.median);
        else
            printf(" | |");
        printf(" %.1e | %.1e | %s | %s |\n", error, peers_error, repeats ? "same" : "DIFFERENT", at->kernel);
    }
    printf("\n");
}

/* ---- means ---- */

struct mean {
    int shapes;
    double sum, least; /* of logarithms; the least factor and its shape */
    struct shape worst;
};

static void count_in(struct mean *mean, double factor, struct shape shape) {
    if (!mean->shapes || factor < mean->least) {
        mean->least = factor;
        mean->worst = shape;
    }
    mean->sum += log(factor);
    mean->shapes++;
}

/* How many times `name` is as fast as `peer` (NULL: as the fastest one) at m, over the shapes. */
static struct mean mean_of(const struct sweep *sweep, int64_t m, const char *name, const char *peer) {
    struct mean mean = {0};
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i];
        if (r->m != m || strcmp(r->who->peer->name, name))
            continue;
        const struct result *other = peer ? beside(sweep, r, peer) : best_beside(sweep, r);
        if (other)
            count_in(&mean, other->time.median / r->time.median, r->shape);
    }
    return mean;
}

/* How many times the time of reading `name` takes; of shapes of more than `least_bytes`. */
static struct mean reading_of(const struct sweep *sweep, int64_t m, const char *name, bool early,
                              uint64_t least_bytes) {
    struct mean mean = {0};
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i];
        if (r->m == m && !strcmp(r->who->peer->name, name) && r->bytes > least_bytes && r->read[early] > 0)
            count_in(&mean, r->read[early] / r->time.median, r->shape); /* so that the worst is the least */
    }
    return mean;
}

static void print_mean(struct mean mean) {
    if (mean.shapes)
        printf(" %.2f (%.2f) |", exp(mean.sum / mean.shapes), mean.least);
    else
        printf(" |");
}

static void print_means_of(const struct sweep *sweep, const struct bench_peer *ours) {
    printf("### How many times as fast %s is\n\nGeometric means over the shapes, and the least of them.\n\n| "
           "M |",
           ours->name);
    for (int c = 0; c < sweep->num_contenders; c++)
        if (!is_ours(&sweep->contenders[c]))
            printf(" %s |", sweep->contenders[c].name);
    printf(" the fastest | of reading |\n|---|---|---|");
    for (int c = 0; c < sweep->num_contenders; c++)
        if (!is_ours(&sweep->contenders[c]))
            printf("---|");
    printf("\n");
    for (int64_t m = 1; m <= MAX_M; m++) {
        if (reading_of(sweep, m, ours->name, false, 0).shapes < sweep->options->num_shapes)
            continue; /* a mean over fewer shapes would compare with nothing */
        printf("| %" PRId64 " |", m);
        for (int c = 0; c < sweep->num_contenders; c++)
            if (!is_ours(&sweep->contenders[c]))
                print_mean(mean_of(sweep, m, ours->name, sweep->contenders[c].peer->name));
        print_mean(mean_of(sweep, m, ours->name, NULL));
        print_mean(reading_of(sweep, m, ours->name, ours == &ours_early, 0));
        printf("\n");
    }
    printf("\n");
}

void print_means(const struct sweep *sweep) {
    for (int c = 0; c < sweep->num_contenders; c++)
        if (is_ours(&sweep->contenders[c]))
            print_means_of(sweep, sweep->contenders[c].peer);
}

/* ---- goals ---- */

static const char dense[] = "cublas", marlin[] = "vllm_marlin";

/* A factor of speed: the geometric mean over the shapes, and that of each shape; 0 = any. */
static const struct {
    const struct bench_peer *ours;
    const char *peer; /* NULL: the fastest */
    int64_t from, to; /* m */
    double mean, each;
} goals[] = {
    {&ours_plain, marlin, 1, 4, 1.65, 1.2},  {&ours_plain, marlin, 5, 8, 1.5, 1.2},
    {&ours_plain, marlin, 9, 16, 1.4, 1.2},  {&ours_early, marlin, 1, 4, 1.95, 0},
    {&ours_early, marlin, 5, 8, 1.75, 0},    {&ours_early, marlin, 9, 16, 1.5, 0},
    {&ours_plain, NULL, 32, 64, 1.3, 1},     {&ours_plain, NULL, 128, 128, 1.1, 0},
    {&ours_plain, NULL, 256, MAX_M, 0, .95}, {&ours_plain, dense, 1, MAX_M, 0, .95},
};

/* Reading's share of the time, of weights of more than 30 MB. */
static const struct {
    const struct bench_peer *ours;
    bool early;
    int64_t to;
    double each;
} reading_goals[] = {{&ours_plain, false, 8, 1 / 1.25}, {&ours_early, true, 4, 1 / 1.25}};

static const uint64_t large_weight = 30000000;

static void print_goal(int64_t m, const char *name, const char *against, struct mean mean, double goal,
                       double each, bool misses) {
    double is = exp(mean.sum / mean.shapes);
    bool reached = is >= goal && mean.least >= each;
    if (reached && misses)
        return;
    printf("| %" PRId64 " | %s | %s | %d | %.2f |", m, name, against, mean.shapes, is);
    if (goal > 0)
        printf(" %.2f |", goal);
    else
        printf(" |");
    printf(" %.2f | %" PRId64 "x%" PRId64 " |", mean.least, mean.worst.n, mean.worst.k);
    if (each > 0)
        printf(" %.2f |", each);
    else
        printf(" |");
    printf(" %s |\n", reached ? "reached" : "MISSED");
}

void print_goals(const struct sweep *sweep, bool misses) {
    printf("### Goals\n\nFactors: how many times as fast as that peer; \"reading\": the share of the time in "
           "which a kernel can read the bytes, of weights of more than 30 MB.\n\n| M | ours | against | "
           "shapes | mean | goal | least | of | goal | |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (int64_t m = 1; m <= MAX_M; m++) {
        for (size_t g = 0; g < sizeof goals / sizeof *goals; g++) {
            struct mean mean = mean_of(sweep, m, goals[g].ours->name, goals[g].peer);
            if (m >= goals[g].from && m <= goals[g].to && mean.shapes)
                print_goal(m, goals[g].ours->name, goals[g].peer ? goals[g].peer : "the fastest", mean,
                           goals[g].mean, goals[g].each, misses);
        }
        for (size_t g = 0; g < sizeof reading_goals / sizeof *reading_goals; g++) {
            const char *name = reading_goals[g].ours->name;
            struct mean mean = reading_of(sweep, m, name, reading_goals[g].early, large_weight);
            if (m <= reading_goals[g].to && mean.shapes)
                print_goal(m, name, "reading", mean, 0, reading_goals[g].each, misses);
        }
    }
    const double most = 3e-4; /* relative L2: f16 results */
    int wrong = 0, unsteady = 0, all = 0;
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i];
        if (!is_ours(r->who))
            continue;
        all++;
        wrong += !(r->error <= most);
        unsteady += !r->repeats;
    }
    printf("\nOf %d results of ours %d have an error of more than %.0e, and %d did not come out the same "
           "twice.\n\n",
           all, wrong, most, unsteady);
}

/* ---- kinds of weights ---- */

void print_kinds(const struct sweep *sweep) {
    const struct kind *base = &sweep->options->kinds[0];
    printf("us: median and tenths; \"of %s\": time / %s's; \"bytes\": likewise; \"excess\": the former / the "
           "latter, which 1 would mean that time goes by bytes.\n\n| NxK | M | implementation | weights | us "
           "| p10-p90 | of %s | bytes | excess | error | bits | kernel "
           "|\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
           base->name, base->name, base->name);
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i], *first = NULL;
        for (int j = 0; j < sweep->num_results && !first; j++)
            if (same_point(r, &sweep->results[j]) && sweep->results[j].who->peer == r->who->peer &&
                sweep->results[j].who->kind == base)
                first = &sweep->results[j];
        printf("| %" PRId64 "x%" PRId64 " | %" PRId64 " | %s | %s |", r->shape.n, r->shape.k, r->m,
               r->who->peer->name, r->who->kind->name);
        print_cell(r);
        if (first) {
            double time = r->time.median / first->time.median,
                   bytes = (double)r->bytes / (double)first->bytes;
            printf(" %.3f | %.3f | %.3f |", time, bytes, time / bytes);
        } else
            printf(" | | |");
        printf(" %.1e | %s | %s |\n", r->error, r->repeats ? "same" : "different", r->kernel);
    }
    printf("\n");
}

/* What a kind may cost: its time as a multiple of the first kind's, and that by the bytes of both. */
static const struct {
    const char *kind;
    bool by_bytes;
    int64_t to; /* m */
    double most;
} kind_goals[] = {
    {"int4_g32", true, MAX_M, 1.1},     {"int4_g64", true, MAX_M, 1.1},    {"int4_asym", true, MAX_M, 1.1},
    {"int4_act_order", false, 64, 1.1}, {"int4:bf16", false, MAX_M, 1.05},
};

/* Of ours by plain launches. The least factor is that of the costliest shape. */
static struct mean cost_of(const struct sweep *sweep, int64_t m, const char *kind, bool by_bytes) {
    struct mean mean = {0};
    for (int i = 0; i < sweep->num_results; i++) {
        const struct result *r = &sweep->results[i], *first = NULL;
        if (r->m != m || r->who->peer != &ours_plain || strcmp(r->who->kind->name, kind))
            continue;
        for (int j = 0; j < sweep->num_results && !first; j++)
            if (same_point(r, &sweep->results[j]) && sweep->results[j].who->peer == &ours_plain &&
                sweep->results[j].who->kind == &sweep->options->kinds[0])
                first = &sweep->results[j];
        double bytes = first && by_bytes ? (double)r->bytes / (double)first->bytes : 1;
        if (first)
            count_in(&mean, bytes * first->time.median / r->time.median, r->shape);
    }
    return mean;
}

void print_kind_goals(const struct sweep *sweep) {
    printf("### Goals\n\nTime as a multiple of %s's, and where it says so, by the bytes of both.\n\n"
           "| weights | M | | shapes | mean | most | of | goal | |\n|---|---|---|---|---|---|---|---|---|\n",
           sweep->options->kinds[0].name);
    for (size_t g = 0; g < sizeof kind_goals / sizeof *kind_goals; g++)
        for (int64_t m = 1; m <= kind_goals[g].to; m++) {
            struct mean mean = cost_of(sweep, m, kind_goals[g].kind, kind_goals[g].by_bytes);
            if (!mean.shapes)
                continue;
            printf("| %s | %" PRId64 " | %s | %d | %.3f | %.3f | %" PRId64 "x%" PRId64 " | %.2f | %s |\n",
                   kind_goals[g].kind, m, kind_goals[g].by_bytes ? "by bytes" : "", mean.shapes,
                   exp(-mean.sum / mean.shapes), 1 / mean.least, mean.worst.n, mean.worst.k,
                   kind_goals[g].most, 1 / mean.least <= kind_goals[g].most ? "reached" : "MISSED");
        }
    printf("\n");
}

/* ---- cliffs ---- */

static int by_shape_and_m(const void *a, const void *b) {
    const struct result *x = *(const struct result *const *)a, *y = *(const struct result *const *)b;
    if (x->shape.n != y->shape.n)
        return x->shape.n < y->shape.n ? -1 : 1;
    if (x->shape.k != y->shape.k)
        return x->shape.k < y->shape.k ? -1 : 1;
    return (x->m > y->m) - (x->m < y->m);
}

void print_cliffs(const struct sweep *sweep) {
    const double steepest = 1.2;
    const struct result **sorted = allocate((size_t)sweep->num_results, sizeof *sorted);
    int count = 0, cliffs = 0, pairs = 0;
    for (int i = 0; i < sweep->num_results; i++)
        if (sweep->results[i].who->peer == &ours_plain)
            sorted[count++] = &sweep->results[i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_shape_and_m);
    printf("### Steps\n\nWhere %s takes more than %.1f times as long as with the next smaller m that was "
           "measured.\n\n| NxK | M | us | next M | us | factor | kernels |\n|---|---|---|---|---|---|---|\n",
           ours_plain.name, steepest);
    for (int i = 1; i < count; i++) {
        const struct result *low = sorted[i - 1], *high = sorted[i];
        if (low->shape.n != high->shape.n || low->shape.k != high->shape.k)
            continue;
        double factor = high->time.median / low->time.median;
        pairs++;
        if (factor <= steepest)
            continue;
        cliffs += high->m == low->m + 1;
        printf("| %" PRId64 "x%" PRId64 " | %" PRId64 " | %.2f | %" PRId64 " | %.2f | %.2f | %s, %s |\n",
               low->shape.n, low->shape.k, low->m, 1e6 * low->time.median, high->m, 1e6 * high->time.median,
               factor, low->kernel, high->kernel);
    }
    printf("\n%d pairs, %d of them neighbours above %.1f.\n\n", pairs, cliffs, steepest);
    free(sorted);
}
