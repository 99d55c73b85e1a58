/* In place of driver_vulkan.c where the library is built without Vulkan: no context of it is ever opened. */
#include "driver.h"

const struct driver vulkan_driver = {0};
