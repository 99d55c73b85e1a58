/* ferrumk explain: the plan of one projection in the library's own words. */
#include "device.h"
#include "tool.h"
#include "verbs.h"

#include <stdlib.h>

struct arguments {
    const char *path, *tensor;
    int64_t m;
    bool exact, json;
    fmk_dtype type;
    struct device_options device;
};

enum { KEY_TENSOR = 256, KEY_M, KEY_TYPE, KEY_EXACT, KEY_JSON };
static const struct argp_option options[] = {
    {"tensor", KEY_TENSOR, "NAME", 0, "the matrix, with or without .weight, .qweight or .B", 1},
    {"m", KEY_M, "M", 0, "rows of activations", 1},
    {"type", KEY_TYPE, "T", 0, "of activations and results: f32 (default), f16 or bf16", 1},
    {"exact", KEY_EXACT, NULL, 0, "round no activation below float", 2},
    {"json", KEY_JSON, NULL, 0, "one JSON object", 2},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        a->type = FMK_F32;
        state->child_inputs[0] = &a->device;
        return 0;
    case KEY_TENSOR:
        a->tensor = arg;
        return 0;
    case KEY_M:
        a->m = parse_number("--m", arg, 1, INT64_C(1) << 40);
        return 0;
    case KEY_TYPE:
        a->type = type_of_name(arg);
        return 0;
    case KEY_EXACT:
        a->exact = true;
        return 0;
    case KEY_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->path)
            quit(EXIT_USAGE, "one PATH is enough, \"%s\" is another", arg);
        a->path = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

int verb_explain(int argc, char **argv) {
    static const struct argp_child children[] = {{&device_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "PATH",
        "Prints, for each part of the matrix, the kernel that M rows get and each better one's objection.",
        children,
        NULL,
        NULL};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    const char *missing = !a.path ? "PATH" : !a.tensor ? "--tensor" : !a.m ? "--m" : NULL;
    if (missing)
        quit(EXIT_USAGE, "%s is missing; \"ferrumk explain --help\" explains it", missing);

    struct device device;
    fmk_checkpoint *checkpoint = open_checkpoint(a.path);
    device_open(&device, &a.device);
    fmk_weight *weight = load_matrix(&device, checkpoint, a.tensor);
    /* Buffers are looked at for their presence, and for being memory of the device. */
    uint64_t placeholder = device_allocate(&device, sizeof(float));
    struct projection projection;
    projection_set(&projection, &device, weight, a.m, a.exact ? FMK_LINEAR_EXACT : 0, 0, placeholder,
                   placeholder);
    projection_set_type(&projection, a.type);
    char *text = projection_explain(&projection);
    if (a.json) {
        json_t *object = json_object();
        json_put(object, "tensor", json_string(a.tensor));
        json_put(object, "m", json_integer(a.m));
        json_put(object, "text", json_string(text));
        print_json(object);
    } else {
        fputs(text, stdout);
    }
    free(text);
    device_free(&device, placeholder);
    fmk_weight_destroy(weight, device.queue);
    device_close(&device);
    fmk_checkpoint_close(checkpoint);
    return 0;
}
