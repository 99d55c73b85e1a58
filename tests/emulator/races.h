/* Races between CUDA threads, found by ThreadSanitizer: each is a fiber of its to it, and these tell it what
 * orders them. They do nothing where the kernels are not compiled for it. */
#ifndef FMK_EMULATOR_RACES_H
#define FMK_EMULATOR_RACES_H

#include <stddef.h>

#ifdef FMK_EMULATOR_RACES
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *, unsigned long);
extern "C" void __tsan_write_range(void *, unsigned long);
#endif

namespace emulator {
namespace races {

#ifdef FMK_EMULATOR_RACES
/* The running fiber; a new one; on to another, which orders nothing. */
inline void *current() {
    return __tsan_get_current_fiber();
}
inline void *make() {
    return __tsan_create_fiber(0);
}
inline void destroy(void *fiber) {
    __tsan_destroy_fiber(fiber);
}
inline void change_to(void *fiber) {
    __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}
/* What came before a release comes before what follows an acquire of the same. */
inline void release(char *order) {
    __tsan_release(order);
}
inline void acquire(char *order) {
    __tsan_acquire(order);
}
/* By a copy: `from` NULL is zeros. */
inline void copied(void *to, const void *from, size_t bytes) {
    if (from)
        __tsan_read_range(const_cast<void *>(from), bytes);
    __tsan_write_range(to, bytes);
}
#else
inline void *current() {
    return nullptr;
}
inline void *make() {
    return nullptr;
}
inline void destroy(void *) {}
inline void change_to(void *) {}
inline void release(char *) {}
inline void acquire(char *) {}
inline void copied(void *, const void *, size_t) {}
#endif

} // namespace races
} // namespace emulator

#endif
