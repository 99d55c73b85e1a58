/* A dense checkpoint of either container, its tensors under the names and in the order of rows of the other.
 */
#include "quantize_source.h"

#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The config.json that lies in or beside `path`, or NULL. */
static json_t *read_config(const char *path) {
    struct stat status;
    char *copy = text_of("%s", path);
    const char *directory = !stat(path, &status) && S_ISDIR(status.st_mode) ? path : dirname(copy);
    char *name = text_of("%s/config.json", directory);
    json_error_t error;
    json_t *config = NULL;
    if (!stat(name, &status)) {
        config = json_load_file(name, 0, &error);
        if (!json_is_object(config))
            quit(EXIT_REFUSED, "%s: %s", name, config ? "it is not a JSON object" : error.text);
    }
    free(copy);
    free(name);
    return config;
}

/* The families' names for themselves: GGUF's, Hugging Face's type and class. */
static const struct {
    const char *family, *class;
} families[] = {{"llama", "LlamaForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"}};

static const char *family_of(const char *architecture) {
    if (!strcmp(architecture, "mistral"))
        return "llama";
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].family, architecture))
            return families[i].family;
    return NULL;
}

static double number_of(const struct source *source, const char *key, double fallback) {
    char *full = text_of("%s.%s", source->family, key);
    double value = gguf_number(&source->header, full, fallback);
    free(full);
    return value;
}

/* config.json's settings from the key-values of a GGUF file of a known family. */
static json_t *config_of_header(const struct source *source) {
    json_t *config = json_object();
    int64_t vocab = 0;
    bool head = false;
    for (int32_t i = 0; i < source->count; i++) {
        vocab = source->names[i].role == ROLE_EMBEDDING ? source->entries[i].n : vocab;
        head |= source->names[i].role == ROLE_HEAD;
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].family, source->family))
            json_put(config, "architectures", json_pack("[s]", families[i].class));
    double hidden = number_of(source, "embedding_length", 0);
    double heads = number_of(source, "attention.head_count", 1);
    json_put(config, "model_type", json_string(source->family));
    json_put(config, "hidden_size", json_integer((json_int_t)hidden));
    json_put(config, "intermediate_size",
             json_integer((json_int_t)number_of(source, "feed_forward_length", 0)));
    json_put(config, "num_hidden_layers", json_integer((json_int_t)number_of(source, "block_count", 0)));
    json_put(config, "num_attention_heads", json_integer((json_int_t)heads));
    json_put(config, "num_key_value_heads",
             json_integer((json_int_t)number_of(source, "attention.head_count_kv", heads)));
    json_put(config, "head_dim",
             json_integer((json_int_t)number_of(source, "attention.key_length", hidden / heads)));
    json_put(config, "max_position_embeddings",
             json_integer((json_int_t)number_of(source, "context_length", 2048)));
    json_put(config, "rms_norm_eps", json_real(number_of(source, "attention.layer_norm_rms_epsilon", 1e-5)));
    json_put(config, "rope_theta", json_real(number_of(source, "rope.freq_base", 10000)));
    json_put(config, "hidden_act", json_string("silu"));
    json_put(config, "vocab_size", json_integer(vocab));
    json_put(config, "tie_word_embeddings", json_boolean(!head));
    json_put(config, "torch_dtype", json_string("float16"));
    return config;
}

static int64_t config_integer(const json_t *config, const char *key, int64_t fallback) {
    const json_t *value = json_object_get(config, key);
    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

/* The first of a split set (NAME-00002-of-00003.gguf) has the key-values. To be freed. */
static char *first_of_split(const char *path) {
    static const char tail[] = "-00000-of-00000.gguf";
    char *first = text_of("%s", path), *end = first + strlen(first);
    unsigned part, parts;
    int used = 0;
    if ((size_t)(end - first) > strlen(tail) &&
        sscanf(end - strlen(tail), "-%5u-of-%5u.gguf%n", &part, &parts, &used) == 2 &&
        used == (int)strlen(tail))
        memcpy(end - strlen(tail), "-00001", 6);
    return first;
}

void source_open(struct source *source, const char *path, const struct device_options *device) {
    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    *source = (struct source){.path = path, .checkpoint = open_checkpoint(path)};
    device_open_cpu(&source->device, device);
    check(fmk_checkpoint_info(source->checkpoint, &info), NULL);
    source->gguf = info.container == FMK_CONTAINER_GGUF;
    source->family = family_of(info.architecture);
    source->count = info.num_entries;
    source->entries = allocate((size_t)info.num_entries, sizeof *source->entries);
    source->names = allocate((size_t)info.num_entries, sizeof *source->names);
    for (int32_t i = 0; i < info.num_entries; i++) {
        fmk_entry *entry = &source->entries[i];
        entry->struct_size = sizeof *entry;
        check(fmk_checkpoint_entry(source->checkpoint, i, entry), NULL);
        if (entry->kind == FMK_ENTRY_UNSUPPORTED ||
            (entry->kind == FMK_ENTRY_MATRIX && entry->format != FMK_FORMAT_DENSE))
            quit(EXIT_REFUSED, "%s: %s is %s; f32, f16 and bf16 can be quantized", path, entry->name,
                 entry->format_name);
        source->names[i] = tensor_name(entry->name);
        source->total += entry->bytes;
    }
    if (source->gguf) {
        char *first = first_of_split(path);
        gguf_read_header(&source->header, first);
        free(first);
        if (source->family)
            source->config = config_of_header(source);
    } else {
        source->config = read_config(path);
    }
    if (source->config) {
        source->heads = config_integer(source->config, "num_attention_heads", 0);
        source->kv_heads = config_integer(source->config, "num_key_value_heads", source->heads);
    }
    progress_begin(&source->progress, "quantizing");
}

void source_close(struct source *source) {
    progress_end(&source->progress);
    for (int32_t i = 0; i < source->count; i++)
        tensor_name_free(&source->names[i]);
    free(source->names);
    free(source->entries);
    json_decref(source->config);
    if (source->gguf)
        gguf_free_header(&source->header);
    device_close(&source->device);
    fmk_checkpoint_close(source->checkpoint);
}

void source_step(struct source *source, int32_t index) {
    source->done += source->entries[index].bytes;
    progress_step(&source->progress, source->done, source->total);
}

/* ---- names and rows as the other container has them ---- */

static bool crosses(const struct source *source, enum habit habit) {
    return source->family && source->gguf != (habit == HABIT_GGUF);
}

/* Whether the tensor behind an entry is called NAME.weight: the library finds a tensor under its full name
 * only if that is its own. */
static bool ends_in_weight(const struct source *source, const fmk_entry *entry) {
    char *name = text_of("%s.weight", entry->name);
    fmk_part part = {.struct_size = sizeof part};
    int64_t count;
    fmk_status status = entry->kind == FMK_ENTRY_MATRIX
                            ? fmk_checkpoint_find(source->checkpoint, name, &part, NULL)
                            : fmk_checkpoint_vector(source->checkpoint, name, NULL, 0, &count);
    free(name);
    return status == FMK_OK;
}

char *output_name(const struct source *source, int32_t index, enum habit habit, const char *tail) {
    const struct tensor_name *name = &source->names[index];
    const fmk_entry *entry = &source->entries[index];
    const char *crossed = habit == HABIT_GGUF ? name->gguf : name->hf;
    if (!strcmp(tail, ".weight") && !ends_in_weight(source, entry))
        tail = "";
    return text_of("%s%s", crossed && crosses(source, habit) ? crossed : entry->name, tail);
}

/* Heads whose rows are to be moved, 0 = none. */
static int64_t moved_heads(const struct source *source, int32_t index, enum habit habit) {
    if (!crosses(source, habit) || strcmp(source->family, "llama"))
        return 0;
    enum tensor_role role = source->names[index].role;
    return role == ROLE_Q ? source->heads : role == ROLE_K ? source->kv_heads : 0;
}

/* Within each head of d rows, the halves (0 .. d/2-1, d/2 .. d-1) are dealt out in turn for GGUF, and
 * gathered again for Hugging Face. */
static void *move_rows(const void *rows, int64_t n, uint64_t row_bytes, int64_t heads, enum habit habit) {
    if (n % (2 * heads))
        quit(EXIT_REFUSED, "%" PRId64 " rows of q or k do not make %" PRId64 " heads of an even size", n,
             heads);
    int64_t size = n / heads, half = size / 2;
    char *moved = allocate_aligned((uint64_t)n * row_bytes);
    for (int64_t row = 0; row < n; row++) {
        int64_t base = row / size * size, i = row % size;
        int64_t from = habit == HABIT_GGUF ? i / 2 + i % 2 * half : i % half * 2 + i / half;
        memcpy(moved + (uint64_t)row * row_bytes, (const char *)rows + (uint64_t)(base + from) * row_bytes,
               row_bytes);
    }
    return moved;
}

struct rows rows_of(const struct source *source, int32_t index, int32_t expert, enum habit habit) {
    struct rows rows = {.part.struct_size = sizeof rows.part};
    check(fmk_checkpoint_find(source->checkpoint, source->entries[index].name, &rows.part, NULL), NULL);
    const fmk_part *part = &rows.part;
    uint64_t row_bytes = (uint64_t)part->k * dtype_size(part->qweight.dtype);
    rows.data = (const char *)(uintptr_t)(part->qweight.data.handle + part->qweight.data.offset) +
                (uint64_t)expert * part->qweight.expert_stride;
    if (part->bias.data.handle)
        rows.bias = (const char *)(uintptr_t)(part->bias.data.handle + part->bias.data.offset);
    int64_t heads = moved_heads(source, index, habit);
    if (heads) {
        rows.data = rows.owned_data = move_rows(rows.data, part->n, row_bytes, heads, habit);
        if (rows.bias)
            rows.bias = rows.owned_bias =
                move_rows(rows.bias, part->n, dtype_size(part->bias.dtype), heads, habit);
    }
    return rows;
}

void rows_free(struct rows *rows) {
    free(rows->owned_data);
    free(rows->owned_bias);
}

float *vector_of(const struct source *source, int32_t index, enum habit habit) {
    const fmk_entry *entry = &source->entries[index];
    int64_t count;
    float *values = allocate_aligned((uint64_t)entry->n * sizeof *values);
    check(fmk_checkpoint_vector(source->checkpoint, entry->name, values, entry->n, &count), NULL);
    int64_t heads = moved_heads(source, index, habit);
    if (heads) {
        float *moved = move_rows(values, count, sizeof *values, heads, habit);
        free(values);
        return moved;
    }
    return values;
}
