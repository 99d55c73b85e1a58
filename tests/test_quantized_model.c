/* Whole models of quantized weights, a GGUF of Q4_K and Q6_K and a GPTQ folder in act-order, loaded onto the
 * backend and multiplied by. */
#include "calls.h"
#include "files.h"

enum {
    HIDDEN = 256,
    HEADS = 4,
    KV_HEADS = 2,
    KV = HIDDEN / HEADS * KV_HEADS,
    INNER = 256,
    VOCAB = 48,
    M = 5
};

enum { EMBEDDING, Q, K, V, O, GATE, UP, DOWN, NUM_MATRICES };
static const struct {
    const char *gguf, *huggingface;
    int64_t n;
    fmk_format format; /* in the GGUF */
} matrices[NUM_MATRICES] = {
    [EMBEDDING] = {"token_embd", "model.embed_tokens", VOCAB, FMK_FORMAT_Q6_K},
    [Q] = {"blk.0.attn_q", "model.layers.0.self_attn.q_proj", HIDDEN, FMK_FORMAT_Q4_K},
    [K] = {"blk.0.attn_k", "model.layers.0.self_attn.k_proj", KV, FMK_FORMAT_Q4_K},
    [V] = {"blk.0.attn_v", "model.layers.0.self_attn.v_proj", KV, FMK_FORMAT_Q6_K},
    [O] = {"blk.0.attn_output", "model.layers.0.self_attn.o_proj", HIDDEN, FMK_FORMAT_Q4_K},
    [GATE] = {"blk.0.ffn_gate", "model.layers.0.mlp.gate_proj", INNER, FMK_FORMAT_Q4_K},
    [UP] = {"blk.0.ffn_up", "model.layers.0.mlp.up_proj", INNER, FMK_FORMAT_Q4_K},
    [DOWN] = {"blk.0.ffn_down", "model.layers.0.mlp.down_proj", HIDDEN, FMK_FORMAT_Q6_K},
};

static const struct {
    const char *gguf, *huggingface;
    fmk_role role;
} norms[] = {
    {"blk.0.attn_norm", "model.layers.0.input_layernorm", FMK_ROLE_INPUT_NORM},
    {"blk.0.ffn_norm", "model.layers.0.post_attention_layernorm", FMK_ROLE_POST_NORM},
    {"output_norm", "model.norm", FMK_ROLE_FINAL_NORM},
};
enum { NUM_NORMS = sizeof norms / sizeof norms[0] };

static float norm_value(int norm, int64_t i) {
    return (float)(norm + 1) + (float)i / HIDDEN;
}

/* ---- files ---- */

struct file {
    bool gguf;
    struct bytes header;
    FILE *data;
    uint64_t size;
};

static void append(struct file *f, const void *data, uint64_t size) {
    must(fwrite(data, 1, size, f->data) == size);
    f->size += size;
}

static void add_gguf(struct file *f, const char *name, int dims, int64_t n, uint32_t type, const void *data,
                     uint64_t size) {
    char text[128];
    int64_t shape[2] = {HIDDEN, n};
    snprintf(text, sizeof text, "%s.weight", name);
    put_tensor(&f->header, text, (uint32_t)dims, shape, type, f->size);
    append(f, data, size); /* a multiple of 32, as all are */
}

static void add_safetensors(struct file *f, const char *name, const char *tail, const char *dtype,
                            int64_t rows, int64_t columns, const void *data, uint64_t size) {
    char text[256], shape[64];
    snprintf(shape, sizeof shape, columns ? "%lld,%lld" : "%lld", (long long)rows, (long long)columns);
    snprintf(text, sizeof text, "%s\"%s.%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
             f->size ? "," : "{", name, tail, dtype, shape, (unsigned long long)f->size,
             (unsigned long long)(f->size + size));
    put_text(&f->header, text);
    append(f, data, size);
}

static const void *bytes_of(const fmk_tensor *tensor) {
    return (const void *)(uintptr_t)(tensor->data.handle + tensor->data.offset);
}

static void add_matrix(struct file *f, int i, const struct ref_weight *weight) {
    enum { GGML_Q4_K = 12, GGML_Q6_K = 14 };
    const fmk_part *part = &weight->part;
    const fmk_tensor *q = &part->qweight;
    const char *name = matrices[i].huggingface;
    if (f->gguf) {
        add_gguf(f, matrices[i].gguf, 2, part->n, part->format == FMK_FORMAT_Q4_K ? GGML_Q4_K : GGML_Q6_K,
                 bytes_of(q), q->data.size);
    } else if (part->format == FMK_FORMAT_DENSE) {
        add_safetensors(f, name, "weight", "F16", part->n, part->k, bytes_of(q), q->data.size);
    } else {
        int64_t groups = part->k / part->group_size;
        add_safetensors(f, name, "qweight", "I32", part->k / 8, part->n, bytes_of(q), q->data.size);
        add_safetensors(f, name, "scales", "F16", groups, part->n, bytes_of(&part->scales),
                        part->scales.data.size);
        add_safetensors(f, name, "qzeros", "I32", groups, part->n / 8, bytes_of(&part->qzeros),
                        part->qzeros.data.size);
        add_safetensors(f, name, "g_idx", "I32", part->k, 0, bytes_of(&part->g_idx), part->g_idx.data.size);
    }
}

static void add_norm(struct file *f, int i) {
    enum { GGML_F32 = 0 };
    float values[HIDDEN];
    for (int64_t k = 0; k < HIDDEN; k++)
        values[k] = norm_value(i, k);
    if (f->gguf)
        add_gguf(f, norms[i].gguf, 1, 0, GGML_F32, values, sizeof values);
    else
        add_safetensors(f, norms[i].huggingface, "weight", "F32", HIDDEN, 0, values, sizeof values);
}

static void begin_gguf(struct file *f) {
    put_header(&f->header, 3, NUM_MATRICES + NUM_NORMS, 8);
    put_key_text(&f->header, "general.architecture", "llama");
    put_key_u32(&f->header, "llama.block_count", 1);
    put_key_u32(&f->header, "llama.embedding_length", HIDDEN);
    put_key_u32(&f->header, "llama.feed_forward_length", INNER);
    put_key_u32(&f->header, "llama.attention.head_count", HEADS);
    put_key_u32(&f->header, "llama.attention.head_count_kv", KV_HEADS);
    put_key_u32(&f->header, "llama.vocab_size", VOCAB);
    put_key_f32(&f->header, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

static void write_config(const char *folder) {
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model_type\":\"llama\",\"hidden_size\":%d,\"intermediate_size\":%d,"
             "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"num_hidden_layers\":1,"
             "\"vocab_size\":%d,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":true,"
             "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64,"
             "\"desc_act\":true,\"sym\":false}}",
             HIDDEN, INNER, HEADS, KV_HEADS, VOCAB);
    write_text(folder, "config.json", text);
}

/* The header, of a size that aligns the data, and the data behind it. */
static void join(struct file *f, const char *folder, const char *name) {
    static struct bytes head;
    FILE *out = fopen(path_in(folder, name), "wb");
    head.size = 0;
    if (f->gguf) {
        put(&head, f->header.data, f->header.size);
        put_data(&head, 32, 0);
    } else {
        put_text(&f->header, "}");
        put_u64(&head, f->header.size);
        put(&head, f->header.data, f->header.size);
    }
    must(out && fwrite(head.data, 1, head.size, out) == head.size);
    rewind(f->data);
    for (int byte; (byte = fgetc(f->data)) != EOF;)
        must(fputc(byte, out) != EOF);
    must(fclose(out) == 0);
}

static void write_model(const char *folder, bool gguf, const struct ref_weight *weights) {
    static struct file f;
    f = (struct file){.gguf = gguf, .data = tmpfile()};
    must(f.data != NULL);
    if (gguf)
        begin_gguf(&f);
    for (int i = 0; i < NUM_MATRICES; i++)
        add_matrix(&f, i, &weights[i]);
    for (int i = 0; i < NUM_NORMS; i++)
        add_norm(&f, i);
    join(&f, folder, gguf ? "model.gguf" : "model.safetensors");
    if (!gguf)
        write_config(folder);
    fclose(f.data);
}

static void make_matrices(bool gguf, struct ref_weight *weights, struct ref_rng *rng) {
    for (int i = 0; i < NUM_MATRICES; i++) {
        struct ref_spec spec = {.n = matrices[i].n, .k = HIDDEN};
        if (gguf) {
            spec.format = matrices[i].format;
        } else if (i == EMBEDDING) {
            spec.format = FMK_FORMAT_DENSE;
            spec.dtype = FMK_F16;
        } else {
            spec.format = FMK_FORMAT_GPTQ;
            spec.group_size = 64;
            spec.zeros = REF_ZEROS_RANDOM;
            spec.groups = REF_GROUPS_SHUFFLED;
        }
        ref_make(&weights[i], &spec, rng);
    }
}

/* ---- projections ---- */

static void check_weight(struct bench *b, const fmk_weight *weight, const struct ref_weight *parts,
                         int num_parts, struct ref_rng *rng, const char *what) {
    static const uint32_t modes[] = {0, FMK_LINEAR_EXACT};
    fmk_weight_info_t info = {.struct_size = sizeof info};
    OK(fmk_weight_info(weight, &info));
    struct matrix in = random_matrix(FMK_F32, M, info.k, info.k, rng);
    double *want = malloc((size_t)(M * info.n) * sizeof *want);
    assert_non_null(want);
    for (int64_t r = 0; r < M; r++)
        expect_row(parts, num_parts, 0, &in, r, want + r * info.n);
    for (int i = 0; i < 2; i++) {
        struct matrix out = matrix(FMK_F32, M, info.n, info.n);
        fmk_linear_args args = {.struct_size = sizeof args,
                                .flags = modes[i],
                                .m = M,
                                .in_type = FMK_F32,
                                .out_type = FMK_F32,
                                .in = buffer_of(&in),
                                .out = buffer_of(&out)};
        OK(call(b, weight, &args, i));
        assert_close(&out, want, bound_of(modes[i], FMK_F32, FMK_F32, M, info.k), what);
        free_matrix(&out);
    }
    free(want);
    free_matrix(&in);
}

static void check_model(struct bench *b, const char *folder, bool gguf, const struct ref_weight *weights,
                        struct ref_rng *rng) {
    static const struct {
        fmk_role role;
        int first, count;
        const char *name;
    } roles[] = {
        {FMK_ROLE_EMBEDDING, EMBEDDING, 1, "embedding"},
        {FMK_ROLE_LM_HEAD, EMBEDDING, 1, "lm_head"},
        {FMK_ROLE_QKV, Q, 3, "qkv"},
        {FMK_ROLE_O, O, 1, "o"},
        {FMK_ROLE_GATE_UP, GATE, 2, "gate_up"},
        {FMK_ROLE_DOWN, DOWN, 1, "down"},
    };
    fmk_checkpoint *c = NULL;
    fmk_model *model = NULL;
    fmk_weight *weight = NULL;
    OK(fmk_checkpoint_open(&c, folder));
    OK(fmk_model_load(&model, b->queue, c, NULL));
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        OK(fmk_model_weight(model, 0, roles[i].role, &weight));
        check_weight(b, weight, weights + roles[i].first, roles[i].count, rng, roles[i].name);
    }
    for (int i = 0; i < NUM_NORMS; i++) {
        const float *values = NULL; /* in the host's memory, wherever the weights are */
        int64_t count = 0;
        OK(fmk_model_vector(model, 0, norms[i].role, &values, &count));
        assert_int_equal(count, HIDDEN);
        for (int64_t k = 0; k < HIDDEN; k++)
            assert_true(values[k] == norm_value(i, k));
    }
    fmk_model_destroy(model);

    /* By name, into one weight; the map may go when that is ready. */
    const char *names[] = {gguf ? matrices[DOWN].gguf : matrices[DOWN].huggingface,
                           gguf ? matrices[O].gguf : matrices[O].huggingface};
    const struct ref_weight parts[] = {weights[DOWN], weights[O]};
    OK(fmk_checkpoint_load(&weight, b->queue, c, names, 2, NULL));
    OK(fmk_weight_ready(weight, 1));
    fmk_checkpoint_close(c);
    check_weight(b, weight, parts, 2, rng, "down and o by name");
    fmk_weight_destroy(weight, b->queue);
}

static void test_model(bool gguf, const char *name) {
    struct ref_rng rng = ref_rng_start(name);
    struct bench b = open_bench(2);
    struct ref_weight weights[NUM_MATRICES];
    char *folder = make_folder();
    make_matrices(gguf, weights, &rng);
    write_model(folder, gguf, weights);
    check_model(&b, folder, gguf, weights, &rng);
    for (int i = 0; i < NUM_MATRICES; i++)
        ref_free(&weights[i]);
    remove_folder(folder);
    close_bench(&b);
}

static void test_gguf(void **state) {
    (void)state;
    test_model(true, "quantized_model/gguf");
}

static void test_gptq(void **state) {
    (void)state;
    test_model(false, "quantized_model/gptq");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_gptq),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
