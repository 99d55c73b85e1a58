/* Whole models: every family under both namings, and configs that the tensors contradict. */
#include "files.h"
#include "samples.h"

enum { HIDDEN = 32, INNER = 48, HEADS = 4, KV_HEADS = 2, VOCAB = 24, LAYERS = 2 };

/* What to write. */
struct spec {
    bool gguf;
    const char *family;
    int head_dim;
    bool bias, qk_norm, head; /* head: an lm_head of its own */
    const char *skip;         /* a tensor to leave out */
    const char *widen;        /* a tensor to make one row longer */
    const char *key;          /* a setting to replace by `value`, or to leave out where that is NULL */
    const char *value;
};

static char *folder;
static fmk_context *context;
static fmk_queue *queue;

static int set_up(void **state) {
    (void)state;
    fmk_context_desc desc = context_desc(1);
    folder = make_folder();
    return fmk_context_create(&context, &desc) || fmk_queue_create(&queue, context, test_stream());
}

static int tear_down(void **state) {
    (void)state;
    fmk_queue_destroy(queue);
    fmk_context_destroy(context);
    remove_folder(folder);
    return 0;
}

/* ---- writing ---- */

struct file {
    const struct spec *spec;
    struct bytes header, data;
    int count;
};

static bool named(const char *wanted, const char *name) {
    return wanted && name && strcmp(wanted, name) == 0;
}

static void add(struct file *f, const char *name, int64_t rows, int64_t columns) {
    if (named(f->spec->skip, name))
        return;
    if (named(f->spec->widen, name))
        *(rows ? &rows : &columns) += 1;
    uint64_t begin = f->data.size, size = 2 * (uint64_t)(rows ? rows : 1) * (uint64_t)columns;
    if (f->spec->gguf) {
        int64_t dims[2] = {columns, rows};
        put_tensor(&f->header, name, rows ? 2 : 1, dims, 1, begin);
    } else {
        char text[256], shape[64];
        snprintf(shape, sizeof shape, rows ? "%lld,%lld" : "%lld", (long long)(rows ? rows : columns),
                 (long long)columns);
        snprintf(
            text, sizeof text, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
            f->count ? "," : "{", name, shape, (unsigned long long)begin, (unsigned long long)(begin + size));
        put_text(&f->header, text);
    }
    for (uint64_t i = 0; i < size / 2; i++) {
        uint16_t value = (uint16_t)(0x3000 + (begin + i * 97) % 2048); /* 0.125 .. 0.5 */
        put(&f->data, &value, sizeof value);
    }
    while (f->spec->gguf && f->data.size % 32)
        put(&f->data, NULL, 1);
    f->count++;
}

static void add_both(struct file *f, int layer, const char *hf, const char *gguf, int64_t rows,
                     int64_t columns) {
    char name[128], prefix[64] = "";
    if (layer >= 0)
        snprintf(prefix, sizeof prefix, f->spec->gguf ? "blk.%d." : "model.layers.%d.", layer);
    snprintf(name, sizeof name, "%s%s", prefix, f->spec->gguf ? gguf : hf);
    add(f, name, rows, columns);
}

static void add_tensors(struct file *f) {
    const struct spec *s = f->spec;
    int64_t q = (int64_t)HEADS * s->head_dim, kv = (int64_t)KV_HEADS * s->head_dim;
    add_both(f, -1, "model.embed_tokens.weight", "token_embd.weight", VOCAB, HIDDEN);
    add_both(f, -1, "model.norm.weight", "output_norm.weight", 0, HIDDEN);
    if (s->head)
        add_both(f, -1, "lm_head.weight", "output.weight", VOCAB, HIDDEN);
    for (int i = 0; i < LAYERS; i++) {
        add_both(f, i, "input_layernorm.weight", "attn_norm.weight", 0, HIDDEN);
        add_both(f, i, "self_attn.q_proj.weight", "attn_q.weight", q, HIDDEN);
        add_both(f, i, "self_attn.k_proj.weight", "attn_k.weight", kv, HIDDEN);
        add_both(f, i, "self_attn.v_proj.weight", "attn_v.weight", kv, HIDDEN);
        add_both(f, i, "self_attn.o_proj.weight", "attn_output.weight", HIDDEN, q);
        add_both(f, i, "post_attention_layernorm.weight", "ffn_norm.weight", 0, HIDDEN);
        add_both(f, i, "mlp.gate_proj.weight", "ffn_gate.weight", INNER, HIDDEN);
        add_both(f, i, "mlp.up_proj.weight", "ffn_up.weight", INNER, HIDDEN);
        add_both(f, i, "mlp.down_proj.weight", "ffn_down.weight", HIDDEN, INNER);
        if (s->bias) {
            add_both(f, i, "self_attn.q_proj.bias", "attn_q.bias", 0, q);
            add_both(f, i, "self_attn.k_proj.bias", "attn_k.bias", 0, kv);
            add_both(f, i, "self_attn.v_proj.bias", "attn_v.bias", 0, kv);
        }
        if (s->qk_norm) {
            add_both(f, i, "self_attn.q_norm.weight", "attn_q_norm.weight", 0, s->head_dim);
            add_both(f, i, "self_attn.k_norm.weight", "attn_k_norm.weight", 0, s->head_dim);
        }
    }
}

struct setting {
    const char *hf, *gguf, *value;
};

/* The settings as texts; a GGUF's are written as u32, or f32 where they have a point. */
static int list_settings(const struct spec *s, struct setting out[16]) {
    static char numbers[9][16];
    const int values[9] = {LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, s->head_dim, s->head_dim, VOCAB, 0};
    static const char *const hf[9] = {
        "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
        "head_dim",          NULL,          "vocab_size",        "num_local_experts"};
    static const char *const gguf[9] = {"block_count",
                                        "embedding_length",
                                        "feed_forward_length",
                                        "attention.head_count",
                                        "attention.head_count_kv",
                                        "attention.key_length",
                                        "attention.value_length",
                                        "vocab_size",
                                        "expert_count"};
    int count = 0;
    for (int i = 0; i < 9; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%d", values[i]);
        out[count++] = (struct setting){hf[i], gguf[i], numbers[i]};
    }
    out[count++] = (struct setting){"rms_norm_eps", "attention.layer_norm_rms_epsilon", "0.00001"};
    out[count++] = (struct setting){"rope_theta", "rope.freq_base", "500000.0"};
    return count;
}

static void write_gguf(struct file *f) {
    static struct bytes out;
    struct setting settings[16];
    int count = list_settings(f->spec, settings), written = 1;
    for (int i = 0; i < count; i++)
        written += !named(f->spec->key, settings[i].gguf) || f->spec->value;
    put_header(&out, 3, (uint64_t)f->count, (uint64_t)written);
    put_key_text(&out, "general.architecture", f->spec->family);
    for (int i = 0; i < count; i++) {
        char key[128];
        const char *value = named(f->spec->key, settings[i].gguf) ? f->spec->value : settings[i].value;
        snprintf(key, sizeof key, "%s.%s", f->spec->family, settings[i].gguf);
        if (value && *value == '"')
            put_key_text(&out, key, value);
        else if (value && strchr(value, '.'))
            put_key_f32(&out, key, strtof(value, NULL));
        else if (value)
            put_key_u32(&out, key, (uint32_t)strtol(value, NULL, 10));
    }
    put(&out, f->header.data, f->header.size);
    put_data(&out, 32, 0);
    put(&out, f->data.data, f->data.size);
    write_bytes(folder, "model.gguf", out.data, out.size);
}

static void write_safetensors(struct file *f) {
    static struct bytes out;
    char config[2048];
    struct setting settings[16];
    put_text(&f->header, "}");
    out.size = 0;
    put_u64(&out, f->header.size);
    put(&out, f->header.data, f->header.size);
    put(&out, f->data.data, f->data.size);
    write_bytes(folder, "model.safetensors", out.data, out.size);
    int count = list_settings(f->spec, settings);
    size_t used = (size_t)snprintf(config, sizeof config, "{\"model_type\":\"%s\"", f->spec->family);
    for (int i = 0; i < count; i++) {
        const char *value = named(f->spec->key, settings[i].hf) ? f->spec->value : settings[i].value;
        if (settings[i].hf && value)
            used +=
                (size_t)snprintf(config + used, sizeof config - used, ",\"%s\":%s", settings[i].hf, value);
    }
    if (named(f->spec->key, "tie_word_embeddings"))
        used += (size_t)snprintf(config + used, sizeof config - used, ",\"tie_word_embeddings\":%s",
                                 f->spec->value);
    snprintf(config + used, sizeof config - used, "}");
    write_text(folder, "config.json", config);
}

static fmk_checkpoint *write_and_open(const struct spec *spec) {
    static struct file f;
    f.spec = spec;
    f.header.size = f.data.size = 0;
    f.count = 0;
    empty_folder(folder);
    add_tensors(&f);
    if (spec->gguf)
        write_gguf(&f);
    else
        write_safetensors(&f);
    fmk_checkpoint *c = NULL;
    OK(fmk_checkpoint_open(&c, folder));
    return c;
}

/* ---- reading ---- */

static void check_weight(fmk_model *model, fmk_checkpoint *c, int32_t layer, fmk_role role, int64_t n,
                         int64_t k, const char *const *names, int32_t count) {
    static float got[16384], want[16384];
    fmk_weight *weight = NULL, *loaded = NULL;
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_model_weight(model, layer, role, &weight));
    OK(fmk_weight_info(weight, &info));
    assert_int_equal(info.n, n);
    assert_int_equal(info.k, k);
    assert_int_equal(info.glu, role == FMK_ROLE_GATE_UP);
    OK(fmk_checkpoint_load(&loaded, queue, c, names, count, NULL));
    fmk_buffer out = buffer(got, sizeof got);
    OK(run_dequantize(queue, weight, 0, &out, FMK_F32, 0));
    out = buffer(want, sizeof want);
    OK(run_dequantize(queue, loaded, 0, &out, FMK_F32, 0));
    assert_memory_equal(got, want, (size_t)(n * k) * sizeof *got);
    fmk_weight_destroy(loaded, NULL);
}

static void check_vector(fmk_model *model, int32_t layer, fmk_role role, int64_t expected) {
    const float *data = NULL;
    int64_t count = 0;
    if (!expected) {
        REFUSED(fmk_model_vector(model, layer, role, &data, &count), FMK_ENOTFOUND, "family");
        return;
    }
    OK(fmk_model_vector(model, layer, role, &data, &count));
    assert_int_equal(count, expected);
    for (int64_t i = 0; i < count; i++)
        assert_true(data[i] >= 0.125f && data[i] <= 0.5f);
}

static void check_layer(fmk_model *model, fmk_checkpoint *c, const struct spec *s, int32_t layer) {
    static const char *const hf[7] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                      "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                      "mlp.down_proj"};
    static const char *const gguf[7] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                        "ffn_gate", "ffn_up", "ffn_down"};
    char text[7][64];
    const char *names[7];
    for (int i = 0; i < 7; i++) {
        snprintf(text[i], sizeof text[i], "%s%d.%s", s->gguf ? "blk." : "model.layers.", layer,
                 s->gguf ? gguf[i] : hf[i]);
        names[i] = text[i];
    }
    int64_t q = (int64_t)HEADS * s->head_dim, kv = (int64_t)KV_HEADS * s->head_dim;
    check_weight(model, c, layer, FMK_ROLE_QKV, q + 2 * kv, HIDDEN, names, 3);
    check_weight(model, c, layer, FMK_ROLE_O, HIDDEN, q, names + 3, 1);
    check_weight(model, c, layer, FMK_ROLE_GATE_UP, (int64_t)2 * INNER, HIDDEN, names + 4, 2);
    check_weight(model, c, layer, FMK_ROLE_DOWN, HIDDEN, INNER, names + 6, 1);
    check_vector(model, layer, FMK_ROLE_INPUT_NORM, HIDDEN);
    check_vector(model, layer, FMK_ROLE_POST_NORM, HIDDEN);
    check_vector(model, layer, FMK_ROLE_Q_NORM, s->qk_norm ? s->head_dim : 0);
    check_vector(model, layer, FMK_ROLE_K_NORM, s->qk_norm ? s->head_dim : 0);
    fmk_weight *qkv = NULL;
    fmk_part_info part = {.struct_size = sizeof part};
    OK(fmk_model_weight(model, layer, FMK_ROLE_QKV, &qkv));
    OK(fmk_weight_part_info(qkv, 2, &part));
    assert_int_equal(part.has_bias, s->bias);
    assert_int_equal(part.n_offset, q + kv);
}

static void test_families(void **state) {
    (void)state;
    static const struct spec specs[] = {
        {.family = "llama", .head_dim = 8, .head = true},
        {.family = "llama", .head_dim = 8},
        {.family = "qwen2", .head_dim = 8, .bias = true, .head = true},
        {.family = "qwen3", .head_dim = 16, .qk_norm = true},
        {.family = "llama", .head_dim = 8, .head = true, .key = "tie_word_embeddings", .value = "true"},
        {.gguf = true, .family = "llama", .head_dim = 8, .head = true},
        {.gguf = true, .family = "qwen2", .head_dim = 8, .bias = true},
        {.gguf = true, .family = "qwen3", .head_dim = 16, .qk_norm = true, .head = true},
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        const struct spec *s = &specs[i];
        fmk_checkpoint *c = write_and_open(s);
        fmk_model *model = NULL;
        OK(fmk_model_load(&model, queue, c, NULL));
        fmk_model_info_t info = {.struct_size = sizeof info};
        OK(fmk_model_info(model, &info));
        assert_string_equal(info.architecture, s->family);
        assert_int_equal(info.num_layers, LAYERS);
        assert_int_equal(info.num_heads, HEADS);
        assert_int_equal(info.num_kv_heads, KV_HEADS);
        assert_int_equal(info.head_dim, s->head_dim);
        assert_int_equal(info.vocab, VOCAB);
        assert_int_equal(info.intermediate, INNER);
        assert_true(info.rms_eps == 0.00001f && info.rope_theta == 500000.0f);
        assert_int_equal(info.rope_interleaved, s->gguf && strcmp(s->family, "llama") == 0);
        assert_int_equal(info.tied_embeddings, !s->head || s->key);
        fmk_weight *embedding = NULL, *head = NULL;
        OK(fmk_model_weight(model, 0, FMK_ROLE_EMBEDDING, &embedding));
        OK(fmk_model_weight(model, 0, FMK_ROLE_LM_HEAD, &head));
        assert_int_equal(embedding == head, info.tied_embeddings);
        check_vector(model, 0, FMK_ROLE_FINAL_NORM, HIDDEN);
        for (int32_t layer = 0; layer < LAYERS; layer++)
            check_layer(model, c, s, layer);
        OK(fmk_weight_retain(head)); /* outlives model and checkpoint */
        fmk_model_destroy(model);
        fmk_checkpoint_close(c);
        fmk_weight_destroy(head, queue);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        struct spec spec;
        fmk_status status;
        const char *word;
    } cases[] = {
        {{.family = "gemma"}, FMK_EUNSUPPORTED, "llama, qwen2 and qwen3"},
        {{.family = ""}, FMK_EFORMAT, "model_type"},
        {{.gguf = true, .family = "phi3"}, FMK_EUNSUPPORTED, "phi3"},
        {{.family = "llama", .skip = "model.norm.weight"}, FMK_ENOTFOUND, "model.norm"},
        {{.family = "llama", .skip = "model.embed_tokens.weight"}, FMK_ENOTFOUND, "model.embed_tokens"},
        {{.family = "llama", .skip = "model.layers.1.mlp.up_proj.weight"},
         FMK_ENOTFOUND,
         "model.layers.1.mlp.up_proj"},
        {{.family = "llama", .skip = "model.layers.0.input_layernorm.weight"},
         FMK_ENOTFOUND,
         "input_layernorm"},
        {{.family = "qwen3"}, FMK_ENOTFOUND, "q_norm"},
        {{.gguf = true, .family = "llama", .skip = "blk.1.attn_k.weight"}, FMK_ENOTFOUND, "blk.1.attn_k"},
        {{.family = "llama", .widen = "model.layers.1.self_attn.k_proj.weight"},
         FMK_EFORMAT,
         "k_proj is [17][32]"},
        {{.family = "llama", .widen = "model.embed_tokens.weight"}, FMK_EFORMAT, "25 rows"},
        {{.family = "llama", .widen = "model.norm.weight"}, FMK_EFORMAT, "33 values"},
        {{.family = "llama", .head = true, .widen = "lm_head.weight"}, FMK_EFORMAT, "lm_head is [25][32]"},
        {{.family = "llama", .key = "num_hidden_layers"}, FMK_EFORMAT, "no num_hidden_layers"},
        {{.family = "llama", .key = "num_hidden_layers", .value = "3"}, FMK_ENOTFOUND, "model.layers.2"},
        {{.family = "llama", .key = "num_hidden_layers", .value = "0"},
         FMK_EFORMAT,
         "num_hidden_layers is 0"},
        {{.family = "llama", .key = "num_hidden_layers", .value = "1000000"}, FMK_EFORMAT, "1000000"},
        {{.family = "llama", .key = "hidden_size", .value = "\"32\""},
         FMK_EFORMAT,
         "hidden_size is not an integer"},
        {{.family = "llama", .key = "hidden_size", .value = "64"},
         FMK_EFORMAT,
         "model.embed_tokens is [24][32]"},
        {{.family = "llama", .key = "intermediate_size", .value = "-48"},
         FMK_EFORMAT,
         "intermediate_size is -48"},
        {{.family = "llama", .key = "num_attention_heads", .value = "8"}, FMK_EFORMAT, "q_proj"},
        {{.family = "llama", .key = "num_key_value_heads", .value = "3"}, FMK_EFORMAT, "3 key-value heads"},
        {{.family = "llama", .key = "num_key_value_heads", .value = "5"},
         FMK_EFORMAT,
         "num_key_value_heads is 5"},
        {{.family = "llama", .key = "head_dim", .value = "4"}, FMK_EFORMAT, "q_proj"},
        {{.family = "llama", .key = "vocab_size", .value = "25"}, FMK_EFORMAT, "24 rows"},
        {{.family = "llama", .key = "rms_norm_eps", .value = "-1"}, FMK_EFORMAT, "rms_norm_eps"},
        {{.family = "llama", .key = "rope_theta", .value = "[1]"}, FMK_EFORMAT, "rope_theta"},
        {{.family = "llama", .key = "num_local_experts", .value = "8"}, FMK_EUNSUPPORTED, "without experts"},
        {{.gguf = true, .family = "llama", .key = "expert_count", .value = "8"},
         FMK_EUNSUPPORTED,
         "without experts"},
        {{.gguf = true, .family = "llama", .key = "attention.value_length", .value = "4"},
         FMK_EUNSUPPORTED,
         "per head"},
        {{.gguf = true, .family = "llama", .key = "rope.freq_base", .value = "0.0"},
         FMK_EFORMAT,
         "freq_base"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct spec spec = cases[i].spec;
        spec.head_dim = 8;
        fmk_checkpoint *c = write_and_open(&spec);
        fmk_model *model = (fmk_model *)folder; /* not NULL */
        REFUSED(fmk_model_load(&model, queue, c, NULL), cases[i].status, cases[i].word);
        assert_null(model);
        fmk_checkpoint_close(c);
    }
}

struct watch {
    uint64_t last, total;
    int calls, stop;
};

static int32_t watch(void *user, uint64_t done, uint64_t total) {
    struct watch *w = user;
    assert_true(done >= w->last && done <= total);
    assert_true(!w->total || w->total == total);
    w->last = done;
    w->total = total;
    return ++w->calls == w->stop;
}

/* Canceled at every call there is, and not at all. */
static void test_progress(void **state) {
    (void)state;
    static const struct spec spec = {.family = "llama", .head_dim = 8, .head = true};
    fmk_checkpoint *c = write_and_open(&spec);
    fmk_status status = FMK_ECANCELED;
    for (int stop = 1; status == FMK_ECANCELED; stop++) {
        struct watch w = {.stop = stop};
        fmk_weight_desc desc = {.struct_size = sizeof desc, .progress = watch, .progress_user = &w};
        fmk_model *model = (fmk_model *)folder;
        status = fmk_model_load(&model, queue, c, &desc);
        if (status) {
            assert_int_equal(status, FMK_ECANCELED);
            assert_null(model);
            continue;
        }
        assert_int_equal(w.last, w.total);
        assert_true(w.calls >= 10);
        fmk_model_destroy(model);
    }
    fmk_checkpoint_close(c);
}

static void test_arguments(void **state) {
    (void)state;
    static const struct spec spec = {.gguf = true, .family = "llama", .head_dim = 8};
    fmk_checkpoint *c = write_and_open(&spec);
    fmk_model *model = NULL;
    fmk_part part = {.struct_size = sizeof part};
    fmk_weight_desc parts = {.struct_size = sizeof parts, .parts = &part, .num_parts = 1};
    fmk_weight_desc flags = {.struct_size = sizeof flags, .flags = FMK_WEIGHT_GLU};
    fmk_weight_desc storage = {.struct_size = sizeof storage, .storage = {.handle = 64}};
    REFUSED(fmk_model_load(&model, queue, c, &parts), FMK_EINVAL, "parts");
    REFUSED(fmk_model_load(&model, queue, c, &flags), FMK_EINVAL, "flags");
    REFUSED(fmk_model_load(&model, queue, c, &storage), FMK_EINVAL, "storage");
    fmk_weight *weight = NULL;
    static const char *const mixed[] = {"blk.0.attn_q", "absent"};
    REFUSED(fmk_checkpoint_load(&weight, queue, c, mixed, 2, NULL), FMK_ENOTFOUND, "absent");
    REFUSED(fmk_checkpoint_load(&weight, queue, c, mixed, 0, NULL), FMK_EINVAL, "count is 0");
    REFUSED(fmk_checkpoint_load(&weight, queue, c, mixed, 65, NULL), FMK_EINVAL, "count is 65");
    static const char *const none[] = {NULL};
    REFUSED(fmk_checkpoint_load(&weight, queue, c, none, 1, NULL), FMK_EINVAL, "names[0] is NULL");
    REFUSED(fmk_checkpoint_load(&weight, queue, c, mixed, 1, &parts), FMK_EINVAL, "parts");
    /* weights that borrow keep the map */
    fmk_weight_desc borrow = {.struct_size = sizeof borrow, .flags = FMK_WEIGHT_BORROW};
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_checkpoint_load(&weight, queue, c, mixed, 1, &borrow));
    OK(fmk_model_load(&model, queue, c, &borrow));
    fmk_checkpoint_close(c);
    OK(fmk_weight_info(weight, &info));
    if (test_backend() != FMK_BACKEND_VULKAN)       /* whose drivers may take the map, or not */
        assert_int_equal(info.borrowed, !on_gpu()); /* the map is not the device's memory */
    static float values[HIDDEN * HIDDEN];
    fmk_buffer out = buffer(values, sizeof values);
    OK(run_dequantize(queue, weight, 0, &out, FMK_F32, 0));
    assert_true(values[0] >= 0.125f && values[HIDDEN * HIDDEN - 1] <= 0.5f);
    fmk_weight_destroy(weight, NULL);
    fmk_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_families, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_progress, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_arguments, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
