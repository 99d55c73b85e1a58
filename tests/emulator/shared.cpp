/* See shared.h. Filling the memory of all kernels for every block would take longer than the block: what a
 * kernel uses is learned from its first blocks, and only that is filled again. */
#include "shared.h"

#include <link.h>
#include <map>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace emulator {

constexpr size_t CHUNK = 256;
constexpr int LOOKS = 16; /* blocks that are learned from */
constexpr uint8_t POISON = 0xff;

struct Use {
    std::mutex lock;
    int looks = 0;
    std::vector<size_t> chunks; /* offsets of those that it uses */
};

static thread_local char within_segment; /* makes the segment be there on this thread */

struct Segment {
    const void *code;
    uint8_t *data;
    size_t size;
};

static int find_segment(dl_phdr_info *info, size_t, void *out) {
    Segment *segment = static_cast<Segment *>(out);
    uintptr_t code = reinterpret_cast<uintptr_t>(segment->code) - info->dlpi_addr;
    bool ours = false;
    size_t size = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto &header = info->dlpi_phdr[i];
        if (header.p_type == PT_LOAD && code - header.p_vaddr < header.p_memsz)
            ours = true;
        if (header.p_type == PT_TLS)
            size = header.p_memsz;
    }
    if (!ours)
        return 0;
    segment->data = static_cast<uint8_t *>(info->dlpi_tls_data);
    segment->size = size;
    return 1;
}

static Use *use_of(const char *kernel) {
    static std::mutex lock;
    static std::map<std::string, Use> uses;
    std::lock_guard<std::mutex> held(lock);
    return &uses[kernel];
}

constexpr size_t PAGE = 4096;
constexpr size_t ROOM = 256 << 10; /* of a block's dynamic memory: more than any GPU has */

uint8_t *SharedMemory::dynamic(unsigned rank) const {
    return dynamic_ + rank * (ROOM + PAGE) + ROOM - (dynamic_size_ + 1023) / 1024 * 1024;
}

void SharedMemory::fill_dynamic() {
    for (unsigned rank = 0; dynamic_size_ && rank < blocks_; rank++)
        memset(dynamic(rank), POISON, (dynamic_size_ + 1023) / 1024 * 1024);
}

SharedMemory::~SharedMemory() {
    if (dynamic_size_)
        munmap(dynamic_, blocks_ * (ROOM + PAGE));
}

SharedMemory::SharedMemory(const char *kernel, unsigned blocks, size_t dynamic_bytes)
    : kernel_(kernel), use_(use_of(kernel)), dynamic_(nullptr), dynamic_size_(dynamic_bytes),
      blocks_(blocks) {
    if (dynamic_size_) {
        void *all = mmap(nullptr, blocks * (ROOM + PAGE), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) {
            fprintf(stderr, "emulator: no memory for the shared memory of %s\n", kernel);
            abort();
        }
        dynamic_ = static_cast<uint8_t *>(all);
        for (unsigned rank = 0; rank < blocks; rank++)
            mprotect(dynamic_ + rank * (ROOM + PAGE) + ROOM, PAGE, PROT_NONE);
        fill_dynamic();
    }
    *static_cast<volatile char *>(&within_segment) = static_cast<char>(POISON);
    Segment segment = {reinterpret_cast<const void *>(use_of), nullptr, 0};
    dl_iterate_phdr(find_segment, &segment);
    memory_ = segment.data;
    size_ = segment.size;
    std::lock_guard<std::mutex> held(use_->lock);
    if (use_->looks < LOOKS)
        memset(memory_, POISON, size_);
    else
        fill_used();
}

void SharedMemory::fill_used() {
    for (size_t at : use_->chunks)
        memset(memory_ + at, POISON, size_ - at < CHUNK ? size_ - at : CHUNK);
}

static bool touched(const uint8_t *memory, size_t size) {
    return memory[0] != POISON || memcmp(memory, memory + 1, size - 1);
}

void SharedMemory::poison() {
    /* What lies behind the end, up to the page. */
    for (unsigned rank = 0; dynamic_size_ && rank < blocks_; rank++)
        for (size_t at = dynamic_size_; at % 1024; at++)
            if (dynamic(rank)[at] != POISON) {
                fprintf(stderr, "emulator: %s wrote past its %zu bytes of dynamic shared memory\n", kernel_,
                        dynamic_size_);
                abort();
            }
    fill_dynamic();
    std::lock_guard<std::mutex> held(use_->lock);
    fill_used();
    if (use_->looks >= LOOKS)
        return;
    use_->looks++;
    for (size_t at = 0; at < size_; at += CHUNK) {
        size_t size = size_ - at < CHUNK ? size_ - at : CHUNK;
        if (touched(memory_ + at, size)) {
            if (blocks_ > 1) {
                fprintf(stderr, "emulator: %s runs in clusters; its shared memory is to be dynamic\n",
                        kernel_);
                abort();
            }
            use_->chunks.push_back(at);
            memset(memory_ + at, POISON, size);
        }
    }
}

} // namespace emulator
