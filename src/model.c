/* A Llama, Qwen2 or Qwen3 model out of a checkpoint: what its config says, held against the shapes of its
 * tensors, and then one weight or norm for each role of each layer. Everything is checked before the first
 * weight is packed. */
#include "model.h"

#include "abi.h"
#include "checkpoint/checkpoint.h"
#include "error.h"
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 65536, MAX_HEADS = 65536, MAX_NAME = 96, MAX_MERGED = 3 };
static const int64_t max_width = INT32_MAX;

struct norm {
    float *data; /* NULL = the family has none */
    int64_t count;
};

struct layer {
    fmk_weight *qkv, *o, *gate_up, *down;
    struct norm input_norm, q_norm, k_norm, post_norm;
};

struct fmk_model {
    fmk_checkpoint *checkpoint;
    fmk_model_info_t info;
    bool gguf;
    fmk_weight *embedding, *lm_head; /* the same one, retained twice, where they are tied */
    struct norm final_norm;
    struct layer *layers;
};

/* ---- the config ---- */

struct family {
    const char *name;
    bool interleaved; /* converters to GGUF reorder the rows of q and k of this family */
    bool qk_norm;
};

static const struct family families[] = {
    {"llama", true, false},
    {"qwen2", false, false},
    {"qwen3", false, true},
};

static const struct family *family_of(const char *name) {
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

/* A setting by its key in the container at hand: GGUF's begin with the architecture's name. */
static const struct fmk_setting *setting_of(const fmk_model *model, const char *hf, const char *gguf,
                                            char *key) {
    if (model->gguf)
        snprintf(key, MAX_NAME, "%s.%s", model->info.architecture, gguf);
    else
        snprintf(key, MAX_NAME, "%s", hf);
    return fmk_checkpoint_setting(model->checkpoint, key);
}

/* missing 0 = required */
static fmk_status read_integer(const fmk_model *model, const char *hf, const char *gguf, int64_t missing,
                               int64_t most, int64_t *out) {
    char key[MAX_NAME];
    const struct fmk_setting *setting = setting_of(model, hf, gguf, key);
    *out = missing;
    if (setting->kind == FMK_SETTING_ABSENT)
        return missing ? FMK_OK : fmk_fail(FMK_EFORMAT, "the config has no %s", key);
    *out = setting->integer;
    if (setting->kind != FMK_SETTING_INTEGER)
        return fmk_fail(FMK_EFORMAT, "%s is not an integer", key);
    if (*out < 1 || *out > most)
        return fmk_fail(FMK_EFORMAT, "%s is %lld; 1 to %lld is accepted", key, (long long)*out,
                        (long long)most);
    return FMK_OK;
}

static fmk_status read_real(const fmk_model *model, const char *hf, const char *gguf, float missing,
                            float *out) {
    char key[MAX_NAME];
    const struct fmk_setting *setting = setting_of(model, hf, gguf, key);
    *out = missing;
    if (setting->kind == FMK_SETTING_ABSENT)
        return FMK_OK;
    bool number = setting->kind == FMK_SETTING_INTEGER || setting->kind == FMK_SETTING_REAL;
    if (!number || !(setting->real > 0) || !(setting->real < 1e30))
        return fmk_fail(FMK_EFORMAT, "%s is not a number above 0", key);
    *out = (float)setting->real;
    return FMK_OK;
}

static fmk_status find_family(fmk_model *model, const struct family **family) {
    fmk_checkpoint_info_t info;
    fmk_checkpoint_describe(model->checkpoint, &info);
    model->gguf = info.container == FMK_CONTAINER_GGUF;
    const char *key = model->gguf ? "general.architecture" : "model_type in config.json";
    if (!*info.architecture)
        return fmk_fail(FMK_EFORMAT, "the checkpoint does not tell %s", key);
    *family = family_of(info.architecture);
    if (!*family)
        return fmk_fail(FMK_EUNSUPPORTED, "%s is \"%.64s\"; llama, qwen2 and qwen3 are accepted", key,
                        info.architecture);
    model->info.architecture = (*family)->name;
    model->info.rope_interleaved = model->gguf && (*family)->interleaved;
    return FMK_OK;
}

static fmk_status read_sizes(fmk_model *model) {
    fmk_model_info_t *info = &model->info;
    int64_t layers = 0, heads = 0, kv_heads = 0, experts = 0, value_dim = 0;
    fmk_status status = read_integer(model, "num_hidden_layers", "block_count", 0, MAX_LAYERS, &layers);
    if (!status)
        status = read_integer(model, "hidden_size", "embedding_length", 0, max_width, &info->hidden);
    if (!status)
        status = read_integer(model, "intermediate_size", "feed_forward_length", 0, max_width,
                              &info->intermediate);
    if (!status)
        status = read_integer(model, "num_attention_heads", "attention.head_count", 0, MAX_HEADS, &heads);
    if (!status)
        status =
            read_integer(model, "num_key_value_heads", "attention.head_count_kv", heads, heads, &kv_heads);
    if (status)
        return status;
    if (heads % kv_heads)
        return fmk_fail(FMK_EFORMAT, "%lld heads are not a multiple of %lld key-value heads",
                        (long long)heads, (long long)kv_heads);
    info->num_layers = (int32_t)layers;
    info->num_heads = (int32_t)heads;
    info->num_kv_heads = (int32_t)kv_heads;
    int64_t usual = info->hidden / heads ? info->hidden / heads : 1;
    status = read_integer(model, "head_dim", "attention.key_length", usual, MAX_HEADS, &info->head_dim);
    if (!status)
        status =
            read_integer(model, "head_dim", "attention.value_length", info->head_dim, MAX_HEADS, &value_dim);
    if (status)
        return status;
    if (value_dim != info->head_dim)
        return fmk_fail(FMK_EUNSUPPORTED, "keys of %lld and values of %lld per head; equal ones are accepted",
                        (long long)info->head_dim, (long long)value_dim);
    char key[MAX_NAME];
    experts = setting_of(model, "num_local_experts", "expert_count", key)->integer;
    if (experts)
        return fmk_fail(FMK_EUNSUPPORTED, "%s is %lld; models without experts are accepted", key,
                        (long long)experts);
    return FMK_OK;
}

static fmk_status read_config(fmk_model *model) {
    const struct family *family = NULL;
    fmk_model_info_t *info = &model->info;
    fmk_status status = find_family(model, &family);
    if (!status)
        status = read_sizes(model);
    if (!status)
        status = read_real(model, "rms_norm_eps", "attention.layer_norm_rms_epsilon", 1e-6f, &info->rms_eps);
    if (!status)
        status = read_real(model, "rope_parameters.rope_theta", "rope.freq_base", 1e4f, &info->rope_theta);
    if (!status && !model->gguf) /* where transformers kept it before its version 5 */
        status = read_real(model, "rope_theta", "", info->rope_theta, &info->rope_theta);
    return status;
}

/* ---- what is to be loaded ---- */

struct name {
    const char *hf, *gguf; /* %d = the layer */
};

static const struct name embedding_name = {"model.embed_tokens", "token_embd"};
static const struct name final_norm_name = {"model.norm", "output_norm"};
static const struct name lm_head_name = {"lm_head", "output"};

/* One weight: its matrices, and the shape that the config gives them. */
struct wanted {
    int32_t count;
    char names[MAX_MERGED][MAX_NAME];
    int64_t n[MAX_MERGED], k; /* n 0 = any */
    uint32_t flags;
    uint64_t bytes;
};

static void want(const fmk_model *model, struct wanted *w, struct name name, int32_t layer, int64_t n,
                 int64_t k) {
    /* the table's own words: "%d" once at most */
    const char *pattern = model->gguf ? name.gguf : name.hf, *number = strstr(pattern, "%d");
    char *text = w->names[w->count];
    if (number)
        snprintf(text, MAX_NAME, "%.*s%d%s", (int)(number - pattern), pattern, layer, number + 2);
    else
        snprintf(text, MAX_NAME, "%s", pattern);
    w->n[w->count++] = n;
    w->k = k;
}

static void want_layer(const fmk_model *model, int32_t layer, struct wanted weights[4]) {
    static const struct name q = {"model.layers.%d.self_attn.q_proj", "blk.%d.attn_q"};
    static const struct name k = {"model.layers.%d.self_attn.k_proj", "blk.%d.attn_k"};
    static const struct name v = {"model.layers.%d.self_attn.v_proj", "blk.%d.attn_v"};
    static const struct name o = {"model.layers.%d.self_attn.o_proj", "blk.%d.attn_output"};
    static const struct name gate = {"model.layers.%d.mlp.gate_proj", "blk.%d.ffn_gate"};
    static const struct name up = {"model.layers.%d.mlp.up_proj", "blk.%d.ffn_up"};
    static const struct name down = {"model.layers.%d.mlp.down_proj", "blk.%d.ffn_down"};
    const fmk_model_info_t *info = &model->info;
    int64_t q_width = info->num_heads * info->head_dim, kv_width = info->num_kv_heads * info->head_dim;
    memset(weights, 0, 4 * sizeof *weights);
    want(model, &weights[0], q, layer, q_width, info->hidden);
    want(model, &weights[0], k, layer, kv_width, info->hidden);
    want(model, &weights[0], v, layer, kv_width, info->hidden);
    want(model, &weights[1], o, layer, info->hidden, q_width);
    want(model, &weights[2], gate, layer, info->intermediate, info->hidden);
    want(model, &weights[2], up, layer, info->intermediate, info->hidden);
    weights[2].flags = FMK_WEIGHT_GLU;
    want(model, &weights[3], down, layer, info->hidden, info->intermediate);
}

/* Finds the matrices, checks their shapes and adds up their bytes. */
static fmk_status check_weight(const fmk_model *model, struct wanted *w) {
    w->bytes = 0;
    for (int32_t i = 0; i < w->count; i++) {
        fmk_part part;
        int32_t experts = 0;
        uint64_t bytes = 0;
        fmk_status status = fmk_checkpoint_part(model->checkpoint, w->names[i], &part, &experts, &bytes);
        if (status)
            return status;
        if (experts || (w->n[i] && part.n != w->n[i]) || part.k != w->k)
            return fmk_fail(FMK_EFORMAT,
                            "%s is [%lld][%lld] with %d experts; the config makes it [%lld][%lld]",
                            w->names[i], (long long)part.n, (long long)part.k, experts, (long long)w->n[i],
                            (long long)w->k);
        w->n[i] = part.n;
        w->bytes += bytes;
    }
    return FMK_OK;
}

static fmk_status load_norm(const fmk_model *model, struct name name, int32_t layer, int64_t expected,
                            struct norm *norm) {
    struct wanted w = {0};
    want(model, &w, name, layer, expected, 1);
    int64_t count = 0;
    fmk_status status = fmk_checkpoint_floats(model->checkpoint, w.names[0], NULL, 0, &count);
    if (status)
        return status;
    if (count != expected)
        return fmk_fail(FMK_EFORMAT, "%s has %lld values; the config makes it %lld", w.names[0],
                        (long long)count, (long long)expected);
    norm->data = malloc((size_t)count * sizeof *norm->data);
    if (!norm->data)
        return fmk_no_memory((uint64_t)count * sizeof *norm->data, w.names[0]);
    norm->count = count;
    return fmk_checkpoint_floats(model->checkpoint, w.names[0], norm->data, count, &count);
}

static fmk_status load_norms(fmk_model *model) {
    static const struct name input = {"model.layers.%d.input_layernorm", "blk.%d.attn_norm"};
    static const struct name post = {"model.layers.%d.post_attention_layernorm", "blk.%d.ffn_norm"};
    static const struct name q_norm = {"model.layers.%d.self_attn.q_norm", "blk.%d.attn_q_norm"};
    static const struct name k_norm = {"model.layers.%d.self_attn.k_norm", "blk.%d.attn_k_norm"};
    int64_t hidden = model->info.hidden, head_dim = model->info.head_dim;
    bool qk_norm = family_of(model->info.architecture)->qk_norm;
    fmk_status status = load_norm(model, final_norm_name, 0, hidden, &model->final_norm);
    for (int32_t i = 0; i < model->info.num_layers && !status; i++) {
        struct layer *layer = &model->layers[i];
        status = load_norm(model, input, i, hidden, &layer->input_norm);
        if (!status)
            status = load_norm(model, post, i, hidden, &layer->post_norm);
        if (!status && qk_norm)
            status = load_norm(model, q_norm, i, head_dim, &layer->q_norm);
        if (!status && qk_norm)
            status = load_norm(model, k_norm, i, head_dim, &layer->k_norm);
    }
    return status;
}

/* ---- loading ---- */

struct loading {
    fmk_model *model;
    fmk_queue *queue;
    const fmk_weight_desc *desc;
    uint64_t done, total, now; /* bytes: of finished weights, of all, of the one under way */
};

/* A weight counts its own bytes; the caller is told of the whole model's. */
static int32_t report(void *user, uint64_t done, uint64_t total) {
    const struct loading *loading = user;
    uint64_t share = total ? (uint64_t)((double)loading->now * ((double)done / (double)total)) : 0;
    share = share < loading->now ? share : loading->now;
    return loading->desc->progress(loading->desc->progress_user, loading->done + share, loading->total);
}

static fmk_status load_weight(struct loading *loading, const struct wanted *w, fmk_weight **out) {
    const char *names[MAX_MERGED] = {w->names[0], w->names[1], w->names[2]};
    fmk_weight_desc desc = {.struct_size = sizeof desc,
                            .flags = loading->desc->flags | w->flags,
                            .apply_bias = loading->desc->apply_bias};
    if (loading->desc->progress) {
        desc.progress = report;
        desc.progress_user = loading;
    }
    loading->now = w->bytes;
    fmk_status status =
        fmk_load_weight(out, loading->queue, loading->model->checkpoint, names, w->count, &desc);
    if (status)
        return status;
    loading->done += w->bytes;
    loading->now = 0;
    if (loading->desc->progress && report(loading, 0, 0))
        return fmk_fail(FMK_ECANCELED, "the progress callback canceled the load at %llu of %llu bytes",
                        (unsigned long long)loading->done, (unsigned long long)loading->total);
    return FMK_OK;
}

/* Embedding and head. Tied where the config says so, unless the head is there in a quantized form, which
 * cannot be the embedding's; and where there is no head. */
static fmk_status want_ends(fmk_model *model, struct wanted *embedding, struct wanted *head) {
    char key[MAX_NAME];
    int64_t vocab = 0;
    want(model, embedding, embedding_name, 0, 0, model->info.hidden);
    fmk_status status = check_weight(model, embedding);
    if (status)
        return status;
    model->info.vocab = embedding->n[0];
    status = read_integer(model, "vocab_size", "vocab_size", model->info.vocab, max_width, &vocab);
    if (status)
        return status;
    if (vocab != model->info.vocab)
        return fmk_fail(FMK_EFORMAT, "%s has %lld rows; the config's vocab_size is %lld", embedding->names[0],
                        (long long)model->info.vocab, (long long)vocab);
    want(model, head, lm_head_name, 0, vocab, model->info.hidden);
    bool told = !model->gguf && setting_of(model, "tie_word_embeddings", "", key)->integer == 1;
    bool there = fmk_checkpoint_index(model->checkpoint, head->names[0]) >= 0;
    model->info.tied_embeddings = !there;
    if (!there)
        return FMK_OK;
    fmk_part part;
    status = fmk_checkpoint_part(model->checkpoint, head->names[0], &part, NULL, NULL);
    if (!status && told && part.format == FMK_FORMAT_DENSE)
        model->info.tied_embeddings = 1;
    if (!status && !model->info.tied_embeddings)
        status = check_weight(model, head);
    return status;
}

static fmk_status load_ends(struct loading *loading, const struct wanted *embedding,
                            const struct wanted *head) {
    fmk_model *model = loading->model;
    fmk_status status = load_weight(loading, embedding, &model->embedding);
    if (status)
        return status;
    if (!model->info.tied_embeddings)
        return load_weight(loading, head, &model->lm_head);
    status = fmk_weight_retain(model->embedding);
    if (!status)
        model->lm_head = model->embedding;
    return status;
}

static fmk_status load_layers(struct loading *loading) {
    fmk_model *model = loading->model;
    fmk_status status = FMK_OK;
    for (int32_t i = 0; i < model->info.num_layers && !status; i++) {
        struct wanted weights[4];
        struct layer *layer = &model->layers[i];
        fmk_weight **slots[4] = {&layer->qkv, &layer->o, &layer->gate_up, &layer->down};
        want_layer(model, i, weights);
        for (int32_t j = 0; j < 4 && !status; j++) {
            status = check_weight(model, &weights[j]);
            if (!status)
                status = load_weight(loading, &weights[j], slots[j]);
        }
    }
    return status;
}

/* Everything that can be refused without packing a byte. */
static fmk_status check_layers(const fmk_model *model, uint64_t *total) {
    for (int32_t i = 0; i < model->info.num_layers; i++) {
        struct wanted weights[4];
        want_layer(model, i, weights);
        for (int32_t j = 0; j < 4; j++) {
            fmk_status status = check_weight(model, &weights[j]);
            if (status)
                return status;
            *total += weights[j].bytes;
        }
    }
    return FMK_OK;
}

static fmk_status load_all(struct loading *loading) {
    fmk_model *model = loading->model;
    struct wanted embedding = {0}, head = {0};
    fmk_status status = read_config(model);
    if (!status)
        status = want_ends(model, &embedding, &head);
    if (!status)
        status = check_layers(model, &loading->total);
    if (status)
        return status;
    loading->total += embedding.bytes + (model->info.tied_embeddings ? 0 : head.bytes);
    model->layers = calloc((size_t)model->info.num_layers, sizeof *model->layers);
    if (!model->layers)
        return fmk_no_memory((uint64_t)model->info.num_layers * sizeof *model->layers, "the list of layers");
    status = load_norms(model);
    if (!status)
        status = load_ends(loading, &embedding, &head);
    return status ? status : load_layers(loading);
}

fmk_status fmk_model_make(fmk_model **out, fmk_queue *queue, fmk_checkpoint *c, const fmk_weight_desc *desc) {
    fmk_model *model = calloc(1, sizeof *model);
    if (!model)
        return fmk_no_memory(sizeof *model, "a model");
    fmk_checkpoint_retain(c);
    model->checkpoint = c;
    model->info.struct_size = sizeof model->info;
    struct loading loading = {.model = model, .queue = queue, .desc = desc};
    fmk_status status = load_all(&loading);
    if (status) {
        fmk_model_free(model);
        return status;
    }
    *out = model;
    return FMK_OK;
}

void fmk_model_free(fmk_model *model) {
    if (!model)
        return;
    for (int32_t i = 0; model->layers && i < model->info.num_layers; i++) {
        struct layer *layer = &model->layers[i];
        fmk_weight *weights[] = {layer->qkv, layer->o, layer->gate_up, layer->down};
        float *norms[] = {layer->input_norm.data, layer->q_norm.data, layer->k_norm.data,
                          layer->post_norm.data};
        for (size_t j = 0; j < 4; j++) {
            fmk_weight_destroy(weights[j], NULL);
            free(norms[j]);
        }
    }
    fmk_weight_destroy(model->embedding, NULL);
    fmk_weight_destroy(model->lm_head, NULL);
    free(model->final_norm.data);
    free(model->layers);
    fmk_checkpoint_release(model->checkpoint);
    free(model);
}

/* ---- lookups ---- */

const fmk_model_info_t *fmk_model_described(const fmk_model *model) {
    return &model->info;
}

static fmk_status find_layer(fmk_model *model, int32_t layer, struct layer **out) {
    if (layer < 0 || layer >= model->info.num_layers)
        return fmk_fail(FMK_ENOTFOUND, "layer is %d; the model has %d", layer, model->info.num_layers);
    *out = &model->layers[layer];
    return FMK_OK;
}

fmk_status fmk_model_find_weight(fmk_model *model, int32_t layer, fmk_role role, fmk_weight **out) {
    struct layer *found = NULL;
    if (role == FMK_ROLE_EMBEDDING || role == FMK_ROLE_LM_HEAD) {
        *out = role == FMK_ROLE_EMBEDDING ? model->embedding : model->lm_head;
        return FMK_OK;
    }
    if (role != FMK_ROLE_QKV && role != FMK_ROLE_O && role != FMK_ROLE_GATE_UP && role != FMK_ROLE_DOWN)
        return fmk_fail(FMK_ENOTFOUND, "role %d is no weight; 1, 3, 5, 8, 10 and 11 are", role);
    fmk_status status = find_layer(model, layer, &found);
    if (status)
        return status;
    *out = role == FMK_ROLE_QKV       ? found->qkv
           : role == FMK_ROLE_O       ? found->o
           : role == FMK_ROLE_GATE_UP ? found->gate_up
                                      : found->down;
    return FMK_OK;
}

fmk_status fmk_model_find_vector(fmk_model *model, int32_t layer, fmk_role role, const float **data,
                                 int64_t *count) {
    struct layer *found = NULL;
    const struct norm *norm = &model->final_norm;
    if (role != FMK_ROLE_FINAL_NORM && role != FMK_ROLE_INPUT_NORM && role != FMK_ROLE_POST_NORM &&
        role != FMK_ROLE_Q_NORM && role != FMK_ROLE_K_NORM)
        return fmk_fail(FMK_ENOTFOUND, "role %d is no vector; 2, 4, 6, 7 and 9 are", role);
    if (role != FMK_ROLE_FINAL_NORM) {
        fmk_status status = find_layer(model, layer, &found);
        if (status)
            return status;
        norm = role == FMK_ROLE_INPUT_NORM  ? &found->input_norm
               : role == FMK_ROLE_POST_NORM ? &found->post_norm
               : role == FMK_ROLE_Q_NORM    ? &found->q_norm
                                            : &found->k_norm;
    }
    if (!norm->data)
        return fmk_fail(FMK_ENOTFOUND, "the family %s has no vector of role %d", model->info.architecture,
                        role);
    *data = norm->data;
    *count = norm->count;
    return FMK_OK;
}
