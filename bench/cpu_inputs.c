/* Activations and errors: see cpu_inputs.h. */
#include "cpu_inputs.h"
#include "random.h"
#include "tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void multiply(double *want, const float *in, const float *weight, int tokens, int rows, int64_t k) {
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += (double)in[t * k + i] * (double)weight[r * k + i];
            want[t * ROWS + r] = sum;
        }
}

/* The rows by the library's decoder, which its tests hold to the formats' formulas bit for bit. */
static float *decode_rows(struct bench *bench, const struct bench_peer_source *source,
                          const struct inputs *inputs) {
    fmk_part part = source_part(source);
    fmk_weight_desc desc = {
        .struct_size = sizeof desc, .flags = FMK_WEIGHT_BORROW, .parts = &part, .num_parts = 1};
    fmk_weight *weight;
    int32_t ids[ROWS];
    float *rows = allocate_aligned((uint64_t)(inputs->rows * source->k) * sizeof *rows);
    for (int r = 0; r < inputs->rows; r++)
        ids[r] = (int32_t)inputs->row[r];
    fmk_rows_args args = {.struct_size = sizeof args,
                          .out_type = FMK_F32,
                          .m = inputs->rows,
                          .ids = {.handle = (uintptr_t)ids, .size = sizeof ids},
                          .out = {.handle = (uintptr_t)rows}};
    check(fmk_weight_create(&weight, bench->cpu.queue, &desc), "fmk_weight_create");
    check(fmk_rows(bench->cpu.queue, weight, &args), "fmk_rows");
    fmk_weight_destroy(weight, bench->cpu.queue);
    return rows;
}

void inputs_make(struct inputs *inputs, struct bench *bench, const struct bench_peer_source *source) {
    enum { SEED = 7, ONE_OF = 100, TIMES = 50 };
    const struct options *o = bench->options;
    *inputs = (struct inputs){.n = source->n, .k = source->k, .m = FEWEST};
    for (int i = 0; i < o->num_m; i++)
        inputs->m = o->m[i] > inputs->m ? o->m[i] : inputs->m;
    int64_t k = inputs->k, elements = inputs->m * k;
    inputs->normal = allocate_aligned((uint64_t)elements * sizeof(float));
    inputs->outliers = allocate_aligned((uint64_t)elements * sizeof(float));
    inputs->out = allocate_aligned((uint64_t)(inputs->m * inputs->n) * sizeof(float));
    random_normal(inputs->normal, elements, SEED);
    for (int64_t i = 0; i < elements; i++)
        inputs->outliers[i] = inputs->normal[i] * (i % k % ONE_OF == ONE_OF / 2 ? TIMES : 1);

    inputs->rows = inputs->n < ROWS ? (int)inputs->n : ROWS;
    for (int r = 0; r < inputs->rows;
         r++) /* spread over all of them, each another row of the ROWS that differ */
        inputs->row[r] = inputs->n / ROWS * r / ROWS * ROWS + r;
    int tokens = inputs->m < TOKENS ? (int)inputs->m : TOKENS;
    inputs->want_normal = allocate(TOKENS * ROWS, sizeof(double));
    inputs->want_outliers = allocate(TOKENS * ROWS, sizeof(double));
    float *rows = decode_rows(bench, source, inputs);
    multiply(inputs->want_normal, inputs->normal, rows, tokens, inputs->rows, k);
    multiply(inputs->want_outliers, inputs->outliers, rows, tokens, inputs->rows, k);
    free(rows);
}

void inputs_free(struct inputs *inputs) {
    free(inputs->normal);
    free(inputs->outliers);
    free(inputs->out);
    free(inputs->want_normal);
    free(inputs->want_outliers);
}

struct bench_peer_call inputs_call(const struct inputs *inputs, int64_t m) {
    return (struct bench_peer_call){.m = m, .type = "f32", .in = inputs->normal, .out = inputs->out};
}

int error_calls(int64_t m) {
    return m < FEWEST ? (int)((FEWEST + m - 1) / m) : 1;
}

double error_of(struct contender *who, const struct inputs *inputs, int64_t m, const float *in,
                const double *want) {
    struct bench_peer_call call = inputs_call(inputs, m);
    double difference = 0, whole = 0;
    int tokens = m < TOKENS ? (int)m : TOKENS;
    for (int c = 0; c < error_calls(m); c++) {
        int64_t first = c * m <= inputs->m - m ? c * m : inputs->m - m;
        call.in = in + first * inputs->k;
        memset(inputs->out, 0xff, (size_t)(m * inputs->n) * sizeof(float)); /* NaN, if it stays */
        contender_call(who, &call);
        for (int t = 0; t < tokens; t++)
            for (int r = 0; r < inputs->rows; r++) {
                double got = inputs->out[t * inputs->n + inputs->row[r]], is = want[(first + t) * ROWS + r];
                difference += (got - is) * (got - is);
                whole += is * is;
            }
    }
    return sqrt(difference / whole);
}
