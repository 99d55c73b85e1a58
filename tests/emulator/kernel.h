/* A kernel as the driver runs it: its one parameter is a struct, copied for each thread as CUDA does. */
#ifndef FMK_EMULATOR_KERNEL_H
#define FMK_EMULATOR_KERNEL_H

#include <stddef.h>

namespace emulator {

/* One kernel of kernels/, as its file registers it. */
struct Kernel {
    const char *name;
    size_t args_size, args_align;
    void (*run)(const void *args);
};

void add_kernels(const Kernel *kernels, size_t count);
const Kernel *find_kernel(const char *name); /* or NULL */

template <auto kernel> struct Call;
template <class Args, void (*kernel)(Args)> struct Call<kernel> {
    static constexpr size_t size = sizeof(Args), align = alignof(Args);
    static void run(const void *args) {
        kernel(*static_cast<const Args *>(args));
    }
};

} // namespace emulator

#define FMK_EMULATED_KERNEL(name)                                                                            \
    {#name, emulator::Call<name>::size, emulator::Call<name>::align, emulator::Call<name>::run},

#endif
