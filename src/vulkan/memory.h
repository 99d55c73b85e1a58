/* Buffers with an address. Each has an allocation of its own: there are as many as there are weights. */
#ifndef FMK_VULKAN_MEMORY_H
#define FMK_VULKAN_MEMORY_H

#include "device.h"

struct fmk_vk_buffer {
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t address, size;
    void *mapped; /* of memory that the host reaches, else NULL */
};

/* `host`: written and read by the host, whose writes and reads need no flush; else of the device alone where
 * it can be chosen. `what` is for the sentence. */
fmk_status fmk_vk_buffer_make(const struct fmk_context *ctx, uint64_t size, bool host, const char *what,
                              struct fmk_vk_buffer *out);
/* Host memory as a buffer: [at, at + size) lies in it, at out->address. Whole pages are taken, as the device
 * wants them. FMK_EUNSUPPORTED where the driver does not take this memory. */
fmk_status fmk_vk_buffer_import(const struct fmk_context *ctx, const void *at, uint64_t size,
                                struct fmk_vk_buffer *out);
void fmk_vk_buffer_free(const struct fmk_context *ctx, struct fmk_vk_buffer *buffer);

/* The address of a buffer of the caller's: a VkBuffer with SHADER_DEVICE_ADDRESS. */
uint64_t fmk_vk_address(const struct fmk_context *ctx, uint64_t handle);

#endif
