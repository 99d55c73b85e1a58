#include "pipelines.h"

#include "../error.h"
#include "embed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of one context; a call's kernel is found by a probe or two. */
enum { SLOTS = 2048, MOST = SLOTS / 2 };

struct made {
    struct fmk_vk_kernel kernel;
    VkPipeline pipeline;
};

struct fmk_vk_pipelines {
    VkPipelineLayout layout;
    VkPipelineCache cache;
    pthread_mutex_t lock; /* of who makes one */
    int32_t count;
    _Atomic(struct made *) slots[SLOTS];
};

static const struct {
    const char *name;
    const uint32_t *begin, *end;
} modules[FMK_VK_MODULES] = {
    [FMK_VK_GEMV + 0] = {"gemv_dense", fmk_gemv_dense_spv, fmk_gemv_dense_spv_end},
    [FMK_VK_GEMV + 1] = {"gemv_int4", fmk_gemv_int4_spv, fmk_gemv_int4_spv_end},
    [FMK_VK_GEMV + 2] = {"gemv_q4k", fmk_gemv_q4k_spv, fmk_gemv_q4k_spv_end},
    [FMK_VK_GEMV + 3] = {"gemv_q6k", fmk_gemv_q6k_spv, fmk_gemv_q6k_spv_end},
    [FMK_VK_GEMV_SUBGROUPS + 0] = {"gemv_dense_subgroups", fmk_gemv_dense_subgroups_spv,
                                   fmk_gemv_dense_subgroups_spv_end},
    [FMK_VK_GEMV_SUBGROUPS + 1] = {"gemv_int4_subgroups", fmk_gemv_int4_subgroups_spv,
                                   fmk_gemv_int4_subgroups_spv_end},
    [FMK_VK_GEMV_SUBGROUPS + 2] = {"gemv_q4k_subgroups", fmk_gemv_q4k_subgroups_spv,
                                   fmk_gemv_q4k_subgroups_spv_end},
    [FMK_VK_GEMV_SUBGROUPS + 3] = {"gemv_q6k_subgroups", fmk_gemv_q6k_subgroups_spv,
                                   fmk_gemv_q6k_subgroups_spv_end},
    [FMK_VK_GEMM + 0] = {"gemm_dense", fmk_gemm_dense_spv, fmk_gemm_dense_spv_end},
    [FMK_VK_GEMM + 1] = {"gemm_int4", fmk_gemm_int4_spv, fmk_gemm_int4_spv_end},
    [FMK_VK_GEMM + 2] = {"gemm_q4k", fmk_gemm_q4k_spv, fmk_gemm_q4k_spv_end},
    [FMK_VK_GEMM + 3] = {"gemm_q6k", fmk_gemm_q6k_spv, fmk_gemm_q6k_spv_end},
    [FMK_VK_GEMM_COOPMAT + 0] = {"gemm_dense_coopmat", fmk_gemm_dense_coopmat_spv,
                                 fmk_gemm_dense_coopmat_spv_end},
    [FMK_VK_GEMM_COOPMAT + 1] = {"gemm_int4_coopmat", fmk_gemm_int4_coopmat_spv,
                                 fmk_gemm_int4_coopmat_spv_end},
    [FMK_VK_GEMM_COOPMAT + 2] = {"gemm_q4k_coopmat", fmk_gemm_q4k_coopmat_spv, fmk_gemm_q4k_coopmat_spv_end},
    [FMK_VK_GEMM_COOPMAT + 3] = {"gemm_q6k_coopmat", fmk_gemm_q6k_coopmat_spv, fmk_gemm_q6k_coopmat_spv_end},
    [FMK_VK_GEMM_FEW + 0] = {"gemm_dense_few", fmk_gemm_dense_few_spv, fmk_gemm_dense_few_spv_end},
    [FMK_VK_GEMM_FEW + 1] = {"gemm_int4_few", fmk_gemm_int4_few_spv, fmk_gemm_int4_few_spv_end},
    [FMK_VK_GEMM_FEW + 2] = {"gemm_q4k_few", fmk_gemm_q4k_few_spv, fmk_gemm_q4k_few_spv_end},
    [FMK_VK_GEMM_FEW + 3] = {"gemm_q6k_few", fmk_gemm_q6k_few_spv, fmk_gemm_q6k_few_spv_end},
    [FMK_VK_GEMM_HALF + 0] = {"gemm_dense_half", fmk_gemm_dense_half_spv, fmk_gemm_dense_half_spv_end},
    [FMK_VK_GEMM_HALF + 1] = {"gemm_int4_half", fmk_gemm_int4_half_spv, fmk_gemm_int4_half_spv_end},
    [FMK_VK_GEMM_HALF + 2] = {"gemm_q4k_half", fmk_gemm_q4k_half_spv, fmk_gemm_q4k_half_spv_end},
    [FMK_VK_GEMM_HALF + 3] = {"gemm_q6k_half", fmk_gemm_q6k_half_spv, fmk_gemm_q6k_half_spv_end},
    [FMK_VK_PLAIN] = {"plain", fmk_plain_spv, fmk_plain_spv_end},
    [FMK_VK_DECODE] = {"decode", fmk_decode_spv, fmk_decode_spv_end},
    [FMK_VK_GATHER] = {"gather", fmk_gather_spv, fmk_gather_spv_end},
    [FMK_VK_GATHER_ROUTED] = {"gather_routed", fmk_gather_routed_spv, fmk_gather_routed_spv_end},
    [FMK_VK_HALVE] = {"halve", fmk_halve_spv, fmk_halve_spv_end},
    [FMK_VK_GLU] = {"glu", fmk_glu_spv, fmk_glu_spv_end},
    [FMK_VK_REDUCE] = {"reduce", fmk_reduce_spv, fmk_reduce_spv_end},
    [FMK_VK_ROUTE] = {"route", fmk_route_spv, fmk_route_spv_end},
    [FMK_VK_ROUTE_SORT] = {"route_sort", fmk_route_sort_spv, fmk_route_sort_spv_end},
    [FMK_VK_COPY] = {"copy", fmk_copy_spv, fmk_copy_spv_end},
};

const char *fmk_vk_module_name(uint32_t module) {
    return modules[module].name;
}

static struct fmk_vk_pipelines *pipelines_of(const struct fmk_context *ctx) {
    return fmk_vulkan_of(ctx)->pipelines;
}

VkPipelineLayout fmk_vk_pipeline_layout(const struct fmk_context *ctx) {
    return pipelines_of(ctx)->layout;
}

/* ---- the table ---- */

static uint32_t hash(const struct fmk_vk_kernel *kernel) {
    uint32_t words[1 + FMK_VK_SPECS], h = 2166136261u;
    memcpy(words, kernel, sizeof words);
    for (int i = 0; i < 1 + FMK_VK_SPECS; i++)
        h = (h ^ words[i]) * 16777619u;
    return h ^ h >> 15;
}

/* Where it is, or where it would be. */
static uint32_t probe(const struct fmk_vk_pipelines *all, const struct fmk_vk_kernel *kernel,
                      struct made **found) {
    for (uint32_t i = hash(kernel) % SLOTS;; i = (i + 1) % SLOTS) {
        *found = atomic_load_explicit(&all->slots[i], memory_order_acquire);
        if (!*found || !memcmp(&(*found)->kernel, kernel, sizeof *kernel))
            return i;
    }
}

VkPipeline fmk_vk_pipeline_find(const struct fmk_context *ctx, const struct fmk_vk_kernel *kernel) {
    struct made *made;
    probe(pipelines_of(ctx), kernel, &made);
    return made ? made->pipeline : VK_NULL_HANDLE;
}

/* ---- making one ---- */

static VkResult create(const struct fmk_vulkan *vulkan, const struct fmk_vk_kernel *kernel, VkPipeline *out) {
    const struct fmk_vk_functions *vk = &vulkan->vk;
    VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize =
            (size_t)((const char *)modules[kernel->module].end - (const char *)modules[kernel->module].begin),
        .pCode = modules[kernel->module].begin,
    };
    VkSpecializationMapEntry entries[FMK_VK_SPECS];
    for (uint32_t i = 0; i < FMK_VK_SPECS; i++)
        entries[i] = (VkSpecializationMapEntry){i, 4 * i, 4};
    VkSpecializationInfo constants = {FMK_VK_SPECS, entries, sizeof kernel->constants, kernel->constants};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfoEXT subgroup = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO_EXT,
        .requiredSubgroupSize = kernel->constants[FMK_VK_SPEC_SUBGROUP],
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .pName = "main",
                .pSpecializationInfo = &constants,
            },
        .layout = vulkan->pipelines->layout,
    };
    if (subgroup.requiredSubgroupSize) {
        info.stage.pNext = &subgroup;
        info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT;
    }
    VkResult result = vk->CreateShaderModule(vulkan->device, &code, NULL, &info.stage.module);
    if (result)
        return result;
    result = vk->CreateComputePipelines(vulkan->device, vulkan->pipelines->cache, 1, &info, NULL, out);
    vk->DestroyShaderModule(vulkan->device, info.stage.module, NULL);
    return result;
}

static fmk_status make(struct fmk_context *ctx, const struct fmk_vk_kernel *kernel) {
    struct fmk_vk_pipelines *all = pipelines_of(ctx);
    struct made *made;
    uint32_t slot = probe(all, kernel, &made);
    if (made)
        return FMK_OK;
    if (all->count == MOST)
        return fmk_fail(FMK_EUNSUPPORTED, "a context has at most %d pipelines", MOST);
    char what[64];
    snprintf(what, sizeof what, "making the pipeline %s", modules[kernel->module].name);
    made = malloc(sizeof *made);
    if (!made)
        return fmk_no_memory(sizeof *made, "a pipeline");
    made->kernel = *kernel;
    fmk_status status = fmk_vk_check(ctx, create(fmk_vulkan_of(ctx), kernel, &made->pipeline), what);
    if (status) {
        free(made);
        return status;
    }
    all->count++;
    atomic_store_explicit(&all->slots[slot], made, memory_order_release);
    return FMK_OK;
}

fmk_status fmk_vk_pipeline_make(struct fmk_context *ctx, const struct fmk_vk_kernel *kernel) {
    struct fmk_vk_pipelines *all = pipelines_of(ctx);
    pthread_mutex_lock(&all->lock);
    fmk_status status = make(ctx, kernel);
    pthread_mutex_unlock(&all->lock);
    return status;
}

/* ---- all of them ---- */

fmk_status fmk_vk_pipelines_open(struct fmk_context *ctx, const void *cache, size_t cache_size) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    struct fmk_vk_pipelines *all = calloc(1, sizeof *all);
    if (!all)
        return fmk_no_memory(sizeof *all, "the table of pipelines");
    vulkan->pipelines = all;
    pthread_mutex_init(&all->lock, NULL);
    VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 128};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &range};
    VkPipelineCacheCreateInfo create_cache = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                              .initialDataSize = cache_size,
                                              .pInitialData = cache};
    VkResult result = vulkan->vk.CreatePipelineLayout(vulkan->device, &layout, NULL, &all->layout);
    if (!result)
        result = vulkan->vk.CreatePipelineCache(vulkan->device, &create_cache, NULL, &all->cache);
    return fmk_vk_check(ctx, result, "making the layout of pipelines");
}

void fmk_vk_pipelines_close(struct fmk_context *ctx) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    struct fmk_vk_pipelines *all = vulkan->pipelines;
    if (!all)
        return;
    bool alive = !fmk_context_alive(ctx); /* else a forked child: the driver is the parent's */
    for (int i = 0; i < SLOTS; i++) {
        struct made *made = atomic_load(&all->slots[i]);
        if (made && alive)
            vulkan->vk.DestroyPipeline(vulkan->device, made->pipeline, NULL);
        free(made);
    }
    if (alive && all->cache)
        vulkan->vk.DestroyPipelineCache(vulkan->device, all->cache, NULL);
    if (alive && all->layout)
        vulkan->vk.DestroyPipelineLayout(vulkan->device, all->layout, NULL);
    pthread_mutex_destroy(&all->lock);
    free(all);
    vulkan->pipelines = NULL;
}

fmk_status fmk_vk_pipelines_save(struct fmk_context *ctx, void *data, uint64_t capacity, uint64_t *size) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    size_t bytes = 0;
    VkResult result = vulkan->vk.GetPipelineCacheData(vulkan->device, vulkan->pipelines->cache, &bytes, NULL);
    *size = bytes;
    if (!result && data) {
        if (capacity < bytes)
            return fmk_fail(FMK_EINVAL, "capacity %llu is less than the %zu bytes of the pipeline cache",
                            (unsigned long long)capacity, bytes);
        result = vulkan->vk.GetPipelineCacheData(vulkan->device, vulkan->pipelines->cache, &bytes, data);
        *size = bytes;
    }
    return fmk_vk_check(ctx, result, "asking for the pipeline cache");
}
