/* The kernels' shared memory. Each __shared__ array is thread-local, and nothing else in this library is: the
 * library's thread-local segment is the shared memory of every kernel. Before each block it is full of bytes
 * that make a NaN of any float, and -1 of any integer. */
#ifndef FMK_EMULATOR_SHARED_H
#define FMK_EMULATOR_SHARED_H

#include <stddef.h>
#include <stdint.h>

namespace emulator {

/* What one launch has of it, on one OS thread. */
class SharedMemory {
  public:
    explicit SharedMemory(const char *kernel);
    /* A block has ended. */
    void poison();

  private:
    void fill_used();

    struct Use *use_;
    uint8_t *memory_;
    size_t size_;
};

} // namespace emulator

#endif
