/* mbarriers and bulk copies. Copies are made at once, or as late as may be: see do_in_time. */
#include "async.h"
#include "races.h"

#include <string.h>

namespace emulator {

/* The phase ends when nobody is missing and no byte is. A copy may come before its bytes are expected, so
 * that `missing_bytes` may be negative for a while. */
struct Mbarrier {
    int32_t missing_bytes;
    uint16_t count;
    uint16_t missing : 15, phase : 1;
};
static_assert(sizeof(Mbarrier) == 8, "as large as the GPU's");

constexpr unsigned MOST_ARRIVALS = 0x7fff;

static Mbarrier *barrier_at(uint32_t address) {
    if (address % 8)
        fail("mbarrier at 0x%08x, which is not a multiple of 8", address);
    Mbarrier *barrier = reinterpret_cast<Mbarrier *>(shared_pointer(address));
    if (!barrier->count || barrier->count > MOST_ARRIVALS)
        fail("mbarrier at 0x%08x is not initialized", address);
    return barrier;
}

/* For races.h: what arrives at a phase comes before what has waited for it. */
static char *order_of(const Mbarrier *barrier, uint32_t phase) {
    return const_cast<char *>(reinterpret_cast<const char *>(barrier)) + (phase & 1);
}

void will_complete(uint32_t address) {
    const Mbarrier *barrier = barrier_at(address);
    races::release(order_of(barrier, barrier->phase));
}

/* Whether the phase has ended. */
static bool end_phase_if_whole(Mbarrier *barrier) {
    if (barrier->missing || barrier->missing_bytes)
        return false;
    barrier->phase ^= 1;
    barrier->missing = barrier->count & MOST_ARRIVALS;
    return true;
}

void mbarrier_init(uint32_t address, uint32_t count) {
    if (!count || count > MOST_ARRIVALS)
        fail("mbarrier of %u arrivals", count);
    Mbarrier made = {0, static_cast<uint16_t>(count), 0, 0};
    made.missing = count & MOST_ARRIVALS;
    memcpy(shared_pointer(address), &made, sizeof made);
}

void mbarrier_expect(uint32_t address, uint32_t bytes) {
    barrier_at(address)->missing_bytes += static_cast<int32_t>(bytes);
}

void mbarrier_arrive(uint32_t address) {
    Mbarrier *barrier = barrier_at(address);
    if (!barrier->missing)
        fail("more than %u threads arrive at the mbarrier at 0x%08x", barrier->count, address);
    races::release(order_of(barrier, barrier->phase));
    barrier->missing = (barrier->missing - 1u) & MOST_ARRIVALS;
    /* Whoever waits to overwrite what this thread should have read does so now. */
    if (end_phase_if_whole(barrier))
        wake_first(barrier);
}

void mbarrier_wait(uint32_t address, uint32_t parity) {
    const Mbarrier *barrier = barrier_at(address);
    if (barrier->phase == parity)
        sleep_on(barrier);
    races::acquire(order_of(barrier, parity));
}

void mbarrier_complete(uint32_t address, uint32_t bytes) {
    Mbarrier *barrier = barrier_at(address);
    barrier->missing_bytes -= static_cast<int32_t>(bytes);
    if (end_phase_if_whole(barrier))
        wake(barrier);
}

void copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier) {
    if (to % 16 || reinterpret_cast<uintptr_t>(from) % 16 || bytes % 16)
        fail("%u bytes are copied from %p to 0x%08x, one of which is not a multiple of 16", bytes, from, to);
    uint32_t rank = cluster_rank(); /* whoever makes a late copy may be of another block */
    if (!(to >> 24))
        to = address_in(to, rank);
    if (!(barrier >> 24))
        barrier = address_in(barrier, rank);
    races::copied(shared_pointer(to), from, bytes);
    will_complete(barrier);
    do_in_time([=] {
        memcpy(shared_pointer(to), from, bytes);
        mbarrier_complete(barrier, bytes);
    });
}

} // namespace emulator
