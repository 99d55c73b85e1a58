/* Opens libvulkan once per process and fills in tables. Nothing happens before the first context is made. */
#include "driver.h"

#include "../error.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct function {
    const char *name;
    size_t offset;
};

#define FUNCTION(name)                                                                                       \
    { "vk" #name, offsetof(struct fmk_vk_functions, name) }
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct function of_nothing[] = {
    FUNCTION(EnumerateInstanceVersion),
    FUNCTION(CreateInstance),
};
static const struct function of_instance[] = {
    FUNCTION(DestroyInstance),
    FUNCTION(EnumeratePhysicalDevices),
    FUNCTION(EnumerateDeviceExtensionProperties),
    FUNCTION(GetPhysicalDeviceProperties2),
    FUNCTION(GetPhysicalDeviceFeatures2),
    FUNCTION(GetPhysicalDeviceMemoryProperties),
    FUNCTION(GetPhysicalDeviceQueueFamilyProperties),
    FUNCTION(CreateDevice),
    FUNCTION(GetDeviceProcAddr),
};
static const struct function of_device[] = {
    FUNCTION(DestroyDevice),
    FUNCTION(GetDeviceQueue),
    FUNCTION(QueueSubmit),
    FUNCTION(CreateFence),
    FUNCTION(DestroyFence),
    FUNCTION(ResetFences),
    FUNCTION(WaitForFences),
    FUNCTION(CreateBuffer),
    FUNCTION(DestroyBuffer),
    FUNCTION(GetBufferMemoryRequirements),
    FUNCTION(GetBufferDeviceAddress),
    FUNCTION(AllocateMemory),
    FUNCTION(FreeMemory),
    FUNCTION(BindBufferMemory),
    FUNCTION(MapMemory),
    FUNCTION(CreateShaderModule),
    FUNCTION(DestroyShaderModule),
    FUNCTION(CreatePipelineLayout),
    FUNCTION(DestroyPipelineLayout),
    FUNCTION(CreatePipelineCache),
    FUNCTION(DestroyPipelineCache),
    FUNCTION(GetPipelineCacheData),
    FUNCTION(CreateComputePipelines),
    FUNCTION(DestroyPipeline),
    FUNCTION(CreateCommandPool),
    FUNCTION(DestroyCommandPool),
    FUNCTION(AllocateCommandBuffers),
    FUNCTION(BeginCommandBuffer),
    FUNCTION(EndCommandBuffer),
    FUNCTION(CmdPipelineBarrier),
    FUNCTION(CmdBindPipeline),
    FUNCTION(CmdPushConstants),
    FUNCTION(CmdDispatch),
};

static PFN_vkGetInstanceProcAddr loader;
static char why_not[256]; /* "" = there is a loader */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_once(void) {
    void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(why_not, sizeof why_not, "no Vulkan here: %s", error ? error : "libvulkan.so.1");
        return;
    }
    *(void **)&loader = dlsym(library, "vkGetInstanceProcAddr");
    if (!loader)
        snprintf(why_not, sizeof why_not, "libvulkan.so.1 has no vkGetInstanceProcAddr");
}

static fmk_status missing(const char *name) {
    return fmk_fail(FMK_ENODEVICE, "Vulkan has no %s here; needed is Vulkan 1.2 or later", name);
}

static void set(struct fmk_vk_functions *vk, const struct function *to, PFN_vkVoidFunction function) {
    memcpy((char *)vk + to->offset, &function, sizeof function);
}

fmk_status fmk_vk_open(PFN_vkGetInstanceProcAddr get, struct fmk_vk_functions *out) {
    if (!get) {
        pthread_once(&once, open_once);
        if (why_not[0])
            return fmk_fail(FMK_ENODEVICE, "%s", why_not);
        get = loader;
    }
    memset(out, 0, sizeof *out);
    out->GetInstanceProcAddr = get;
    for (size_t i = 0; i < COUNT(of_nothing); i++) {
        PFN_vkVoidFunction function = get(NULL, of_nothing[i].name);
        if (!function)
            return missing(of_nothing[i].name);
        set(out, &of_nothing[i], function);
    }
    return FMK_OK;
}

fmk_status fmk_vk_open_instance(VkInstance instance, struct fmk_vk_functions *vk) {
    static const struct function coopmat = FUNCTION(GetPhysicalDeviceCooperativeMatrixPropertiesNV);
    for (size_t i = 0; i < COUNT(of_instance); i++) {
        PFN_vkVoidFunction function = vk->GetInstanceProcAddr(instance, of_instance[i].name);
        if (!function)
            return missing(of_instance[i].name);
        set(vk, &of_instance[i], function);
    }
    set(vk, &coopmat, vk->GetInstanceProcAddr(instance, coopmat.name));
    return FMK_OK;
}

fmk_status fmk_vk_open_device(VkDevice device, struct fmk_vk_functions *vk) {
    static const struct function import = FUNCTION(GetMemoryHostPointerPropertiesEXT);
    for (size_t i = 0; i < COUNT(of_device); i++) {
        PFN_vkVoidFunction function = vk->GetDeviceProcAddr(device, of_device[i].name);
        if (!function)
            return missing(of_device[i].name);
        set(vk, &of_device[i], function);
    }
    set(vk, &import, vk->GetDeviceProcAddr(device, import.name));
    return FMK_OK;
}

const char *fmk_vk_result_name(VkResult result) {
    switch (result) {
    case VK_NOT_READY:
        return "VK_NOT_READY";
    case VK_TIMEOUT:
        return "VK_TIMEOUT";
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "VK_ERROR_OUT_OF_HOST_MEMORY";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "VK_ERROR_INITIALIZATION_FAILED";
    case VK_ERROR_DEVICE_LOST:
        return "VK_ERROR_DEVICE_LOST";
    case VK_ERROR_MEMORY_MAP_FAILED:
        return "VK_ERROR_MEMORY_MAP_FAILED";
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "VK_ERROR_LAYER_NOT_PRESENT";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "VK_ERROR_EXTENSION_NOT_PRESENT";
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return "VK_ERROR_FEATURE_NOT_PRESENT";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "VK_ERROR_INCOMPATIBLE_DRIVER";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "VK_ERROR_TOO_MANY_OBJECTS";
    case VK_ERROR_INVALID_EXTERNAL_HANDLE:
        return "VK_ERROR_INVALID_EXTERNAL_HANDLE";
    case VK_ERROR_INVALID_SHADER_NV:
        return "VK_ERROR_INVALID_SHADER_NV";
    default:
        return "an error of another kind";
    }
}
