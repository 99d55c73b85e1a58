/* See fibers.h. A cluster is done when all its fibers have ended; one in which nobody can go on is a
 * deadlock. Even clusters let their threads go first to last, odd ones last to first: what is read before a
 * barrier that is missing has then not been written in one of the two. */
#include "fibers.h"
#include "races.h"
#include "shared.h"

#include <atomic>
#include <deque>
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
    uint32_t alive, ready, at_barrier, asleep; /* lanes */
    WarpJobs *jobs;
    unsigned num_meetings, meetings_begun;
    Meeting meetings[WARP];
    Thread *thread[WARP];
    char order[2 * WARP]; /* for races.h: of meetings, in turn; more are not under way at once */
};

constexpr unsigned NAMED_BARRIERS = 16;

struct Block {
    struct Cluster *cluster;
    unsigned rank, num_warps, alive, at_barrier; /* threads */
    unsigned at_named[NAMED_BARRIERS], named_barriers[NAMED_BARRIERS];
    uint32_t ready_warps;
    /* For races.h: of barriers, in turn, for a thread may reach the next before others leave one. */
    unsigned barriers;
    char order[2], named_order[NAMED_BARRIERS][2];
    Warp warps[MOST_THREADS / WARP];
};

struct Cluster {
    const SharedMemory *shared;
    unsigned num_blocks, alive, at_barrier; /* threads */
    uint32_t ready_blocks;
    bool backwards;
    Thread *turn; /* who runs */
    void *return_to;
    void *caller; /* for races.h: as fiber */
    unsigned barriers;
    char order[4];                          /* as of blocks; and of the start and the end */
    std::deque<std::function<void()>> late; /* see do_in_time */
    Block blocks[MOST_BLOCKS];
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

static void report_threads(const Cluster *cluster) {
    for (unsigned b = 0; b < cluster->num_blocks; b++)
        for (unsigned w = 0; w < cluster->blocks[b].num_warps; w++) {
            const Warp &warp = cluster->blocks[b].warps[w];
            fprintf(stderr, "  block %u of the cluster, warp %u: alive %08x, at __syncthreads %08x", b, w,
                    warp.alive, warp.at_barrier);
            if (warp.asleep)
                fprintf(stderr, ", waiting for others' arrival or copies %08x", warp.asleep);
            for (unsigned i = 0; i < warp.num_meetings; i++)
                fprintf(stderr, ", collective of lanes %08x reached by %08x", warp.meetings[i].mask,
                        warp.meetings[i].arrived);
            fprintf(stderr, "\n");
        }
}

/* Somebody who can go on: the calling thread's neighbours first. */
static Thread *pick_next(const Thread *thread, Warp *warp) {
    Block *block = warp->block;
    Cluster *cluster = block->cluster;
    bool backwards = cluster->backwards;
    if (warp->ready)
        return warp->thread[pick_after(warp->ready, thread->lane, backwards)];
    unsigned next;
    if (block->ready_warps) {
        next = pick_after(block->ready_warps, warp->number, backwards);
    } else {
        block = &cluster->blocks[pick_after(cluster->ready_blocks, block->rank, backwards)];
        next = pick(block->ready_warps, backwards);
    }
    warp = &block->warps[next];
    return warp->thread[pick(warp->ready, backwards)];
}

/* Gives the turn to somebody who can go on. */
static void yield(Thread *thread, Warp *warp) {
    Cluster *cluster = warp->block->cluster;
    while (!cluster->ready_blocks && cluster->alive && !cluster->late.empty()) {
        races::Unseen unseen;
        std::function<void()> action = std::move(cluster->late.front());
        cluster->late.pop_front();
        action();
    }
    if (!cluster->alive) {
        if (!cluster->late.empty())
            fail("copies are under way to a block that has ended");
        races::change_to(cluster->caller);
        change_over(&thread->stack_pointer, cluster->return_to);
        return;
    }
    if (!cluster->ready_blocks) {
        report_threads(cluster);
        fail("no thread of the block can go on");
    }
    Thread *to = pick_next(thread, warp);
    cluster->turn = to;
    if (to != thread) {
        races::change_to(to->fiber);
        change_over(&thread->stack_pointer, to->stack_pointer);
    }
}

static void sleep_lane(Warp *warp, uint32_t lane) {
    Block *block = warp->block;
    warp->ready &= ~lane;
    if (!warp->ready)
        block->ready_warps &= ~(uint32_t(1) << warp->number);
    if (!block->ready_warps)
        block->cluster->ready_blocks &= ~(uint32_t(1) << block->rank);
}

static void wake_lanes(Warp *warp, uint32_t lanes) {
    Block *block = warp->block;
    warp->ready |= lanes;
    if (warp->ready)
        block->ready_warps |= uint32_t(1) << warp->number;
    if (block->ready_warps)
        block->cluster->ready_blocks |= uint32_t(1) << block->rank;
}

static Block *own_block() {
    return self()->warp->block;
}

void sleep_on(const void *key) {
    Thread *thread = self();
    Warp *warp = thread->warp;
    uint32_t lane = uint32_t(1) << thread->lane;
    thread->sleeps_on = key;
    warp->asleep |= lane;
    sleep_lane(warp, lane);
    yield(thread, warp);
}

/* Answers one of them, or NULL. */
static Thread *wake_all(Cluster *cluster, const void *key) {
    Thread *woken = nullptr;
    for (unsigned b = 0; b < cluster->num_blocks; b++)
        for (unsigned w = 0; w < cluster->blocks[b].num_warps; w++) {
            Warp &warp = cluster->blocks[b].warps[w];
            uint32_t lanes = 0;
            for (unsigned lane = 0; warp.asleep && lane < WARP; lane++)
                if (warp.asleep >> lane & 1 && warp.thread[lane]->sleeps_on == key)
                    lanes |= uint32_t(1) << lane;
            if (!lanes)
                continue;
            warp.asleep &= ~lanes;
            wake_lanes(&warp, lanes);
            woken = warp.thread[pick(lanes, cluster->backwards)];
        }
    return woken;
}

void wake(const void *key) {
    wake_all(own_block()->cluster, key);
}

void wake_first(const void *key) {
    Thread *thread = self();
    Cluster *cluster = own_block()->cluster;
    Thread *woken = wake_all(cluster, key);
    if (!woken || cluster->backwards)
        return;
    cluster->turn = woken;
    races::change_to(woken->fiber);
    change_over(&thread->stack_pointer, woken->stack_pointer);
}

bool is_late() {
    return own_block()->cluster->backwards;
}

void do_in_time(std::function<void()> action) {
    races::Unseen unseen;
    if (is_late())
        own_block()->cluster->late.push_back(std::move(action));
    else
        action();
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

void named_barrier(unsigned number, unsigned threads, bool wait) {
    unsigned &arrived = own_block()->at_named[number];
    if (!threads || threads % WARP || number >= NAMED_BARRIERS)
        fail("barrier %u of %u threads: there are %u, of whole warps", number, threads, NAMED_BARRIERS);
    if (++arrived > threads)
        fail("barrier %u of %u threads is reached by more", number, threads);
    char *order = &own_block()->named_order[number][own_block()->named_barriers[number] % 2];
    races::release(order);
    if (arrived == threads) {
        arrived = 0;
        own_block()->named_barriers[number]++;
        wake(&arrived);
    } else if (wait) {
        sleep_on(&arrived);
    }
    if (wait)
        races::acquire(order);
}

static void open_cluster_barrier(Cluster *cluster) {
    cluster->at_barrier = 0;
    cluster->barriers++;
    wake(&cluster->at_barrier);
}

void cluster_arrive() {
    Cluster *cluster = own_block()->cluster;
    self()->arrived = cluster->barriers;
    races::release(&cluster->order[cluster->barriers % 2]);
    if (++cluster->at_barrier == cluster->alive)
        open_cluster_barrier(cluster);
}

void cluster_wait() {
    Cluster *cluster = own_block()->cluster;
    unsigned arrived = self()->arrived;
    if (cluster->barriers == arrived)
        sleep_on(&cluster->at_barrier);
    races::acquire(&cluster->order[arrived % 2]);
}

unsigned cluster_rank() {
    return own_block()->rank;
}

unsigned cluster_size() {
    return own_block()->cluster->num_blocks;
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

WarpJobs *&jobs_of(Warp *warp) {
    return warp->jobs;
}

/* ---- addresses of shared memory ---- */

/* Within 24 bits: the dynamic memory of a block from DYNAMIC on, where the driver puts it too, and the
 * kernels' static one from STATIC on. Above them the rank of a block in the cluster and 1, or 0: the thread's
 * own. */
constexpr uint32_t DYNAMIC = 1024, STATIC = 512 << 10;

uint8_t *dynamic_memory() {
    Block *block = own_block();
    return block->cluster->shared->dynamic(block->rank);
}

uint32_t shared_address(const void *at) {
    const SharedMemory *shared = own_block()->cluster->shared;
    const uint8_t *byte = static_cast<const uint8_t *>(at);
    size_t size = self()->grid->shared_bytes;
    if (size && byte >= dynamic_memory() && byte <= dynamic_memory() + size)
        return static_cast<uint32_t>(byte - dynamic_memory()) + DYNAMIC;
    if (byte < shared->memory() || byte > shared->memory() + shared->size())
        fail("%p is not in shared memory", at);
    return static_cast<uint32_t>(byte - shared->memory()) + STATIC;
}

uint8_t *shared_pointer(uint32_t address) {
    Block *block = own_block();
    const SharedMemory *shared = block->cluster->shared;
    uint32_t rank = address >> 24 ? (address >> 24) - 1 : block->rank, offset = address & 0xffffff;
    if (rank >= block->cluster->num_blocks || offset < DYNAMIC)
        fail("0x%08x is no address of shared memory", address);
    if (offset >= STATIC)
        return shared->memory() + (offset - STATIC);
    return shared->dynamic(rank) + (offset - DYNAMIC);
}

uint32_t address_in(uint32_t address, unsigned rank) {
    return (address & 0xffffff) | (rank + 1) << 24;
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
    races::copied(to, from, 16);
    if (!is_late()) {
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
        races::copied(copy.to, copy.from, 16);
        make_copy(copy.to, copy.from);
    }
}

/* ---- blocks ---- */

static void fiber() {
    Thread *thread = self();
    Warp *warp = thread->warp;
    Block *block = warp->block;
    races::acquire(&block->cluster->order[AT_START]);
    thread->grid->run(thread->grid->args);
    races::release(&block->cluster->order[AT_END]);
    uint32_t lane = uint32_t(1) << thread->lane;
    Cluster *cluster = block->cluster;
    warp->alive &= ~lane;
    block->alive--;
    cluster->alive--;
    sleep_lane(warp, lane);
    if (block->alive && block->at_barrier == block->alive)
        open_barrier(block);
    if (cluster->alive && cluster->at_barrier == cluster->alive)
        open_cluster_barrier(cluster);
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

/* What an OS thread keeps for its clusters. Not thread_local: that is the kernels' shared memory. */
struct Processor {
    Stacks stacks;
    Cluster cluster;
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
        print_place(on->cluster.turn);
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

static void start_block(Processor *on, const Grid &grid, Dim at, unsigned rank) {
    Cluster *cluster = &on->cluster;
    Block *block = &cluster->blocks[rank];
    unsigned threads = grid.threads.x * grid.threads.y * grid.threads.z;
    block->cluster = cluster;
    block->rank = rank;
    block->num_warps = (threads + WARP - 1) / WARP;
    block->alive = threads;
    block->at_barrier = 0;
    memset(block->at_named, 0, sizeof block->at_named);
    block->ready_warps = static_cast<uint32_t>((uint64_t(1) << block->num_warps) - 1);
    for (unsigned w = 0; w < block->num_warps; w++) {
        Warp &warp = block->warps[w];
        unsigned lanes = threads - w * WARP < WARP ? threads - w * WARP : WARP;
        warp.block = block;
        warp.number = w;
        warp.alive = warp.ready = static_cast<uint32_t>((uint64_t(1) << lanes) - 1);
        warp.at_barrier = warp.asleep = 0;
        warp.num_meetings = warp.meetings_begun = 0;
        forget_jobs(warp.jobs);
        for (unsigned l = 0; l < lanes; l++) {
            unsigned i = w * WARP + l;
            Thread *thread = thread_of(on->stacks, rank * threads + i);
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
}

/* `first` is its first block. */
static void run_cluster(Processor *on, const Grid &grid, const SharedMemory *shared, Dim first,
                        unsigned number) {
    Cluster *cluster = &on->cluster;
    cluster->shared = shared;
    cluster->num_blocks = grid.cluster;
    cluster->alive = grid.cluster * grid.threads.x * grid.threads.y * grid.threads.z;
    cluster->at_barrier = 0;
    cluster->ready_blocks = (uint32_t(1) << grid.cluster) - 1;
    cluster->backwards = number % 2;
    for (unsigned rank = 0; rank < grid.cluster; rank++)
        start_block(on, grid, Dim{first.x + rank, first.y, first.z}, rank);
    Block &block = cluster->blocks[pick(cluster->ready_blocks, cluster->backwards)];
    Warp &warp = block.warps[pick(block.ready_warps, cluster->backwards)];
    cluster->turn = warp.thread[pick(warp.ready, cluster->backwards)];
    on->running = &grid;
    cluster->caller = races::current();
    races::release(&cluster->order[AT_START]);
    races::change_to(cluster->turn->fiber);
    change_over(&cluster->return_to, cluster->turn->stack_pointer);
    races::acquire(&cluster->order[AT_END]);
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
    unsigned threads = grid.cluster * grid.threads.x * grid.threads.y * grid.threads.z, number = launches++;
    on->stacks.need(threads);
    bool waited = false;
    SharedMemory shared(grid.kernel, grid.cluster, grid.shared_bytes);
    for (unsigned z = 0; z < grid.blocks.z; z++)
        for (unsigned y = 0; y < grid.blocks.y; y++)
            for (unsigned x = 0; x < grid.blocks.x; x += grid.cluster) {
                run_cluster(on, grid, &shared, Dim{x, y, z}, number++);
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
