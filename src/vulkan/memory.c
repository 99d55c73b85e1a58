#include "memory.h"

#include "../error.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull;

enum {
    USAGE = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
            VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT
};

/* Of the types that `allowed` has a bit for, the first that has all of `wanted`; -1 = none. */
static int32_t find_type(const struct fmk_vulkan *vulkan, uint32_t allowed, VkMemoryPropertyFlags wanted) {
    for (uint32_t i = 0; i < vulkan->memory.memoryTypeCount; i++)
        if (allowed >> i & 1 && (vulkan->memory.memoryTypes[i].propertyFlags & wanted) == wanted)
            return (int32_t)i;
    return -1;
}

static int32_t choose_type(const struct fmk_vulkan *vulkan, uint32_t allowed, bool host) {
    const VkMemoryPropertyFlags reached =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    int32_t type = host ? find_type(vulkan, allowed, reached | VK_MEMORY_PROPERTY_HOST_CACHED_BIT)
                        : find_type(vulkan, allowed, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    return type < 0 ? find_type(vulkan, allowed, host ? reached : 0) : type;
}

static fmk_status make_buffer(const struct fmk_context *ctx, const void *next, uint64_t size,
                              struct fmk_vk_buffer *out, VkMemoryRequirements *needs) {
    const struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    VkBufferCreateInfo create = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                 .pNext = next,
                                 .size = size,
                                 .usage = USAGE,
                                 .sharingMode = VK_SHARING_MODE_EXCLUSIVE};
    fmk_status status = fmk_vk_check(
        ctx, vulkan->vk.CreateBuffer(vulkan->device, &create, NULL, &out->buffer), "making a VkBuffer");
    if (!status)
        vulkan->vk.GetBufferMemoryRequirements(vulkan->device, out->buffer, needs);
    else
        out->buffer = VK_NULL_HANDLE;
    return status;
}

/* Gives the buffer its memory and asks for its address. */
static VkResult bind(const struct fmk_vulkan *vulkan, const void *next, uint64_t size, uint32_t type,
                     struct fmk_vk_buffer *out) {
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .pNext = next,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = &flags,
                                     .allocationSize = size,
                                     .memoryTypeIndex = type};
    VkResult result = vulkan->vk.AllocateMemory(vulkan->device, &allocate, NULL, &out->memory);
    if (result) {
        out->memory = VK_NULL_HANDLE; /* whatever a driver leaves there */
        return result;
    }
    result = vulkan->vk.BindBufferMemory(vulkan->device, out->buffer, out->memory, 0);
    if (result)
        return result;
    VkBufferDeviceAddressInfo asked = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                       .buffer = out->buffer};
    out->address = vulkan->vk.GetBufferDeviceAddress(vulkan->device, &asked);
    return VK_SUCCESS;
}

fmk_status fmk_vk_buffer_make(const struct fmk_context *ctx, uint64_t size, bool host, const char *what,
                              struct fmk_vk_buffer *out) {
    const struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    VkMemoryRequirements needs;
    memset(out, 0, sizeof *out);
    out->size = size;
    if (size > vulkan->info.most_allocation)
        return fmk_fail(FMK_EUNSUPPORTED,
                        "%s: %llu bytes; maxMemoryAllocationSize of this device is %llu: make fewer parts, "
                        "or fewer rows, one weight",
                        what, (ull)size, (ull)vulkan->info.most_allocation);
    fmk_status status = make_buffer(ctx, NULL, size, out, &needs);
    if (status)
        return status;
    int32_t type = choose_type(vulkan, needs.memoryTypeBits, host);
    VkResult result =
        type < 0 ? VK_ERROR_OUT_OF_DEVICE_MEMORY : bind(vulkan, NULL, needs.size, (uint32_t)type, out);
    if (!result && host)
        result = vulkan->vk.MapMemory(vulkan->device, out->memory, 0, VK_WHOLE_SIZE, 0, &out->mapped);
    if (!result)
        return FMK_OK;
    fmk_vk_buffer_free(ctx, out);
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY)
        return fmk_no_memory(size, what);
    return fmk_vk_check(ctx, result, what);
}

/* Whether all of begin .. end-1 is memory of the process alone, which it may write. */
static bool is_own_memory(uint64_t begin, uint64_t end) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[256], access[5];
    ull from, to;
    while (maps && begin < end && fgets(line, sizeof line, maps))
        if (sscanf(line, "%llx-%llx %4s", &from, &to, access) == 3 && from <= begin && begin < to) {
            if (strcmp(access, "rw-p") && strcmp(access, "rwxp"))
                break;
            begin = to;
        }
    if (maps)
        fclose(maps);
    return begin >= end;
}

fmk_status fmk_vk_buffer_import(const struct fmk_context *ctx, const void *at, uint64_t size,
                                struct fmk_vk_buffer *out) {
    const struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    uint64_t align = vulkan->info.import_alignment, begin = (uintptr_t)at / align * align;
    uint64_t end = ((uintptr_t)at + size + align - 1) / align * align;
    const VkExternalMemoryHandleTypeFlagBits handle = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
    VkMemoryHostPointerPropertiesEXT pages = {.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
    memset(out, 0, sizeof *out);
    out->size = end - begin;
    /* NVIDIA's driver (580) takes no other memory, and has none of the device anymore once it has refused
     * some. */
    if (vulkan->info.properties12.driverID == VK_DRIVER_ID_NVIDIA_PROPRIETARY && !is_own_memory(begin, end))
        return fmk_fail(FMK_EUNSUPPORTED,
                        "importing host memory: the driver takes private pages that can be written");
    VkResult result = vulkan->vk.GetMemoryHostPointerPropertiesEXT(vulkan->device, handle,
                                                                   (const void *)(uintptr_t)begin, &pages);
    if (result)
        return fmk_fail(FMK_EUNSUPPORTED, "importing host memory: %s", fmk_vk_result_name(result));
    VkExternalMemoryBufferCreateInfo external = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = handle};
    VkImportMemoryHostPointerInfoEXT import = {.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
                                               .handleType = handle,
                                               .pHostPointer = (void *)(uintptr_t)begin};
    VkMemoryRequirements needs;
    fmk_status status = make_buffer(ctx, &external, out->size, out, &needs);
    if (status)
        return status;
    int32_t type = find_type(vulkan, needs.memoryTypeBits & pages.memoryTypeBits, 0);
    result =
        type < 0 ? VK_ERROR_INVALID_EXTERNAL_HANDLE : bind(vulkan, &import, out->size, (uint32_t)type, out);
    if (result) {
        fmk_vk_buffer_free(ctx, out);
        return result == VK_ERROR_DEVICE_LOST
                   ? fmk_vk_check(ctx, result, "importing host memory")
                   : fmk_fail(FMK_EUNSUPPORTED, "importing host memory: %s", fmk_vk_result_name(result));
    }
    out->address += (uintptr_t)at - begin;
    return FMK_OK;
}

void fmk_vk_buffer_free(const struct fmk_context *ctx, struct fmk_vk_buffer *buffer) {
    const struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    if (buffer->buffer)
        vulkan->vk.DestroyBuffer(vulkan->device, buffer->buffer, NULL);
    if (buffer->memory)
        vulkan->vk.FreeMemory(vulkan->device, buffer->memory, NULL);
    memset(buffer, 0, sizeof *buffer);
}

uint64_t fmk_vk_address(const struct fmk_context *ctx, uint64_t handle) {
    const struct fmk_vulkan *vulkan = fmk_vulkan_of(ctx);
    VkBufferDeviceAddressInfo asked = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO};
    memcpy(&asked.buffer, &handle, sizeof asked.buffer); /* a pointer on some machines, a number on others */
    return vulkan->vk.GetBufferDeviceAddress(vulkan->device, &asked);
}
