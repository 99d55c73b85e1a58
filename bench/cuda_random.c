/* Random numbers in bulk: see cuda_random.h. */
#include "cuda_random.h"
#include "random.h"
#include "synthetic.h"

#include <stdlib.h>
#include <string.h>

/* xorshift64*, without the multiplication: bits enough for weights. */
static uint64_t step(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void random_bytes(void *out, uint64_t bytes, uint64_t seed) {
    uint64_t state = 88172645463325252 + seed;
    for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t value = step(&state);
        memcpy((char *)out + i, &value, 8);
    }
    uint64_t value = step(&state);
    memcpy((char *)out + bytes / 8 * 8, &value, bytes % 8);
}

void random_halves(uint16_t *out, uint64_t count, uint64_t seed) {
    random_bytes(out, 2 * count, seed);
    /* Sign, two bits of the exponent and the mantissa stay; 0x2800 makes the exponent 10 + 0..3. */
    for (uint64_t i = 0; i < count; i++)
        out[i] = (out[i] & 0x8fff) | 0x2800;
}

/* Fills the rest of `bytes` with its first `drawn`, over and over. */
static void repeat(void *out, uint64_t drawn, uint64_t bytes) {
    for (uint64_t at = drawn; at < bytes; at += drawn)
        memcpy((char *)out + at, out, bytes - at < drawn ? bytes - at : drawn);
}

enum { DRAWN = 65521 }; /* a prime: blocks of weights that differ before they repeat */

static uint64_t drawn_of(uint64_t count) {
    return count < DRAWN ? count : DRAWN;
}

uint64_t gpu_random_halves(const struct gpu *gpu, uint64_t count) {
    const uint64_t most = UINT64_C(1) << 25;
    uint64_t drawn = count < most ? count : most, address = gpu_allocate(gpu, 2 * count);
    uint16_t *host = allocate_aligned(2 * drawn);
    random_halves(host, drawn, 2);
    for (uint64_t i = 0; i < count; i += drawn)
        gpu_upload(gpu, address + 2 * i, host, 2 * (count - i < drawn ? count - i : drawn));
    free(host);
    return address;
}

uint64_t gpu_random_normal(const struct gpu *gpu, fmk_dtype type, uint64_t count) {
    enum { PERIOD = DRAWN, COPIES = 64 /* in one upload */ };
    const uint64_t size = dtype_size(type), chunk = size * PERIOD;
    float *normal = allocate(PERIOD, sizeof *normal);
    char *host = allocate_aligned(COPIES * chunk);
    struct device cpu;
    random_normal(normal, PERIOD, 3);
    device_open(&cpu, &(struct device_options){.backend = "cpu", .threads = 1});
    convert(&cpu, normal, FMK_F32, host, type, 1, PERIOD);
    device_close(&cpu);
    for (int i = 1; i < COPIES; i++)
        memcpy(host + i * chunk, host, chunk);
    uint64_t bytes = size * count, address = gpu_allocate(gpu, bytes);
    for (uint64_t at = 0; at < bytes; at += COPIES * chunk)
        gpu_upload(gpu, address + at, host, bytes - at < COPIES * chunk ? bytes - at : COPIES * chunk);
    free(normal);
    free(host);
    return address;
}

/* ---- weights as files hold them ---- */

static void make_blocks(struct source *source, uint64_t block, uint64_t blocks, const uint64_t *scale_at,
                        const uint16_t *scale, int num_scales) {
    const uint64_t drawn = drawn_of(blocks);
    source->bytes = block * blocks;
    source->qweight = allocate_aligned(source->bytes);
    random_bytes(source->qweight, block * drawn, 4);
    for (uint64_t i = 0; i < drawn; i++)
        for (int j = 0; j < num_scales; j++) {
            uint16_t *half = (uint16_t *)((char *)source->qweight + i * block + scale_at[j]);
            *half = (*half & 0x3ff) | scale[j];
        }
    repeat(source->qweight, block * drawn, source->bytes);
}

static void make_q4_k(struct source *source) {
    /* d of 2^-11 to 2^-10, dmin eight times that */
    make_blocks(source, 144, (uint64_t)(source->part.n * source->part.k / 256), (uint64_t[]){0, 2},
                (uint16_t[]){4 << 10, 7 << 10}, 2);
    source->part.format = FMK_FORMAT_Q4_K;
}

static void make_q6_k(struct source *source) {
    /* d of 2^-14 to 2^-13 */
    make_blocks(source, 210, (uint64_t)(source->part.n * source->part.k / 256), (uint64_t[]){208},
                (uint16_t[]){1 << 10}, 1);
    source->part.format = FMK_FORMAT_Q6_K;
}

/* GPTQ in its kinds. Act-order: any k may belong to any group. */
static void make_grouped(struct source *source, int32_t group_size, bool asymmetric, bool act_order) {
    const uint64_t n = (uint64_t)source->part.n, k = (uint64_t)source->part.k,
                   group = group_size < 0 ? k : (uint64_t)group_size, groups = (k + group - 1) / group;
    uint16_t *scales = allocate_aligned(2 * groups * n);
    random_halves(scales, groups * n, 5);
    for (uint64_t i = 0; i < groups * n; i++)
        scales[i] = (scales[i] & 0x3ff) | 8 << 10; /* 2^-7 to 2^-6 */
    source->scales = scales;
    const uint64_t block = 128, drawn = drawn_of(n * k / 2 / block);
    source->qweight = allocate_aligned(n * k / 2);
    random_bytes(source->qweight, drawn * block, 6);
    repeat(source->qweight, drawn * block, n * k / 2);
    source->bytes = n * k / 2 + 2 * groups * n;
    if (asymmetric) {
        uint32_t *zeros = allocate_aligned(groups * n / 2);
        random_bytes(zeros, groups * n / 2, 8);
        for (uint64_t i = 0; i < groups * n / 8; i++)
            zeros[i] = (zeros[i] & 0x77777777) + 0x44444444; /* 4 to 11, which stand for 5 to 12 */
        source->qzeros = zeros;
        source->bytes += groups * n / 2;
    }
    if (act_order) {
        int32_t *g_idx = allocate_aligned(4 * k);
        uint64_t *random = allocate_aligned(8 * k);
        random_bytes(random, 8 * k, 9);
        for (uint64_t i = 0; i < k; i++)
            g_idx[i] = (int32_t)(i / group);
        for (uint64_t i = k - 1; i; i--) {
            uint64_t other = random[i] % (i + 1);
            int32_t swapped = g_idx[i];
            g_idx[i] = g_idx[other];
            g_idx[other] = swapped;
        }
        free(random);
        source->g_idx = g_idx;
    }
    source->part.format = FMK_FORMAT_GPTQ;
    source->part.group_size = group_size;
    source->part.symmetric = asymmetric ? -1 : 1;
    source->part.scales = (fmk_tensor){.data.handle = (uintptr_t)scales, .dtype = FMK_F16};
    source->part.qzeros.data.handle = (uintptr_t)source->qzeros;
    source->part.g_idx.data.handle = (uintptr_t)source->g_idx;
}

static void make_int4(struct source *source) {
    make_grouped(source, 128, false, false);
}

static void make_int4_g32(struct source *source) {
    make_grouped(source, 32, false, false);
}

static void make_int4_g64(struct source *source) {
    make_grouped(source, 64, false, false);
}

static void make_int4_channel(struct source *source) {
    make_grouped(source, -1, false, false);
}

static void make_int4_asym(struct source *source) {
    make_grouped(source, 128, true, false);
}

static void make_int4_act_order(struct source *source) {
    make_grouped(source, 128, false, true);
}

static void make_f16(struct source *source) {
    const uint64_t count = (uint64_t)(source->part.n * source->part.k), block = 256;
    const uint64_t drawn = drawn_of(count / block);
    source->bytes = 2 * count;
    source->qweight = allocate_aligned(source->bytes);
    random_halves(source->qweight, drawn * block, 7);
    repeat(source->qweight, 2 * drawn * block, source->bytes);
    source->part.format = FMK_FORMAT_DENSE;
    source->part.qweight.dtype = FMK_F16;
}

const char source_names[] =
    "q4_k, q6_k, int4, int4_g32, int4_g64, int4_channel, int4_asym, int4_act_order, f16";

static const struct {
    const char *name;
    void (*make)(struct source *source);
} formats[] = {{"q4_k", make_q4_k},
               {"q6_k", make_q6_k},
               {"int4", make_int4},
               {"int4_g32", make_int4_g32},
               {"int4_g64", make_int4_g64},
               {"int4_channel", make_int4_channel},
               {"int4_asym", make_int4_asym},
               {"int4_act_order", make_int4_act_order},
               {"f16", make_f16}};

enum { NUM_FORMATS = sizeof formats / sizeof *formats };

static size_t row_of(const char *name) {
    size_t row = 0;
    while (row < NUM_FORMATS && strcmp(formats[row].name, name))
        row++;
    return row;
}

bool source_knows(const char *name) {
    return row_of(name) < NUM_FORMATS;
}

void source_make(struct source *source, const char *name, int64_t n, int64_t k) {
    size_t row = row_of(name);
    if (row == NUM_FORMATS)
        quit(EXIT_USAGE, "format \"%s\" is none of %s", name, source_names);
    *source = (struct source){.part = {.struct_size = sizeof source->part, .n = n, .k = k}};
    formats[row].make(source);
    source->part.qweight.data.handle = (uintptr_t)source->qweight;
}

void source_free(struct source *source) {
    free(source->qweight);
    free(source->scales);
    free(source->qzeros);
    free(source->g_idx);
    *source = (struct source){0};
}
