/* Races between CUDA threads, found by ThreadSanitizer: each is a fiber of its to it, and these tell it what
 * orders them. They do nothing where the kernels are not compiled for it. */
#ifndef FMK_EMULATOR_RACES_H
#define FMK_EMULATOR_RACES_H

#include <stddef.h>

#ifdef FMK_EMULATOR_RACES
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *, long); /* as gcc knows them */
extern "C" void __tsan_write_range(void *, long);
extern "C" void AnnotateIgnoreReadsBegin(const char *, int);
extern "C" void AnnotateIgnoreReadsEnd(const char *, int);
extern "C" void AnnotateIgnoreWritesBegin(const char *, int);
extern "C" void AnnotateIgnoreWritesEnd(const char *, int);
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
/* What the emulator itself does, while one lives, is nobody's. */
struct Unseen {
    Unseen() {
        AnnotateIgnoreReadsBegin("", 0);
        AnnotateIgnoreWritesBegin("", 0);
    }
    ~Unseen() {
        AnnotateIgnoreWritesEnd("", 0);
        AnnotateIgnoreReadsEnd("", 0);
    }
};
/* By a copy: `from` NULL is zeros. */
inline void copied(void *to, const void *from, size_t bytes) {
    if (from)
        __tsan_read_range(const_cast<void *>(from), static_cast<long>(bytes));
    __tsan_write_range(to, static_cast<long>(bytes));
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
struct Unseen {
    ~Unseen() {}
};
inline void copied(void *, const void *, size_t) {}
#endif

} // namespace races
} // namespace emulator

#endif
