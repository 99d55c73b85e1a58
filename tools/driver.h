/* What a program with buffers of its own asks of the CUDA driver: memory, a stream, copies, times. libcuda is
 * opened at run time; a failure ends the program with a sentence. One device at a time, by one thread, to
 * which its primary context is made current. */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdint.h>

void driver_open(int32_t device);
void driver_close(void);

/* A CUstream: copies and marks are in order with what others enqueue on it. */
void *driver_stream(void);
void driver_wait(void);

uint64_t driver_allocate(uint64_t bytes);
void driver_free(uint64_t memory);
void driver_write(uint64_t to, const void *from, uint64_t bytes);
void driver_read(void *to, uint64_t from, uint64_t bytes);

/* Mark i is the moment at which all that is on the stream before it is done; when both have passed, the
 * seconds between two. */
enum { DRIVER_MARKS = 64 };
void driver_mark(int i);
double driver_seconds(int from, int to);

#endif
