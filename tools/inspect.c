/* ferrumk inspect: every entry of a checkpoint, and the sum of them. */
#include "device.h"
#include "tool.h"
#include "verbs.h"

#include <string.h>

struct arguments {
    const char *path;
    bool json;
};

enum { KEY_JSON = 256 };
static const struct argp_option options[] = {{"json", KEY_JSON, NULL, 0, "one JSON object", 1}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    switch (key) {
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

static const char *kind_name(fmk_entry_kind kind) {
    return kind == FMK_ENTRY_MATRIX ? "matrix" : kind == FMK_ENTRY_VECTOR ? "vector" : "unsupported";
}

static json_t *entry_json(const fmk_entry *entry) {
    json_t *object = json_object();
    json_put(object, "name", json_string(entry->name));
    json_put(object, "kind", json_string(kind_name(entry->kind)));
    json_put(object, "format", json_string(entry->format_name));
    json_put(object, "n", json_integer(entry->n));
    json_put(object, "k", json_integer(entry->k));
    json_put(object, "experts", json_integer(entry->num_experts));
    json_put(object, "group_size", json_integer(entry->group_size));
    json_put(object, "act_order", json_boolean(entry->act_order));
    json_put(object, "symmetric", json_boolean(entry->symmetric));
    json_put(object, "zero_declared", json_integer(entry->zero_declared));
    json_put(object, "zero_detected", json_integer(entry->zero_detected));
    json_put(object, "bytes", json_integer((json_int_t)entry->bytes));
    return object;
}

/* How a stored zero point is to be read: "+1" in AutoGPTQ's first format, "+0" in its second. */
static const char *zero_name(int32_t zero) {
    return zero == 1 ? "+1" : zero == 2 ? "+0" : "?";
}

static void print_head(void) {
    printf("%-40s %-7s %7s %7s %4s %6s %-5s %-9s %9s\n", "name", "format", "N", "K", "exp.", "group", "order",
           "zeros", "bytes");
}

static void print_entry(const fmk_entry *entry, const char *refusal) {
    char experts[16] = "", group[16] = "", zeros[24] = "";
    bool gptq = entry->format == FMK_FORMAT_GPTQ || entry->format == FMK_FORMAT_GPTQ_V2;
    if (entry->num_experts)
        snprintf(experts, sizeof experts, "%d", entry->num_experts);
    if (entry->group_size)
        snprintf(group, sizeof group, "%d", entry->group_size);
    if (gptq)
        snprintf(zeros, sizeof zeros, "%s %s%s", entry->symmetric ? "sym" : "asym",
                 zero_name(entry->zero_declared),
                 !entry->zero_detected || entry->zero_detected == entry->zero_declared ? ""
                 : entry->zero_detected == 1                                           ? " (+1)"
                                                                                       : " (+0)");
    printf("%-40s %-7s %7lld ", entry->name, entry->format_name, (long long)entry->n);
    if (entry->kind == FMK_ENTRY_VECTOR)
        printf("%7s ", "");
    else
        printf("%7lld ", (long long)entry->k);
    printf("%4s %6s %-5s %-9s %9s%s\n", experts, group, entry->act_order ? "act" : "", zeros,
           human_bytes(entry->bytes).text, entry->kind == FMK_ENTRY_UNSUPPORTED ? "  unsupported" : "");
    if (refusal)
        printf("    refused: %s\n", refusal);
}

/* Why a matrix cannot be loaded, as far as its shapes tell; NULL = it can. */
static const char *refusal_of(fmk_checkpoint *checkpoint, const fmk_entry *entry) {
    fmk_part part = {.struct_size = sizeof part};
    if (entry->kind != FMK_ENTRY_MATRIX || !fmk_checkpoint_find(checkpoint, entry->name, &part, NULL))
        return NULL;
    return fmk_last_error();
}

int verb_inspect(int argc, char **argv) {
    static const struct argp argp = {
        options,
        parse,
        "PATH",
        "Prints every entry of a checkpoint: a .gguf or .safetensors file, an index, or a directory.\v"
        "order: \"act\" where the groups of a GPTQ matrix do not lie in runs along K. zeros: symmetric or "
        "not, "
        "and whether one is to be added to the stored zero points; what the data says stands in brackets "
        "where it differs from what was declared.",
        NULL,
        NULL,
        NULL};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (!a.path)
        quit(EXIT_USAGE, "PATH is missing; \"ferrumk inspect --help\" explains it");

    fmk_checkpoint *checkpoint = open_checkpoint(a.path);
    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    check(fmk_checkpoint_info(checkpoint, &info), NULL);
    const char *container = info.container == FMK_CONTAINER_GGUF ? "gguf" : "safetensors";
    json_t *object = json_object(), *list = json_array();
    uint64_t bytes = 0;
    int unsupported = 0;
    if (!a.json)
        print_head();
    for (int32_t i = 0; i < info.num_entries; i++) {
        fmk_entry entry = {.struct_size = sizeof entry};
        check(fmk_checkpoint_entry(checkpoint, i, &entry), NULL);
        bytes += entry.bytes;
        unsupported += entry.kind == FMK_ENTRY_UNSUPPORTED;
        const char *refusal = refusal_of(checkpoint, &entry);
        if (a.json) {
            json_t *item = entry_json(&entry);
            if (refusal)
                json_put(item, "error", json_string(refusal));
            json_array_append_new(list, item);
        } else {
            print_entry(&entry, refusal);
        }
    }
    if (a.json) {
        json_put(object, "container", json_string(container));
        json_put(object, "architecture", json_string(info.architecture));
        json_put(object, "quantization", json_string(info.quantization));
        json_put(object, "files", json_integer(info.num_files));
        json_put(object, "file_bytes", json_integer((json_int_t)info.bytes));
        json_put(object, "tensor_bytes", json_integer((json_int_t)bytes));
        json_put(object, "unsupported", json_integer(unsupported));
        json_put(object, "entries", list);
        print_json(object);
    } else {
        printf("\n%s, %d file%s of %s; architecture %s, quantization %s\n", container, info.num_files,
               info.num_files == 1 ? "" : "s", human_bytes(info.bytes).text,
               *info.architecture ? info.architecture : "not told",
               *info.quantization ? info.quantization : "none declared");
        printf("%d entries of %s, %d of them unsupported\n", info.num_entries, human_bytes(bytes).text,
               unsupported);
        json_decref(list);
        json_decref(object);
    }
    fmk_checkpoint_close(checkpoint);
    return 0;
}
