/* What results should be: some rows and columns in double, from the codes and scales as the file has them. */
#include "sweep.h"
#include "synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 256, MAX_ROWS = 24 };

/* Rows at whose ends tiles begin; of a call those below m are looked at, and its last one. */
static const int64_t tile_rows[] = {0,   1,   3,   7,   8,   15,  16,   31,   32,   63,   64,
                                    127, 128, 255, 256, 511, 512, 1023, 1024, 2047, 2048, 4095};

struct expected {
    const struct kind *kind;
    float *weight;       /* [COLUMNS][k] */
    double *rows[MAX_M]; /* [COLUMNS]; NULL: not yet computed */
};

struct check {
    struct sweep *sweep;
    int64_t n, k;
    int64_t column[COLUMNS];
    struct expected expected[MAX_KINDS];
};

/* ---- the weight ---- */

static void decode(struct check *check, const struct source *from, float *weight) {
    struct bench_peer_source source = source_for_peer(from);
    const uint32_t *codes = source.qweight, *zeros = source.qzeros;
    const uint16_t *scales = source.scales;
    int64_t n = check->n, k = check->k, groups = (k + source.group_size - 1) / source.group_size;
    uint16_t *halves = allocate((size_t)(groups * COLUMNS), sizeof *halves);
    float *scale = allocate((size_t)(groups * COLUMNS), sizeof *scale);
    for (int64_t g = 0; g < groups; g++)
        for (int c = 0; c < COLUMNS; c++)
            halves[g * COLUMNS + c] = scales[g * n + check->column[c]];
    convert(&check->sweep->cpu, halves, FMK_F16, scale, FMK_F32, groups, COLUMNS);
    for (int c = 0; c < COLUMNS; c++) {
        int64_t column = check->column[c];
        for (int64_t i = 0; i < k; i++) {
            int64_t group = source.g_idx ? source.g_idx[i] : i / source.group_size;
            int code = (int)(codes[i / 8 * n + column] >> i % 8 * 4 & 15), zero = 8;
            if (zeros)
                zero = (int)(zeros[group * (n / 8) + column / 8] >> column % 8 * 4 & 15) + 1;
            weight[c * k + i] = scale[group * COLUMNS + c] * (float)(code - zero);
        }
    }
    free(halves);
    free(scale);
}

struct check *check_open(struct sweep *sweep, const struct source *sources) {
    struct check *check = allocate(1, sizeof *check);
    check->sweep = sweep;
    check->n = sources[0].part.n;
    check->k = sources[0].part.k;
    for (int c = 0; c < COLUMNS; c++) { /* one at a place of its own in each of as many slices */
        int64_t begin = check->n * c / COLUMNS, end = check->n * (c + 1) / COLUMNS;
        check->column[c] = begin + (int64_t)c * 37 % (end - begin);
    }
    for (int i = 0; i < sweep->options->num_kinds; i++) {
        struct expected *expected = &check->expected[i];
        expected->kind = &sweep->options->kinds[i];
        expected->weight = allocate((size_t)(COLUMNS * check->k), sizeof(float));
        decode(check, &sources[i], expected->weight);
    }
    return check;
}

void check_close(struct check *check) {
    for (int i = 0; i < check->sweep->options->num_kinds; i++) {
        free(check->expected[i].weight);
        for (int m = 0; m < MAX_M; m++)
            free(check->expected[i].rows[m]);
    }
    free(check);
}

/* ---- rows ---- */

static const double *expected_row(struct check *check, struct expected *expected, const void *in,
                                  int64_t row) {
    if (expected->rows[row])
        return expected->rows[row];
    int64_t k = check->k;
    double *want = expected->rows[row] = allocate(COLUMNS, sizeof *want);
    uint16_t *raw = allocate((size_t)k, sizeof *raw);
    float *x = allocate((size_t)k, sizeof *x);
    gpu_download(&check->sweep->bench.gpu, raw, (uintptr_t)in + 2 * (uint64_t)(row * k), 2 * (uint64_t)k);
    convert(&check->sweep->cpu, raw, expected->kind->dtype, x, FMK_F32, 1, k);
    for (int c = 0; c < COLUMNS; c++) {
        const float *w = expected->weight + c * k;
        double sum[8] = {0};
        for (int64_t i = 0; i < k; i++)
            sum[i % 8] += (double)x[i] * (double)w[i];
        for (int j = 0; j < 8; j++)
            want[c] += sum[j];
    }
    free(raw);
    free(x);
    return want;
}

static int rows_of(int64_t m, int64_t *rows) {
    int count = 0;
    for (size_t i = 0; i < sizeof tile_rows / sizeof *tile_rows; i++)
        if (tile_rows[i] < m - 1)
            rows[count++] = tile_rows[i];
    rows[count++] = m - 1;
    return count;
}

/* ---- a call ---- */

/* Runs it over an output full of NaNs, and brings some of its rows. */
static void bring(const struct gpu *gpu, const struct contender *who, const struct bench_peer_call *call,
                  int64_t n, const int64_t *rows, int count, uint16_t *out) {
    uint64_t at = (uintptr_t)call->out, row = 2 * (uint64_t)n;
    gpu_check(gpu, gpu->driver.MemsetD8Async(at, 0xff, row * (uint64_t)call->m, gpu->stream), "a memset");
    if (who->peer->run(who->weights[0], call))
        quit(EXIT_REFUSED, "%s refused a call that it was prepared for", who->name);
    gpu_wait(gpu);
    for (int i = 0; i < count; i++)
        gpu_download(gpu, out + i * n, at + (uint64_t)rows[i] * row, row);
}

double check_call(struct check *check, const struct contender *who, const struct bench_peer_call *call,
                  bool *repeats) {
    const struct gpu *gpu = &check->sweep->bench.gpu;
    struct expected *expected = &check->expected[who->kind - check->sweep->options->kinds];
    int64_t rows[MAX_ROWS], n = check->n;
    int count = rows_of(call->m, rows);
    uint16_t *once = allocate((size_t)(count * n), sizeof *once),
             *twice = allocate((size_t)(count * n), sizeof *twice);
    bring(gpu, who, call, n, rows, count, once);
    bring(gpu, who, call, n, rows, count, twice);
    *repeats = !memcmp(once, twice, (size_t)(count * n) * sizeof *once);

    uint16_t *picked = allocate((size_t)count * COLUMNS, sizeof *picked);
    float *got = allocate((size_t)count * COLUMNS, sizeof *got);
    for (int r = 0; r < count; r++)
        for (int c = 0; c < COLUMNS; c++)
            picked[r * COLUMNS + c] = once[r * n + check->column[c]];
    convert(&check->sweep->cpu, picked, who->kind->dtype, got, FMK_F32, count, COLUMNS);
    double difference = 0, whole = 0;
    for (int r = 0; r < count; r++) {
        const double *want = expected_row(check, expected, call->in, rows[r]);
        for (int c = 0; c < COLUMNS; c++) {
            double is = (double)got[r * COLUMNS + c];
            difference += (is - want[c]) * (is - want[c]);
            whole += want[c] * want[c];
        }
    }
    free(once);
    free(twice);
    free(picked);
    free(got);
    return sqrt(difference / whole);
}
