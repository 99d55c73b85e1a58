/* In place of device_vulkan.c where the library is built without Vulkan. */
#include "device_gpu.h"

#include <stdio.h>
#include <stdlib.h>

static void *vulkan_open(void) {
    printf("SKIPPED: no Vulkan device: the library was built without it\n");
    exit(77);
}

const struct gpu gpu_vulkan = {.name = "vulkan", .backend = FMK_BACKEND_VULKAN, .open = vulkan_open};
