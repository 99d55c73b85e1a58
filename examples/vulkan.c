/* ferrumk on any GPU that speaks Vulkan 1.2, as an engine uses it: its own instance, device, buffers and
 * command buffers. The program quantizes its weight itself, records one projection, and submits it for two
 * batches of tokens; it checks the results against plain loops and exits with 1 when they disagree. */
#include <ferrumk.h>
#include <vulkan/vulkan.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1024, K = 512, MOST_TOKENS = 8 };

static void check(fmk_status status, const char *what) {
    if (status) {
        fprintf(stderr, "%s: %s: %s\n", what, fmk_status_name(status), fmk_last_error());
        exit(1);
    }
}

static void check_vk(VkResult result, const char *what) {
    if (result) {
        fprintf(stderr, "%s: VkResult %d\n", what, (int)result);
        exit(1);
    }
}

static VkPhysicalDevice physical;
static VkDevice device;

/* The engine's device: what ferrumk needs of it is enabled, beside whatever the engine itself wants. */
static void make_device(VkInstance instance, uint32_t *family) {
    uint32_t count = 1;
    vkEnumeratePhysicalDevices(instance, &count, &physical);
    if (!count) {
        fprintf(stderr, "no Vulkan device here\n");
        exit(1);
    }
    VkQueueFamilyProperties families[16];
    uint32_t num_families = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &num_families, families);
    for (*family = 0; !(families[*family].queueFlags & VK_QUEUE_COMPUTE_BIT);)
        ++*family;
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = *family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkPhysicalDeviceVulkan12Features features12 = {.sType =
                                                       VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                                   .bufferDeviceAddress = VK_TRUE,
                                                   .storageBuffer8BitAccess = VK_TRUE};
    VkPhysicalDeviceVulkan11Features features11 = {.sType =
                                                       VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
                                                   .pNext = &features12,
                                                   .storageBuffer16BitAccess = VK_TRUE};
    VkDeviceCreateInfo create = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                 .pNext = &features11,
                                 .queueCreateInfoCount = 1,
                                 .pQueueCreateInfos = &queue,
                                 .pEnabledFeatures = &(VkPhysicalDeviceFeatures){.shaderInt64 = VK_TRUE}};
    check_vk(vkCreateDevice(physical, &create, NULL, &device), "vkCreateDevice");
}

/* Memory that the host reaches too, so that the program stays short. */
struct memory {
    VkBuffer buffer;
    VkDeviceMemory memory;
    void *mapped;
    fmk_buffer told; /* as ferrumk is told of it */
};

static struct memory make_memory(uint64_t size) {
    struct memory m;
    VkBufferCreateInfo create = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                 .size = size,
                                 .usage = VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                                          VK_BUFFER_USAGE_STORAGE_BUFFER_BIT};
    check_vk(vkCreateBuffer(device, &create, NULL, &m.buffer), "vkCreateBuffer");
    VkMemoryRequirements needs;
    VkPhysicalDeviceMemoryProperties types;
    vkGetBufferMemoryRequirements(device, m.buffer, &needs);
    vkGetPhysicalDeviceMemoryProperties(physical, &types);
    const uint32_t wanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    uint32_t type = 0;
    while (!(needs.memoryTypeBits >> type & 1) || (types.memoryTypes[type].propertyFlags & wanted) != wanted)
        type++;
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = &flags,
                                     .allocationSize = needs.size,
                                     .memoryTypeIndex = type};
    check_vk(vkAllocateMemory(device, &allocate, NULL, &m.memory), "vkAllocateMemory");
    check_vk(vkBindBufferMemory(device, m.buffer, m.memory, 0), "vkBindBufferMemory");
    check_vk(vkMapMemory(device, m.memory, 0, VK_WHOLE_SIZE, 0, &m.mapped), "vkMapMemory");
    m.told = (fmk_buffer){.size = size};
    memcpy(&m.told.handle, &m.buffer, sizeof m.buffer); /* a VkBuffer is a pointer here, a number there */
    return m;
}

static void free_memory(struct memory *m) {
    vkDestroyBuffer(device, m->buffer, NULL);
    vkFreeMemory(device, m->memory, NULL);
}

static float random_value(void) { /* uniform in -1..1 */
    return (float)rand() / (float)RAND_MAX * 2 - 1;
}

int main(void) {
    static float values[N * K];

    VkInstance instance;
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                     .apiVersion = VK_API_VERSION_1_2};
    VkInstanceCreateInfo create_instance = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                            .pApplicationInfo = &application};
    check_vk(vkCreateInstance(&create_instance, NULL, &instance), "vkCreateInstance");
    uint32_t family;
    VkQueue vk_queue;
    make_device(instance, &family);
    vkGetDeviceQueue(device, family, 0, &vk_queue);

    /* ferrumk in that world. The queue submits by itself, until it is given a command buffer. */
    fmk_vulkan_device native = {.struct_size = sizeof native,
                                .queue_family = family,
                                .instance = instance,
                                .physical_device = physical,
                                .device = device,
                                .queue = vk_queue};
    fmk_context *ctx;
    fmk_queue *queue;
    fmk_context_desc context_desc = {
        .struct_size = sizeof context_desc, .backend = FMK_BACKEND_VULKAN, .native = &native};
    check(fmk_context_create(&ctx, &context_desc), "context_create");
    check(fmk_queue_create(&queue, ctx, NULL), "queue_create");

    /* A weight, from host memory: an engine has a part from fmk_checkpoint_find. It is on the device when the
     * call returns. */
    for (int i = 0; i < N * K; i++)
        values[i] = random_value() / sqrtf(K);
    fmk_quantize_args quantize = {.struct_size = sizeof quantize,
                                  .format = FMK_FORMAT_Q4_K,
                                  .n = N,
                                  .k = K,
                                  .in_type = FMK_F32,
                                  .in = values};
    uint64_t size, none;
    check(fmk_quantize_size(&quantize, &size, &none, &none), "quantize_size");
    void *blocks = quantize.qweight = malloc(size);
    check(fmk_quantize(ctx, &quantize), "quantize");
    fmk_part part = {.struct_size = sizeof part, .format = FMK_FORMAT_Q4_K, .n = N, .k = K};
    part.qweight.data = (fmk_buffer){.handle = (uintptr_t)blocks, .size = size};
    fmk_weight_desc weight_desc = {.struct_size = sizeof weight_desc, .parts = &part, .num_parts = 1};
    fmk_weight *weight;
    check(fmk_weight_create(&weight, queue, &weight_desc), "weight_create");
    free(blocks);

    /* What a call looks like, with as many tokens as there can be, and the pipelines that it wants. */
    struct memory in = make_memory(MOST_TOKENS * K * 4), out = make_memory(MOST_TOKENS * N * 4);
    struct memory m_dev = make_memory(4), w = make_memory((uint64_t)N * K * 4);
    fmk_linear_args args = {.struct_size = sizeof args,
                            .m = MOST_TOKENS,
                            .in_type = FMK_F32,
                            .out_type = FMK_F32,
                            .in = in.told,
                            .out = out.told,
                            .m_dev = m_dev.told};
    uint64_t least, best;
    check(fmk_workspace_size(weight, &args, &least, &best), "workspace_size");
    struct memory workspace = make_memory(best ? best : 256);
    args.workspace = workspace.told;
    check(fmk_prepare(queue, weight, &args), "prepare");

    /* What the result should be: plain loops over the dequantized weight. */
    check(fmk_weight_dequantize(queue, weight, 0, &w.told, FMK_F32, 0), "weight_dequantize");
    check(fmk_queue_wait(queue), "queue_wait");

    /* From here on a call only records. */
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkCommandPoolCreateInfo create_pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .queueFamilyIndex = family};
    check_vk(vkCreateCommandPool(device, &create_pool, NULL, &pool), "vkCreateCommandPool");
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = pool,
                                            .commandBufferCount = 1};
    check_vk(vkAllocateCommandBuffers(device, &allocate, &commands), "vkAllocateCommandBuffers");
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    check_vk(vkBeginCommandBuffer(commands, &begin), "vkBeginCommandBuffer");
    check(fmk_queue_rebind(queue, commands), "queue_rebind");
    check(fmk_linear(queue, weight, &args), "linear");
    check_vk(vkEndCommandBuffer(commands), "vkEndCommandBuffer");

    /* For every batch of tokens: their number is read on the device. */
    double worst = 0;
    for (int32_t m = 1; m <= MOST_TOKENS; m += MOST_TOKENS - 1) {
        float *x = in.mapped, *y = out.mapped, *weights = w.mapped;
        for (int i = 0; i < m * K; i++)
            x[i] = random_value();
        memcpy(m_dev.mapped, &m, sizeof m);
        VkSubmitInfo submit = {
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
        check_vk(vkQueueSubmit(vk_queue, 1, &submit, VK_NULL_HANDLE), "vkQueueSubmit");
        check_vk(vkQueueWaitIdle(vk_queue), "vkQueueWaitIdle");

        double error = 0, norm = 0;
        for (int i = 0; i < m * N; i++) {
            double want = 0;
            for (int k = 0; k < K; k++)
                want += (double)x[i / N * K + k] * (double)weights[i % N * K + k];
            error += pow((double)y[i] - want, 2);
            norm += pow(want, 2);
        }
        printf("%d tokens: relative error %.2g\n", m, sqrt(error / norm));
        worst = fmax(worst, sqrt(error / norm));
    }

    fmk_weight_destroy(weight, queue);
    fmk_queue_destroy(queue);
    fmk_context_destroy(ctx);
    struct memory *all[] = {&in, &out, &m_dev, &w, &workspace};
    for (int i = 0; i < 5; i++)
        free_memory(all[i]);
    vkDestroyCommandPool(device, pool, NULL);
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    return worst < 1e-5 ? 0 : 1;
}
