/* Random weights in any format: see synthetic.h. */
#include "synthetic.h"
#include "random.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

const char synthetic_formats[] = "f32, f16, bf16, q4_k, q6_k, gptq, gptq_asym";

static const struct {
    const char *name;
    fmk_format format;
    fmk_dtype dtype; /* dense */
    int32_t symmetric;
} formats[] = {
    {"f32", FMK_FORMAT_DENSE, FMK_F32, 0},   {"f16", FMK_FORMAT_DENSE, FMK_F16, 0},
    {"bf16", FMK_FORMAT_DENSE, FMK_BF16, 0}, {"q4_k", FMK_FORMAT_Q4_K, 0, 0},
    {"q6_k", FMK_FORMAT_Q6_K, 0, 0},         {"gptq", FMK_FORMAT_GPTQ, 0, 1},
    {"gptq_asym", FMK_FORMAT_GPTQ, 0, 0},
};

enum { NUM_FORMATS = sizeof formats / sizeof *formats };

/* Its place in the table; NUM_FORMATS = none. */
static size_t row_of(const char *format) {
    size_t row = 0;
    while (row < NUM_FORMATS && strcmp(formats[row].name, format))
        row++;
    return row;
}

bool synthetic_knows(const char *format) {
    return row_of(format) < NUM_FORMATS;
}

uint64_t dtype_size(fmk_dtype dtype) {
    return dtype == FMK_F32 || dtype == FMK_I32 ? 4 : dtype == FMK_U8 ? 1 : 2;
}

void convert(struct device *device, const void *in, fmk_dtype in_type, void *out, fmk_dtype out_type,
             int64_t n, int64_t k) {
    fmk_part part = {.struct_size = sizeof part,
                     .format = FMK_FORMAT_DENSE,
                     .n = n,
                     .k = k,
                     .qweight = {.data.handle = (uintptr_t)in, .dtype = in_type}};
    fmk_weight_desc desc = {
        .struct_size = sizeof desc, .flags = FMK_WEIGHT_BORROW, .parts = &part, .num_parts = 1};
    fmk_weight *weight;
    fmk_buffer buffer = {.handle = (uintptr_t)out};
    check(fmk_weight_create(&weight, device->queue, &desc), NULL);
    check(fmk_weight_dequantize(device->queue, weight, 0, &buffer, out_type, 0), NULL);
    fmk_weight_destroy(weight, device->queue);
}

/* [rows][n] from [rows][drawn]: each row repeats itself. */
static void *repeat_columns(void *drawn, uint64_t rows, uint64_t drawn_bytes, uint64_t row_bytes) {
    char *whole = allocate_aligned(rows * row_bytes);
    for (uint64_t row = 0; row < rows; row++)
        for (uint64_t at = 0; at < row_bytes; at += drawn_bytes) {
            uint64_t size = row_bytes - at < drawn_bytes ? row_bytes - at : drawn_bytes;
            memcpy(whole + row * row_bytes + at, (char *)drawn + row * drawn_bytes, size);
        }
    free(drawn);
    return whole;
}

void synthetic_make(struct synthetic *s, struct device *device, const char *format, int64_t n, int64_t k,
                    int32_t group_size) {
    enum { DRAWN = 256, SEED = 20 };
    size_t row = row_of(format);
    if (row == NUM_FORMATS)
        quit(EXIT_USAGE, "format \"%s\" is none of %s", format, synthetic_formats);
    int64_t drawn = n < DRAWN ? n : DRAWN;
    float *values = allocate_aligned((uint64_t)(drawn * k) * sizeof *values);
    random_normal(values, drawn * k, SEED);
    *s = (struct synthetic){
        .part = {.struct_size = sizeof s->part, .format = formats[row].format, .n = n, .k = k}};

    if (formats[row].format == FMK_FORMAT_DENSE) {
        uint64_t bytes = (uint64_t)(drawn * k) * dtype_size(formats[row].dtype);
        s->qweight = allocate_aligned(bytes);
        convert(device, values, FMK_F32, s->qweight, formats[row].dtype, drawn, k);
        s->qweight = repeat_columns(s->qweight, 1, bytes, bytes / (uint64_t)drawn * (uint64_t)n);
        s->part.qweight.dtype = formats[row].dtype;
    } else {
        bool gptq = formats[row].format == FMK_FORMAT_GPTQ;
        fmk_quantize_args args = {.struct_size = sizeof args,
                                  .format = formats[row].format,
                                  .n = drawn,
                                  .k = k,
                                  .group_size = gptq ? group_size : 0,
                                  .symmetric = formats[row].symmetric,
                                  .in_type = FMK_F32,
                                  .in = values};
        uint64_t qweight, scales, qzeros;
        check(fmk_quantize_size(&args, &qweight, &scales, &qzeros), format);
        args.qweight = s->qweight = allocate_aligned(qweight);
        args.scales = s->scales = scales ? allocate_aligned(scales) : NULL;
        args.qzeros = s->qzeros = qzeros ? allocate_aligned(qzeros) : NULL;
        check(fmk_quantize(device->context, &args), format);
        if (gptq) {
            uint64_t out = (uint64_t)n, in = (uint64_t)drawn, groups = scales / (2 * in);
            s->qweight = repeat_columns(s->qweight, (uint64_t)k / 8, 4 * in, 4 * out);
            s->scales = repeat_columns(s->scales, groups, 2 * in, 2 * out);
            s->qzeros = repeat_columns(s->qzeros, groups, in / 2, out / 2);
            s->part.group_size = group_size;
            s->part.symmetric = formats[row].symmetric ? 1 : -1;
            s->part.scales.data.handle = (uintptr_t)s->scales;
            s->part.qzeros.data.handle = (uintptr_t)s->qzeros;
        } else {
            s->qweight = repeat_columns(s->qweight, 1, qweight, qweight / (uint64_t)drawn * (uint64_t)n);
        }
    }
    s->part.qweight.data.handle = (uintptr_t)s->qweight;
    free(values);
}

void synthetic_free(struct synthetic *s) {
    free(s->qweight);
    free(s->scales);
    free(s->qzeros);
    *s = (struct synthetic){0};
}
