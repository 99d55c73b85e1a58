/* What device.c asks of a kind of GPU. Memory is a number that grows byte by byte; `buffer` is how the
 * library is told of it. */
#ifndef DEVICE_GPU_H
#define DEVICE_GPU_H

#include "ferrumk.h"

#include <stddef.h>

struct gpu {
    const char *name; /* in FERRUMK_TEST_BACKEND */
    fmk_backend backend;
    void *(*open)(void);         /* once; answers the native of the tests' queues */
    const void *(*native)(void); /* of the tests' contexts */
    uint64_t (*alloc)(size_t size);
    void (*free)(uint64_t memory);
    void (*write)(uint64_t to, const void *from, size_t size);
    void (*read)(void *to, uint64_t from, size_t size);
    void (*fill)(uint64_t to, unsigned char value, size_t size);
    void (*wait)(fmk_queue *queue); /* for the calls of the tests' queue */
    fmk_buffer (*buffer)(uint64_t memory, size_t size);
    uint64_t (*memory)(uint64_t handle);
    void *(*current)(void); /* what calls must leave as it is, or NULL */
};

extern const struct gpu gpu_cuda, gpu_vulkan;

#endif
