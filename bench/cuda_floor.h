/* How fast this device is at what no kernel can avoid, measured beside the kernels. */
#ifndef BENCH_CUDA_FLOOR_H
#define BENCH_CUDA_FLOOR_H

#include "cuda_driver.h"

/* A kernel that only reads, and one that copies. */
struct reader {
    CUfunction read, copy;
    uint64_t sink;
    int blocks, threads; /* of a multiprocessor; of a block: 4 and 512 suit large sizes */
};

void reader_open(struct reader *reader, const struct gpu *gpu);
/* Enqueues the reading of `bytes` (a multiple of 16) at `address`. `early`: by programmatic dependent launch.
 */
void reader_run(const struct reader *reader, const struct gpu *gpu, uint64_t address, uint64_t bytes,
                bool early);

struct floors {
    double read, copy, set; /* bytes per second; of a copy the bytes read and those written */
    double driver_copy;     /* of cuMemcpyDtoD, which copy engines may do; copy is by it or by a kernel,
                               whichever is faster */
    double upload;          /* bytes per second from pinned host memory */
    double product;         /* operations per second of cuBLAS at 8192 x 8192 x 8192, f16; 0: no cuBLAS */
};

void floors_measure(struct floors *floors, const struct gpu *gpu, const struct reader *reader);
void floors_print(const struct floors *floors);

#endif
