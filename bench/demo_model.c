/* Writes a model for the demo: DIR/model.safetensors and config.json, two layers of Llama 3.1 8B with a slice
 * of its vocabulary, bf16, random normal weights. Two layers, because a Q4_K_M file has two kinds of them.
 * With the word "tiny" behind DIR the same, small enough for a test. */
#include "device.h"
#include "random.h"
#include "safetensors.h"
#include "synthetic.h"
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct shape {
    int64_t hidden, intermediate, heads, kv_heads, vocab;
    int layers;
};

static const struct shape llama = {4096, 14336, 32, 8, 16384, 2};
static const struct shape tiny = {256, 512, 4, 2, 512, 2};

struct tensor {
    char *name;
    int64_t n, k; /* k 0 = a vector of ones */
};

static int list_tensors(const struct shape *s, struct tensor *tensors) {
    int64_t h = s->hidden, i = s->intermediate, kv = h / s->heads * s->kv_heads;
    int count = 0;
    tensors[count++] = (struct tensor){text_of("model.embed_tokens.weight"), s->vocab, h};
    for (int layer = 0; layer < s->layers; layer++) {
        const struct {
            const char *name;
            int64_t n, k;
        } in_layer[] = {
            {"input_layernorm", h, 0},   {"self_attn.q_proj", h, h}, {"self_attn.k_proj", kv, h},
            {"self_attn.v_proj", kv, h}, {"self_attn.o_proj", h, h}, {"post_attention_layernorm", h, 0},
            {"mlp.gate_proj", i, h},     {"mlp.up_proj", i, h},      {"mlp.down_proj", h, i},
        };
        for (size_t t = 0; t < sizeof in_layer / sizeof *in_layer; t++)
            tensors[count++] = (struct tensor){text_of("model.layers.%d.%s.weight", layer, in_layer[t].name),
                                               in_layer[t].n, in_layer[t].k};
    }
    tensors[count++] = (struct tensor){text_of("model.norm.weight"), h, 0};
    tensors[count++] = (struct tensor){text_of("lm_head.weight"), s->vocab, h};
    return count;
}

static void write_tensor(struct output *output, struct device *device, const struct tensor *tensor,
                         uint64_t seed) {
    /* The spread that models are initialised with. */
    const float spread = 0.02f;
    int64_t count = tensor->n * (tensor->k ? tensor->k : 1);
    float *values = allocate_aligned((uint64_t)count * sizeof *values);
    uint16_t *halves = allocate_aligned((uint64_t)count * sizeof *halves);
    if (tensor->k)
        random_normal(values, count, seed);
    for (int64_t i = 0; i < count; i++)
        values[i] = tensor->k ? values[i] * spread : 1;
    convert(device, values, FMK_F32, halves, FMK_BF16, 1, count);
    output_write(output, halves, (uint64_t)count * sizeof *halves);
    free(values);
    free(halves);
}

static void write_config(const char *directory, const struct shape *s) {
    json_t *config = json_pack(
        "{s:[s], s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:f, s:f, s:i, s:b, s:s, s:s}", "architectures",
        "LlamaForCausalLM", "model_type", "llama", "hidden_size", (json_int_t)s->hidden, "intermediate_size",
        (json_int_t)s->intermediate, "num_hidden_layers", s->layers, "num_attention_heads",
        (json_int_t)s->heads, "num_key_value_heads", (json_int_t)s->kv_heads, "vocab_size",
        (json_int_t)s->vocab, "rms_norm_eps", 1e-5, "rope_theta", 500000.0, "max_position_embeddings", 8192,
        "tie_word_embeddings", 0, "hidden_act", "silu", "torch_dtype", "bfloat16");
    char *path = text_of("%s/config.json", directory);
    if (!config || json_dump_file(config, path, JSON_INDENT(2)))
        quit(EXIT_REFUSED, "cannot write %s", path);
    json_decref(config);
    free(path);
}

int main(int argc, char **argv) {
    set_program("demo_model");
    bool small = argc == 3 && !strcmp(argv[2], "tiny");
    if (argc != 2 && !small)
        quit(EXIT_USAGE, "the arguments are DIR [tiny]");
    const char *directory = argv[1];
    const struct shape *shape = small ? &tiny : &llama;
    if (mkdir(directory, 0777) && errno != EEXIST)
        quit(EXIT_USAGE, "cannot make the directory %s: %s", directory, strerror(errno));

    struct device device;
    device_open(&device, &(struct device_options){.backend = "cpu"});
    struct tensor tensors[64];
    int count = list_tensors(shape, tensors);
    struct safetensors_writer writer;
    struct output output;
    uint64_t total = 0;
    safetensors_begin(&writer);
    for (int i = 0; i < count; i++) {
        int64_t dims[2] = {tensors[i].n, tensors[i].k};
        total += safetensors_put(&writer, tensors[i].name, "BF16", 2, dims, tensors[i].k ? 2 : 1);
    }
    char *path = text_of("%s/model.safetensors", directory);
    output_begin(&output, path);
    safetensors_write_header(&writer, &output);
    struct progress progress;
    progress_begin(&progress, "random weights");
    for (int i = 0; i < count; i++) {
        write_tensor(&output, &device, &tensors[i], (uint64_t)i);
        progress_step(&progress, output.written, total);
        free(tensors[i].name);
    }
    progress_end(&progress);
    output_commit(&output);
    write_config(directory, shape);
    free(path);
    device_close(&device);
    return 0;
}
