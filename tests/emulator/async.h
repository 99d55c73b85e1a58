/* What compute capability 9.0 does by itself: copies that count on barriers in shared memory, and products.
 */
#ifndef FMK_EMULATOR_ASYNC_H
#define FMK_EMULATOR_ASYNC_H

#include "fibers.h"

namespace emulator {

/* ---- async.cpp: mbarriers, by their addresses, and bulk copies ---- */

void mbarrier_init(uint32_t barrier, uint32_t count);
void mbarrier_expect(uint32_t barrier, uint32_t bytes);
void mbarrier_arrive(uint32_t barrier);
/* Sleeps until the phase of this parity has ended. */
void mbarrier_wait(uint32_t barrier, uint32_t parity);
/* So many bytes have come that count on it. */
void mbarrier_complete(uint32_t barrier, uint32_t bytes);
/* For races.h: who starts it comes before what waits for the barrier's phase. */
void will_complete(uint32_t barrier);
void copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier);

/* ---- tensor_map.cpp: boxes of a matrix ---- */

/* To the blocks of the cluster whose bits are set. */
void copy_box(uint32_t blocks, uint32_t to, const void *map, const int32_t *at, int dimensions,
              uint32_t barrier);

/* ---- wgmma.cpp ---- */

enum class Number { f16, bf16 };
/* 64 x n sums of a warpgroup: what one thread brings. */
struct Wgmma {
    float *d;
    uint32_t a[4];
    uint64_t b;
    bool add;
    int n;
    Number type;
};
void wgmma(const Wgmma &mine);
void wgmma_end_group();
void wgmma_wait(unsigned pending);

} // namespace emulator

#endif
