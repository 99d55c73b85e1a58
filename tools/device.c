/* Contexts from options, their memory, and projections on them: see device.h. */
#include "device.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_BACKEND = 0x1000, KEY_DEVICE, KEY_THREADS, KEY_DISABLE };

static const struct argp_option options[] = {
    {"backend", KEY_BACKEND, "NAME", 0, "auto (default), cpu, reference, cuda or vulkan", 10},
    {"device", KEY_DEVICE, "I", 0, "which GPU, as \"ferrumk devices\" counts them (default 0)", 10},
    {"threads", KEY_THREADS, "T", 0, "threads of the CPU, the caller included (default: one per core)", 10},
    {"disable", KEY_DISABLE, "LIST", 0, "features to do without, such as avx2,fma", 10},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct device_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        *o = (struct device_options){.backend = "auto"};
        return 0;
    case KEY_BACKEND:
        backend_of_name(arg);
        o->backend = arg;
        return 0;
    case KEY_DEVICE:
        o->index = (int32_t)parse_number("--device", arg, 0, INT32_MAX);
        return 0;
    case KEY_THREADS:
        o->threads = (int32_t)parse_number("--threads", arg, 1, 4096);
        return 0;
    case KEY_DISABLE:
        o->disable = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

const struct argp device_argp = {.options = options, .parser = parse};

static const struct {
    const char *name;
    fmk_backend backend;
} backends[] = {
    {"auto", FMK_BACKEND_AUTO}, {"cpu", FMK_BACKEND_CPU},       {"reference", FMK_BACKEND_CPU},
    {"cuda", FMK_BACKEND_CUDA}, {"vulkan", FMK_BACKEND_VULKAN},
};

fmk_backend backend_of_name(const char *name) {
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (!strcmp(backends[i].name, name))
            return backends[i].backend;
    quit(EXIT_USAGE, "--backend \"%s\" is none of auto, cpu, reference, cuda, vulkan", name);
}

const char *backend_name(fmk_backend backend) {
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (backends[i].backend == backend)
            return backends[i].name;
    return "unknown";
}

fmk_dtype type_of_name(const char *name) {
    static const struct {
        const char *name;
        fmk_dtype type;
    } types[] = {{"f32", FMK_F32}, {"f16", FMK_F16}, {"bf16", FMK_BF16}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name))
            return types[i].type;
    quit(EXIT_USAGE, "--type \"%s\" is none of f32, f16, bf16", name);
}

/* What the library notices while it loads: zero points that contradict their declaration. */
static void warn(void *user, int32_t level, const char *text) {
    (void)user;
    if (level > 0)
        fprintf(stderr, "ferrumk: %s\n", text);
}

void device_open(struct device *device, const struct device_options *o) {
    fmk_context_desc desc = {
        .struct_size = sizeof desc,
        .log = warn,
        .backend = backend_of_name(o->backend),
        .device = o->index,
        .cpu_threads = o->threads,
        .disable = o->disable,
    };
    *device = (struct device){.reference = !strcmp(o->backend, "reference")};
    check(fmk_context_create(&device->context, &desc), NULL);
    device->info.struct_size = sizeof device->info;
    check(fmk_context_info(device->context, &device->info), NULL);
    device->gpu = device->info.backend == FMK_BACKEND_CUDA     ? &cuda_driver
                  : device->info.backend == FMK_BACKEND_VULKAN ? &vulkan_driver
                                                               : NULL;
    if (device->gpu)
        device->gpu->open(device->context, device->info.device);
    check(fmk_queue_create(&device->queue, device->context, device->gpu ? device->gpu->stream() : NULL),
          NULL);
}

void device_open_cpu(struct device *device, const struct device_options *o) {
    struct device_options cpu = *o;
    cpu.backend = "cpu";
    cpu.index = 0;
    device_open(device, &cpu);
}

void device_close(struct device *device) {
    device_free(device, device->workspace);
    fmk_queue_destroy(device->queue);
    if (device->gpu)
        device->gpu->close();
    fmk_context_destroy(device->context);
    *device = (struct device){0};
}

uint64_t device_allocate(struct device *device, uint64_t bytes) {
    return device->gpu ? device->gpu->allocate(bytes) : (uintptr_t)allocate_aligned(bytes);
}

void device_free(struct device *device, uint64_t memory) {
    if (!device->gpu)
        free((void *)(uintptr_t)memory);
    else if (memory)
        device->gpu->free(memory);
}

void device_write(struct device *device, uint64_t to, const void *from, uint64_t bytes) {
    if (device->gpu)
        device->gpu->write(to, from, bytes);
    else
        memcpy((void *)(uintptr_t)to, from, bytes);
}

void device_read(struct device *device, void *to, uint64_t from, uint64_t bytes) {
    if (device->gpu)
        device->gpu->read(to, from, bytes);
    else
        memcpy(to, (const void *)(uintptr_t)from, bytes);
}

fmk_buffer device_buffer(const struct device *device, uint64_t memory) {
    return device->gpu ? device->gpu->buffer(memory) : (fmk_buffer){.handle = memory};
}

void device_wait(struct device *device) {
    if (device->gpu)
        device->gpu->wait();
}

void device_mark(struct device *device, int i) {
    if (device->gpu)
        device->gpu->mark(i);
    else
        device->marks[i] = seconds();
}

double device_seconds(const struct device *device, int from, int to) {
    return device->gpu ? device->gpu->seconds(from, to) : device->marks[to] - device->marks[from];
}

fmk_checkpoint *open_checkpoint(const char *path) {
    fmk_checkpoint *checkpoint;
    check(fmk_checkpoint_open(&checkpoint, path), NULL);
    return checkpoint;
}

fmk_weight *load_matrix(struct device *device, fmk_checkpoint *checkpoint, const char *name) {
    fmk_weight *weight;
    check(fmk_checkpoint_load(&weight, device->queue, checkpoint, &name, 1, NULL), NULL);
    check(fmk_weight_ready(weight, 1), NULL);
    return weight;
}

void projection_set(struct projection *p, struct device *device, fmk_weight *weight, int64_t m,
                    uint32_t flags, int32_t expert, uint64_t in, uint64_t out) {
    fmk_weight_info_t info = {.struct_size = sizeof info};
    check(fmk_weight_info(weight, &info), NULL);
    *p = (struct projection){
        .device = device,
        .weight = weight,
        .args = {.struct_size = sizeof p->args,
                 .flags = flags | (device->reference ? FMK_LINEAR_REFERENCE : 0),
                 .m = m,
                 .in_type = FMK_F32,
                 .out_type = FMK_F32,
                 .in = device_buffer(device, in),
                 .out = device_buffer(device, out)},
        .routing = {.struct_size = sizeof p->routing, .kind = FMK_ROUTE_NONE, .expert = expert},
    };
    if (info.num_experts)
        p->args.routing = &p->routing;
    projection_prepare(p);
}

void projection_set_type(struct projection *p, fmk_dtype type) {
    p->args.in_type = p->args.out_type = type;
    projection_prepare(p);
}

static fmk_buffer workspace_of(const struct device *device) {
    if (!device->workspace)
        return (fmk_buffer){0};
    fmk_buffer workspace = device_buffer(device, device->workspace);
    workspace.size = device->workspace_size;
    return workspace;
}

void projection_prepare(struct projection *p) {
    struct device *device = p->device;
    uint64_t least, best;
    check(fmk_workspace_size(p->weight, &p->args, &least, &best), NULL);
    if (best > device->workspace_size) {
        device_free(device, device->workspace);
        device->workspace = device_allocate(device, best);
        device->workspace_size = best;
    }
    p->args.workspace = workspace_of(device);
    check(fmk_prepare(device->queue, p->weight, &p->args), NULL);
}

void projection_run(struct projection *p) {
    p->args.workspace = workspace_of(p->device);
    check(fmk_linear(p->device->queue, p->weight, &p->args), NULL);
}

char *projection_explain(struct projection *p) {
    size_t needed = 0;
    check(fmk_explain(p->weight, &p->args, NULL, 0, &needed), NULL);
    char *text = allocate(needed + 1, 1);
    check(fmk_explain(p->weight, &p->args, text, needed + 1, NULL), NULL);
    return text;
}

/* Adds `word` to a list joined by " + " unless it is its last. */
static char *join(char *list, const char *word) {
    size_t have = list ? strlen(list) : 0, length = strlen(word);
    if (!list)
        return text_of("%s", word);
    if (have >= length && !strcmp(list + have - length, word))
        return list;
    char *longer = text_of("%s + %s", list, word);
    free(list);
    return longer;
}

char *projection_kernels(struct projection *p) {
    char *text = projection_explain(p), *rest = text, *line, *list = NULL;
    /* A part's line ends with ": KERNEL"; the lines of objections are indented. */
    while ((line = strsep(&rest, "\n"))) {
        char *colon = strrchr(line, ':');
        if (*line != ' ' && colon)
            list = join(list, colon + 1 + strspn(colon + 1, " "));
    }
    free(text);
    return list ? list : text_of("?");
}

static const char *format_name(fmk_format format) {
    static const char *const names[] = {
        [FMK_FORMAT_DENSE] = "dense",   [FMK_FORMAT_GPTQ] = "GPTQ", [FMK_FORMAT_GPTQ_V2] = "GPTQ v2",
        [FMK_FORMAT_MARLIN] = "Marlin", [FMK_FORMAT_Q4_K] = "Q4_K", [FMK_FORMAT_Q6_K] = "Q6_K",
    };
    bool known = format > 0 && (size_t)format < sizeof names / sizeof *names;
    return known ? names[format] : "?";
}

char *projection_formats(struct projection *p) {
    fmk_weight_info_t info = {.struct_size = sizeof info};
    char *list = NULL;
    check(fmk_weight_info(p->weight, &info), NULL);
    for (int32_t i = 0; i < info.num_parts; i++) {
        fmk_part_info part = {.struct_size = sizeof part};
        check(fmk_weight_part_info(p->weight, i, &part), NULL);
        list = join(list, format_name(part.format));
    }
    return list ? list : text_of("?");
}
