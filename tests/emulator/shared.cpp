/* See shared.h. Filling the memory of all kernels for every block would take longer than the block: what a
 * kernel uses is learned from its first blocks, and only that is filled again. */
#include "shared.h"

#include <link.h>
#include <map>
#include <mutex>
#include <string.h>
#include <string>
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

SharedMemory::SharedMemory(const char *kernel) : use_(use_of(kernel)) {
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
    std::lock_guard<std::mutex> held(use_->lock);
    fill_used();
    if (use_->looks >= LOOKS)
        return;
    use_->looks++;
    for (size_t at = 0; at < size_; at += CHUNK) {
        size_t size = size_ - at < CHUNK ? size_ - at : CHUNK;
        if (touched(memory_ + at, size)) {
            use_->chunks.push_back(at);
            memset(memory_ + at, POISON, size);
        }
    }
}

} // namespace emulator
