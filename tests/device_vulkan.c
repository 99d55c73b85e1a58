/* A Vulkan device of the tests' own for device.c: contexts work in it as in an engine's. With the validation
 * layer, where that is installed, synchronization included; a message of it ends the program.
 *
 * FERRUMK_TEST_VALIDATION=0 leaves the layer out, =1 insists on it. FERRUMK_TEST_RECORD=1: calls are recorded
 * into a command buffer of the test's, which is submitted when the test waits. */
#include "device.h"
#include "device_gpu.h"
#include "device_vulkan.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct vulkan_functions vk;
static fmk_vulkan_device handles;
static VkPhysicalDeviceMemoryProperties memory_types;
static VkCommandBuffer recorded; /* or NULL */
static VkFence fence;

void vulkan_ok(VkResult result, const char *call, const char *file, int line) {
    if (!result)
        return;
    fprintf(stderr, "%s:%d: vk%s: %d\n", file, line, call, (int)result);
    exit(1);
}
#define VK(call) vulkan_ok(vk.call, #call, __FILE__, __LINE__)

static bool told(const char *name, const char *value) {
    const char *is = getenv(name);
    return is && !strcmp(is, value);
}

static void skip(const char *why) {
    printf("SKIPPED: no Vulkan device: %s\n", why);
    exit(77);
}

/* ---- functions ---- */

#define FUNCTION(name)                                                                                       \
    { "vk" #name, offsetof(struct vulkan_functions, name) }

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
    FUNCTION(EnumeratePhysicalDevices),
    FUNCTION(GetPhysicalDeviceMemoryProperties),
    FUNCTION(GetPhysicalDeviceQueueFamilyProperties),
    FUNCTION(GetPhysicalDeviceFeatures2),
    FUNCTION(EnumerateDeviceExtensionProperties),
    FUNCTION(CreateDevice),
    FUNCTION(GetDeviceQueue),
    FUNCTION(CreateBuffer),
    FUNCTION(DestroyBuffer),
    FUNCTION(GetBufferMemoryRequirements),
    FUNCTION(GetBufferDeviceAddress),
    FUNCTION(AllocateMemory),
    FUNCTION(FreeMemory),
    FUNCTION(BindBufferMemory),
    FUNCTION(MapMemory),
    FUNCTION(CreateCommandPool),
    FUNCTION(AllocateCommandBuffers),
    FUNCTION(BeginCommandBuffer),
    FUNCTION(EndCommandBuffer),
    FUNCTION(CreateFence),
    FUNCTION(ResetFences),
    FUNCTION(WaitForFences),
    FUNCTION(QueueSubmit),
};

static void open_functions(VkInstance instance) {
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        PFN_vkVoidFunction found = vk.GetInstanceProcAddr(instance, functions[i].name);
        if (!found) {
            fprintf(stderr, "libvulkan.so.1 has no %s\n", functions[i].name);
            exit(1);
        }
        memcpy((char *)&vk + functions[i].offset, &found, sizeof found);
    }
}

/* ---- instance ---- */

static const char *const layer = "VK_LAYER_KHRONOS_validation";

static bool has_layer(void) {
    PFN_vkEnumerateInstanceLayerProperties enumerate;
    enumerate = (PFN_vkEnumerateInstanceLayerProperties)vk.GetInstanceProcAddr(
        NULL, "vkEnumerateInstanceLayerProperties");
    enum { MOST = 64 };
    VkLayerProperties all[MOST];
    uint32_t count = MOST;
    if (told("FERRUMK_TEST_VALIDATION", "0") || enumerate(&count, all) < 0)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!strcmp(all[i].layerName, layer))
            return true;
    if (told("FERRUMK_TEST_VALIDATION", "1")) {
        fprintf(stderr, "FERRUMK_TEST_VALIDATION is 1, and %s is not installed\n", layer);
        exit(1);
    }
    return false;
}

static VkBool32 VKAPI_PTR message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                  VkDebugUtilsMessageTypeFlagsEXT types,
                                  const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    (void)severity, (void)types, (void)user;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    abort();
}

static VkInstance make_instance(void) {
    VkValidationFeatureEnableEXT enabled[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    VkValidationFeaturesEXT validation = {.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                          .enabledValidationFeatureCount = 1,
                                          .pEnabledValidationFeatures = enabled};
    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .pNext = &validation,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType =
            VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = message,
    };
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                     .apiVersion = VK_API_VERSION_1_2};
    const char *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    bool validate = has_layer();
    VkInstanceCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validate ? &messenger : NULL,
        .pApplicationInfo = &application,
        .enabledLayerCount = validate,
        .ppEnabledLayerNames = &layer,
        .enabledExtensionCount = validate ? 2 : 0,
        .ppEnabledExtensionNames = extensions,
    };
    PFN_vkCreateInstance create_instance;
    create_instance = (PFN_vkCreateInstance)vk.GetInstanceProcAddr(NULL, "vkCreateInstance");
    VkInstance instance;
    VkResult result = create_instance(&create, NULL, &instance);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        skip("libvulkan finds no driver");
    vulkan_ok(result, "CreateInstance", __FILE__, __LINE__);
    if (validate) {
        PFN_vkCreateDebugUtilsMessengerEXT create_messenger;
        create_messenger = (PFN_vkCreateDebugUtilsMessengerEXT)vk.GetInstanceProcAddr(
            instance, "vkCreateDebugUtilsMessengerEXT");
        VkDebugUtilsMessengerEXT made;
        messenger.pNext = NULL;
        vulkan_ok(create_messenger(instance, &messenger, NULL, &made), "CreateDebugUtilsMessengerEXT",
                  __FILE__, __LINE__);
    }
    return instance;
}

/* ---- device ---- */

static bool has_extension(VkPhysicalDevice physical, const char *name) {
    uint32_t count = 0;
    bool found = false;
    VK(EnumerateDeviceExtensionProperties(physical, NULL, &count, NULL));
    VkExtensionProperties *all = calloc(count + 1, sizeof *all);
    VK(EnumerateDeviceExtensionProperties(physical, NULL, &count, all));
    for (uint32_t i = 0; i < count; i++)
        found |= !strcmp(all[i].extensionName, name);
    free(all);
    return found;
}

static uint32_t compute_family(VkPhysicalDevice physical) {
    enum { MOST = 32 };
    VkQueueFamilyProperties all[MOST];
    uint32_t count = MOST, i = 0;
    vk.GetPhysicalDeviceQueueFamilyProperties(physical, &count, all);
    while (i < count && !(all[i].queueFlags & VK_QUEUE_COMPUTE_BIT))
        i++;
    return i;
}

/* What is required of a caller's device, and of the rest what `extras` has bits for. */
static void make_device(VkInstance instance) {
    VkPhysicalDevice physical;
    uint32_t count = 1;
    if (vk.EnumeratePhysicalDevices(instance, &count, &physical) < 0 || !count)
        skip("libvulkan finds none");
    uint32_t family = compute_family(physical);
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    bool import = has_extension(physical, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
    bool sizes = has_extension(physical, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT subgroups = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT};
    VkPhysicalDeviceVulkan12Features has12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                              .pNext = sizes ? &subgroups : NULL};
    VkPhysicalDeviceFeatures2 has = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &has12};
    vk.GetPhysicalDeviceFeatures2(physical, &has);
    sizes = subgroups.subgroupSizeControl && subgroups.computeFullSubgroups;
    bool matrices = sizes && has_extension(physical, VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME);
    VkPhysicalDeviceCooperativeMatrixFeaturesNV matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_NV,
        .cooperativeMatrix = VK_TRUE,
    };
    subgroups.pNext = matrices ? &matrix : NULL;
    VkPhysicalDeviceVulkan12Features features12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .pNext = sizes ? &subgroups : NULL,
        .bufferDeviceAddress = VK_TRUE,
        .storageBuffer8BitAccess = VK_TRUE,
        .shaderFloat16 = has12.shaderFloat16,
        .vulkanMemoryModel = matrices,
    };
    VkPhysicalDeviceVulkan11Features features11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .pNext = &features12,
        .storageBuffer16BitAccess = VK_TRUE,
    };
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &features11,
                                          .features.shaderInt64 = VK_TRUE};
    const char *extensions[3];
    uint32_t extras = has12.shaderFloat16 ? FMK_VULKAN_FLOAT16 : 0, enabled = 0;
    if (import) {
        extensions[enabled++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
        extras |= FMK_VULKAN_EXTERNAL_MEMORY_HOST;
    }
    if (sizes) {
        extensions[enabled++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
        extras |= FMK_VULKAN_SUBGROUP_SIZE_CONTROL;
    }
    if (matrices) {
        extensions[enabled++] = VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME;
        extras |= FMK_VULKAN_COOPERATIVE_MATRIX;
    }
    VkDeviceCreateInfo create = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = enabled,
        .ppEnabledExtensionNames = extensions,
    };
    VkDevice device;
    VkQueue made;
    VK(CreateDevice(physical, &create, NULL, &device));
    vk.GetDeviceQueue(device, family, 0, &made);
    vk.GetPhysicalDeviceMemoryProperties(physical, &memory_types);
    handles = (fmk_vulkan_device){
        .struct_size = sizeof handles,
        .queue_family = family,
        .extras = extras,
        .instance = instance,
        .physical_device = physical,
        .device = device,
        .queue = made,
    };
}

static void begin_recording(void) {
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VK(BeginCommandBuffer(recorded, &begin));
}

static void make_commands(void) {
    VkCommandPoolCreateInfo create = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                      .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                      .queueFamilyIndex = handles.queue_family};
    VkCommandPool pool;
    VK(CreateCommandPool(handles.device, &create, NULL, &pool));
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = pool,
                                            .commandBufferCount = 1};
    VkFenceCreateInfo unsignalled = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VK(AllocateCommandBuffers(handles.device, &allocate, &recorded));
    VK(CreateFence(handles.device, &unsignalled, NULL, &fence));
    begin_recording();
}

static void *vulkan_open(void) {
    void *library = dlopen("libvulkan.so.1", RTLD_NOW);
    if (!library)
        skip(dlerror());
    *(void **)&vk.GetInstanceProcAddr = dlsym(library, "vkGetInstanceProcAddr");
    VkInstance instance = make_instance();
    open_functions(instance);
    make_device(instance);
    fmk_context_desc desc = {.struct_size = sizeof desc, .backend = FMK_BACKEND_VULKAN, .native = &handles};
    fmk_context *probe;
    fmk_status status = fmk_context_create(&probe, &desc);
    if (status == FMK_ENODEVICE || status == FMK_EUNSUPPORTED)
        skip(fmk_last_error());
    if (status) {
        fprintf(stderr, "no context of the Vulkan backend: %s\n", fmk_last_error());
        exit(1);
    }
    fmk_context_destroy(probe);
    if (told("FERRUMK_TEST_RECORD", "1"))
        make_commands();
    return recorded;
}

static const void *vulkan_native(void) {
    return &handles;
}

const fmk_vulkan_device *vulkan_handles(void) {
    return &handles;
}

const struct vulkan_functions *vulkan_functions(void) {
    return &vk;
}

/* ---- memory ---- */

/* Numbers are addresses of the device. */
struct allocation {
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t address, size;
    uint8_t *mapped;
};
static struct allocation *allocations;
static int count_allocations, room;

static uint32_t memory_type(uint32_t allowed) {
    const VkMemoryPropertyFlags wanted =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    uint32_t i = 0;
    while (i < memory_types.memoryTypeCount &&
           (!(allowed >> i & 1) || (memory_types.memoryTypes[i].propertyFlags & wanted) != wanted))
        i++;
    return i;
}

static uint64_t vulkan_alloc(size_t size) {
    enum { ALIGN = 256 };
    struct allocation a = {.size = size + ALIGN};
    VkBufferCreateInfo create = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                 .size = a.size,
                                 .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                          VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT};
    VK(CreateBuffer(handles.device, &create, NULL, &a.buffer));
    VkMemoryRequirements needs;
    vk.GetBufferMemoryRequirements(handles.device, a.buffer, &needs);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = &flags,
                                     .allocationSize = needs.size,
                                     .memoryTypeIndex = memory_type(needs.memoryTypeBits)};
    VK(AllocateMemory(handles.device, &allocate, NULL, &a.memory));
    VK(BindBufferMemory(handles.device, a.buffer, a.memory, 0));
    VK(MapMemory(handles.device, a.memory, 0, VK_WHOLE_SIZE, 0, (void **)&a.mapped));
    VkBufferDeviceAddressInfo asked = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                       .buffer = a.buffer};
    a.address = vk.GetBufferDeviceAddress(handles.device, &asked);
    if (count_allocations == room) {
        room = 2 * room + 16;
        allocations = realloc(allocations, (size_t)room * sizeof *allocations);
    }
    allocations[count_allocations++] = a;
    return (a.address + ALIGN - 1) / ALIGN * ALIGN;
}

static struct allocation *find(uint64_t memory) {
    for (int i = 0; i < count_allocations; i++)
        if (memory >= allocations[i].address && memory < allocations[i].address + allocations[i].size)
            return &allocations[i];
    fprintf(stderr, "address 0x%llx is in no buffer of the tests\n", (unsigned long long)memory);
    exit(1);
}

static uint8_t *mapped(uint64_t memory) {
    struct allocation *a = find(memory);
    return a->mapped + (memory - a->address);
}

static void vulkan_free(uint64_t memory) {
    struct allocation *a = find(memory);
    vk.DestroyBuffer(handles.device, a->buffer, NULL);
    vk.FreeMemory(handles.device, a->memory, NULL);
    *a = allocations[--count_allocations];
}

static void vulkan_write(uint64_t to, const void *from, size_t size) {
    memcpy(mapped(to), from, size);
}

static void vulkan_read(void *to, uint64_t from, size_t size) {
    memcpy(to, mapped(from), size);
}

static void vulkan_fill(uint64_t to, unsigned char value, size_t size) {
    memset(mapped(to), value, size);
}

static fmk_buffer vulkan_buffer(uint64_t memory, size_t size) {
    struct allocation *a = find(memory);
    fmk_buffer buffer = {.offset = memory - a->address, .size = size};
    memcpy(&buffer.handle, &a->buffer, sizeof a->buffer);
    return buffer;
}

static uint64_t vulkan_memory(uint64_t handle) {
    for (int i = 0; i < count_allocations; i++)
        if (!memcmp(&handle, &allocations[i].buffer, sizeof allocations[i].buffer))
            return allocations[i].address;
    fprintf(stderr, "0x%llx is no buffer of the tests\n", (unsigned long long)handle);
    exit(1);
}

static void vulkan_wait(fmk_queue *queue) {
    if (!recorded) {
        if (fmk_queue_wait(queue))
            fprintf(stderr, "fmk_queue_wait: %s\n", fmk_last_error());
        return;
    }
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &recorded};
    VK(EndCommandBuffer(recorded));
    VK(QueueSubmit(handles.queue, 1, &submit, fence));
    VK(WaitForFences(handles.device, 1, &fence, VK_TRUE, UINT64_MAX));
    VK(ResetFences(handles.device, 1, &fence));
    begin_recording();
}

static void *nothing_current(void) {
    return NULL;
}

const struct gpu gpu_vulkan = {
    .name = "vulkan",
    .backend = FMK_BACKEND_VULKAN,
    .open = vulkan_open,
    .native = vulkan_native,
    .alloc = vulkan_alloc,
    .free = vulkan_free,
    .write = vulkan_write,
    .read = vulkan_read,
    .fill = vulkan_fill,
    .wait = vulkan_wait,
    .buffer = vulkan_buffer,
    .memory = vulkan_memory,
    .current = nothing_current,
};
