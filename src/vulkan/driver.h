/* libvulkan, opened at run time: its functions, those of a context's instance and device among them. */
#ifndef FMK_VULKAN_DRIVER_H
#define FMK_VULKAN_DRIVER_H

#include "ferrumk.h"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h> /* types alone: nothing of it is linked */

/* Fields are named as the functions, without "vk". Each context has a table: a device's functions go to the
 * driver without the loader between. */
struct fmk_vk_functions {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;

    PFN_vkEnumerateInstanceVersion EnumerateInstanceVersion;
    PFN_vkCreateInstance CreateInstance;

    PFN_vkDestroyInstance DestroyInstance;
    PFN_vkEnumeratePhysicalDevices EnumeratePhysicalDevices;
    PFN_vkEnumerateDeviceExtensionProperties EnumerateDeviceExtensionProperties;
    PFN_vkGetPhysicalDeviceProperties2 GetPhysicalDeviceProperties2;
    PFN_vkGetPhysicalDeviceFeatures2 GetPhysicalDeviceFeatures2;
    PFN_vkGetPhysicalDeviceMemoryProperties GetPhysicalDeviceMemoryProperties;
    PFN_vkGetPhysicalDeviceQueueFamilyProperties GetPhysicalDeviceQueueFamilyProperties;
    PFN_vkCreateDevice CreateDevice;
    PFN_vkGetDeviceProcAddr GetDeviceProcAddr;

    PFN_vkDestroyDevice DestroyDevice;
    PFN_vkGetDeviceQueue GetDeviceQueue;
    PFN_vkQueueSubmit QueueSubmit;
    PFN_vkCreateFence CreateFence;
    PFN_vkDestroyFence DestroyFence;
    PFN_vkResetFences ResetFences;
    PFN_vkWaitForFences WaitForFences;
    PFN_vkCreateBuffer CreateBuffer;
    PFN_vkDestroyBuffer DestroyBuffer;
    PFN_vkGetBufferMemoryRequirements GetBufferMemoryRequirements;
    PFN_vkGetBufferDeviceAddress GetBufferDeviceAddress;
    PFN_vkAllocateMemory AllocateMemory;
    PFN_vkFreeMemory FreeMemory;
    PFN_vkBindBufferMemory BindBufferMemory;
    PFN_vkMapMemory MapMemory;
    PFN_vkCreateShaderModule CreateShaderModule;
    PFN_vkDestroyShaderModule DestroyShaderModule;
    PFN_vkCreatePipelineLayout CreatePipelineLayout;
    PFN_vkDestroyPipelineLayout DestroyPipelineLayout;
    PFN_vkCreatePipelineCache CreatePipelineCache;
    PFN_vkDestroyPipelineCache DestroyPipelineCache;
    PFN_vkGetPipelineCacheData GetPipelineCacheData;
    PFN_vkCreateComputePipelines CreateComputePipelines;
    PFN_vkDestroyPipeline DestroyPipeline;
    PFN_vkCreateCommandPool CreateCommandPool;
    PFN_vkDestroyCommandPool DestroyCommandPool;
    PFN_vkAllocateCommandBuffers AllocateCommandBuffers;
    PFN_vkBeginCommandBuffer BeginCommandBuffer;
    PFN_vkEndCommandBuffer EndCommandBuffer;
    PFN_vkCmdPipelineBarrier CmdPipelineBarrier;
    PFN_vkCmdBindPipeline CmdBindPipeline;
    PFN_vkCmdPushConstants CmdPushConstants;
    PFN_vkCmdDispatch CmdDispatch;

    PFN_vkGetMemoryHostPointerPropertiesEXT GetMemoryHostPointerPropertiesEXT; /* or NULL */
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesNV
        GetPhysicalDeviceCooperativeMatrixPropertiesNV; /* or NULL */
};

/* What can be asked without an instance. `get`: the caller's, or NULL: the process's libvulkan, opened on
 * first use; ENODEVICE with a sentence where there is none. */
fmk_status fmk_vk_open(PFN_vkGetInstanceProcAddr get, struct fmk_vk_functions *out);
/* An instance's functions, then a device's. */
fmk_status fmk_vk_open_instance(VkInstance instance, struct fmk_vk_functions *vk);
fmk_status fmk_vk_open_device(VkDevice device, struct fmk_vk_functions *vk);

/* "VK_ERROR_DEVICE_LOST" and so on. */
const char *fmk_vk_result_name(VkResult result);

#endif
