/* CUDA threads as fibers: the threads of a cluster of blocks take turns on one OS thread, and change over at
 * barriers and at warp collectives. */
#ifndef FMK_EMULATOR_FIBERS_H
#define FMK_EMULATOR_FIBERS_H

#include <functional>
#include <stddef.h>
#include <stdint.h>

namespace emulator {

constexpr unsigned WARP = 32, MOST_THREADS = 1024, MOST_BLOCKS = 8; /* of a block, of a cluster */
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
    void *request;         /* operands of the collective that it waits in */
    const void *sleeps_on; /* see sleep_on */
    void *stack_pointer;
    void *fiber;      /* for races.h; stays as it is */
    unsigned arrived; /* at the cluster's barrier, which had opened so often */
    bool waited_for_dependency;
    Copies copies;
};

/* One launch. */
struct Grid {
    const char *kernel;
    Dim blocks, threads;
    void (*run)(const void *args); /* one thread of the kernel */
    const void *args;
    unsigned cluster;      /* blocks of a cluster, neighbours along x */
    unsigned shared_bytes; /* dynamic shared memory of a block */
};

constexpr size_t STACK = 128 << 10; /* with the guard page at its start */

inline __attribute__((always_inline)) Thread *self() {
    uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    return reinterpret_cast<Thread *>((here | (STACK - 1)) + 1 - sizeof(Thread));
}

/* Runs every cluster of the grid; clusters do not overlap. */
void run(const Grid &grid);

/* What a kernel's threads call. */

void barrier();
/* `threads` of the block, at the barrier of this number; a thread that only arrives does not wait. */
void named_barrier(unsigned number, unsigned threads, bool wait);
/* All threads of the cluster meet. */
void cluster_arrive(), cluster_wait();
unsigned cluster_rank(), cluster_size();

/* Sleeps until another thread of the cluster, or a copy, wakes all those that sleep on `key`. */
void sleep_on(const void *key);
void wake(const void *key);
/* The same; in clusters that run first to last, one of them goes on before the calling thread does. */
void wake_first(const void *key);
/* Does something at once in clusters that run first to last, and in others as late as may be: when no thread
 * can go on without. */
void do_in_time(std::function<void()> action);
/* Whether the cluster is one in which what may be late is late. */
bool is_late();

/* Shared memory by 32-bit addresses: the calling thread's block's own, and those that `mapa` makes, which
 * name a block of the cluster. */
uint32_t shared_address(const void *at);
uint8_t *shared_pointer(uint32_t address);
uint32_t address_in(uint32_t address, unsigned rank);
uint8_t *dynamic_memory();

/* What a collective does once its lanes have met; a lane that comes to another one is an error. */
enum class Collective { sync, shuffle, ballot, mma, wgmma };

/* Leaves `request` and waits until every lane of `mask` has come. The last one does not wait: it gets the
 * warp, whose lanes' requests it serves before it calls depart; the others get NULL, with their requests
 * served. */
Warp *arrive(uint32_t mask, Collective what, void *request);
void depart(Warp *warp, uint32_t mask);
void *request_of(const Warp *warp, unsigned lane);
/* wgmma of the warp that are not done: wgmma.cpp's. */
struct WarpJobs;
WarpJobs *&jobs_of(Warp *warp);
void forget_jobs(WarpJobs *jobs);

/* Copies of 16 bytes; from NULL: of zeros. Blocks that run first to last make them at once, the others when
 * they are waited for: as early and as late as they may happen. */
void start_copy(void *to, const void *from);
void end_copies();
void wait_for_copies(unsigned pending_groups);

/* Prints where the thread is and what it did wrong, and aborts. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace emulator

#endif
