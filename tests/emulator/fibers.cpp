/* See fibers.h. A block is done when all its fibers have ended; a block in which nobody can go on is a
 * deadlock. Even blocks let their threads go first to last, odd ones last to first: what is read before a
 * barrier that is missing has then not been written in one of the two. */
#include "fibers.h"
#include "races.h"
#include "shared.h"

#include <atomic>
#include <mutex>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {

struct Meeting {
    uint32_t mask, arrived;
    Collective what;
    unsigned number;
};

struct Warp {
    struct Block *block;
    unsigned number;
    uint32_t alive, ready, at_barrier; /* lanes */
    unsigned num_meetings, meetings_begun;
    Meeting meetings[WARP];
    Thread *thread[WARP];
    char order[2 * WARP]; /* for races.h: of meetings, in turn; more are not under way at once */
};

struct Block {
    const Grid *grid;
    unsigned num_warps, alive, at_barrier; /* threads */
    uint32_t ready_warps;
    bool backwards;
    Thread *turn; /* who runs */
    void *return_to;
    void *caller; /* for races.h: as fiber */
    unsigned barriers;
    char order[4]; /* of barriers, in turn, for a thread may reach the next before others leave one; of the
                      start and the end */
    Warp warps[MOST_THREADS / WARP];
};

enum { AT_START = 2, AT_END };

/* ---- changing over ---- */

#ifdef __x86_64__
/* Saves what a call must preserve on the stack, keeps the stack pointer in *save, and goes on at `load`. */
extern "C" void fmk_emulator_switch(void **save, void *load);
asm(".text\n"
    ".type fmk_emulator_switch, @function\n"
    "fmk_emulator_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size fmk_emulator_switch, . - fmk_emulator_switch\n");

static void change_over(void **save, void *load) {
    fmk_emulator_switch(save, load);
}

static void *fresh_stack(Thread *thread, void (*entry)()) {
    void **top = reinterpret_cast<void **>(thread);
    *--top = nullptr; /* where entry would return to: keeps the alignment of a call */
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    return top;
}
#else
static void change_over(void **save, void *load) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, static_cast<ucontext_t *>(load));
}

static void *fresh_stack(Thread *thread, void (*entry)()) {
    char *end = reinterpret_cast<char *>(thread) - (sizeof(ucontext_t) + 63) / 64 * 64;
    ucontext_t *context = reinterpret_cast<ucontext_t *>(end);
    getcontext(context);
    context->uc_link = nullptr;
    context->uc_stack.ss_sp = reinterpret_cast<char *>(thread + 1) - STACK + 4096;
    context->uc_stack.ss_size = static_cast<size_t>(end - static_cast<char *>(context->uc_stack.ss_sp));
    makecontext(context, entry, 0);
    return context;
}
#endif

/* ---- who goes next ---- */

static unsigned pick(uint32_t ready, bool backwards) {
    return static_cast<unsigned>(backwards ? 31 - __builtin_clz(ready) : __builtin_ctz(ready));
}

/* The nearest ready one after `last`, in the block's direction; first of all when there is none. */
static unsigned pick_after(uint32_t ready, unsigned last, bool backwards) {
    uint32_t before = (uint32_t(1) << last) - 1, after = ~before & ~(uint32_t(1) << last);
    uint32_t later = ready & (backwards ? before : after);
    return pick(later ? later : ready, backwards);
}

static void report_threads(const Block *block) {
    for (unsigned w = 0; w < block->num_warps; w++) {
        const Warp &warp = block->warps[w];
        fprintf(stderr, "  warp %u: alive %08x, at __syncthreads %08x", w, warp.alive, warp.at_barrier);
        for (unsigned i = 0; i < warp.num_meetings; i++)
            fprintf(stderr, ", collective of lanes %08x reached by %08x", warp.meetings[i].mask,
                    warp.meetings[i].arrived);
        fprintf(stderr, "\n");
    }
}

/* Gives the turn to somebody who can go on. */
static void yield(Thread *thread, Warp *warp) {
    Block *block = warp->block;
    Warp *next = warp;
    unsigned lane;
    if (warp->ready) {
        lane = pick_after(warp->ready, thread->lane, block->backwards);
    } else if (block->ready_warps) {
        next = &block->warps[pick_after(block->ready_warps, warp->number, block->backwards)];
        lane = pick(next->ready, block->backwards);
    } else if (!block->alive) {
        races::change_to(block->caller);
        change_over(&thread->stack_pointer, block->return_to);
        return;
    } else {
        report_threads(block);
        fail("no thread of the block can go on");
    }
    Thread *to = next->thread[lane];
    block->turn = to;
    if (to != thread) {
        races::change_to(to->fiber);
        change_over(&thread->stack_pointer, to->stack_pointer);
    }
}

static void sleep_lane(Warp *warp, uint32_t lane) {
    warp->ready &= ~lane;
    if (!warp->ready)
        warp->block->ready_warps &= ~(uint32_t(1) << warp->number);
}

static void wake_lanes(Warp *warp, uint32_t lanes) {
    warp->ready |= lanes;
    if (warp->ready)
        warp->block->ready_warps |= uint32_t(1) << warp->number;
}

/* ---- barriers and collectives ---- */

static void open_barrier(Block *block) {
    block->at_barrier = 0;
    block->barriers++;
    for (unsigned w = 0; w < block->num_warps; w++) {
        wake_lanes(&block->warps[w], block->warps[w].at_barrier);
        block->warps[w].at_barrier = 0;
    }
}

void barrier() {
    Thread *thread = self();
    Warp *warp = thread->warp;
    Block *block = warp->block;
    uint32_t lane = uint32_t(1) << thread->lane;
    char *order = &block->order[block->barriers % 2];
    races::release(order);
    warp->at_barrier |= lane;
    sleep_lane(warp, lane);
    if (++block->at_barrier == block->alive)
        open_barrier(block);
    yield(thread, warp);
    races::acquire(order);
}

Warp *arrive(uint32_t mask, Collective what, void *request) {
    Thread *thread = self();
    Warp *warp = thread->warp;
    uint32_t lane = uint32_t(1) << thread->lane;
    if (!(mask & lane))
        fail("a collective's mask %08x lacks the lane that calls it", mask);
    if (mask & ~warp->alive)
        fail("a collective's mask %08x has lanes that are not there or have ended: alive are %08x", mask,
             warp->alive);
    thread->request = request;
    unsigned i = 0;
    while (i < warp->num_meetings && warp->meetings[i].mask != mask)
        i++;
    Meeting &meeting = warp->meetings[i];
    if (i == warp->num_meetings) {
        meeting = Meeting{mask, 0, what, warp->meetings_begun++};
        warp->num_meetings++;
    }
    if (meeting.what != what)
        fail("lanes of mask %08x meet in different collectives", mask);
    meeting.arrived |= lane;
    /* Of these only __syncwarp orders what lanes write and read. */
    char *order = what == Collective::sync ? &warp->order[meeting.number % sizeof warp->order] : nullptr;
    if (order)
        races::release(order);
    bool last = meeting.arrived == mask;
    if (last) {
        meeting = warp->meetings[--warp->num_meetings];
    } else {
        sleep_lane(warp, lane);
        yield(thread, warp);
    }
    if (order)
        races::acquire(order);
    return last ? warp : nullptr;
}

void depart(Warp *warp, uint32_t mask) {
    wake_lanes(warp, mask);
}

void *request_of(const Warp *warp, unsigned lane) {
    return warp->thread[lane]->request;
}

/* ---- copies ---- */

static void make_copy(void *to, const void *from) {
    if (from)
        memcpy(to, from, 16);
    else
        memset(to, 0, 16);
}

void start_copy(void *to, const void *from) {
    Thread *thread = self();
    Copies &copies = thread->copies;
    races::copied(to, from);
    if (!thread->warp->block->backwards) {
        make_copy(to, from);
        return;
    }
    if (copies.last - copies.first == Copies::MOST)
        fail("more than %u copies are under way", Copies::MOST);
    copies.ring[copies.last++ % Copies::MOST] = {to, from, copies.group};
}

void end_copies() {
    self()->copies.group++;
}

void wait_for_copies(unsigned pending_groups) {
    Copies &copies = self()->copies;
    for (; copies.first != copies.last; copies.first++) {
        const Copies::Copy &copy = copies.ring[copies.first % Copies::MOST];
        if (copy.group + pending_groups >= copies.group)
            return;
        races::copied(copy.to, copy.from);
        make_copy(copy.to, copy.from);
    }
}

/* ---- blocks ---- */

static void fiber() {
    Thread *thread = self();
    Warp *warp = thread->warp;
    Block *block = warp->block;
    races::acquire(&block->order[AT_START]);
    thread->grid->run(thread->grid->args);
    races::release(&block->order[AT_END]);
    uint32_t lane = uint32_t(1) << thread->lane;
    warp->alive &= ~lane;
    block->alive--;
    sleep_lane(warp, lane);
    if (block->alive && block->at_barrier == block->alive)
        open_barrier(block);
    yield(thread, warp);
    abort(); /* nobody gives a turn to a thread that has ended */
}

/* Stacks of one OS thread, kept for the next launch. */
struct Stacks {
    char *memory = nullptr;
    size_t count = 0;
    ~Stacks() {
        drop();
    }
    void drop() {
        for (size_t i = 0; i < count; i++)
            races::destroy(reinterpret_cast<Thread *>(memory + (i + 1) * STACK - sizeof(Thread))->fiber);
        if (memory)
            munmap(memory, count * STACK);
    }
    /* Aligned to their size, each with a page at its start that cannot be touched. */
    void need(size_t threads) {
        if (threads <= count)
            return;
        drop();
        size_t size = (threads + 1) * STACK;
        char *all = static_cast<char *>(
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (all == MAP_FAILED) {
            fprintf(stderr, "emulator: no memory for %zu stacks\n", threads);
            abort();
        }
        size_t before = (STACK - reinterpret_cast<uintptr_t>(all) % STACK) % STACK;
        if (before)
            munmap(all, before);
        munmap(all + before + threads * STACK, STACK - before);
        memory = all + before;
        count = threads;
        for (size_t i = 0; i < threads; i++) {
            mprotect(memory + i * STACK, 4096, PROT_NONE);
            reinterpret_cast<Thread *>(memory + (i + 1) * STACK - sizeof(Thread))->fiber = races::make();
        }
    }
};

/* What an OS thread keeps for its blocks. Not thread_local: that is the kernels' shared memory. */
struct Processor {
    Stacks stacks;
    Block block;
    const Grid *running = nullptr;
    char signal_stack[32 << 10];
};

static Processor *processor();

static void print_place(const Thread *thread) {
    const Grid *grid = thread->grid;
    fprintf(stderr, "emulator: %s: block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u) of (%u, %u, %u): ",
            grid->kernel, thread->block.x, thread->block.y, thread->block.z, grid->blocks.x, grid->blocks.y,
            grid->blocks.z, thread->index.x, thread->index.y, thread->index.z, grid->threads.x,
            grid->threads.y, grid->threads.z);
}

static struct sigaction handlers_before[NSIG];

/* Says which thread of which kernel it was; then what would have happened happens. */
static void on_fault(int number, siginfo_t *info, void *) {
    const Processor *on = processor();
    if (on->running) {
        print_place(on->block.turn);
        fprintf(stderr, "%s at %p\n", strsignal(number), info->si_addr);
    }
    sigaction(number, &handlers_before[number], nullptr);
}

/* On a stack of its own: the thread's may be what is full. */
static void watch_faults(Processor *on) {
    stack_t stack = {};
    stack.ss_sp = on->signal_stack;
    stack.ss_size = sizeof on->signal_stack;
    sigaltstack(&stack, nullptr);
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int number : {SIGSEGV, SIGBUS, SIGFPE})
            sigaction(number, &action, &handlers_before[number]);
    });
}

static Processor *processor() {
    static pthread_key_t key = [] {
        pthread_key_t made;
        pthread_key_create(&made, [](void *it) {
            stack_t none = {};
            none.ss_flags = SS_DISABLE;
            sigaltstack(&none, nullptr);
            delete static_cast<Processor *>(it);
        });
        return made;
    }();
    void *it = pthread_getspecific(key);
    if (!it) {
        it = new Processor{};
        pthread_setspecific(key, it);
        watch_faults(static_cast<Processor *>(it));
    }
    return static_cast<Processor *>(it);
}

static Thread *thread_of(const Stacks &stacks, unsigned i) {
    return reinterpret_cast<Thread *>(stacks.memory + (i + 1) * STACK - sizeof(Thread));
}

static void run_block(Processor *on, const Grid &grid, Dim at, unsigned number) {
    Block *block = &on->block;
    unsigned threads = grid.threads.x * grid.threads.y * grid.threads.z;
    block->grid = &grid;
    block->num_warps = (threads + WARP - 1) / WARP;
    block->alive = threads;
    block->at_barrier = 0;
    block->ready_warps = static_cast<uint32_t>((uint64_t(1) << block->num_warps) - 1);
    block->backwards = number % 2;
    for (unsigned w = 0; w < block->num_warps; w++) {
        Warp &warp = block->warps[w];
        unsigned lanes = threads - w * WARP < WARP ? threads - w * WARP : WARP;
        warp.block = block;
        warp.number = w;
        warp.alive = warp.ready = static_cast<uint32_t>((uint64_t(1) << lanes) - 1);
        warp.at_barrier = 0;
        warp.num_meetings = warp.meetings_begun = 0;
        for (unsigned l = 0; l < lanes; l++) {
            unsigned i = w * WARP + l;
            Thread *thread = thread_of(on->stacks, i);
            thread->index = Dim{i % grid.threads.x, i / grid.threads.x % grid.threads.y,
                                i / grid.threads.x / grid.threads.y};
            thread->lane = l;
            thread->warp = &warp;
            thread->grid = &grid;
            thread->block = at;
            thread->waited_for_dependency = false;
            thread->copies.first = thread->copies.last = thread->copies.group = 0;
            thread->stack_pointer = fresh_stack(thread, fiber);
            warp.thread[l] = thread;
        }
    }
    unsigned first_warp = pick(block->ready_warps, block->backwards);
    Warp &warp = block->warps[first_warp];
    block->turn = warp.thread[pick(warp.ready, block->backwards)];
    on->running = &grid;
    block->caller = races::current();
    races::release(&block->order[AT_START]);
    races::change_to(block->turn->fiber);
    change_over(&block->return_to, block->turn->stack_pointer);
    races::acquire(&block->order[AT_END]);
    on->running = nullptr;
}

static bool anybody_waited(const Processor *on, unsigned threads) {
    for (unsigned i = 0; i < threads; i++)
        if (thread_of(on->stacks, i)->waited_for_dependency)
            return true;
    return false;
}

void run(const Grid &grid) {
    Processor *on = processor();
    static std::atomic<unsigned> launches;
    unsigned threads = grid.threads.x * grid.threads.y * grid.threads.z, number = launches++;
    on->stacks.need(threads);
    bool waited = false;
    SharedMemory shared(grid.kernel);
    for (unsigned z = 0; z < grid.blocks.z; z++)
        for (unsigned y = 0; y < grid.blocks.y; y++)
            for (unsigned x = 0; x < grid.blocks.x; x++) {
                run_block(on, grid, Dim{x, y, z}, number++);
                shared.poison();
                waited = waited || anybody_waited(on, threads);
            }
    if (!waited) {
        fprintf(stderr,
                "emulator: %s: no thread called wait_for_dependency: what follows on the stream may start "
                "before what came earlier has ended\n",
                grid.kernel);
        abort();
    }
}

void fail(const char *format, ...) {
    print_place(self());
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n");
    abort();
}

} // namespace emulator
