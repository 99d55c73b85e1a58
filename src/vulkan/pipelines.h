/* Kernels as the host knows them: a module of kernels/vulkan, and what it is specialised for. */
#ifndef FMK_VULKAN_PIPELINES_H
#define FMK_VULKAN_PIPELINES_H

#include "device.h"

#include "../../kernels/vulkan/args.h"

enum fmk_vk_module {
    FMK_VK_GEMV, /* + enum fmk_family */
    FMK_VK_GEMV_SUBGROUPS = FMK_VK_GEMV + 4,
    FMK_VK_GEMM = FMK_VK_GEMV_SUBGROUPS + 4,
    FMK_VK_GEMM_COOPMAT = FMK_VK_GEMM + 4,
    FMK_VK_GEMM_FEW = FMK_VK_GEMM_COOPMAT + 4,
    FMK_VK_GEMM_HALF = FMK_VK_GEMM_FEW + 4,
    FMK_VK_PLAIN = FMK_VK_GEMM_HALF + 4,
    FMK_VK_DECODE,
    FMK_VK_GATHER,
    FMK_VK_GATHER_ROUTED,
    FMK_VK_HALVE,
    FMK_VK_GLU,
    FMK_VK_REDUCE,
    FMK_VK_ROUTE,
    FMK_VK_ROUTE_SORT,
    FMK_VK_COPY,
    FMK_VK_MODULES
};

/* A kernel: which module, with which constants. Those that the module does not look at are 0. */
struct fmk_vk_kernel {
    uint32_t module;
    uint32_t constants[FMK_VK_SPECS]; /* by FMK_VK_SPEC_.. */
};

/* The context's pipelines and the layout that all share; `cache`: what fmk_context_pipeline_cache once gave,
 * or NULL. */
fmk_status fmk_vk_pipelines_open(struct fmk_context *ctx, const void *cache, size_t cache_size);
void fmk_vk_pipelines_close(struct fmk_context *ctx);

/* VK_NULL_HANDLE while it has not been made. For fmk_linear: takes no lock. */
VkPipeline fmk_vk_pipeline_find(const struct fmk_context *ctx, const struct fmk_vk_kernel *kernel);
/* Makes it unless it is there. */
fmk_status fmk_vk_pipeline_make(struct fmk_context *ctx, const struct fmk_vk_kernel *kernel);
VkPipelineLayout fmk_vk_pipeline_layout(const struct fmk_context *ctx);
const char *fmk_vk_module_name(uint32_t module);

/* The blob of everything made so far; as fmk_weight_export: data NULL asks for the size. */
fmk_status fmk_vk_pipelines_save(struct fmk_context *ctx, void *data, uint64_t capacity, uint64_t *size);

#endif
