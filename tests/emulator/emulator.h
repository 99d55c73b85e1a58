/* CUDA C++ for a C++ compiler: included before a .cu, it brings what the kernels use of CUDA, and takes the
 * place of kernels/ptx.cuh and ptx_sm90.cuh, whose instructions it and sm90.h spell out. */
#ifndef FMK_EMULATOR_H
#define FMK_EMULATOR_H

#define FMK_KERNELS_PTX_CUH
#define FMK_KERNELS_PTX_SM90_CUH
#define FMK_KERNELS_PTX_WGMMA_CUH

#include "fibers.h"
#include "numbers.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

/* ---- vectors ---- */

struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

inline uint2 make_uint2(unsigned x, unsigned y) {
    return uint2{x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return uint4{x, y, z, w};
}
inline int2 make_int2(int x, int y) {
    return int2{x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
    return int4{x, y, z, w};
}
inline float2 make_float2(float x, float y) {
    return float2{x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return float4{x, y, z, w};
}

/* ---- who a thread is ---- */

#define threadIdx (emulator::self()->index)
#define blockIdx (emulator::self()->block)
#define blockDim (emulator::self()->grid->threads)
#define gridDim (emulator::self()->grid->blocks)
constexpr int warpSize = 32;

/* ---- barriers and collectives ---- */

inline void __syncthreads() {
    emulator::barrier();
}

inline void __syncwarp(unsigned mask = emulator::WHOLE_WARP) {
    if (emulator::Warp *warp = emulator::arrive(mask, emulator::Collective::sync, nullptr))
        emulator::depart(warp, mask);
}

namespace emulator {

/* What lanes hand over in a collective is no race. */
#define FMK_HANDS_OVER __attribute__((no_sanitize("thread"), noinline))

template <class T> struct Shuffle {
    T value, result;
    unsigned from; /* lane */
};

/* from: a lane of the warp, or the thread's own. */
template <class T> FMK_HANDS_OVER T shuffle(unsigned mask, T value, unsigned from) {
    static_assert(std::is_arithmetic<T>::value, "what __shfl_sync takes");
    Shuffle<T> mine = {value, value, from};
    if (Warp *warp = arrive(mask, Collective::shuffle, &mine)) {
        for (unsigned lane = 0; lane < WARP; lane++) {
            if (!(mask >> lane & 1))
                continue;
            auto *to = static_cast<Shuffle<T> *>(request_of(warp, lane));
            if (!(mask >> to->from & 1))
                fail("lane %u of a shuffle reads lane %u, which its mask %08x lacks", lane, to->from, mask);
            to->result = static_cast<Shuffle<T> *>(request_of(warp, to->from))->value;
        }
        depart(warp, mask);
    }
    return mine.result;
}

/* Lanes of a shuffle's segment: the first, and one past the last. */
inline unsigned segment(unsigned width) {
    return self()->lane & ~(width - 1);
}

FMK_HANDS_OVER inline unsigned ballot(unsigned mask, bool yes) {
    unsigned mine = yes;
    if (Warp *warp = arrive(mask, Collective::ballot, &mine)) {
        unsigned all = 0;
        for (unsigned lane = 0; lane < WARP; lane++)
            if (mask >> lane & 1)
                all |= *static_cast<unsigned *>(request_of(warp, lane)) << lane;
        for (unsigned lane = 0; lane < WARP; lane++)
            if (mask >> lane & 1)
                *static_cast<unsigned *>(request_of(warp, lane)) = all;
        depart(warp, mask);
    }
    return mine;
}

} // namespace emulator

template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    unsigned w = static_cast<unsigned>(width);
    return emulator::shuffle(mask, value, emulator::segment(w) + (static_cast<unsigned>(lane) & (w - 1)));
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    unsigned w = static_cast<unsigned>(width), me = emulator::self()->lane;
    unsigned from = me ^ static_cast<unsigned>(lanes);
    return emulator::shuffle(mask, value, from < emulator::segment(w) + w ? from : me);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    unsigned w = static_cast<unsigned>(width), me = emulator::self()->lane;
    return emulator::shuffle(mask, value, me + lanes < emulator::segment(w) + w ? me + lanes : me);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    unsigned w = static_cast<unsigned>(width), me = emulator::self()->lane;
    return emulator::shuffle(mask, value, me >= emulator::segment(w) + lanes ? me - lanes : me);
}

inline unsigned __ballot_sync(unsigned mask, int yes) {
    return emulator::ballot(mask, yes != 0);
}
inline int __any_sync(unsigned mask, int yes) {
    return emulator::ballot(mask, yes != 0) != 0;
}
inline int __all_sync(unsigned mask, int yes) {
    return emulator::ballot(mask, yes != 0) == mask;
}

/* ---- atomics ---- */

namespace emulator {

template <class T, class Change> inline T exchange(T *at, Change change) {
    T before = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &before, change(before), false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
    return before;
}

template <class T> struct same { using type = T; };

} // namespace emulator

template <class T> inline T atomicAdd(T *at, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [value](T old) { return static_cast<T>(old + value); });
}
template <class T> inline T atomicMax(T *at, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [value](T old) { return old > value ? old : value; });
}
template <class T> inline T atomicMin(T *at, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [value](T old) { return old < value ? old : value; });
}
template <class T> inline T atomicOr(T *at, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [value](T old) { return old | value; });
}
template <class T> inline T atomicAnd(T *at, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [value](T old) { return old & value; });
}
template <class T> inline T atomicExch(T *at, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [value](T) { return value; });
}
template <class T>
inline T atomicCAS(T *at, typename emulator::same<T>::type want, typename emulator::same<T>::type value) {
    return emulator::exchange(at, [=](T old) { return old == want ? value : old; });
}

/* ---- arithmetic ---- */

template <class A, class B> constexpr typename std::common_type<A, B>::type min(A a, B b) {
    using C = typename std::common_type<A, B>::type;
    return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}
template <class A, class B> constexpr typename std::common_type<A, B>::type max(A a, B b) {
    using C = typename std::common_type<A, B>::type;
    return static_cast<C>(a) > static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}

inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
inline int __ffs(int bits) {
    return __builtin_ffs(bits);
}
inline int __clz(int bits) {
    return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned choice = selector >> 4 * i;
        unsigned byte = static_cast<unsigned>(both >> 8 * (choice & 7)) & 0xff;
        if (choice & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __expf(float x) {
    return expf(x);
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
template <class T> inline T __ldg(const T *at) {
    return *at;
}

/* ---- kernels/ptx.cuh ---- */

inline float f16_to_f32(uint16_t bits) {
    return emulator::f16_number(bits);
}
inline uint16_t f32_to_f16(float value) {
    return emulator::f16_bits(value);
}
inline float bf16_to_f32(uint16_t bits) {
    return emulator::bf16_number(bits);
}
inline uint16_t f32_to_bf16(float value) {
    return emulator::bf16_bits(value);
}
inline uint32_t f32_to_f16x2(float low, float high) {
    return f32_to_f16(low) | static_cast<uint32_t>(f32_to_f16(high)) << 16;
}
inline uint32_t f32_to_bf16x2(float low, float high) {
    return f32_to_bf16(low) | static_cast<uint32_t>(f32_to_bf16(high)) << 16;
}
inline uint32_t sub_bf16x2(uint32_t a, uint32_t b) {
    auto difference = [](uint32_t x, uint32_t y) -> uint32_t {
        return f32_to_bf16(bf16_to_f32(static_cast<uint16_t>(x)) - bf16_to_f32(static_cast<uint16_t>(y)));
    };
    return difference(a, b) | difference(a >> 16, b >> 16) << 16;
}
inline uint32_t mul_f16x2(uint32_t a, uint32_t b) {
    auto product = [](uint32_t x, uint32_t y) -> uint32_t {
        return f32_to_f16(f16_to_f32(static_cast<uint16_t>(x)) * f16_to_f32(static_cast<uint16_t>(y)));
    };
    return product(a, b) | product(a >> 16, b >> 16) << 16;
}
inline uint32_t sub_f16x2(uint32_t a, uint32_t b) {
    auto difference = [](uint32_t x, uint32_t y) -> uint32_t {
        return f32_to_f16(f16_to_f32(static_cast<uint16_t>(x)) - f16_to_f32(static_cast<uint16_t>(y)));
    };
    return difference(a, b) | difference(a >> 16, b >> 16) << 16;
}
inline uint32_t and_or(uint32_t value, uint32_t mask, uint32_t bits) {
    return (value & mask) | bits;
}
inline uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        auto number = [shift](uint32_t pair) {
            return static_cast<double>(f16_to_f32(static_cast<uint16_t>(pair >> shift)));
        };
        /* A product of two f16 and a sum with a third fit a double but for rare bits far below. */
        d |= static_cast<uint32_t>(f32_to_f16(static_cast<float>(number(a) * number(b) + number(c))))
             << shift;
    }
    return d;
}

inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        auto number = [shift](uint32_t pair) {
            return static_cast<double>(bf16_to_f32(static_cast<uint16_t>(pair >> shift)));
        };
        d |= static_cast<uint32_t>(f32_to_bf16(static_cast<float>(number(a) * number(b) + number(c))))
             << shift;
    }
    return d;
}
inline float mul_rn(float a, float b) {
    return a * b;
}
inline float sub_rn(float a, float b) {
    return a - b;
}
inline float bits_to_f32(uint32_t bits) {
    return emulator::float_of(bits);
}
inline uint32_t f32_to_bits(float value) {
    return emulator::bits_of(value);
}
inline uint32_t not_before_here(uint32_t value) {
    return value;
}

namespace emulator {

template <class T> inline T load_aligned(const void *from) {
    if (reinterpret_cast<uintptr_t>(from) % sizeof(T))
        fail("%p, of which %zu bytes are loaded at once, is not aligned to them", from, sizeof(T));
    return *static_cast<const T *>(from);
}

struct Mma {
    float *d;
    const float *c;
    const uint32_t *a;
    uint32_t b0, b1;
};

/* d = c + A B, 16 x 8 = 16 x 8 + 16 x 16 . 16 x 8, of the whole warp. */
void mma_f16(Mma mine);
void mma_bf16(Mma mine);

} // namespace emulator

inline uint32_t load_volatile(const uint32_t *from) {
    return __atomic_load_n(from, __ATOMIC_RELAXED);
}
inline uint4 load_stream(const void *from) {
    return emulator::load_aligned<uint4>(from);
}
inline uint8_t *dynamic_shared() {
    return emulator::dynamic_memory();
}
inline uint4 load_16(const void *from) {
    return emulator::load_aligned<uint4>(from);
}
inline float4 load_4_floats(const void *from) {
    return emulator::load_aligned<float4>(from);
}
inline uint2 load_8(const void *from) {
    return emulator::load_aligned<uint2>(from);
}

inline uint32_t shared_address(const void *at) {
    return emulator::shared_address(at);
}
inline uint4 load_shared_16(uint32_t from) {
    return emulator::load_aligned<uint4>(emulator::shared_pointer(from));
}
inline uint2 load_shared_8(uint32_t from) {
    return emulator::load_aligned<uint2>(emulator::shared_pointer(from));
}
inline void copy_16_async(void *shared, const void *from, bool there) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 || (there && reinterpret_cast<uintptr_t>(from) % 16))
        emulator::fail("16 bytes are copied from %p to %p, one of which is not aligned to them", from,
                       shared);
    emulator::start_copy(shared, there ? from : nullptr);
}
inline void copy_16_async(uint32_t shared, const void *from, bool there) {
    copy_16_async(emulator::shared_pointer(shared), from, there);
}
inline void copy_16_async(void *shared, const void *from) {
    copy_16_async(shared, from, true);
}
inline void end_copies() {
    emulator::end_copies();
}
template <int PENDING> inline void wait_for_copies() {
    emulator::wait_for_copies(PENDING);
}

inline void mma_f16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1, const float c[4]) {
    emulator::mma_f16(emulator::Mma{d, c, a, b0, b1});
}
inline void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1, const float c[4]) {
    emulator::mma_bf16(emulator::Mma{d, c, a, b0, b1});
}

inline uint32_t transpose_8x8(uint32_t pair) {
    unsigned lane = emulator::self()->index.x % emulator::WARP, g = lane / 4, t = lane % 4;
    uint32_t first = __shfl_sync(0xffffffff, pair, static_cast<int>(8 * t + g / 2));
    uint32_t second = __shfl_sync(0xffffffff, pair, static_cast<int>(8 * t + 4 + g / 2));
    return (first >> g % 2 * 16 & 0xffff) | (second >> g % 2 * 16 & 0xffff) << 16;
}

inline void allow_dependents() {}
inline void wait_for_dependency() {
    emulator::self()->waited_for_dependency = true;
}

#include "sm90.h"

#endif
