/* Our own projections, behind the interface of peers. */
#include "sweep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct ours {
    struct bench *bench;
    uint32_t flags;
    uint64_t workspace, size;
    char *kernel; /* the last answer of ours_kernel */
};

struct weight {
    struct ours *owner;
    fmk_weight *weight;
    uint64_t bytes;
};

void *ours_open(struct bench *bench, bool early) {
    struct ours *ours = allocate(1, sizeof *ours);
    *ours = (struct ours){.bench = bench, .flags = early ? FMK_LINEAR_PDL : 0};
    return ours;
}

static void ours_close(void *peer) {
    struct ours *ours = peer;
    if (ours->size)
        gpu_free(&ours->bench->gpu, ours->workspace);
    free(ours->kernel);
    free(ours);
}

static fmk_tensor tensor_of(const void *data, uint64_t bytes, fmk_dtype dtype) {
    return (fmk_tensor){.data = {.handle = (uintptr_t)data, .size = bytes}, .dtype = dtype};
}

static void *ours_create(void *peer, const struct bench_peer_source *source, char *error, size_t cap) {
    struct ours *ours = peer;
    fmk_part part = {.struct_size = sizeof part,
                     .format = FMK_FORMAT_GPTQ,
                     .n = source->n,
                     .k = source->k,
                     .group_size = source->group_size,
                     .symmetric = source->qzeros ? -1 : 1,
                     .qweight = tensor_of(source->qweight, source->qweight_bytes, 0),
                     .scales = tensor_of(source->scales, source->scales_bytes, FMK_F16),
                     .qzeros = tensor_of(source->qzeros, source->qzeros_bytes, 0),
                     .g_idx = tensor_of(source->g_idx, source->g_idx ? 4 * (uint64_t)source->k : 0, 0)};
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &part, .num_parts = 1};
    fmk_weight_info_t info = {.struct_size = sizeof info};
    fmk_weight *made;
    if (strncmp(source->format, "int4", 4)) {
        snprintf(error, cap, "format %s is not int4", source->format);
        return NULL;
    }
    if (fmk_weight_create(&made, ours->bench->queue, &desc)) {
        snprintf(error, cap, "%s", fmk_last_error());
        return NULL;
    }
    check(fmk_weight_ready(made, 1), "fmk_weight_ready");
    check(fmk_weight_info(made, &info), "fmk_weight_info");
    struct weight *weight = allocate(1, sizeof *weight);
    *weight = (struct weight){.owner = ours, .weight = made, .bytes = info.bytes};
    return weight;
}

static void ours_destroy(void *user) {
    struct weight *weight = user;
    fmk_weight_destroy(weight->weight, weight->owner->bench->queue);
    free(weight);
}

static uint64_t ours_bytes(const void *user) {
    const struct weight *weight = user;
    return weight->bytes;
}

static fmk_linear_args args_of(const struct weight *weight, const struct bench_peer_call *call) {
    const struct ours *ours = weight->owner;
    fmk_dtype type = !strcmp(call->type, "bf16") ? FMK_BF16 : FMK_F16;
    return (fmk_linear_args){.struct_size = sizeof(fmk_linear_args),
                             .flags = ours->flags,
                             .m = call->m,
                             .in_type = type,
                             .out_type = type,
                             .in.handle = (uintptr_t)call->in,
                             .out.handle = (uintptr_t)call->out,
                             .workspace = {.handle = ours->workspace, .size = ours->size}};
}

static int32_t ours_prepare(void *user, const struct bench_peer_call *call, char *error, size_t cap) {
    struct weight *weight = user;
    struct ours *ours = weight->owner;
    fmk_linear_args args = args_of(weight, call);
    uint64_t least, best;
    if (fmk_workspace_size(weight->weight, &args, &least, &best))
        return snprintf(error, cap, "%s", fmk_last_error()), 1;
    if (best > ours->size) {
        gpu_wait(&ours->bench->gpu);
        if (ours->size)
            gpu_free(&ours->bench->gpu, ours->workspace);
        ours->workspace = gpu_allocate(&ours->bench->gpu, best);
        ours->size = best;
        args = args_of(weight, call);
    }
    if (fmk_prepare(ours->bench->queue, weight->weight, &args))
        return snprintf(error, cap, "%s", fmk_last_error()), 1;
    return 0;
}

static int32_t ours_run(void *user, const struct bench_peer_call *call) {
    struct weight *weight = user;
    fmk_linear_args args = args_of(weight, call);
    return fmk_linear(weight->owner->bench->queue, weight->weight, &args) != FMK_OK;
}

static const char *ours_kernel(void *user, const struct bench_peer_call *call) {
    struct weight *weight = user;
    fmk_linear_args args = args_of(weight, call);
    free(weight->owner->kernel);
    weight->owner->kernel = kernel_of(weight->weight, &args, false);
    return weight->owner->kernel;
}

const struct bench_peer ours_plain = {.version = BENCH_PEER_VERSION,
                                      .kind = BENCH_PEER_CUDA,
                                      .name = "ferrumk",
                                      .about = "this library",
                                      .close = ours_close,
                                      .create = ours_create,
                                      .destroy = ours_destroy,
                                      .bytes = ours_bytes,
                                      .prepare = ours_prepare,
                                      .run = ours_run,
                                      .kernel = ours_kernel};

const struct bench_peer ours_early = {.version = BENCH_PEER_VERSION,
                                      .kind = BENCH_PEER_CUDA,
                                      .name = "ferrumk.early",
                                      .about = "this library, with FMK_LINEAR_PDL",
                                      .close = ours_close,
                                      .create = ours_create,
                                      .destroy = ours_destroy,
                                      .bytes = ours_bytes,
                                      .prepare = ours_prepare,
                                      .run = ours_run,
                                      .kernel = ours_kernel};
