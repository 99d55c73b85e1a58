/* ferrumk devices: each backend, found or not found and why. */
#include "device.h"
#include "tool.h"
#include "verbs.h"

#include <inttypes.h>

struct arguments {
    bool json;
    struct device_options device;
};

enum { KEY_JSON = 256 };
static const struct argp_option options[] = {{"json", KEY_JSON, NULL, 0, "one JSON object", 1}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct arguments *a = state->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->device;
        return 0;
    case KEY_JSON:
        a->json = true;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static json_t *describe(fmk_backend backend, int32_t index, const struct device_options *o) {
    fmk_context_desc desc = {.struct_size = sizeof desc,
                             .backend = backend,
                             .device = index,
                             .cpu_threads = o->threads,
                             .disable = o->disable};
    fmk_context_info_t info = {.struct_size = sizeof info};
    fmk_context *context;
    json_t *entry = json_object();
    json_put(entry, "backend", json_string(backend_name(backend)));
    fmk_status status = fmk_context_create(&context, &desc);
    json_put(entry, "found", json_boolean(status == FMK_OK));
    if (status != FMK_OK) {
        json_put(entry, "why", json_string(fmk_last_error()));
        return entry;
    }
    check(fmk_context_info(context, &info), NULL);
    fmk_context_destroy(context);
    json_put(entry, "device", json_integer(info.device));
    json_put(entry, "name", json_string(info.name));
    json_put(entry, "features", json_string(info.features));
    json_put(entry, "threads", json_integer(info.threads));
    json_put(entry, "memory", json_integer((json_int_t)info.memory));
    json_put(entry, "last_level_cache", json_integer((json_int_t)info.last_level_cache));
    return entry;
}

static bool found(const json_t *entry) {
    return json_is_true(json_object_get(entry, "found"));
}

/* One entry for each device of the backend, or one that says why it has none. */
static void add_devices(json_t *list, fmk_backend backend, const struct device_options *o) {
    int32_t count = 0;
    json_t *entry;
    while (found(entry = describe(backend, count, o))) {
        json_array_append_new(list, entry);
        count++;
    }
    if (!count)
        json_array_append(list, entry);
    json_decref(entry);
}

static void print(const json_t *entry) {
    const char *name = json_string_value(json_object_get(entry, "backend"));
    if (!found(entry)) {
        printf("%-8s not found: %s\n", name, json_string_value(json_object_get(entry, "why")));
        return;
    }
    uint64_t memory = (uint64_t)json_integer_value(json_object_get(entry, "memory"));
    uint64_t cache = (uint64_t)json_integer_value(json_object_get(entry, "last_level_cache"));
    printf("%-8s %s\n", name, json_string_value(json_object_get(entry, "name")));
    printf("%-8s features %s\n", "", json_string_value(json_object_get(entry, "features")));
    if (backend_of_name(name) == FMK_BACKEND_CPU)
        printf("%-8s %" JSON_INTEGER_FORMAT " threads", "",
               json_integer_value(json_object_get(entry, "threads")));
    else
        printf("%-8s device %" JSON_INTEGER_FORMAT, "", json_integer_value(json_object_get(entry, "device")));
    printf(", %s of memory, %s of last-level cache\n", human_bytes(memory).text,
           cache ? human_bytes(cache).text : "an unknown size");
}

int verb_devices(int argc, char **argv) {
    static const fmk_backend all[] = {FMK_BACKEND_CPU, FMK_BACKEND_CUDA, FMK_BACKEND_VULKAN};
    static const struct argp_child children[] = {{&device_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,  parse, NULL, "Prints every device of every backend, or why there is none.",
        children, NULL,  NULL};
    struct arguments a = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    fmk_backend only = backend_of_name(a.device.backend);
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (only == FMK_BACKEND_AUTO || only == all[i])
            add_devices(list, all[i], &a.device);
    if (a.json) {
        json_t *object = json_object();
        json_put(object, "library", json_string(fmk_build_info()));
        json_put(object, "devices", list);
        print_json(object);
        return 0;
    }
    printf("%s\n\n", fmk_build_info());
    size_t index;
    json_t *entry;
    json_array_foreach(list, index, entry) {
        print(entry);
    }
    json_decref(list);
    return 0;
}
