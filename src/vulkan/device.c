/* Instance and device, the caller's or our own: what a device must have, and what its errors mean. */
#include "device.h"

#include "../abi.h"
#include "../error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what its answers mean ---- */

static fmk_status is_lost(VkResult result, const char *what) {
    return fmk_fail(FMK_ELOST,
                    "%s: %s: the VkDevice is dead, and with it everything that was made of it: destroy this "
                    "context, and make another",
                    what, fmk_vk_result_name(result));
}

fmk_status fmk_vk_check(const struct fmk_context *ctx, VkResult result, const char *what) {
    switch (result) {
    case VK_SUCCESS:
        return FMK_OK;
    case VK_ERROR_DEVICE_LOST:
        atomic_store(&fmk_vulkan_of(ctx)->lost, (int)result);
        return is_lost(result, what);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return fmk_fail(FMK_ENOMEM, "%s: no memory (%s)", what, fmk_vk_result_name(result));
    case VK_NOT_READY:
    case VK_TIMEOUT:
        return fmk_fail(FMK_EAGAIN, "%s: not ready yet", what);
    default:
        return fmk_fail(FMK_EDEVICE, "%s: Vulkan answered %s (%d)", what, fmk_vk_result_name(result),
                        (int)result);
    }
}

fmk_status fmk_vk_check_device(const struct fmk_context *ctx) {
    int lost = atomic_load_explicit(&fmk_vulkan_of(ctx)->lost, memory_order_relaxed);
    return lost ? is_lost((VkResult)lost, "an earlier call") : FMK_OK;
}

fmk_status fmk_vk_submit(const struct fmk_context *ctx, VkCommandBuffer commands, VkFence fence) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    const fmk_vulkan_device *handles = &vulkan->handles;
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
    if (handles->lock_queue)
        handles->lock_queue(handles->lock_user);
    else
        pthread_mutex_lock(&vulkan->submit);
    VkResult result = vulkan->vk.QueueSubmit(vulkan->queue, 1, &submit, fence);
    if (handles->unlock_queue)
        handles->unlock_queue(handles->lock_user);
    else
        pthread_mutex_unlock(&vulkan->submit);
    return fmk_vk_check(ctx, result, "submitting to the VkQueue");
}

/* ---- what a device must have ---- */

static bool has_extension(const struct fmk_vk_functions *vk, VkPhysicalDevice physical, const char *name) {
    uint32_t count = 0;
    if (vk->EnumerateDeviceExtensionProperties(physical, NULL, &count, NULL))
        return false;
    VkExtensionProperties *all = calloc(count + 1, sizeof *all);
    bool found = false;
    if (all && vk->EnumerateDeviceExtensionProperties(physical, NULL, &count, all) >= 0)
        for (uint32_t i = 0; i < count; i++)
            found |= !strcmp(all[i].extensionName, name);
    free(all);
    return found;
}

/* The size of subgroups nearest to 32 that a device lets kernels require, where these shuffle. */
static uint32_t subgroup_of(const VkPhysicalDeviceVulkan11Properties *properties,
                            const VkPhysicalDeviceSubgroupSizeControlPropertiesEXT *sizes,
                            const VkPhysicalDeviceSubgroupSizeControlFeaturesEXT *features) {
    if (!features->subgroupSizeControl || !features->computeFullSubgroups ||
        !(sizes->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) ||
        !(properties->subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT) ||
        !(properties->subgroupSupportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT))
        return 0;
    uint32_t size = sizes->maxSubgroupSize < 32 ? sizes->maxSubgroupSize : 32;
    return size < sizes->minSubgroupSize ? sizes->minSubgroupSize : size;
}

static void ask_subgroups(const struct fmk_vk_functions *vk, VkPhysicalDevice physical,
                          struct fmk_vk_device_info *out) {
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &sizes};
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &control};
    vk->GetPhysicalDeviceProperties2(physical, &properties);
    vk->GetPhysicalDeviceFeatures2(physical, &features);
    out->subgroup = subgroup_of(&out->properties11, &sizes, &control);
}

/* Matrices as kernels/vulkan/coopmat.glsl has them, and room for the largest tile. */
static bool has_coopmat(const struct fmk_vk_functions *vk, VkPhysicalDevice physical,
                        const struct fmk_vk_device_info *info) {
    enum { MOST = 64, SUBGROUP = 32, THREADS = 256, SHARED = 144 * (128 + 128) + 4 };
    const VkPhysicalDeviceLimits *limits = &info->properties.limits;
    if (!vk->GetPhysicalDeviceCooperativeMatrixPropertiesNV ||
        !has_extension(vk, physical, VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME) ||
        !info->features12.shaderFloat16 || !info->features12.vulkanMemoryModel ||
        info->subgroup != SUBGROUP ||
        !(info->properties11.subgroupSupportedOperations & VK_SUBGROUP_FEATURE_VOTE_BIT) ||
        limits->maxComputeSharedMemorySize < SHARED || limits->maxComputeWorkGroupInvocations < THREADS ||
        limits->maxComputeWorkGroupSize[0] < THREADS)
        return false;
    VkCooperativeMatrixPropertiesNV all[MOST];
    for (int i = 0; i < MOST; i++)
        all[i] =
            (VkCooperativeMatrixPropertiesNV){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_NV};
    uint32_t count = MOST;
    if (vk->GetPhysicalDeviceCooperativeMatrixPropertiesNV(physical, &count, all) < 0)
        return false;
    bool wide = false, narrow = false;
    for (uint32_t i = 0; i < count; i++)
        if (all[i].MSize == 16 && all[i].KSize == 16 && all[i].AType == VK_COMPONENT_TYPE_FLOAT16_NV &&
            all[i].BType == VK_COMPONENT_TYPE_FLOAT16_NV && all[i].CType == VK_COMPONENT_TYPE_FLOAT32_NV &&
            all[i].DType == VK_COMPONENT_TYPE_FLOAT32_NV && all[i].scope == VK_SCOPE_SUBGROUP_NV) {
            wide |= all[i].NSize == 16;
            narrow |= all[i].NSize == 8;
        }
    return wide && narrow;
}

void fmk_vk_device_ask(const struct fmk_vk_functions *vk, VkPhysicalDevice physical,
                       struct fmk_vk_device_info *out) {
    memset(out, 0, sizeof *out);
    bool import = has_extension(vk, physical, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
    out->properties11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES;
    out->properties11.pNext = &out->properties12;
    out->properties12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
    out->properties12.pNext = import ? &host : NULL;
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    vk->GetPhysicalDeviceProperties2(physical, &properties);
    if (properties.properties.apiVersion >= VK_API_VERSION_1_2) { /* which knows what is chained */
        properties.pNext = &out->properties11;
        vk->GetPhysicalDeviceProperties2(physical, &properties);
    }
    out->properties = properties.properties;
    out->most_allocation = out->properties11.maxMemoryAllocationSize;
    out->import_alignment = host.minImportedHostPointerAlignment;
    out->properties11.pNext = out->properties12.pNext = NULL;
    if (out->properties.apiVersion < VK_API_VERSION_1_2)
        return;
    out->features11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    out->features11.pNext = &out->features12;
    out->features12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &out->features11};
    vk->GetPhysicalDeviceFeatures2(physical, &features);
    out->features = features.features;
    out->features11.pNext = NULL;
    if (has_extension(vk, physical, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME))
        ask_subgroups(vk, physical, out);
    out->coopmat = has_coopmat(vk, physical, out);
    out->float16 = out->features12.shaderFloat16;
}

/* What kernels/vulkan/args.h lets the kernels count on. */
fmk_status fmk_vk_device_serves(const struct fmk_vk_device_info *info) {
    const char *name = info->properties.deviceName;
    const VkPhysicalDeviceLimits *limits = &info->properties.limits;
    uint32_t version = info->properties.apiVersion;
    if (version < VK_API_VERSION_1_2)
        return fmk_fail(FMK_ENODEVICE, "device %s speaks Vulkan %u.%u; the kernels need 1.2 or later", name,
                        VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
    const struct {
        const char *name;
        VkBool32 has;
    } features[] = {
        {"bufferDeviceAddress", info->features12.bufferDeviceAddress},
        {"shaderInt64", info->features.shaderInt64},
        {"storageBuffer16BitAccess", info->features11.storageBuffer16BitAccess},
        {"storageBuffer8BitAccess", info->features12.storageBuffer8BitAccess},
    };
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (!features[i].has)
            return fmk_fail(FMK_ENODEVICE, "device %s has no %s, which the kernels need", name,
                            features[i].name);
    const struct {
        const char *name;
        uint32_t has, needed;
    } limit[] = {
        {"maxPushConstantsSize", limits->maxPushConstantsSize, 128},
        {"maxComputeSharedMemorySize", limits->maxComputeSharedMemorySize, 16384},
        {"maxComputeWorkGroupInvocations", limits->maxComputeWorkGroupInvocations, 128},
        {"maxComputeWorkGroupSize[0]", limits->maxComputeWorkGroupSize[0], 128},
        {"maxComputeWorkGroupCount[0]", limits->maxComputeWorkGroupCount[0], 65535},
        {"maxComputeWorkGroupCount[1]", limits->maxComputeWorkGroupCount[1], 65535},
    };
    for (size_t i = 0; i < sizeof limit / sizeof limit[0]; i++)
        if (limit[i].has < limit[i].needed)
            return fmk_fail(FMK_ENODEVICE, "device %s: %s is %u; the kernels need %u", name, limit[i].name,
                            limit[i].has, limit[i].needed);
    return FMK_OK;
}

/* ---- our own ---- */

static fmk_status make_instance(struct fmk_context *ctx) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pEngineName = "ferrumk",
        .engineVersion = FMK_VERSION_MAJOR << 16 | FMK_VERSION_MINOR << 8 | FMK_VERSION_PATCH,
        .apiVersion = VK_API_VERSION_1_2,
    };
    VkInstanceCreateInfo create = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                   .pApplicationInfo = &application};
    uint32_t version = 0;
    VkResult result = vulkan->vk.EnumerateInstanceVersion(&version);
    if (!result && version < VK_API_VERSION_1_2)
        return fmk_fail(FMK_ENODEVICE, "libvulkan speaks Vulkan %u.%u; needed is 1.2 or later",
                        VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
    if (!result)
        result = vulkan->vk.CreateInstance(&create, NULL, &vulkan->instance);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return fmk_fail(FMK_ENODEVICE, "libvulkan finds no driver (VK_ERROR_INCOMPATIBLE_DRIVER)");
    if (result)
        return fmk_vk_check(ctx, result, "making a VkInstance");
    vulkan->owned = true;
    return fmk_vk_open_instance(vulkan->instance, &vulkan->vk);
}

/* The device that was asked for by number; with AUTO the first that is no CPU. */
static fmk_status find_physical(struct fmk_context *ctx, int32_t index, bool automatic) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    enum { MOST = 64 };
    VkPhysicalDevice all[MOST];
    uint32_t count = MOST;
    VkResult result = vulkan->vk.EnumeratePhysicalDevices(vulkan->instance, &count, all);
    if (result < 0)
        return fmk_vk_check(ctx, result, "looking for Vulkan devices");
    if (!count)
        return fmk_fail(FMK_ENODEVICE, "Vulkan has no device here");
    uint32_t d = 0;
    for (; automatic && d < count; d++) {
        fmk_vk_device_ask(&vulkan->vk, all[d], &vulkan->info);
        if (vulkan->info.properties.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU && !index--)
            break;
    }
    if (automatic && d == count)
        return fmk_fail(FMK_ENODEVICE, "Vulkan has no such GPU here: AUTO leaves out devices that are a CPU");
    if (!automatic && (index < 0 || (uint32_t)index >= count))
        return fmk_fail(FMK_ENODEVICE, "device %d is not in 0..%u, the Vulkan devices here", index,
                        count - 1);
    ctx->info.device = automatic ? (int32_t)d : index;
    vulkan->physical = all[ctx->info.device];
    fmk_vk_device_ask(&vulkan->vk, vulkan->physical, &vulkan->info);
    return FMK_OK;
}

/* A family that computes: one that does no graphics is less likely to be in others' way. */
static fmk_status find_family(struct fmk_context *ctx, uint32_t *family) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    enum { MOST = 32 };
    VkQueueFamilyProperties all[MOST];
    uint32_t count = MOST;
    bool found = false;
    vulkan->vk.GetPhysicalDeviceQueueFamilyProperties(vulkan->physical, &count, all);
    for (uint32_t i = 0; i < count; i++) {
        bool graphics = all[i].queueFlags & VK_QUEUE_GRAPHICS_BIT;
        if (!(all[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || (found && graphics))
            continue;
        *family = i;
        found = true;
        if (!graphics)
            break;
    }
    return found ? FMK_OK
                 : fmk_fail(FMK_ENODEVICE, "device %s has no queue family that computes",
                            vulkan->info.properties.deviceName);
}

static fmk_status make_device(struct fmk_context *ctx) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    const struct fmk_vk_device_info *info = &vulkan->info;
    uint32_t family = 0;
    fmk_status status = find_family(ctx, &family);
    if (status)
        return status;
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkPhysicalDeviceCooperativeMatrixFeaturesNV coopmat = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_NV,
        .cooperativeMatrix = VK_TRUE,
    };
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT subgroups = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT,
        .pNext = info->coopmat ? &coopmat : NULL,
        .subgroupSizeControl = VK_TRUE,
        .computeFullSubgroups = VK_TRUE,
    };
    VkPhysicalDeviceVulkan12Features features12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .pNext = info->subgroup ? &subgroups : NULL,
        .bufferDeviceAddress = VK_TRUE,
        .storageBuffer8BitAccess = VK_TRUE,
        .shaderFloat16 = info->float16,
        .shaderInt8 = info->features12.shaderInt8,
        .vulkanMemoryModel = info->coopmat,
    };
    VkPhysicalDeviceVulkan11Features features11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .pNext = &features12,
        .storageBuffer16BitAccess = VK_TRUE,
    };
    VkPhysicalDeviceFeatures2 features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
        .pNext = &features11,
        .features.shaderInt64 = VK_TRUE,
        .features.shaderInt16 = info->features.shaderInt16,
    };
    const char *extensions[3];
    uint32_t extras = info->float16 ? FMK_VULKAN_FLOAT16 : 0, count = 0;
    if (info->import_alignment) {
        extensions[count++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
        extras |= FMK_VULKAN_EXTERNAL_MEMORY_HOST;
    }
    if (info->subgroup) {
        extensions[count++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
        extras |= FMK_VULKAN_SUBGROUP_SIZE_CONTROL;
    }
    if (info->coopmat) {
        extensions[count++] = VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME;
        extras |= FMK_VULKAN_COOPERATIVE_MATRIX;
    }
    VkDeviceCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = count,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = vulkan->vk.CreateDevice(vulkan->physical, &create, NULL, &vulkan->device);
    if (result)
        return fmk_vk_check(ctx, result, "making a VkDevice");
    status = fmk_vk_open_device(vulkan->device, &vulkan->vk);
    if (status)
        return status;
    vulkan->vk.GetDeviceQueue(vulkan->device, family, 0, &vulkan->queue);
    vulkan->handles = (fmk_vulkan_device){
        .struct_size = sizeof vulkan->handles,
        .queue_family = family,
        .extras = extras,
        .get_instance_proc_addr = (void (*)(void))vulkan->vk.GetInstanceProcAddr,
        .instance = vulkan->instance,
        .physical_device = vulkan->physical,
        .device = vulkan->device,
        .queue = vulkan->queue,
    };
    return FMK_OK;
}

static fmk_status open_own(struct fmk_context *ctx, const fmk_context_desc *desc) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    fmk_status status = fmk_vk_open(NULL, &vulkan->vk);
    if (!status)
        status = make_instance(ctx);
    if (!status)
        status = find_physical(ctx, desc->device, desc->backend == FMK_BACKEND_AUTO);
    if (!status)
        status = fmk_vk_device_serves(&vulkan->info);
    return status ? status : make_device(ctx);
}

/* ---- the caller's ---- */

static fmk_status read_handles(const void *native, fmk_vulkan_device *h) {
    fmk_status status = fmk_struct_in(h, sizeof *h, native, "native");
    if (status)
        return status;
    const struct {
        const char *name;
        const void *handle;
    } required[] = {
        {"instance", h->instance},
        {"physical_device", h->physical_device},
        {"device", h->device},
        {"queue", h->queue},
    };
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        if (!required[i].handle)
            return fmk_fail(FMK_EINVAL, "native.%s is NULL; all four handles are required", required[i].name);
    if (!h->lock_queue != !h->unlock_queue)
        return fmk_fail(FMK_EINVAL, "native.%s is NULL; give both or neither",
                        h->lock_queue ? "unlock_queue" : "lock_queue");
    if (h->extras & ~(uint32_t)(FMK_VULKAN_EXTERNAL_MEMORY_HOST | FMK_VULKAN_SUBGROUP_SIZE_CONTROL |
                                FMK_VULKAN_COOPERATIVE_MATRIX | FMK_VULKAN_FLOAT16))
        return fmk_fail(FMK_EINVAL,
                        "native.extras 0x%x has bits that are none of EXTERNAL_MEMORY_HOST 1, "
                        "SUBGROUP_SIZE_CONTROL 2, COOPERATIVE_MATRIX 4 and FLOAT16 8",
                        h->extras);
    return FMK_OK;
}

static fmk_status check_family(const struct fmk_vulkan *vulkan, uint32_t family) {
    enum { MOST = 32 };
    VkQueueFamilyProperties all[MOST];
    uint32_t count = MOST;
    vulkan->vk.GetPhysicalDeviceQueueFamilyProperties(vulkan->physical, &count, all);
    if (family >= count || !(all[family].queueFlags & VK_QUEUE_COMPUTE_BIT))
        return fmk_fail(FMK_EINVAL, "native.queue_family %u %s", family,
                        family >= count ? "is none of the device's" : "does not compute");
    return FMK_OK;
}

static fmk_status open_given(struct fmk_context *ctx, const void *native) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    fmk_vulkan_device *h = &vulkan->handles;
    fmk_status status = read_handles(native, h);
    if (status)
        return status;
    vulkan->instance = h->instance;
    vulkan->physical = h->physical_device;
    vulkan->device = h->device;
    vulkan->queue = h->queue;
    ctx->info.device = -1;
    status = fmk_vk_open((PFN_vkGetInstanceProcAddr)h->get_instance_proc_addr, &vulkan->vk);
    if (!status)
        status = fmk_vk_open_instance(vulkan->instance, &vulkan->vk);
    if (status)
        return status;
    fmk_vk_device_ask(&vulkan->vk, vulkan->physical, &vulkan->info);
    if (!(h->extras & FMK_VULKAN_EXTERNAL_MEMORY_HOST))
        vulkan->info.import_alignment = 0;
    if (!(h->extras & FMK_VULKAN_SUBGROUP_SIZE_CONTROL))
        vulkan->info.subgroup = 0;
    if (!vulkan->info.subgroup || !(h->extras & FMK_VULKAN_COOPERATIVE_MATRIX))
        vulkan->info.coopmat = false;
    if (!(h->extras & FMK_VULKAN_FLOAT16))
        vulkan->info.float16 = false;
    status = fmk_vk_device_serves(&vulkan->info);
    if (!status)
        status = check_family(vulkan, h->queue_family);
    h->struct_size = sizeof *h;
    h->get_instance_proc_addr = (void (*)(void))vulkan->vk.GetInstanceProcAddr;
    return status ? status : fmk_vk_open_device(vulkan->device, &vulkan->vk);
}

/* ---- both ---- */

static uint64_t device_memory(const VkPhysicalDeviceMemoryProperties *memory) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < memory->memoryHeapCount; i++)
        if (memory->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            bytes += memory->memoryHeaps[i].size;
    return bytes;
}

fmk_status fmk_vk_device_open(struct fmk_context *ctx, const fmk_context_desc *desc) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    fmk_status status = desc->native ? open_given(ctx, desc->native) : open_own(ctx, desc);
    if (status)
        return status;
    vulkan->vk.GetPhysicalDeviceMemoryProperties(vulkan->physical, &vulkan->memory);
    if (vulkan->info.import_alignment && vulkan->vk.GetMemoryHostPointerPropertiesEXT)
        ctx->features |= FMK_VK_IMPORT;
    if (vulkan->info.subgroup)
        ctx->features |= FMK_VK_SUBGROUPS;
    if (vulkan->info.coopmat)
        ctx->features |= FMK_VK_COOPMAT;
    if (vulkan->info.float16)
        ctx->features |= FMK_VK_FLOAT16;
    ctx->features &= ~fmk_vk_features_of(desc->disable);
    fmk_context_info_t *info = &ctx->info;
    info->struct_size = sizeof *info;
    info->backend = FMK_BACKEND_VULKAN;
    info->memory = device_memory(&vulkan->memory);
    snprintf(info->name, sizeof info->name, "%.120s", vulkan->info.properties.deviceName);
    fmk_vk_feature_names(ctx->features, info->features, sizeof info->features);
    return FMK_OK;
}

void fmk_vk_device_close(struct fmk_context *ctx) {
    struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    if (!vulkan->owned || fmk_context_alive(ctx)) /* a forked child: the driver is the parent's */
        return;
    if (vulkan->device && vulkan->vk.DestroyDevice)
        vulkan->vk.DestroyDevice(vulkan->device, NULL);
    if (vulkan->vk.DestroyInstance)
        vulkan->vk.DestroyInstance(vulkan->instance, NULL);
}
