/* For tests of the Vulkan backend alone: the device of the tests, and libvulkan's functions, without "vk". */
#ifndef DEVICE_VULKAN_H
#define DEVICE_VULKAN_H

#include "ferrumk.h"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

struct vulkan_functions {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
    PFN_vkEnumeratePhysicalDevices EnumeratePhysicalDevices;
    PFN_vkGetPhysicalDeviceMemoryProperties GetPhysicalDeviceMemoryProperties;
    PFN_vkGetPhysicalDeviceQueueFamilyProperties GetPhysicalDeviceQueueFamilyProperties;
    PFN_vkGetPhysicalDeviceFeatures2 GetPhysicalDeviceFeatures2;
    PFN_vkEnumerateDeviceExtensionProperties EnumerateDeviceExtensionProperties;
    PFN_vkCreateDevice CreateDevice;
    PFN_vkGetDeviceQueue GetDeviceQueue;
    PFN_vkCreateBuffer CreateBuffer;
    PFN_vkDestroyBuffer DestroyBuffer;
    PFN_vkGetBufferMemoryRequirements GetBufferMemoryRequirements;
    PFN_vkGetBufferDeviceAddress GetBufferDeviceAddress;
    PFN_vkAllocateMemory AllocateMemory;
    PFN_vkFreeMemory FreeMemory;
    PFN_vkBindBufferMemory BindBufferMemory;
    PFN_vkMapMemory MapMemory;
    PFN_vkCreateCommandPool CreateCommandPool;
    PFN_vkAllocateCommandBuffers AllocateCommandBuffers;
    PFN_vkBeginCommandBuffer BeginCommandBuffer;
    PFN_vkEndCommandBuffer EndCommandBuffer;
    PFN_vkCreateFence CreateFence;
    PFN_vkResetFences ResetFences;
    PFN_vkWaitForFences WaitForFences;
    PFN_vkQueueSubmit QueueSubmit;
};

/* After the first on_gpu(). */
const fmk_vulkan_device *vulkan_handles(void);
const struct vulkan_functions *vulkan_functions(void);
/* Ends the program where `result` is not 0. */
void vulkan_ok(VkResult result, const char *call, const char *file, int line);

#endif
