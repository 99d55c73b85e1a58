/* The kernels' shared memory. Each __shared__ array is thread-local, and nothing else in this library is: the
 * library's thread-local segment is the shared memory of every kernel. Before each block it is full of bytes
 * that make a NaN of any float, and -1 of any integer. */
#ifndef FMK_EMULATOR_SHARED_H
#define FMK_EMULATOR_SHARED_H

#include <stddef.h>
#include <stdint.h>

namespace emulator {

/* What one launch has of it, on one OS thread. Dynamic shared memory, of which each block of a cluster has
 * its own, ends at a page that cannot be touched. */
class SharedMemory {
  public:
    SharedMemory(const char *kernel, unsigned blocks, size_t dynamic_bytes);
    ~SharedMemory();
    SharedMemory(const SharedMemory &) = delete;
    /* A cluster has ended. */
    void poison();

    uint8_t *memory() const {
        return memory_;
    }
    size_t size() const {
        return size_;
    }
    uint8_t *dynamic(unsigned rank) const;

  private:
    void fill_used();
    void fill_dynamic();

    const char *kernel_;
    struct Use *use_;
    uint8_t *memory_, *dynamic_;
    size_t size_, dynamic_size_;
    unsigned blocks_;
};

} // namespace emulator

#endif
