/* ferrumk quantize to GGUF: which tensor gets which type, the key-values, and the file. */
#include "quantize.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { SUPER_BLOCK = 256 };

/* How one entry is written. */
struct plan {
    uint32_t type;
    uint64_t size; /* of one expert, or of the vector */
};

/* llama.cpp's rule for the layers that get more bits: the first and last eighth, and every third between. */
static bool more_bits(int layer, int layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

static int count_layers(const struct source *source) {
    int most = -1;
    for (int32_t i = 0; i < source->count; i++)
        most = source->names[i].layer > most ? source->names[i].layer : most;
    return most + 1;
}

static bool has_head(const struct source *source) {
    for (int32_t i = 0; i < source->count; i++)
        if (source->names[i].role == ROLE_HEAD)
            return true;
    return false;
}

static fmk_format k_quant(const struct source *source, int32_t index, enum gguf_mix mix) {
    const struct tensor_name *name = &source->names[index];
    if (mix != MIX_Q4_K_M)
        return mix == MIX_Q6_K ? FMK_FORMAT_Q6_K : FMK_FORMAT_Q4_K;
    bool head = name->role == ROLE_HEAD || (name->role == ROLE_EMBEDDING && !has_head(source));
    bool chosen = (name->role == ROLE_V || name->role == ROLE_DOWN) && name->layer >= 0 &&
                  more_bits(name->layer, count_layers(source));
    return head || chosen ? FMK_FORMAT_Q6_K : FMK_FORMAT_Q4_K;
}

static fmk_quantize_args quantize_args(const fmk_entry *entry, fmk_format format) {
    return (fmk_quantize_args){.struct_size = sizeof(fmk_quantize_args),
                               .format = format,
                               .n = entry->n,
                               .k = entry->k,
                               .in_type = entry->dtype};
}

static struct plan plan(const struct source *source, int32_t index, enum gguf_mix mix) {
    const fmk_entry *entry = &source->entries[index];
    if (entry->kind == FMK_ENTRY_VECTOR)
        return (struct plan){GGUF_F32, (uint64_t)entry->n * sizeof(float)};
    if (entry->k % SUPER_BLOCK)
        return (struct plan){entry->dtype == FMK_BF16 ? GGUF_BF16 : GGUF_F16,
                             (uint64_t)(entry->n * entry->k) * 2};
    fmk_quantize_args args = quantize_args(entry, k_quant(source, index, mix));
    uint64_t size, scales, qzeros;
    check(fmk_quantize_size(&args, &size, &scales, &qzeros), entry->name);
    return (struct plan){args.format == FMK_FORMAT_Q6_K ? GGUF_Q6_K : GGUF_Q4_K, size};
}

/* ---- key-values ---- */

static bool carried_over(const struct gguf_kv *kv) {
    static const char *const ours[] = {"general.file_type", "general.quantization_version",
                                       "general.alignment"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (kv->key_size == strlen(ours[i]) && !memcmp(kv->key, ours[i], kv->key_size))
            return false;
    return kv->key_size < 6 || memcmp(kv->key, "split.", 6);
}

static void put_family_u32(struct gguf_writer *w, const struct source *source, const char *key,
                           int64_t value) {
    char *full = text_of("%s.%s", source->family, key);
    gguf_put_u32(w, full, (uint32_t)value);
    free(full);
}

static void put_family_f32(struct gguf_writer *w, const struct source *source, const char *key,
                           double value) {
    char *full = text_of("%s.%s", source->family, key);
    gguf_put_f32(w, full, (float)value);
    free(full);
}

/* From config.json what llama.cpp needs to know of these families. */
static void put_config(struct gguf_writer *w, const struct source *source) {
    static const struct {
        const char *config, *gguf;
    } integers[] = {
        {"num_hidden_layers", "block_count"},
        {"max_position_embeddings", "context_length"},
        {"hidden_size", "embedding_length"},
        {"intermediate_size", "feed_forward_length"},
        {"num_attention_heads", "attention.head_count"},
        {"num_key_value_heads", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"head_dim", "attention.value_length"},
        {"vocab_size", "vocab_size"},
    };
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        const json_t *value = json_object_get(source->config, integers[i].config);
        if (json_is_integer(value))
            put_family_u32(w, source, integers[i].gguf, json_integer_value(value));
    }
    const json_t *dim = json_object_get(source->config, "head_dim");
    const json_t *hidden = json_object_get(source->config, "hidden_size");
    if (json_is_integer(dim))
        put_family_u32(w, source, "rope.dimension_count", json_integer_value(dim));
    else if (json_is_integer(hidden) && source->heads)
        put_family_u32(w, source, "rope.dimension_count", json_integer_value(hidden) / source->heads);
    const json_t *eps = json_object_get(source->config, "rms_norm_eps");
    const json_t *theta = json_object_get(source->config, "rope_theta");
    if (json_is_number(eps))
        put_family_f32(w, source, "attention.layer_norm_rms_epsilon", json_number_value(eps));
    if (json_is_number(theta))
        put_family_f32(w, source, "rope.freq_base", json_number_value(theta));
    if (json_is_object(json_object_get(source->config, "rope_scaling")))
        fprintf(stderr, "%s: rope_scaling of config.json is not carried over\n", program());
    gguf_put_string(w, "tokenizer.ggml.model", "no_vocab");
}

static void put_key_values(struct gguf_writer *w, const struct source *source, enum gguf_mix mix) {
    /* llama.cpp's numbers for a file that is mostly Q4_K_S, Q6_K and Q4_K_M. */
    static const uint32_t file_types[] = {[MIX_Q4_K] = 14, [MIX_Q6_K] = 18, [MIX_Q4_K_M] = 15};
    enum { QUANTIZATION_VERSION = 2 };
    if (source->gguf) {
        for (uint64_t i = 0; i < source->header.num_kvs; i++)
            if (carried_over(&source->header.kvs[i]))
                gguf_put_raw(w, &source->header.kvs[i]);
    } else {
        gguf_put_string(w, "general.architecture", source->family ? source->family : "unknown");
        if (source->family && source->config)
            put_config(w, source);
    }
    gguf_put_u32(w, "general.file_type", file_types[mix]);
    gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
}

/* ---- tensors ---- */

/* A bias that lies with its matrix is a tensor of its own in GGUF. */
static bool has_bias(const struct source *source, int32_t index, int64_t *n) {
    if (source->entries[index].kind != FMK_ENTRY_MATRIX)
        return false;
    fmk_part part = {.struct_size = sizeof part};
    check(fmk_checkpoint_find(source->checkpoint, source->entries[index].name, &part, NULL), NULL);
    *n = part.n;
    return part.bias.data.handle != 0;
}

static void declare(struct gguf_writer *w, const struct source *source, int32_t index, struct plan p) {
    const fmk_entry *entry = &source->entries[index];
    char *name = output_name(source, index, HABIT_GGUF, ".weight");
    int64_t n;
    if (entry->kind == FMK_ENTRY_VECTOR) {
        gguf_put_tensor(w, name, &entry->n, 1, p.type, p.size);
    } else {
        int64_t dims[3] = {entry->k, entry->n, entry->num_experts};
        uint64_t experts = entry->num_experts ? (uint64_t)entry->num_experts : 1;
        gguf_put_tensor(w, name, dims, entry->num_experts ? 3 : 2, p.type, p.size * experts);
    }
    free(name);
    if (has_bias(source, index, &n)) {
        name = output_name(source, index, HABIT_GGUF, ".bias");
        gguf_put_tensor(w, name, &n, 1, GGUF_F32, (uint64_t)n * sizeof(float));
        free(name);
    }
}

static void write_matrix(struct output *output, struct source *source, int32_t index, struct plan p) {
    const fmk_entry *entry = &source->entries[index];
    void *data = allocate_aligned(p.size);
    for (int32_t expert = 0; expert < (entry->num_experts ? entry->num_experts : 1); expert++) {
        struct rows rows = rows_of(source, index, expert, HABIT_GGUF);
        if (p.type == GGUF_Q4_K || p.type == GGUF_Q6_K) {
            fmk_quantize_args args =
                quantize_args(entry, p.type == GGUF_Q6_K ? FMK_FORMAT_Q6_K : FMK_FORMAT_Q4_K);
            args.in = rows.data;
            args.qweight = data;
            check(fmk_quantize(source->device.context, &args), entry->name);
        } else {
            convert(&source->device, rows.data, entry->dtype, data, p.type == GGUF_BF16 ? FMK_BF16 : FMK_F16,
                    entry->n, entry->k);
        }
        output_write(output, data, p.size);
        rows_free(&rows);
    }
    output_pad(output, GGUF_ALIGNMENT);
    free(data);
}

static void write_bias(struct output *output, struct source *source, int32_t index) {
    struct rows rows = rows_of(source, index, 0, HABIT_GGUF);
    uint64_t size = (uint64_t)rows.part.n * sizeof(float);
    float *values = allocate_aligned(size);
    convert(&source->device, rows.bias, rows.part.bias.dtype, values, FMK_F32, 1, rows.part.n);
    output_write(output, values, size);
    output_pad(output, GGUF_ALIGNMENT);
    free(values);
    rows_free(&rows);
}

void write_gguf(struct source *source, const char *path, enum gguf_mix mix) {
    struct gguf_writer writer = {0};
    struct output output;
    int64_t n;
    put_key_values(&writer, source, mix);
    for (int32_t i = 0; i < source->count; i++)
        declare(&writer, source, i, plan(source, i, mix));
    output_begin(&output, path);
    gguf_write_header(&writer, &output);
    gguf_free_writer(&writer);
    for (int32_t i = 0; i < source->count; i++) {
        struct plan p = plan(source, i, mix);
        if (source->entries[i].kind == FMK_ENTRY_VECTOR) {
            float *values = vector_of(source, i, HABIT_GGUF);
            output_write(&output, values, p.size);
            output_pad(&output, GGUF_ALIGNMENT);
            free(values);
        } else {
            write_matrix(&output, source, i, p);
            if (has_bias(source, i, &n))
                write_bias(&output, source, i);
        }
        source_step(source, i);
    }
    output_commit(&output);
}
