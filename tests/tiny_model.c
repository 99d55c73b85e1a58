/* Writes the tiny model by the containers' descriptions in docs/formats.md, with nothing of the library. */
#include "tiny_model.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KV_ROWS = TINY_HIDDEN / TINY_HEADS * TINY_KV_HEADS };

static const struct tensor {
    const char *huggingface, *gguf;
    int rows, columns; /* rows 0: a vector */
} tensors[] = {
    {"model.embed_tokens.weight", "token_embd.weight", TINY_VOCAB, TINY_HIDDEN},
    {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", 0, TINY_HIDDEN},
    {"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", TINY_HIDDEN, TINY_HIDDEN},
    {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", KV_ROWS, TINY_HIDDEN},
    {"model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", KV_ROWS, TINY_HIDDEN},
    {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", TINY_HIDDEN, TINY_HIDDEN},
    {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight", 0, TINY_HIDDEN},
    {"model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", TINY_INNER, TINY_HIDDEN},
    {"model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight", TINY_INNER, TINY_HIDDEN},
    {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", TINY_HIDDEN, TINY_INNER},
    {"model.norm.weight", "output_norm.weight", 0, TINY_HIDDEN},
};
enum { NUM_TENSORS = sizeof tensors / sizeof tensors[0] };

static void *must(void *pointer) {
    if (!pointer)
        abort();
    return pointer;
}

static char *path_in(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = must(malloc(size));
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

char *tiny_folder(void) {
    const char *base = getenv("TMPDIR");
    char *folder = path_in(base ? base : "/tmp", "ferrumk-test-XXXXXX");
    return must(mkdtemp(folder));
}

void tiny_remove(char *folder) {
    DIR *dir = must(opendir(folder));
    for (struct dirent *entry; (entry = readdir(dir));) {
        char *path = path_in(folder, entry->d_name);
        unlink(path); /* "." and ".." are refused */
        free(path);
    }
    closedir(dir);
    rmdir(folder);
    free(folder);
}

static uint64_t bytes_of(const struct tensor *tensor) {
    return sizeof(float) * (uint64_t)(tensor->rows ? tensor->rows : 1) * (uint64_t)tensor->columns;
}

static void write_values(FILE *file, const struct tensor *tensor) {
    for (uint64_t i = 0; i < bytes_of(tensor) / sizeof(float); i++) {
        float value = tensor->rows ? (float)((i * 2654435761u >> 8) % 256) / 128 - 1 : 1;
        fwrite(&value, sizeof value, 1, file);
    }
}

static void write_u32(FILE *file, uint32_t value) {
    fwrite(&value, sizeof value, 1, file);
}

static void write_u64(FILE *file, uint64_t value) {
    fwrite(&value, sizeof value, 1, file);
}

static void write_text(FILE *file, const char *text) {
    write_u64(file, strlen(text));
    fputs(text, file);
}

static void write_u32_key(FILE *file, const char *key, uint32_t value) {
    write_text(file, key);
    write_u32(file, 4); /* type u32 */
    write_u32(file, value);
}

char *tiny_gguf(const char *folder) {
    char *path = path_in(folder, "tiny.gguf");
    FILE *file = must(fopen(path, "wb"));
    fputs("GGUF", file);
    write_u32(file, 3);
    write_u64(file, NUM_TENSORS);
    write_u64(file, 8);
    write_text(file, "general.architecture");
    write_u32(file, 8); /* type string */
    write_text(file, "llama");
    write_u32_key(file, "llama.block_count", 1);
    write_u32_key(file, "llama.embedding_length", TINY_HIDDEN);
    write_u32_key(file, "llama.feed_forward_length", TINY_INNER);
    write_u32_key(file, "llama.attention.head_count", TINY_HEADS);
    write_u32_key(file, "llama.attention.head_count_kv", TINY_KV_HEADS);
    write_u32_key(file, "llama.vocab_size", TINY_VOCAB);
    write_text(file, "llama.attention.layer_norm_rms_epsilon");
    write_u32(file, 6); /* type f32 */
    float eps = 1e-5f;
    fwrite(&eps, sizeof eps, 1, file);
    uint64_t offset = 0;
    for (int i = 0; i < NUM_TENSORS; i++) {
        write_text(file, tensors[i].gguf);
        write_u32(file, tensors[i].rows ? 2 : 1);
        write_u64(file, (uint64_t)tensors[i].columns);
        if (tensors[i].rows)
            write_u64(file, (uint64_t)tensors[i].rows);
        write_u32(file, 0); /* type F32 */
        write_u64(file, offset);
        offset += bytes_of(&tensors[i]); /* all multiples of 32 */
    }
    while (ftell(file) % 32)
        fputc(0, file);
    for (int i = 0; i < NUM_TENSORS; i++)
        write_values(file, &tensors[i]);
    fclose(file);
    return path;
}

char *tiny_safetensors(const char *folder) {
    char *config = path_in(folder, "config.json");
    FILE *file = must(fopen(config, "wb"));
    fprintf(file,
            "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": %d,"
            " \"intermediate_size\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d,"
            " \"num_hidden_layers\": 1, \"vocab_size\": %d, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,"
            " \"tie_word_embeddings\": true}\n",
            TINY_HIDDEN, TINY_INNER, TINY_HEADS, TINY_KV_HEADS, TINY_VOCAB);
    fclose(file);
    free(config);

    char header[8192];
    size_t used = 0;
    uint64_t offset = 0;
    for (int i = 0; i < NUM_TENSORS; i++) {
        const struct tensor *tensor = &tensors[i];
        uint64_t end = offset + bytes_of(tensor);
        char shape[32];
        snprintf(shape, sizeof shape, tensor->rows ? "%d, %d" : "%d",
                 tensor->rows ? tensor->rows : tensor->columns, tensor->columns);
        used += (size_t)snprintf(
            header + used, sizeof header - used,
            "%s\"%s\": {\"dtype\": \"F32\", \"shape\": [%s], \"data_offsets\": [%llu, %llu]}", i ? ", " : "{",
            tensor->huggingface, shape, (unsigned long long)offset, (unsigned long long)end);
        offset = end;
    }
    used += (size_t)snprintf(header + used, sizeof header - used, "}");
    while (used % 8)
        header[used++] = ' ';
    char *path = path_in(folder, "model.safetensors");
    file = must(fopen(path, "wb"));
    write_u64(file, used);
    fwrite(header, used, 1, file);
    for (int i = 0; i < NUM_TENSORS; i++)
        write_values(file, &tensors[i]);
    fclose(file);
    return path;
}
