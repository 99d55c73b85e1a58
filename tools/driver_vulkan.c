/* A Vulkan device, the one that the library opened: see driver.h. The stream is a command buffer, into which
 * calls, copies and marks are recorded; a wait submits it. */
#include "driver.h"
#include "tool.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

static struct {
    PFN_vkGetPhysicalDeviceProperties GetPhysicalDeviceProperties;
    PFN_vkGetPhysicalDeviceMemoryProperties GetPhysicalDeviceMemoryProperties;
    PFN_vkCreateBuffer CreateBuffer;
    PFN_vkDestroyBuffer DestroyBuffer;
    PFN_vkGetBufferMemoryRequirements GetBufferMemoryRequirements;
    PFN_vkGetBufferDeviceAddress GetBufferDeviceAddress;
    PFN_vkAllocateMemory AllocateMemory;
    PFN_vkFreeMemory FreeMemory;
    PFN_vkBindBufferMemory BindBufferMemory;
    PFN_vkMapMemory MapMemory;
    PFN_vkCreateCommandPool CreateCommandPool;
    PFN_vkDestroyCommandPool DestroyCommandPool;
    PFN_vkAllocateCommandBuffers AllocateCommandBuffers;
    PFN_vkBeginCommandBuffer BeginCommandBuffer;
    PFN_vkEndCommandBuffer EndCommandBuffer;
    PFN_vkCmdCopyBuffer CmdCopyBuffer;
    PFN_vkCmdPipelineBarrier CmdPipelineBarrier;
    PFN_vkCmdResetQueryPool CmdResetQueryPool;
    PFN_vkCmdWriteTimestamp CmdWriteTimestamp;
    PFN_vkCreateQueryPool CreateQueryPool;
    PFN_vkDestroyQueryPool DestroyQueryPool;
    PFN_vkGetQueryPoolResults GetQueryPoolResults;
    PFN_vkCreateFence CreateFence;
    PFN_vkDestroyFence DestroyFence;
    PFN_vkResetFences ResetFences;
    PFN_vkWaitForFences WaitForFences;
    PFN_vkQueueSubmit QueueSubmit;
} vk;

#define FUNCTION(name)                                                                                       \
    { "vk" #name, &vk.name }

/* A buffer of its own for each piece of memory; its number is its address on the device. */
struct memory {
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t address, size;
    void *mapped; /* of the staging buffer alone */
};

static fmk_vulkan_device handles;
static VkPhysicalDeviceMemoryProperties types;
static double seconds_per_tick;
static VkCommandPool pool;
static VkCommandBuffer commands;
static VkFence fence;
static VkQueryPool queries;
static struct memory *all, staging;
static int count, room;

static void must(VkResult result, const char *what) {
    if (result)
        quit(EXIT_REFUSED, "%s: Vulkan answered %d", what, (int)result);
}

static void open_functions(void) {
    const struct {
        const char *name;
        void *function;
    } names[] = {
        FUNCTION(GetPhysicalDeviceProperties),
        FUNCTION(GetPhysicalDeviceMemoryProperties),
        FUNCTION(CreateBuffer),
        FUNCTION(DestroyBuffer),
        FUNCTION(GetBufferMemoryRequirements),
        FUNCTION(GetBufferDeviceAddress),
        FUNCTION(AllocateMemory),
        FUNCTION(FreeMemory),
        FUNCTION(BindBufferMemory),
        FUNCTION(MapMemory),
        FUNCTION(CreateCommandPool),
        FUNCTION(DestroyCommandPool),
        FUNCTION(AllocateCommandBuffers),
        FUNCTION(BeginCommandBuffer),
        FUNCTION(EndCommandBuffer),
        FUNCTION(CmdCopyBuffer),
        FUNCTION(CmdPipelineBarrier),
        FUNCTION(CmdResetQueryPool),
        FUNCTION(CmdWriteTimestamp),
        FUNCTION(CreateQueryPool),
        FUNCTION(DestroyQueryPool),
        FUNCTION(GetQueryPoolResults),
        FUNCTION(CreateFence),
        FUNCTION(DestroyFence),
        FUNCTION(ResetFences),
        FUNCTION(WaitForFences),
        FUNCTION(QueueSubmit),
    };
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr)handles.get_instance_proc_addr;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PFN_vkVoidFunction function = get(handles.instance, names[i].name);
        if (!function)
            quit(EXIT_REFUSED, "Vulkan has no %s here", names[i].name);
        memcpy(names[i].function, &function, sizeof function);
    }
}

/* ---- memory ---- */

static struct memory make(uint64_t bytes, VkMemoryPropertyFlags wanted) {
    struct memory made = {.size = bytes ? bytes : 1};
    VkBufferCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = made.size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    must(vk.CreateBuffer(handles.device, &create, NULL, &made.buffer), "a buffer");
    VkMemoryRequirements needs;
    vk.GetBufferMemoryRequirements(handles.device, made.buffer, &needs);
    uint32_t type = 0;
    while (type < types.memoryTypeCount && (!(needs.memoryTypeBits >> type & 1) ||
                                            (types.memoryTypes[type].propertyFlags & wanted) != wanted))
        type++;
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = &flags,
                                     .allocationSize = needs.size,
                                     .memoryTypeIndex = type};
    if (type == types.memoryTypeCount || vk.AllocateMemory(handles.device, &allocate, NULL, &made.memory))
        quit(EXIT_REFUSED, "no device memory for %s", human_bytes(bytes).text);
    must(vk.BindBufferMemory(handles.device, made.buffer, made.memory, 0), "binding a buffer");
    VkBufferDeviceAddressInfo asked = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                       .buffer = made.buffer};
    made.address = vk.GetBufferDeviceAddress(handles.device, &asked);
    return made;
}

static void drop(struct memory *memory) {
    vk.DestroyBuffer(handles.device, memory->buffer, NULL);
    vk.FreeMemory(handles.device, memory->memory, NULL);
    *memory = (struct memory){0};
}

static struct memory *find(uint64_t at) {
    for (int i = 0; i < count; i++)
        if (at >= all[i].address && at < all[i].address + all[i].size)
            return &all[i];
    quit(EXIT_REFUSED, "0x%llx is in no buffer", (unsigned long long)at);
}

static uint64_t vulkan_allocate(uint64_t bytes) {
    if (count == room) {
        room = 2 * room + 16;
        all = realloc(all, (size_t)room * sizeof *all);
        if (!all)
            quit(EXIT_REFUSED, "no memory");
    }
    all[count++] = make(bytes, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    return all[count - 1].address;
}

static void vulkan_free(uint64_t at) {
    struct memory *memory = find(at);
    drop(memory);
    *memory = all[--count];
}

static fmk_buffer vulkan_buffer(uint64_t at) {
    struct memory *memory = find(at);
    fmk_buffer buffer = {.offset = at - memory->address, .size = memory->size - (at - memory->address)};
    memcpy(&buffer.handle, &memory->buffer, sizeof memory->buffer);
    return buffer;
}

/* ---- the stream ---- */

static void begin(void) {
    VkCommandBufferBeginInfo once = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    must(vk.BeginCommandBuffer(commands, &once), "recording");
    /* Here, not in front of each mark: between two of them it would be timed. */
    vk.CmdResetQueryPool(commands, queries, 0, DRIVER_MARKS);
}

static void *vulkan_stream(void) {
    return commands;
}

static void vulkan_wait(void) {
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
    must(vk.EndCommandBuffer(commands), "recording");
    must(vk.QueueSubmit(handles.queue, 1, &submit, fence), "submitting");
    must(vk.WaitForFences(handles.device, 1, &fence, VK_TRUE, UINT64_MAX), "waiting for the device");
    must(vk.ResetFences(handles.device, 1, &fence), "waiting for the device");
    begin();
}

static void fence_all(void) {
    VkMemoryBarrier memory = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                              .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                              .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT};
    vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                          VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &memory, 0,
                          NULL, 0, NULL);
}

static void copy(VkBuffer to, uint64_t to_offset, VkBuffer from, uint64_t from_offset, uint64_t bytes) {
    VkBufferCopy region = {from_offset, to_offset, bytes};
    fence_all();
    vk.CmdCopyBuffer(commands, from, to, 1, &region);
    fence_all();
    vulkan_wait();
}

enum { STAGING = 64 << 20 };

static void vulkan_write(uint64_t to, const void *from, uint64_t bytes) {
    struct memory *memory = find(to);
    for (uint64_t done = 0, part; done < bytes; done += part) {
        part = bytes - done < STAGING ? bytes - done : STAGING;
        memcpy(staging.mapped, (const char *)from + done, part);
        copy(memory->buffer, to - memory->address + done, staging.buffer, 0, part);
    }
}

static void vulkan_read(void *to, uint64_t from, uint64_t bytes) {
    struct memory *memory = find(from);
    for (uint64_t done = 0, part; done < bytes; done += part) {
        part = bytes - done < STAGING ? bytes - done : STAGING;
        copy(staging.buffer, 0, memory->buffer, from - memory->address + done, part);
        memcpy((char *)to + done, staging.mapped, part);
    }
}

static void vulkan_mark(int i) {
    vk.CmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, (uint32_t)i);
}

static double vulkan_seconds(int from, int to) {
    uint64_t ticks[2];
    const int marks[2] = {from, to};
    for (int i = 0; i < 2; i++)
        must(vk.GetQueryPoolResults(handles.device, queries, (uint32_t)marks[i], 1, sizeof *ticks, &ticks[i],
                                    sizeof *ticks, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
             "a timestamp");
    return (double)(ticks[1] - ticks[0]) * seconds_per_tick;
}

/* ---- open and close ---- */

static void vulkan_open(fmk_context *context, int32_t device) {
    (void)device;
    handles = (fmk_vulkan_device){.struct_size = sizeof handles};
    check(fmk_context_vulkan(context, &handles), NULL);
    open_functions();
    VkPhysicalDeviceProperties properties;
    vk.GetPhysicalDeviceProperties(handles.physical_device, &properties);
    vk.GetPhysicalDeviceMemoryProperties(handles.physical_device, &types);
    seconds_per_tick = 1e-9 * (double)properties.limits.timestampPeriod;
    VkCommandPoolCreateInfo create_pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                           .queueFamilyIndex = handles.queue_family};
    must(vk.CreateCommandPool(handles.device, &create_pool, NULL, &pool), "a command pool");
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = pool,
                                            .commandBufferCount = 1};
    must(vk.AllocateCommandBuffers(handles.device, &allocate, &commands), "a command buffer");
    VkFenceCreateInfo create_fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    must(vk.CreateFence(handles.device, &create_fence, NULL, &fence), "a fence");
    VkQueryPoolCreateInfo create_queries = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                            .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                            .queryCount = DRIVER_MARKS};
    must(vk.CreateQueryPool(handles.device, &create_queries, NULL, &queries), "timestamps");
    staging = make(STAGING, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    must(vk.MapMemory(handles.device, staging.memory, 0, VK_WHOLE_SIZE, 0, &staging.mapped),
         "mapping memory");
    begin();
}

static void vulkan_close(void) {
    vulkan_wait();
    while (count)
        drop(&all[--count]);
    free(all);
    all = NULL;
    room = 0;
    drop(&staging);
    vk.DestroyQueryPool(handles.device, queries, NULL);
    vk.DestroyFence(handles.device, fence, NULL);
    vk.DestroyCommandPool(handles.device, pool, NULL);
}

const struct driver vulkan_driver = {
    .open = vulkan_open,
    .close = vulkan_close,
    .stream = vulkan_stream,
    .wait = vulkan_wait,
    .allocate = vulkan_allocate,
    .free = vulkan_free,
    .write = vulkan_write,
    .read = vulkan_read,
    .buffer = vulkan_buffer,
    .mark = vulkan_mark,
    .seconds = vulkan_seconds,
};
