/* The Vulkan side of a context: fmk_context.device. */
#ifndef FMK_VULKAN_DEVICE_H
#define FMK_VULKAN_DEVICE_H

#include "driver.h"
#include "features.h"

#include "../context.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct fmk_vk_pipelines; /* pipelines.h */
struct fmk_vk_staging;   /* staging.h */
struct fmk_vk_block;

/* What a physical device has, as far as it matters here. */
struct fmk_vk_device_info {
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceVulkan11Properties properties11;
    VkPhysicalDeviceVulkan12Properties properties12;
    VkPhysicalDeviceFeatures features;
    VkPhysicalDeviceVulkan11Features features11;
    VkPhysicalDeviceVulkan12Features features12;
    uint64_t most_allocation;  /* bytes of one */
    uint64_t import_alignment; /* 0: host memory cannot be imported */
    uint32_t subgroup; /* the size that kernels ask for; 0: none can be asked for, or they do not shuffle */
    bool coopmat;      /* as gemm_coopmat and gemm_few want them; and subgroup is 32 */
    bool float16;      /* shaderFloat16 */
};

struct fmk_vulkan {
    struct fmk_vk_functions vk;
    fmk_vulkan_device handles; /* ours, or the caller's */
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    bool owned; /* instance and device are ours */
    struct fmk_vk_device_info info;
    VkPhysicalDeviceMemoryProperties memory;
    atomic_int lost;        /* the VkResult that said so, else 0 */
    pthread_mutex_t submit; /* of `queue`, where the caller gave no lock of its own */
    struct fmk_vk_pipelines *pipelines;
    pthread_mutex_t staging_lock;
    uint64_t staging_bytes;
    struct fmk_vk_staging *staging; /* made by the first weight */
    pthread_mutex_t blocks_lock;
    struct fmk_vk_block *blocks; /* memory of weights: backend.c */
};

static inline struct fmk_vulkan *fmk_vulkan_of(const struct fmk_context *ctx) {
    return (struct fmk_vulkan *)ctx->device;
}

/* Asks a physical device; then whether the kernels run there: FMK_OK, or ENODEVICE with a sentence. */
void fmk_vk_device_ask(const struct fmk_vk_functions *vk, VkPhysicalDevice physical,
                       struct fmk_vk_device_info *out);
fmk_status fmk_vk_device_serves(const struct fmk_vk_device_info *info);

/* FMK_OK, or the status that an answer means, with a sentence that begins with `what`. A lost device marks
 * the context. */
fmk_status fmk_vk_check(const struct fmk_context *ctx, VkResult result, const char *what);
/* FMK_ELOST with its sentence after a loss, else FMK_OK. Asks nobody. */
fmk_status fmk_vk_check_device(const struct fmk_context *ctx);

/* Submits one command buffer to the context's VkQueue, by the caller's lock or ours. */
fmk_status fmk_vk_submit(const struct fmk_context *ctx, VkCommandBuffer commands, VkFence fence);

/* Opens what desc asks for: an instance and a device of our own, or the caller's. */
fmk_status fmk_vk_device_open(struct fmk_context *ctx, const fmk_context_desc *desc);
/* Also after a failure. */
void fmk_vk_device_close(struct fmk_context *ctx);

#endif
