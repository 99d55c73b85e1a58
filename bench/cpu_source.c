/* Random weights as their files hold them, for every contender alike. */
#include "cpu_bench.h"
#include "synthetic.h"
#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *format, *synthetic; /* the words of peer.h and of synthetic.h */
} formats[] = {
    {"q4_k", "q4_k"}, {"q6_k", "q6_k"}, {"int4", "gptq"}, {"int4_asym", "gptq_asym"},
    {"f16", "f16"},   {"bf16", "bf16"}, {"f32", "f32"},
};

enum { NUM_FORMATS = sizeof formats / sizeof *formats };

static size_t row_of(const char *format) {
    size_t row = 0;
    while (row < NUM_FORMATS && strcmp(formats[row].format, format))
        row++;
    return row;
}

bool source_knows(const char *format) {
    return row_of(format) < NUM_FORMATS;
}

/* Of n x k weights. */
static uint64_t bytes_of(const char *format, uint64_t weights) {
    enum { SUPER_BLOCK = 256, Q4_K_BYTES = 144, Q6_K_BYTES = 210 };
    if (!strcmp(format, "q4_k"))
        return weights / SUPER_BLOCK * Q4_K_BYTES;
    if (!strcmp(format, "q6_k"))
        return weights / SUPER_BLOCK * Q6_K_BYTES;
    if (!strncmp(format, "int4", 4))
        return weights / 2;
    return weights * (strcmp(format, "f32") ? 2 : 4);
}

void source_make(struct bench_peer_source *source, struct bench *bench, const char *format,
                 struct shape shape) {
    struct synthetic made;
    bool grouped = !strncmp(format, "int4", 4);
    if (grouped && shape.n % 8)
        quit(EXIT_USAGE, "%s: N %" PRId64 " is not a multiple of 8", format, shape.n);
    int32_t group_size = grouped ? bench->options->group_size : 0;
    synthetic_make(&made, &bench->cpu, formats[row_of(format)].synthetic, shape.n, shape.k, group_size);
    *source = (struct bench_peer_source){.format = format,
                                         .n = shape.n,
                                         .k = shape.k,
                                         .group_size = group_size,
                                         .qweight = made.qweight,
                                         .qweight_bytes = bytes_of(format, (uint64_t)(shape.n * shape.k))};
    if (grouped) {
        uint64_t groups = (uint64_t)((shape.k + group_size - 1) / group_size);
        source->scales = made.scales;
        source->scales_bytes = 2 * groups * (uint64_t)shape.n;
        source->qzeros = made.qzeros;
        source->qzeros_bytes = made.qzeros ? groups * (uint64_t)shape.n / 2 : 0;
    }
}

void source_free(struct bench_peer_source *source) {
    free((void *)(uintptr_t)source->qweight);
    free((void *)(uintptr_t)source->scales);
    free((void *)(uintptr_t)source->qzeros);
}

uint64_t source_bytes(const struct bench_peer_source *source) {
    return source->qweight_bytes + source->scales_bytes + source->qzeros_bytes;
}

static fmk_tensor tensor_of(const void *data, uint64_t bytes, fmk_dtype dtype) {
    return (fmk_tensor){.data = {.handle = (uintptr_t)data, .size = bytes}, .dtype = dtype};
}

fmk_part source_part(const struct bench_peer_source *source) {
    static const struct {
        const char *format;
        fmk_format id;
        fmk_dtype dtype;
        int32_t symmetric;
    } parts[] = {
        {"q4_k", FMK_FORMAT_Q4_K, 0, 0},       {"q6_k", FMK_FORMAT_Q6_K, 0, 0},
        {"int4", FMK_FORMAT_GPTQ, 0, 1},       {"int4_asym", FMK_FORMAT_GPTQ, 0, -1},
        {"f16", FMK_FORMAT_DENSE, FMK_F16, 0}, {"bf16", FMK_FORMAT_DENSE, FMK_BF16, 0},
        {"f32", FMK_FORMAT_DENSE, FMK_F32, 0},
    };
    size_t row = 0;
    while (strcmp(parts[row].format, source->format))
        row++;
    return (fmk_part){.struct_size = sizeof(fmk_part),
                      .format = parts[row].id,
                      .n = source->n,
                      .k = source->k,
                      .group_size = source->group_size,
                      .symmetric = parts[row].symmetric,
                      .qweight = tensor_of(source->qweight, source->qweight_bytes, parts[row].dtype),
                      .scales = tensor_of(source->scales, source->scales_bytes, 0),
                      .qzeros = tensor_of(source->qzeros, source->qzeros_bytes, 0)};
}
