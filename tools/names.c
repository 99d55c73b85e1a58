/* One table for both spellings: see names.h. */
#include "names.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *hf, *gguf; /* behind "model.layers.N." and "blk.N." */
    enum tensor_role role;
} in_layer[] =
    {
        {"input_layernorm", "attn_norm", ROLE_OTHER},    {"self_attn.q_proj", "attn_q", ROLE_Q},
        {"self_attn.k_proj", "attn_k", ROLE_K},          {"self_attn.v_proj", "attn_v", ROLE_V},
        {"self_attn.o_proj", "attn_output", ROLE_OTHER}, {"self_attn.q_norm", "attn_q_norm", ROLE_OTHER},
        {"self_attn.k_norm", "attn_k_norm", ROLE_OTHER}, {"post_attention_layernorm", "ffn_norm", ROLE_OTHER},
        {"mlp.gate_proj", "ffn_gate", ROLE_OTHER},       {"mlp.up_proj", "ffn_up", ROLE_OTHER},
        {"mlp.down_proj", "ffn_down", ROLE_DOWN},
},
  of_model[] = {
      {"model.embed_tokens", "token_embd", ROLE_EMBEDDING},
      {"model.norm", "output_norm", ROLE_OTHER},
      {"lm_head", "output", ROLE_HEAD},
};

/* Whether text is `name`, with or without a final .bias, which *bias then points to (or to ""). */
static bool is(const char *text, const char *name, const char **bias) {
    size_t length = strlen(name);
    if (strncmp(text, name, length) || (text[length] && strcmp(text + length, ".bias")))
        return false;
    *bias = text + length;
    return true;
}

/* What follows "PREFIX<number>.", or NULL. */
static const char *behind_layer(const char *text, const char *prefix, int *layer) {
    if (strncmp(text, prefix, strlen(prefix)))
        return NULL;
    char *end;
    long number = strtol(text + strlen(prefix), &end, 10);
    if (end == text + strlen(prefix) || *end != '.' || number < 0 || number > 100000)
        return NULL;
    *layer = (int)number;
    return end + 1;
}

struct tensor_name tensor_name(const char *entry) {
    struct tensor_name name = {.layer = -1};
    const char *bias;
    for (size_t i = 0; i < sizeof of_model / sizeof *of_model; i++)
        if (is(entry, of_model[i].hf, &bias) || is(entry, of_model[i].gguf, &bias)) {
            name.role = of_model[i].role;
            name.hf = text_of("%s%s", of_model[i].hf, bias);
            name.gguf = text_of("%s%s", of_model[i].gguf, bias);
            return name;
        }
    int layer;
    const char *rest = behind_layer(entry, "model.layers.", &layer);
    if (!rest)
        rest = behind_layer(entry, "blk.", &layer);
    if (!rest)
        return name;
    name.layer = layer;
    for (size_t i = 0; i < sizeof in_layer / sizeof *in_layer; i++)
        if (is(rest, in_layer[i].hf, &bias) || is(rest, in_layer[i].gguf, &bias)) {
            name.role = in_layer[i].role;
            name.hf = text_of("model.layers.%d.%s%s", layer, in_layer[i].hf, bias);
            name.gguf = text_of("blk.%d.%s%s", layer, in_layer[i].gguf, bias);
            return name;
        }
    /* Stacked experts follow the rule of their dense namesakes. */
    if (!strcmp(rest, "ffn_down_exps"))
        name.role = ROLE_DOWN;
    return name;
}

void tensor_name_free(struct tensor_name *name) {
    free(name->hf);
    free(name->gguf);
    *name = (struct tensor_name){.layer = -1};
}
