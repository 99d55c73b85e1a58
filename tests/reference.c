/* Decoders in double and generators of random weights; see reference.h. Everything is done in the most
 * literal way: values are computed from the bits with ldexp, and words are walked in the order of the file.
 */
#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(int64_t bytes) {
    void *memory = calloc(1, (size_t)(bytes ? bytes : 1));
    if (!memory)
        abort();
    return memory;
}

/* ---- numbers ---- */

struct ref_rng ref_rng_start(const char *test_name) {
    const char *told = getenv("FMK_TEST_SEED");
    struct ref_rng rng = {told ? strtoull(told, NULL, 0) : 20260101};
    printf("%s: FMK_TEST_SEED=%llu\n", test_name, (unsigned long long)rng.state);
    return rng;
}

uint64_t ref_next(struct ref_rng *rng) { /* splitmix64 */
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t ref_below(struct ref_rng *rng, int64_t limit) {
    return (int64_t)(ref_next(rng) % (uint64_t)limit);
}

double ref_uniform(struct ref_rng *rng) {
    return (double)(ref_next(rng) >> 11) * 0x1p-53;
}

double ref_normal(struct ref_rng *rng) {
    double radius = sqrt(-2 * log(1 - ref_uniform(rng)));
    return radius * cos(6.283185307179586 * ref_uniform(rng));
}

void ref_shuffle(struct ref_rng *rng, int32_t *out, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        out[i] = (int32_t)i;
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = ref_below(rng, i + 1);
        int32_t swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}

/* Sign, exponent and mantissa of an IEEE number of `exponent_bits` and `mantissa_bits`. */
static double from_bits(uint32_t bits, int exponent_bits, int mantissa_bits) {
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
    int64_t mantissa = (int64_t)(bits & ((1u << mantissa_bits) - 1));
    double sign = bits >> (exponent_bits + mantissa_bits) ? -1 : 1;
    int bias = (1 << (exponent_bits - 1)) - 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp((double)mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp((double)(mantissa + (1LL << mantissa_bits)), exponent - bias - mantissa_bits);
}

double ref_f16(uint16_t bits) {
    return from_bits(bits, 5, 10);
}

double ref_bf16(uint16_t bits) {
    return from_bits(bits, 8, 7);
}

int64_t ref_size(fmk_dtype dtype) {
    return dtype == FMK_U8 ? 1 : dtype == FMK_F16 || dtype == FMK_BF16 ? 2 : 4;
}

double ref_number(fmk_dtype dtype, const void *at) {
    uint32_t bits = 0; /* little-endian */
    memcpy(&bits, at, (size_t)ref_size(dtype));
    return dtype == FMK_F16    ? ref_f16((uint16_t)bits)
           : dtype == FMK_BF16 ? ref_bf16((uint16_t)bits)
                               : from_bits(bits, 8, 23);
}

void ref_store(fmk_dtype dtype, void *at, double value) {
    int exponent_bits = dtype == FMK_F16 ? 5 : 8, mantissa_bits = dtype == FMK_F16    ? 10
                                                                  : dtype == FMK_BF16 ? 7
                                                                                      : 23;
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t sign = signbit(value) ? 1u << (exponent_bits + mantissa_bits) : 0, bits;
    uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
    double magnitude = fabs(value);
    if (isnan(value)) {
        bits = infinity | 1u << (mantissa_bits - 1);
    } else if (isinf(value)) {
        bits = infinity;
    } else {
        int exponent = magnitude > 0 ? ilogb(magnitude) : 0;
        if (exponent < 1 - bias || magnitude == 0)
            exponent = 1 - bias; /* subnormal: same unit as the smallest normal */
        double units = nearbyint(ldexp(magnitude, mantissa_bits - exponent));
        bits = (uint32_t)((int64_t)(exponent + bias - 1) << mantissa_bits) + (uint32_t)units;
        if (bits > infinity)
            bits = infinity;
    }
    bits |= sign;
    memcpy(at, &bits, (size_t)ref_size(dtype));
}

/* ---- decoders ---- */

static const uint8_t *expert_data(const fmk_tensor *tensor, int64_t expert) {
    if (!tensor->data.handle)
        return NULL;
    return (const uint8_t *)(uintptr_t)(tensor->data.handle + tensor->data.offset) +
           (uint64_t)expert * tensor->expert_stride;
}

static uint32_t word_at(const uint8_t *base, int64_t index) {
    const uint8_t *b = base + 4 * index;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static int nibble(uint32_t word, int64_t p) {
    return (int)(word >> (4 * p) & 15);
}

static uint16_t half_at(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

static fmk_dtype type_or(fmk_dtype dtype, fmk_dtype prescribed) {
    return dtype ? dtype : prescribed;
}

static void decode_dense(const fmk_part *part, int64_t expert, double *out) {
    const uint8_t *data = expert_data(&part->qweight, expert);
    for (int64_t i = 0; i < part->n * part->k; i++)
        out[i] = ref_number(part->qweight.dtype, data + i * ref_size(part->qweight.dtype));
}

static void decode_gptq(const fmk_part *part, int64_t expert, int32_t zero_point, double *out) {
    int64_t size = part->group_size == -1 ? part->k : part->group_size;
    int64_t groups = (part->k + size - 1) / size, zero_words = (part->n + 7) / 8;
    const uint8_t *qweight = expert_data(&part->qweight, expert),
                  *scales = expert_data(&part->scales, expert);
    const uint8_t *qzeros = expert_data(&part->qzeros, expert), *g_idx = expert_data(&part->g_idx, expert);
    fmk_dtype type = type_or(part->scales.dtype, FMK_F16);
    for (int64_t n = 0; n < part->n; n++)
        for (int64_t k = 0; k < part->k; k++) {
            int64_t g = k / size;
            if (g_idx) {
                g = (int32_t)word_at(g_idx, k);
                if (g < 0)
                    g += groups;
            }
            int code = nibble(word_at(qweight, k / 8 * part->n + n), k % 8), zero = 8;
            if (qzeros) {
                zero = nibble(word_at(qzeros, g * zero_words + n / 8), n % 8);
                if (zero_point == 1)
                    zero = (zero + 1) % 16;
            }
            out[n * part->k + k] =
                ref_number(type, scales + (g * part->n + n) * ref_size(type)) * (code - zero);
        }
}

/* Walks words and stored scales in the order of the file and puts each where it belongs. */
static void decode_marlin(const fmk_part *part, int64_t expert, double *out) {
    static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7}, rows[4] = {0, 1, 8, 9};
    static const int single[8] = {0, 1, 8, 9, 16, 17, 24, 25};
    int64_t n = part->n, k = part->k, size = part->group_size == -1 ? k : part->group_size;
    int64_t groups = (k + size - 1) / size;
    const uint8_t *qweight = expert_data(&part->qweight, expert),
                  *scales = expert_data(&part->scales, expert);
    fmk_dtype type = type_or(part->scales.dtype, FMK_F16);
    double *logical = allocate(groups * n * (int64_t)sizeof *logical);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t stored = 0; stored < n; stored++) {
            int64_t column;
            if (groups > 1) {
                int64_t b = stored / 64, i = stored % 64 / 8, j = stored % 8;
                column = 64 * b + i + 8 * j;
            } else {
                int64_t b = stored / 32, i = stored % 32 / 8, p = stored % 8;
                column = 32 * b + 2 * i + single[p];
            }
            logical[g * n + column] = ref_number(type, scales + (g * n + stored) * ref_size(type));
        }
    for (int64_t kt = 0; kt < k / 16; kt++)
        for (int64_t t = 0; t < n / 64; t++)
            for (int i = 0; i < 32; i++)
                for (int j = 0; j < 4; j++) {
                    uint32_t word = word_at(qweight, kt * 2 * n + 128 * t + 4 * i + j);
                    int v[8];
                    for (int p = 0; p < 8; p++)
                        v[order[p]] = nibble(word, p);
                    for (int r = 0; r < 8; r++) {
                        int64_t column = 64 * t + 16 * j + i / 4 + (r < 4 ? 0 : 8);
                        int64_t row = 16 * kt + 2 * (i % 4) + rows[r % 4];
                        out[column * k + row] = logical[row / size * n + column] * (v[r] - 8);
                    }
                }
    free(logical);
}

static void decode_q4k(const uint8_t *block, double *out) {
    double d = ref_f16(half_at(block)), dmin = ref_f16(half_at(block + 2));
    const uint8_t *s = block + 4, *qs = block + 16;
    for (int j = 0; j < 8; j++) {
        int sc, m;
        if (j < 4) {
            sc = s[j] & 63;
            m = s[j + 4] & 63;
        } else {
            sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
            m = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
        }
        for (int i = 0; i < 32; i++) {
            int byte = qs[32 * (j / 2) + i], q = j % 2 ? byte >> 4 : byte & 15;
            out[32 * j + i] = d * sc * q - dmin * m;
        }
    }
}

static void decode_q6k(const uint8_t *block, double *out) {
    double d = ref_f16(half_at(block + 208));
    for (int h = 0; h < 2; h++) {
        const uint8_t *L = block + 64 * h, *H = block + 128 + 32 * h;
        const int8_t *S = (const int8_t *)block + 192 + 8 * h;
        for (int l = 0; l < 32; l++) {
            int q[4] = {(L[l] & 15) | (H[l] & 3) << 4, (L[l + 32] & 15) | ((H[l] >> 2) & 3) << 4,
                        L[l] >> 4 | ((H[l] >> 4) & 3) << 4, L[l + 32] >> 4 | ((H[l] >> 6) & 3) << 4};
            for (int run = 0; run < 4; run++)
                out[128 * h + 32 * run + l] = d * S[l / 16 + 2 * run] * (q[run] - 32);
        }
    }
}

void ref_decode(const fmk_part *part, int32_t experts, int32_t zero_point, double *values) {
    for (int64_t e = 0; e < (experts ? experts : 1); e++) {
        double *out = values + e * part->n * part->k;
        const uint8_t *qweight = expert_data(&part->qweight, e);
        int64_t blocks = part->n * (part->k / 256);
        switch (part->format) {
        case FMK_FORMAT_DENSE:
            decode_dense(part, e, out);
            break;
        case FMK_FORMAT_GPTQ:
        case FMK_FORMAT_GPTQ_V2:
            decode_gptq(part, e, zero_point, out);
            break;
        case FMK_FORMAT_MARLIN:
            decode_marlin(part, e, out);
            break;
        case FMK_FORMAT_Q4_K:
            for (int64_t b = 0; b < blocks; b++)
                decode_q4k(qweight + 144 * b, out + 256 * b);
            break;
        case FMK_FORMAT_Q6_K:
            for (int64_t b = 0; b < blocks; b++)
                decode_q6k(qweight + 210 * b, out + 256 * b);
            break;
        default:
            abort();
        }
    }
}

/* ---- generators ---- */

/* Memory for a tensor of `bytes` an expert, experts a little apart; answers expert 0's first byte. */
static uint8_t *add_tensor(struct ref_weight *weight, const struct ref_spec *spec, int slot,
                           fmk_tensor *tensor, fmk_dtype dtype, int64_t bytes) {
    int64_t stride = spec->experts ? (bytes + 15) / 8 * 8 : bytes,
            experts = spec->experts ? spec->experts : 1;
    weight->memory[slot] = allocate(spec->misalign + experts * stride);
    *tensor = (fmk_tensor){.data = {.handle = (uint64_t)(uintptr_t)weight->memory[slot],
                                    .offset = (uint64_t)spec->misalign,
                                    .size = (uint64_t)((experts - 1) * stride + bytes)},
                           .expert_stride = spec->experts ? (uint64_t)stride : 0,
                           .dtype = dtype};
    return (uint8_t *)weight->memory[slot] + spec->misalign;
}

static double random_scale(struct ref_rng *rng, const struct ref_spec *spec, fmk_dtype dtype,
                           double typical) {
    double largest = dtype == FMK_F16 ? 65504 : 0x1p40, smallest = dtype == FMK_F16 ? 0x1p-24 : 0x1p-40;
    if (spec->extremes)
        switch (ref_below(rng, 8)) {
        case 0:
            return 0;
        case 1:
            return largest;
        case 2:
            return smallest;
        case 3:
            return -typical;
        }
    return typical * (0.5 + ref_uniform(rng));
}

static void fill_random(struct ref_rng *rng, uint8_t *at, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)ref_next(rng);
}

static void put_word(uint8_t *base, int64_t index, uint32_t word) {
    for (int i = 0; i < 4; i++)
        base[4 * index + i] = (uint8_t)(word >> (8 * i));
}

static void make_dense(struct ref_weight *w, const struct ref_spec *spec, struct ref_rng *rng,
                       fmk_dtype dtype) {
    int64_t bytes = spec->n * spec->k * ref_size(dtype);
    add_tensor(w, spec, 0, &w->part.qweight, dtype, bytes);
    for (int64_t e = 0; e < (spec->experts ? spec->experts : 1); e++) {
        uint8_t *at = (uint8_t *)expert_data(&w->part.qweight, e);
        for (int64_t i = 0; i < spec->n * spec->k; i++) {
            double value = 0.05 * ref_normal(rng);
            if (spec->extremes && ref_below(rng, 16) == 0)
                value = random_scale(rng, spec, dtype, 0.05);
            ref_store(dtype, at + i * ref_size(dtype), value);
        }
    }
}

static void make_scales(struct ref_weight *w, const struct ref_spec *spec, struct ref_rng *rng,
                        fmk_dtype dtype, int64_t count) {
    add_tensor(w, spec, 1, &w->part.scales, dtype, count * ref_size(dtype));
    for (int64_t e = 0; e < (spec->experts ? spec->experts : 1); e++) {
        uint8_t *at = (uint8_t *)expert_data(&w->part.scales, e);
        for (int64_t i = 0; i < count; i++)
            ref_store(dtype, at + i * ref_size(dtype), random_scale(rng, spec, dtype, 0.01));
    }
}

static void make_groups(struct ref_weight *w, const struct ref_spec *spec, struct ref_rng *rng, int64_t size,
                        int64_t groups) {
    if (spec->groups == REF_GROUPS_NONE)
        return;
    add_tensor(w, spec, 3, &w->part.g_idx, FMK_I32, 4 * spec->k);
    int32_t *order = allocate(4 * spec->k);
    for (int64_t e = 0; e < (spec->experts ? spec->experts : 1); e++) {
        uint8_t *at = (uint8_t *)expert_data(&w->part.g_idx, e);
        ref_shuffle(rng, order, spec->k);
        for (int64_t k = 0; k < spec->k; k++) {
            int64_t group = (spec->groups == REF_GROUPS_RUNS ? k : order[k]) / size;
            if (spec->groups == REF_GROUPS_UNEQUAL)
                group = ref_below(rng, groups);
            if (spec->groups == REF_GROUPS_NEGATIVE && ref_below(rng, 2))
                group -= groups;
            put_word(at, k, (uint32_t)(int32_t)group);
        }
    }
    free(order);
}

static void make_int4(struct ref_weight *w, const struct ref_spec *spec, struct ref_rng *rng,
                      fmk_dtype dtype) {
    int64_t size = spec->group_size == -1 ? spec->k : spec->group_size, groups = (spec->k + size - 1) / size;
    int64_t experts = spec->experts ? spec->experts : 1, bytes = spec->n * spec->k / 2;
    add_tensor(w, spec, 0, &w->part.qweight, FMK_I32, bytes);
    for (int64_t e = 0; e < experts; e++)
        fill_random(rng, (uint8_t *)expert_data(&w->part.qweight, e), bytes);
    make_scales(w, spec, rng, dtype, groups * spec->n);
    if (spec->format == FMK_FORMAT_MARLIN)
        return;
    make_groups(w, spec, rng, size, groups);
    if (spec->zeros == REF_ZEROS_ABSENT)
        return;
    int64_t words = groups * ((spec->n + 7) / 8);
    add_tensor(w, spec, 2, &w->part.qzeros, FMK_I32, 4 * words);
    for (int64_t e = 0; e < experts; e++) {
        uint8_t *at = (uint8_t *)expert_data(&w->part.qzeros, e);
        for (int64_t i = 0; i < words; i++)
            put_word(at, i,
                     spec->zeros == REF_ZEROS_ALL_7   ? 0x77777777u
                     : spec->zeros == REF_ZEROS_ALL_8 ? 0x88888888u
                                                      : (uint32_t)ref_next(rng));
        if (e == 0 && spec->zeros == REF_ZEROS_RANDOM) /* so that they are not all 7 or all 8 by chance */
            put_word(at, 0, (word_at(at, 0) & ~15u) | 3);
        /* nibbles of columns past n mean nothing */
        if (spec->n % 8)
            for (int64_t g = 0; g < groups; g++) {
                int64_t last = (g + 1) * ((spec->n + 7) / 8) - 1;
                uint32_t keep = 0xffffffffu >> (4 * (8 - spec->n % 8));
                put_word(at, last, (word_at(at, last) & keep) | ((uint32_t)ref_next(rng) & ~keep));
            }
    }
}

static void make_k_quant(struct ref_weight *w, const struct ref_spec *spec, struct ref_rng *rng) {
    bool q4 = spec->format == FMK_FORMAT_Q4_K;
    int64_t size = q4 ? 144 : 210, blocks = spec->n * (spec->k / 256);
    add_tensor(w, spec, 0, &w->part.qweight, FMK_U8, blocks * size);
    for (int64_t e = 0; e < (spec->experts ? spec->experts : 1); e++)
        for (int64_t b = 0; b < blocks; b++) {
            uint8_t *block = (uint8_t *)expert_data(&w->part.qweight, e) + b * size;
            fill_random(rng, block, size);
            if (q4) {
                ref_store(FMK_F16, block, random_scale(rng, spec, FMK_F16, 1e-4));
                ref_store(FMK_F16, block + 2, random_scale(rng, spec, FMK_F16, 1e-3));
            } else {
                ref_store(FMK_F16, block + 208, random_scale(rng, spec, FMK_F16, 1e-5));
                /* -128 is a legal scale too; fill_random makes some */
            }
        }
}

void ref_make(struct ref_weight *weight, const struct ref_spec *spec, struct ref_rng *rng) {
    *weight = (struct ref_weight){
        .part = {.struct_size = sizeof weight->part, .format = spec->format, .n = spec->n, .k = spec->k},
        .experts = spec->experts};
    fmk_dtype dtype = type_or(spec->dtype, FMK_F16);
    int32_t zero_point = 2;
    switch (spec->format) {
    case FMK_FORMAT_DENSE:
        make_dense(weight, spec, rng, dtype);
        break;
    case FMK_FORMAT_GPTQ:
    case FMK_FORMAT_GPTQ_V2:
    case FMK_FORMAT_MARLIN:
        weight->part.group_size = spec->group_size;
        make_int4(weight, spec, rng, dtype);
        /* uniform zeros of 7 or 8 are told from the data */
        zero_point = spec->zeros == REF_ZEROS_ALL_7    ? 1
                     : spec->zeros == REF_ZEROS_ALL_8  ? 2
                     : spec->format == FMK_FORMAT_GPTQ ? 1
                                                       : 2;
        break;
    default:
        make_k_quant(weight, spec, rng);
    }
    int64_t experts = spec->experts ? spec->experts : 1;
    weight->values = allocate(experts * spec->n * spec->k * (int64_t)sizeof *weight->values);
    ref_decode(&weight->part, spec->experts, zero_point, weight->values);
    if (!spec->bias)
        return;
    add_tensor(weight, spec, 4, &weight->part.bias, spec->bias, spec->n * ref_size(spec->bias));
    weight->bias = allocate(experts * spec->n * (int64_t)sizeof *weight->bias);
    for (int64_t e = 0; e < experts; e++)
        for (int64_t n = 0; n < spec->n; n++) {
            uint8_t *at = (uint8_t *)expert_data(&weight->part.bias, e) + n * ref_size(spec->bias);
            ref_store(spec->bias, at, ref_normal(rng));
            weight->bias[e * spec->n + n] = ref_number(spec->bias, at);
        }
}

void ref_set_order(struct ref_weight *weight, const int32_t *order, int64_t count) {
    int64_t experts = weight->experts ? weight->experts : 1;
    free(weight->memory[5]);
    weight->memory[5] = allocate(4 * experts * count);
    memcpy(weight->memory[5], order, (size_t)(4 * experts * count));
    weight->part.n_order = (fmk_tensor){
        .data = {.handle = (uint64_t)(uintptr_t)weight->memory[5], .size = (uint64_t)(4 * experts * count)},
        .expert_stride = weight->experts ? (uint64_t)(4 * count) : 0,
        .dtype = FMK_I32};
}

void ref_free(struct ref_weight *weight) {
    for (size_t i = 0; i < sizeof weight->memory / sizeof weight->memory[0]; i++)
        free(weight->memory[i]);
    free(weight->values);
    free(weight->bias);
    memset(weight, 0, sizeof *weight);
}

/* ---- shards ---- */

int64_t ref_rows(const struct ref_weight *weight) {
    const fmk_part *part = &weight->part;
    return (part->n_end ? part->n_end : part->n) - part->n_begin;
}

int64_t ref_columns(const struct ref_weight *weight) {
    const fmk_part *part = &weight->part;
    return (part->k_end ? part->k_end : part->k) - part->k_begin;
}

static int64_t tensor_row(const struct ref_weight *weight, int64_t expert, int64_t row) {
    const uint8_t *order = expert_data(&weight->part.n_order, expert);
    return weight->part.n_begin + (order ? (int32_t)word_at(order, row) : row);
}

double ref_value(const struct ref_weight *weight, int64_t expert, int64_t row, int64_t k) {
    const fmk_part *part = &weight->part;
    int64_t n = expert * part->n + tensor_row(weight, expert, row);
    return weight->values[n * part->k + part->k_begin + k];
}

double ref_bias(const struct ref_weight *weight, int64_t expert, int64_t row) {
    return weight->bias ? weight->bias[expert * weight->part.n + tensor_row(weight, expert, row)] : 0;
}
