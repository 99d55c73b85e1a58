/* CUDA threads as fibers: the threads of a block take turns on one OS thread, and change over at barriers and
 * at warp collectives. */
#ifndef FMK_EMULATOR_FIBERS_H
#define FMK_EMULATOR_FIBERS_H

#include <stddef.h>
#include <stdint.h>

namespace emulator {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr uint32_t WHOLE_WARP = 0xffffffff;

struct Dim {
    unsigned x, y, z;
};

struct Grid;
struct Warp;

/* Copies that a thread has started and not waited for, in groups. */
struct Copies {
    static constexpr unsigned MOST = 256;
    struct Copy {
        void *to;
        const void *from; /* NULL: zeros */
        unsigned group;
    } ring[MOST];
    unsigned first, last; /* those under way: first .. last - 1, modulo MOST */
    unsigned group;       /* that is being started */
};

/* Lies at the end of its fiber's stack, so that a thread finds itself without thread-local storage. */
struct alignas(64) Thread {
    Dim index;
    unsigned lane;
    Warp *warp;
    const Grid *grid;
    Dim block;
    void *request; /* operands of the collective that it waits in */
    void *stack_pointer;
    void *fiber; /* for races.h; stays as it is */
    bool waited_for_dependency;
    Copies copies;
};

/* One launch. */
struct Grid {
    const char *kernel;
    Dim blocks, threads;
    void (*run)(const void *args); /* one thread of the kernel */
    const void *args;
};

constexpr size_t STACK = 128 << 10; /* with the guard page at its start */

inline __attribute__((always_inline)) Thread *self() {
    uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    return reinterpret_cast<Thread *>((here | (STACK - 1)) + 1 - sizeof(Thread));
}

/* Runs every block of the grid; blocks do not overlap. */
void run(const Grid &grid);

/* What a kernel's threads call. */

void barrier();

/* What a collective does once its lanes have met; a lane that comes to another one is an error. */
enum class Collective { sync, shuffle, ballot, mma };

/* Leaves `request` and waits until every lane of `mask` has come. The last one does not wait: it gets the
 * warp, whose lanes' requests it serves before it calls depart; the others get NULL, with their requests
 * served. */
Warp *arrive(uint32_t mask, Collective what, void *request);
void depart(Warp *warp, uint32_t mask);
void *request_of(const Warp *warp, unsigned lane);

/* Copies of 16 bytes; from NULL: of zeros. Blocks that run first to last make them at once, the others when
 * they are waited for: as early and as late as they may happen. */
void start_copy(void *to, const void *from);
void end_copies();
void wait_for_copies(unsigned pending_groups);

/* Prints where the thread is and what it did wrong, and aborts. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace emulator

#endif
