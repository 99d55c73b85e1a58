/* For tests of the public API: contexts with the features that the run asks for, one weight of every format,
 * and assertions that print the library's sentence. */
#ifndef FMK_TESTS_SAMPLES_H
#define FMK_TESTS_SAMPLES_H

#include "device.h"
#include "ferrumk.h"
#include "reference.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* FERRUMK_TEST_DISABLE names the features that a run of the tests does without, FERRUMK_TEST_BACKEND its
 * backend. */
static inline fmk_context_desc context_desc(int32_t threads) {
    fmk_context_desc desc = {.struct_size = sizeof desc,
                             .backend = test_backend(),
                             .cpu_threads = threads,
                             .native = test_native(),
                             .disable = getenv("FERRUMK_TEST_DISABLE")};
    return desc;
}

static inline void succeed(fmk_status status, const char *call, const char *file, int line) {
    if (status) {
        print_error("%s: %s: %s\n", call, fmk_status_name(status), fmk_last_error());
        _fail(file, line);
    }
}
#define OK(call) succeed(call, #call, __FILE__, __LINE__)

/* A refusal of one of two kinds (the second may be 0), whose sentence contains `word`. */
static inline void refuse(fmk_status got, fmk_status want, fmk_status other, const char *word,
                          const char *call, const char *file, int line) {
    if (got && (got == want || got == other) && strstr(fmk_last_error(), word))
        return;
    print_error("%s\n  answers %s (want %s) \"%s\" (want a sentence with \"%s\")\n", call,
                fmk_status_name(got), fmk_status_name(want), got ? fmk_last_error() : "", word);
    _fail(file, line);
}
#define REFUSED(call, want, word) refuse(call, want, 0, word, #call, __FILE__, __LINE__)
#define REFUSED_AS(call, want, other, word) refuse(call, want, other, word, #call, __FILE__, __LINE__)

static inline fmk_buffer buffer(const void *address, size_t size) {
    return (fmk_buffer){.handle = (uint64_t)(uintptr_t)address, .size = size};
}

/* n a multiple of 64 and k of 256 suit them all. */
static const struct {
    const char *name;
    struct ref_spec spec;
} samples[] = {
    {"f32", {.format = FMK_FORMAT_DENSE, .dtype = FMK_F32, .bias = FMK_F32}},
    {"f16", {.format = FMK_FORMAT_DENSE, .dtype = FMK_F16}},
    {"bf16", {.format = FMK_FORMAT_DENSE, .dtype = FMK_BF16}},
    {"gptq symmetric", {.format = FMK_FORMAT_GPTQ, .group_size = 64, .zeros = REF_ZEROS_ALL_7}},
    {"gptq_v2 asymmetric",
     {.format = FMK_FORMAT_GPTQ_V2, .group_size = 32, .dtype = FMK_BF16, .zeros = REF_ZEROS_RANDOM}},
    {"gptq act-order",
     {.format = FMK_FORMAT_GPTQ,
      .group_size = 32,
      .bias = FMK_F16,
      .zeros = REF_ZEROS_RANDOM,
      .groups = REF_GROUPS_SHUFFLED}},
    {"marlin", {.format = FMK_FORMAT_MARLIN, .group_size = 128}},
    {"q4_k", {.format = FMK_FORMAT_Q4_K}},
    {"q6_k", {.format = FMK_FORMAT_Q6_K}},
};
enum { NUM_SAMPLES = sizeof samples / sizeof samples[0] };

static inline void make_sample(struct ref_weight *made, int index, int64_t n, int64_t k,
                               struct ref_rng *rng) {
    struct ref_spec spec = samples[index].spec;
    spec.n = n;
    spec.k = k;
    ref_make(made, &spec, rng);
}

static inline fmk_weight_desc weight_desc(const fmk_part *parts, int32_t num_parts) {
    return (fmk_weight_desc){.struct_size = sizeof(fmk_weight_desc), .parts = parts, .num_parts = num_parts};
}

/* f32 in and out, no workspace yet. */
static inline fmk_linear_args linear_args(const float *in, float *out, int64_t m, int64_t n, int64_t k) {
    return (fmk_linear_args){.struct_size = sizeof(fmk_linear_args),
                             .m = m,
                             .in_type = FMK_F32,
                             .out_type = FMK_F32,
                             .in = buffer(in, (size_t)(m * k) * sizeof(float)),
                             .out = buffer(out, (size_t)(m * n) * sizeof(float))};
}

/* Gives `args` the workspace that is best for it; to be freed. */
static inline void *give_workspace(const fmk_weight *weight, fmk_linear_args *args) {
    uint64_t least, best;
    OK(fmk_workspace_size(weight, args, &least, &best));
    assert_true(least <= best);
    if (!best)
        return NULL;
    void *workspace = aligned_alloc(256, (best + 255) / 256 * 256);
    assert_non_null(workspace);
    args->workspace = buffer(workspace, best);
    return workspace;
}

static inline void fill_normal(float *values, int64_t count, struct ref_rng *rng) {
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)ref_normal(rng);
}

/* || got - want || / || want || for one token, want by plain loops in double. */
static inline double linear_error(const struct ref_weight *weight, const float *in, const float *got) {
    double error = 0, norm = 0;
    for (int64_t j = 0; j < weight->part.n; j++) {
        double sum = weight->bias ? ref_bias(weight, 0, j) : 0;
        for (int64_t l = 0; l < weight->part.k; l++)
            sum += (double)in[l] * ref_value(weight, 0, j, l);
        error += ((double)got[j] - sum) * ((double)got[j] - sum);
        norm += sum * sum;
    }
    return sqrt(error / norm);
}

#endif
