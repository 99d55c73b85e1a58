/* Quantizers: what they write is read back by the independent decoders of reference.c, and its error is held
 * against that of plain rounding; every refusal; results that do not depend on threads. */
#include "ferrumk.h"
#include "reference.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ref_rng rng;
static fmk_context *ctx;

/* Outputs of one quantization, as a part that reference.c can decode. */
struct result {
    fmk_part part;
    void *memory[3];
    uint64_t sizes[3];
};

static fmk_quantize_args gptq_args(fmk_format format, int64_t n, int64_t k, int32_t group_size,
                                   int32_t symmetric) {
    return (fmk_quantize_args){.struct_size = sizeof(fmk_quantize_args),
                               .format = format,
                               .n = n,
                               .k = k,
                               .group_size = group_size,
                               .symmetric = symmetric,
                               .in_type = FMK_F32};
}

static fmk_quantize_args k_quant_args(fmk_format format, int64_t n, int64_t k) {
    return (fmk_quantize_args){
        .struct_size = sizeof(fmk_quantize_args), .format = format, .n = n, .k = k, .in_type = FMK_F32};
}

static void *fenced(uint64_t size) {
    uint8_t *memory = malloc(size + 16);
    memset(memory, 0xa5, size + 16);
    return memory;
}

static struct result quantize(fmk_context *with, fmk_quantize_args args) {
    struct result r = {.part = {.struct_size = sizeof r.part,
                                .format = args.format,
                                .n = args.n,
                                .k = args.k,
                                .group_size = args.group_size}};
    assert_int_equal(fmk_quantize_size(&args, &r.sizes[0], &r.sizes[1], &r.sizes[2]), FMK_OK);
    fmk_tensor *tensors[] = {&r.part.qweight, &r.part.scales, &r.part.qzeros};
    void **outputs[] = {&args.qweight, &args.scales, &args.qzeros};
    for (int i = 0; i < 3; i++) {
        r.memory[i] = *outputs[i] = fenced(r.sizes[i]);
        if (r.sizes[i])
            tensors[i]->data = (fmk_buffer){.handle = (uint64_t)(uintptr_t)r.memory[i], .size = r.sizes[i]};
    }
    r.part.scales.dtype = args.scales_type ? args.scales_type : FMK_F16;
    if (fmk_quantize(with, &args))
        fail_msg("%s", fmk_last_error());
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 16; j++)
            assert_int_equal(((uint8_t *)r.memory[i])[r.sizes[i] + (uint64_t)j], 0xa5);
    return r;
}

static void free_result(struct result *r) {
    for (int i = 0; i < 3; i++)
        free(r->memory[i]);
}

static double *decode(const struct result *r) {
    double *values = malloc((size_t)(r->part.n * r->part.k) * sizeof *values);
    ref_decode(&r->part, 0, r->part.format == FMK_FORMAT_GPTQ ? 1 : 2, values);
    return values;
}

/* Squared error over squared weights, rooted. */
static double relative_error(const double *got, const float *want, int64_t count) {
    double error = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        error += (got[i] - (double)want[i]) * (got[i] - (double)want[i]);
        squares += (double)want[i] * (double)want[i];
    }
    return squares > 0 ? sqrt(error / squares) : error;
}

static float *normal_weights(int64_t count, double scale) {
    float *x = malloc((size_t)count * sizeof *x);
    for (int64_t i = 0; i < count; i++)
        x[i] = (float)(scale * ref_normal(&rng));
    return x;
}

/* The bound for N(0, 1) is that of rounding to `levels` steps over the range of each run of `run` weights,
 * range / (levels - 1) / sqrt(12), with the range of 32 normal numbers 4.13 wide on average, of 16 3.53. */
static void test_k_quants(void **state) {
    (void)state;
    int64_t n = 37, k = 768;
    float *x = normal_weights(n * k, 1);
    for (fmk_format format = FMK_FORMAT_Q4_K; format <= FMK_FORMAT_Q6_K; format++) {
        fmk_quantize_args args = k_quant_args(format, n, k);
        args.in = x;
        struct result r = quantize(ctx, args);
        double *got = decode(&r), error = relative_error(got, x, n * k);
        double bound = format == FMK_FORMAT_Q4_K ? 4.13 / 15 / sqrt(12) : 2 * 2.07 / 63 / sqrt(12);
        print_message("format %d: relative RMSE %.5f, plain rounding %.5f\n", format, error, bound);
        assert_true(error < bound);
        free(got);
        free_result(&r);
    }
    free(x);
}

/* Plain rounding over the full range of each group, in double. */
static double plain_error(const float *x, int64_t n, int64_t k, int64_t group_size, bool symmetric) {
    double *got = malloc((size_t)(n * k) * sizeof *got);
    for (int64_t row = 0; row < n; row++)
        for (int64_t begin = 0; begin < k; begin += group_size) {
            int64_t end = begin + group_size < k ? begin + group_size : k;
            double lo = 0, hi = 0;
            for (int64_t i = begin; i < end; i++) {
                lo = fmin(lo, (double)x[row * k + i]);
                hi = fmax(hi, (double)x[row * k + i]);
            }
            double scale = symmetric ? 2 * fmax(hi, -lo) / 15 : (hi - lo) / 15;
            double zero = symmetric ? 8 : rint(-lo / scale);
            for (int64_t i = begin; i < end; i++) {
                double code = fmin(fmax(rint((double)x[row * k + i] / scale) + zero, 0), 15);
                got[row * k + i] = scale * (code - zero);
            }
        }
    double error = relative_error(got, x, n * k);
    free(got);
    return error;
}

static void test_gptq(void **state) {
    (void)state;
    static const int32_t sizes[] = {-1, 8, 10, 32, 128, 1000};
    int64_t n = 24, k = 360;
    float *x = normal_weights(n * k, 0.02);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int turn = 0; turn < 8; turn++) {
            fmk_quantize_args args =
                gptq_args(turn & 1 ? FMK_FORMAT_GPTQ : FMK_FORMAT_GPTQ_V2, n, k, sizes[s], turn >> 1 & 1);
            args.scales_type = turn & 4 ? FMK_BF16 : 0;
            args.in = x;
            struct result r = quantize(ctx, args);
            if (args.symmetric) {
                uint32_t word = args.format == FMK_FORMAT_GPTQ ? 0x77777777 : 0x88888888;
                for (uint64_t i = 0; i < r.sizes[2] / 4; i++)
                    assert_int_equal(((uint32_t *)r.memory[2])[i], word);
            } else if (args.format ==
                       FMK_FORMAT_GPTQ) { /* no zero point of 0, which loaders read differently */
                for (uint64_t i = 0; i < r.sizes[2]; i++) {
                    assert_int_not_equal(((uint8_t *)r.memory[2])[i] & 15, 15);
                    assert_int_not_equal(((uint8_t *)r.memory[2])[i] >> 4, 15);
                }
            }
            double *got = decode(&r), error = relative_error(got, x, n * k);
            double plain = plain_error(x, n, k, sizes[s] == -1 ? k : sizes[s], args.symmetric);
            /* bf16 scales, rounded by up to 2^-9, cost up to 7 * 2^-9 steps at the ends of the codes. */
            if (error > plain * 1.01)
                fail_msg("group_size %d symmetric %d: %.6f, plain rounding %.6f", sizes[s], args.symmetric,
                         error, plain);
            free(got);
            free_result(&r);
        }
    free(x);
}

/* Blocks that a quantizer could stumble over: each must come back finite, and these to within the error that
 * a block's own numbers allow. */
static void test_odd_blocks(void **state) {
    (void)state;
    enum { CASES = 16, K = 256 };
    static const char *const names[CASES] = {
        "zeros",           "all equal, negative", "all equal, positive", "one spike",
        "f16 subnormals",  "the largest",         "float subnormals",    "beyond f16",
        "positive offset", "negative offset",     "two values",          "a ramp",
        "one negative",    "one large and noise", "alternating",         "minus zero"};
    static const double bounds[CASES] = {0,   0.02, 0.02, 0.01, 1,    1,   1,    1,
                                         0.1, 0.1,  0.08, 0.08, 0.01, 0.1, 0.08, 0};
    static float x[CASES][K];
    for (int i = 0; i < K; i++) {
        float noise = (float)ref_normal(&rng);
        x[1][i] = -3;
        x[2][i] = 0.7f;
        x[3][i] = i == 77 ? 100 : 0;
        x[4][i] = noise * 0x1p-20f;
        x[5][i] = i % 3 ? 3.4028234e38f : -3.4028234e38f;
        x[6][i] = noise * 0x1p-140f;
        x[7][i] = noise * 1e20f;
        x[8][i] = 5 + noise;
        x[9][i] = -5 + noise;
        x[10][i] = i % 2 ? 0.25f : -1;
        x[11][i] = (float)i / 64 - 2;
        x[12][i] = i == 3 ? -1 : 0;
        x[13][i] = i == 100 ? 1000 : noise;
        x[14][i] = i % 2 ? 1 : -1;
        x[15][i] = -0.0f;
    }
    for (int what = 0; what < 6; what++) {
        fmk_quantize_args args =
            what == 0   ? k_quant_args(FMK_FORMAT_Q4_K, CASES, K)
            : what == 1 ? k_quant_args(FMK_FORMAT_Q6_K, CASES, K)
                        : gptq_args(what % 2 ? FMK_FORMAT_GPTQ : FMK_FORMAT_GPTQ_V2, CASES, K, 32, what >= 4);
        args.in = x;
        struct result r = quantize(ctx, args);
        double *got = decode(&r);
        for (int c = 0; c < CASES; c++) {
            for (int i = 0; i < K; i++)
                if (!isfinite(got[c * K + i]))
                    fail_msg("format %d, %s: weight %d is %g", args.format, names[c], i, got[c * K + i]);
            double error = relative_error(got + c * K, x[c], K);
            /* A grid through zero that fits both ends has steps of a 7th of the range at worst. */
            double bound = what < 2 || bounds[c] == 0 || bounds[c] == 1 ? bounds[c] : fmax(bounds[c], 0.2);
            if (error > bound)
                fail_msg("format %d symmetric %d, %s: relative error %g, bound %g", args.format,
                         args.symmetric, names[c], error, bound);
        }
        free(got);
        free_result(&r);
    }
}

static void test_input_types_and_strides(void **state) {
    (void)state;
    int64_t n = 9, k = 256, stride = 300;
    for (fmk_dtype type = FMK_F16; type <= FMK_F32; type++) {
        int64_t size = ref_size(type);
        uint8_t *in = malloc((size_t)(n * stride * size) + 1);
        float *rounded = malloc((size_t)(n * k) * sizeof *rounded);
        memset(in, 0xff, (size_t)(n * stride * size) + 1); /* NaN between the rows is nobody's business */
        for (int64_t i = 0; i < n * k; i++) {
            void *at = in + 1 + (i / k * stride + i % k) * size;
            ref_store(type, at, ref_normal(&rng));
            rounded[i] = (float)ref_number(type, at);
        }
        fmk_quantize_args args = k_quant_args(FMK_FORMAT_Q6_K, n, k);
        args.in = rounded;
        struct result want = quantize(ctx, args);
        args.in = in + 1;
        args.in_type = type;
        args.in_stride = stride;
        struct result got = quantize(ctx, args);
        assert_memory_equal(got.memory[0], want.memory[0], want.sizes[0]);
        free_result(&want);
        free_result(&got);
        free(rounded);
        free(in);
    }
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    int64_t n = 200, k = 512;
    float *x = normal_weights(n * k, 1);
    for (int what = 0; what < 3; what++) {
        fmk_quantize_args args = what == 0   ? k_quant_args(FMK_FORMAT_Q4_K, n, k)
                                 : what == 1 ? k_quant_args(FMK_FORMAT_Q6_K, n, k)
                                             : gptq_args(FMK_FORMAT_GPTQ, n, k, 128, 0);
        args.in = x;
        struct result first = {0};
        for (int32_t threads = 1; threads <= 4; threads++) {
            fmk_context *other;
            fmk_context_desc desc = {
                .struct_size = sizeof desc, .backend = FMK_BACKEND_CPU, .cpu_threads = threads};
            assert_int_equal(fmk_context_create(&other, &desc), FMK_OK);
            struct result r = quantize(other, args);
            for (int i = 0; threads > 1 && i < 3; i++)
                assert_memory_equal(r.memory[i], first.memory[i], r.sizes[i]);
            if (threads > 1)
                free_result(&r);
            else
                first = r;
            fmk_context_destroy(other);
        }
        free_result(&first);
    }
    free(x);
}

/* ---- refusals ---- */

static void refuse(fmk_quantize_args args, const char *sentence) {
    fmk_status status = fmk_quantize(ctx, &args);
    if (status != FMK_EINVAL || strncmp(fmk_last_error(), sentence, strlen(sentence)))
        fail_msg("want \"%s\", got %s \"%s\"", sentence, fmk_status_name(status), fmk_last_error());
}

static void test_refuses(void **state) {
    (void)state;
    static float x[8 * 256];
    static uint8_t out[8 * 256];
    fmk_quantize_args k_quant = k_quant_args(FMK_FORMAT_Q4_K, 8, 256),
                      gptq = gptq_args(FMK_FORMAT_GPTQ, 8, 256, 32, 1);
    k_quant.in = gptq.in = x;
    k_quant.qweight = gptq.qweight = gptq.scales = gptq.qzeros = out;
    fmk_quantize_args args = k_quant;
    args.format = FMK_FORMAT_MARLIN;
    refuse(args, "format 4 (MARLIN): accepted are Q4_K, Q6_K, GPTQ and GPTQ_V2");
    args = k_quant;
    args.n = 0;
    refuse(args, "n 0: accepted are 1 to 2147483647");
    args = k_quant;
    args.k = 1LL << 60;
    refuse(args, "k 1152921504606846976: accepted are 1 to 2147483647");
    args = k_quant;
    args.k = 100;
    refuse(args, "k 100 is not a multiple of 256, the super-block of Q4_K");
    args = k_quant;
    args.group_size = 32;
    refuse(args, "group_size 32: Q4_K has none");
    args = k_quant;
    args.in_type = FMK_I32;
    refuse(args, "in_type 4 (I32): accepted are F32, F16 and BF16");
    args = k_quant;
    args.in_stride = 255;
    refuse(args, "in_stride 255 is less than k 256");
    args = k_quant;
    args.in_stride = INT64_MAX;
    refuse(args, "in_stride 9223372036854775807 times n 8 is more than memory can hold");
    args = gptq;
    args.n = 12;
    refuse(args, "n 12 is not a multiple of 8, a word of qzeros");
    args = gptq;
    args.k = 12;
    refuse(args, "k 12 is not a multiple of 8, a word of qweight");
    args = gptq;
    args.group_size = 7;
    refuse(args, "group_size 7: accepted are -1 (one group) or 8 and more");
    args = gptq;
    args.symmetric = -1;
    refuse(args, "symmetric -1: accepted are 1 and 0");
    args = gptq;
    args.scales_type = FMK_F32;
    refuse(args, "scales_type 3 (F32): accepted are F16 and BF16");
    args = gptq;
    args.in = NULL;
    refuse(args, "args.in is NULL");
    args = gptq;
    args.qzeros = NULL;
    refuse(args, "args.qzeros is NULL");
    args = k_quant;
    args.qweight = NULL;
    refuse(args, "args.qweight is NULL");
    assert_int_equal(fmk_quantize(NULL, &k_quant), FMK_EINVAL);
    assert_int_equal(fmk_quantize(ctx, NULL), FMK_EINVAL);
    uint64_t size;
    assert_int_equal(fmk_quantize_size(&k_quant, &size, NULL, &size), FMK_EINVAL);

    memset(out, 7, sizeof out);
    x[5 * 256 + 9] = INFINITY;
    x[6 * 256 + 1] = NAN;
    refuse(k_quant, "in[5][9] is inf: accepted are finite weights");
    x[5 * 256 + 9] = 0;
    refuse(gptq, "in[6][1] is nan: accepted are finite weights");
    for (size_t i = 0; i < sizeof out; i++)
        assert_int_equal(out[i], 7);
}

int main(void) {
    rng = ref_rng_start("test_quantize");
    if (fmk_context_create(&ctx, NULL)) {
        fprintf(stderr, "%s\n", fmk_last_error());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_k_quants),
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_odd_blocks),
        cmocka_unit_test(test_input_types_and_strides),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_refuses),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fmk_context_destroy(ctx);
    return failed;
}
