/* fmk_quantize: checks its arguments, then quantizes rows in parallel. A task is ROWS rows, so that words and
 * cache lines of the [k/8][n] outputs belong to one task, and no result depends on who does which. */
#include "quantize.h"

#include "../abi.h"
#include "../error.h"
#include "../floats.h"
#include "../formats/k_quants.h"
#include "../formats/source.h"
#include "../parallel.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { ROWS = 16 };

struct job {
    const fmk_quantize_args *args;
    int64_t group_size;         /* GPTQ */
    _Atomic(int64_t) first_bad; /* row * k + col of the first weight that is not finite */
    atomic_bool no_memory;
};

static bool is_gptq(fmk_format format) {
    return format == FMK_FORMAT_GPTQ || format == FMK_FORMAT_GPTQ_V2;
}

/* ---- checks ---- */

static fmk_status check_gptq(fmk_quantize_args *args, uint64_t *qweight, uint64_t *scales, uint64_t *qzeros) {
    if (args->n % 8)
        return fmk_fail(FMK_EINVAL, "n %lld is not a multiple of 8, a word of qzeros", (long long)args->n);
    if (args->k % 8)
        return fmk_fail(FMK_EINVAL, "k %lld is not a multiple of 8, a word of qweight", (long long)args->k);
    if (args->group_size != -1 && args->group_size < 8)
        return fmk_fail(FMK_EINVAL, "group_size %d: accepted are -1 (one group) or 8 and more",
                        args->group_size);
    if (args->symmetric != 0 && args->symmetric != 1)
        return fmk_fail(FMK_EINVAL, "symmetric %d: accepted are 1 and 0", args->symmetric);
    if (!args->scales_type)
        args->scales_type = FMK_F16;
    if (args->scales_type != FMK_F16 && args->scales_type != FMK_BF16)
        return fmk_fail(FMK_EINVAL, "scales_type %d (%s): accepted are F16 and BF16", args->scales_type,
                        fmk_dtype_name(args->scales_type));
    /* n and k are below 2^31 and groups at most k / 8: no product reaches 2^63. */
    int64_t size = args->group_size == -1 ? args->k : args->group_size;
    int64_t groups = (args->k + size - 1) / size;
    *qweight = (uint64_t)(args->k / 8 * args->n * 4);
    *scales = (uint64_t)(groups * args->n * 2);
    *qzeros = (uint64_t)(groups * (args->n / 8) * 4);
    return FMK_OK;
}

static fmk_status check_k_quant(const fmk_quantize_args *args, uint64_t *qweight) {
    if (args->k % FMK_SUPER_BLOCK)
        return fmk_fail(FMK_EINVAL, "k %lld is not a multiple of 256, the super-block of %s",
                        (long long)args->k, fmk_format_name(args->format));
    if (args->group_size)
        return fmk_fail(FMK_EINVAL, "group_size %d: %s has none, accepted is 0", args->group_size,
                        fmk_format_name(args->format));
    int64_t block = args->format == FMK_FORMAT_Q4_K ? FMK_Q4K_BLOCK : FMK_Q6K_BLOCK;
    *qweight = (uint64_t)(args->n * (args->k / FMK_SUPER_BLOCK) * block);
    return FMK_OK;
}

fmk_status fmk_quantize_check(fmk_quantize_args *args, uint64_t *qweight, uint64_t *scales,
                              uint64_t *qzeros) {
    *qweight = *scales = *qzeros = 0;
    if (!is_gptq(args->format) && args->format != FMK_FORMAT_Q4_K && args->format != FMK_FORMAT_Q6_K)
        return fmk_fail(FMK_EINVAL, "format %d (%s): accepted are Q4_K, Q6_K, GPTQ and GPTQ_V2", args->format,
                        fmk_format_name(args->format));
    if (args->n < 1 || args->n > INT32_MAX)
        return fmk_fail(FMK_EINVAL, "n %lld: accepted are 1 to 2147483647", (long long)args->n);
    if (args->k < 1 || args->k > INT32_MAX)
        return fmk_fail(FMK_EINVAL, "k %lld: accepted are 1 to 2147483647", (long long)args->k);
    if (args->in_type != FMK_F32 && args->in_type != FMK_F16 && args->in_type != FMK_BF16)
        return fmk_fail(FMK_EINVAL, "in_type %d (%s): accepted are F32, F16 and BF16", args->in_type,
                        fmk_dtype_name(args->in_type));
    if (!args->in_stride)
        args->in_stride = args->k;
    int64_t in_bytes;
    if (args->in_stride < args->k)
        return fmk_fail(FMK_EINVAL, "in_stride %lld is less than k %lld", (long long)args->in_stride,
                        (long long)args->k);
    if (!fmk_mul(args->n, args->in_stride, &in_bytes) ||
        !fmk_mul(in_bytes, fmk_dtype_size(args->in_type), &in_bytes))
        return fmk_fail(FMK_EINVAL, "in_stride %lld times n %lld is more than memory can hold",
                        (long long)args->in_stride, (long long)args->n);
    return is_gptq(args->format) ? check_gptq(args, qweight, scales, qzeros) : check_k_quant(args, qweight);
}

/* ---- tasks ---- */

/* in[row][k .. k+count) as float; `in` may lie at any address. */
static void load(const fmk_quantize_args *args, int64_t row, int64_t k, int64_t count, float *out) {
    fmk_load_floats(args->in, args->in_type, row * args->in_stride + k, count, out);
}

static int64_t last_row(const fmk_quantize_args *args, int64_t task) {
    return fmk_min((task + 1) * ROWS, args->n);
}

static void check_rows(void *arg, int64_t task) {
    enum { RUN = 256 };
    struct job *job = arg;
    const fmk_quantize_args *args = job->args;
    float x[RUN];
    for (int64_t row = task * ROWS; row < last_row(args, task); row++)
        for (int64_t k = 0; k < args->k; k += RUN) {
            int64_t count = fmk_min(RUN, args->k - k), i = 0;
            load(args, row, k, count, x);
            uint32_t bad = 0; /* all ones in the exponent */
            for (; i < count; i++)
                bad |= (fmk_bits_of_float(x[i]) & 0x7fffffff) >= 0x7f800000;
            if (!bad)
                continue;
            for (i = 0; isfinite(x[i]); i++)
                ;
            int64_t here = row * args->k + k + i, first = atomic_load(&job->first_bad);
            while (here < first && !atomic_compare_exchange_weak(&job->first_bad, &first, here))
                ;
            return;
        }
}

static void quantize_blocks(void *arg, int64_t task) {
    const fmk_quantize_args *args = ((struct job *)arg)->args;
    bool q4k = args->format == FMK_FORMAT_Q4_K;
    int64_t size = q4k ? FMK_Q4K_BLOCK : FMK_Q6K_BLOCK;
    uint8_t *block = (uint8_t *)args->qweight + task * ROWS * (args->k / FMK_SUPER_BLOCK) * size;
    float x[FMK_SUPER_BLOCK];
    for (int64_t row = task * ROWS; row < last_row(args, task); row++)
        for (int64_t k = 0; k < args->k; k += FMK_SUPER_BLOCK, block += size) {
            load(args, row, k, FMK_SUPER_BLOCK, x);
            if (q4k)
                fmk_quantize_q4k(x, block);
            else
                fmk_quantize_q6k(x, block);
        }
}

/* codes [k] of a row into its column of qweight. */
static void store_column(const fmk_quantize_args *args, int64_t row, const uint8_t *codes) {
    for (int64_t k = 0; k < args->k; k += 8) {
        uint32_t word = 0;
        for (int p = 0; p < 8; p++)
            word |= (uint32_t)codes[k + p] << 4 * p;
        memcpy((uint8_t *)args->qweight + 4 * (k / 8 * args->n + row), &word, sizeof word);
    }
}

static void quantize_groups(void *arg, int64_t task) {
    struct job *job = arg;
    const fmk_quantize_args *args = job->args;
    bool v1 = args->format == FMK_FORMAT_GPTQ;
    int64_t padded = fmk_round_up(job->group_size, 4);
    /* A group's weights, then a row's codes and room for the padding of its last group. */
    float *x = aligned_alloc(16, (size_t)fmk_round_up(padded * (int64_t)sizeof *x + args->k + 4, 16));
    if (!x) {
        atomic_store(&job->no_memory, true);
        return;
    }
    uint8_t *codes = (uint8_t *)(x + padded);
    for (int64_t row = task * ROWS; row < last_row(args, task); row++) {
        for (int64_t group = 0, k = 0; k < args->k; group++, k += job->group_size) {
            int64_t count = fmk_min(job->group_size, args->k - k), vectors = fmk_round_up(count, 4);
            load(args, row, k, count, x);
            memset(x + count, 0, (size_t)(vectors - count) * sizeof *x);
            uint8_t zero;
            /* A zero of 0 would be stored as 15 in v1, which not every loader takes back to 0. */
            uint16_t scale =
                fmk_quantize_int4(x, vectors, args->symmetric, v1, args->scales_type, codes + k, &zero);
            memcpy((uint8_t *)args->scales + 2 * (group * args->n + row), &scale, sizeof scale);
            uint8_t *byte = (uint8_t *)args->qzeros + (group * args->n + row) / 2; /* n is even */
            zero = (uint8_t)(zero - v1);
            *byte = row % 2 ? (uint8_t)(*byte | zero << 4) : zero;
        }
        store_column(args, row, codes);
    }
    free(x);
}

fmk_status fmk_quantize_weights(struct fmk_context *ctx, const fmk_quantize_args *args) {
    struct job job = {.args = args,
                      .group_size = args->group_size == -1 ? args->k : fmk_min(args->group_size, args->k)};
    atomic_init(&job.first_bad, INT64_MAX);
    atomic_init(&job.no_memory, false);
    int64_t tasks = (args->n + ROWS - 1) / ROWS;
    fmk_parallel(ctx, check_rows, &job, tasks);
    int64_t bad = atomic_load(&job.first_bad);
    if (bad != INT64_MAX) {
        float value;
        load(args, bad / args->k, bad % args->k, 1, &value);
        return fmk_fail(FMK_EINVAL, "in[%lld][%lld] is %f: accepted are finite weights",
                        (long long)(bad / args->k), (long long)(bad % args->k), (double)value);
    }
    fmk_parallel(ctx, is_gptq(args->format) ? quantize_groups : quantize_blocks, &job, tasks);
    if (atomic_load(&job.no_memory))
        return fmk_no_memory((uint64_t)(job.group_size * 4 + args->k), "a row of weights");
    return FMK_OK;
}
