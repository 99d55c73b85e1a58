/* ferrumk quantize: a checkpoint of f32, f16 or bf16 tensors to a smaller one that other tools open. */
#include "quantize.h"
#include "verbs.h"

#include <string.h>

struct arguments {
    const char *in, *out, *format;
    int32_t group_size;
    bool asymmetric;
    struct device_options device;
};

enum { KEY_FORMAT = 256, KEY_GROUP, KEY_ASYMMETRIC };
static const struct argp_option options[] = {
    {"format", KEY_FORMAT, "NAME", 0,
     "q4_k, q6_k or q4_k_m (OUT is a GGUF file), or gptq (OUT is a directory)", 1},
    {"group-size", KEY_GROUP, "G", 0, "of gptq: weights that share a scale (default 128; -1 = all of K)", 1},
    {"asymmetric", KEY_ASYMMETRIC, NULL, 0, "gptq: a zero point for each group, instead of 8", 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        a->group_size = 128;
        state->child_inputs[0] = &a->device;
        return 0;
    case KEY_FORMAT:
        a->format = arg;
        return 0;
    case KEY_GROUP:
        a->group_size = (int32_t)parse_number("--group-size", arg, -1, INT32_MAX);
        if (a->group_size != -1 && a->group_size < 8)
            quit(EXIT_USAGE, "--group-size %s: -1 or at least 8 is expected", arg);
        return 0;
    case KEY_ASYMMETRIC:
        a->asymmetric = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->in && a->out)
            quit(EXIT_USAGE, "IN and OUT are enough, \"%s\" is a third", arg);
        *(a->in ? &a->out : &a->in) = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

int verb_quantize(int argc, char **argv) {
    static const struct {
        const char *name;
        enum gguf_mix mix;
    } mixes[] = {{"q4_k", MIX_Q4_K}, {"q6_k", MIX_Q6_K}, {"q4_k_m", MIX_Q4_K_M}};
    static const struct argp_child children[] = {{&device_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "IN OUT",
        "Quantizes the matrices of a checkpoint of f32, f16 or bf16 tensors by rounding to nearest, on the "
        "CPU.\v"
        "GGUF: vectors become F32; matrices whose K is no multiple of 256 stay 16-bit floats. q4_k_m mixes "
        "as "
        "llama.cpp does: Q6_K for the head, and for attn_v and ffn_down in half of the layers. Key-values "
        "are "
        "carried over from a GGUF, or made from config.json; a tokenizer is carried over from a GGUF alone.\n"
        "gptq: OUT gets model.safetensors, quantize_config.json and, where settings are known, config.json; "
        "embeddings and the head stay 16-bit floats.\n"
        "Between the containers tensors of the Llama, Qwen2 and Qwen3 families are renamed, and q and k of "
        "Llama reordered, as each expects.",
        children,
        NULL,
        NULL};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    const char *missing = !a.in ? "IN" : !a.out ? "OUT" : !a.format ? "--format" : NULL;
    if (missing)
        quit(EXIT_USAGE, "%s is missing; \"ferrumk quantize --help\" explains it", missing);

    struct source source;
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        if (strcmp(mixes[i].name, a.format))
            continue;
        source_open(&source, a.in, &a.device);
        write_gguf(&source, a.out, mixes[i].mix);
        source_close(&source);
        return 0;
    }
    if (strcmp(a.format, "gptq"))
        quit(EXIT_USAGE, "--format \"%s\" is none of q4_k, q6_k, q4_k_m, gptq", a.format);
    source_open(&source, a.in, &a.device);
    write_gptq(&source, a.out, a.group_size, !a.asymmetric);
    source_close(&source);
    return 0;
}
