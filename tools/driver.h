/* What a program with buffers of its own asks of a kind of GPU: memory, a stream, copies, times. A failure
 * ends the program with a sentence. One device at a time, by one thread. */
#ifndef DRIVER_H
#define DRIVER_H

#include "ferrumk.h"

enum { DRIVER_MARKS = 64 };

struct driver {
    void (*open)(fmk_context *context, int32_t device);
    void (*close)(void);

    /* Native of a queue: copies and marks are in order with what others enqueue on it. */
    void *(*stream)(void);
    void (*wait)(void);

    /* Memory is a number that grows byte by byte; `buffer` is how the library is told of it. */
    uint64_t (*allocate)(uint64_t bytes);
    void (*free)(uint64_t memory);
    void (*write)(uint64_t to, const void *from, uint64_t bytes);
    void (*read)(void *to, uint64_t from, uint64_t bytes);
    fmk_buffer (*buffer)(uint64_t memory);

    /* Mark i is the moment at which all that is on the stream before it is done; when both have passed, the
     * seconds between two. */
    void (*mark)(int i);
    double (*seconds)(int from, int to);
};

extern const struct driver cuda_driver, vulkan_driver;

#endif
