/* kernels/ptx_sm90.cuh for a C++ compiler: see emulator.h. */
#ifndef FMK_EMULATOR_SM90_H
#define FMK_EMULATOR_SM90_H

#include "async.h"
#include "races.h"

inline int32_t same_in_all_lanes(int32_t value) {
    return __shfl_sync(~0u, value, 0);
}

/* ---- mbarriers ---- */

inline void mbarrier_init(uint32_t barrier, uint32_t count) {
    emulator::mbarrier_init(barrier, count);
}
inline void mbarrier_arrive(uint32_t barrier) {
    emulator::mbarrier_arrive(barrier);
}
inline void mbarrier_arrive_for(uint32_t barrier, uint32_t threads) {
    for (uint32_t i = 0; i < threads; i++)
        emulator::mbarrier_arrive(barrier);
}
inline void mbarrier_arrive_at_for(uint32_t rank, uint32_t barrier, uint32_t threads) {
    mbarrier_arrive_for(emulator::address_in(barrier, rank), threads);
}
inline void mbarrier_arrive_expecting(uint32_t barrier, uint32_t bytes) {
    emulator::mbarrier_expect(barrier, bytes);
    emulator::mbarrier_arrive(barrier);
}
inline void mbarrier_arrive_at(uint32_t rank, uint32_t barrier) {
    emulator::mbarrier_arrive(emulator::address_in(barrier, rank));
}
inline void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    emulator::mbarrier_wait(barrier, parity);
}
inline void fence_mbarrier_init() {}
inline void fence_async_proxy() {}
inline void fence_async_proxy_everywhere() {}

/* ---- copies ---- */

inline void copy_bulk(uint32_t shared, const void *from, uint32_t bytes, uint32_t barrier) {
    emulator::copy_bulk(shared, from, bytes, barrier);
}

inline void copy_box(uint32_t shared, const void *map, int32_t column, int32_t row, int32_t chunk,
                     int32_t matrix, uint32_t barrier) {
    const int32_t at[4] = {column, row, chunk, matrix};
    emulator::copy_box(static_cast<uint16_t>(1u << emulator::cluster_rank()), shared, map, at, 4, barrier);
}
inline void copy_box_to(uint16_t ranks, uint32_t shared, const void *map, int32_t column, int32_t row,
                        int32_t chunk, int32_t matrix, uint32_t barrier) {
    const int32_t at[4] = {column, row, chunk, matrix};
    emulator::copy_box(ranks, shared, map, at, 4, barrier);
}
inline void prefetch_map(const void *) {}

/* ---- matrices of 8 x 8 in shared memory ---- */

namespace emulator {

/* Row `row` of matrix `matrix`, as the lanes of the warp name them. */
inline uint8_t *matrix_row(uint32_t address, int matrix, int row) {
    uint32_t at = __shfl_sync(WHOLE_WARP, address, 8 * matrix + row);
    if (at % 16)
        fail("a row of a matrix at 0x%08x, which is not a multiple of 16", at);
    return shared_pointer(at);
}

inline uint32_t pair_at(const uint8_t *row, int column) {
    uint32_t pair;
    memcpy(&pair, row + 2 * column, sizeof pair);
    return pair;
}

} // namespace emulator

inline void load_matrices(uint32_t shared, uint32_t v[4]) {
    int lane = static_cast<int>(emulator::self()->lane);
    for (int i = 0; i < 4; i++)
        v[i] = emulator::pair_at(emulator::matrix_row(shared, i, lane / 4), lane % 4 * 2);
    __syncwarp();
}
inline void load_two_matrices(uint32_t shared, uint32_t v[2]) {
    int lane = static_cast<int>(emulator::self()->lane);
    for (int i = 0; i < 2; i++)
        v[i] = emulator::pair_at(emulator::matrix_row(shared, i, lane / 4), lane % 4 * 2);
    __syncwarp();
}
inline void store_transposed(uint32_t shared, const uint32_t v[4]) {
    int lane = static_cast<int>(emulator::self()->lane);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            uint16_t number = static_cast<uint16_t>(v[i] >> 16 * j);
            memcpy(emulator::matrix_row(shared, i, lane % 4 * 2 + j) + lane / 4 * 2, &number, sizeof number);
        }
    __syncwarp();
}

/* ---- blocks and clusters ---- */

inline bool elect_one() {
    return emulator::self()->lane == 0;
}

inline void barrier_named(uint32_t barrier, uint32_t threads) {
    emulator::named_barrier(barrier, threads, true);
}
inline void arrive_named(uint32_t barrier, uint32_t threads) {
    emulator::named_barrier(barrier, threads, false);
}
template <int COUNT> inline void give_registers() {}
template <int COUNT> inline void take_registers() {}
inline void cluster_arrive() {
    emulator::cluster_arrive();
}
inline void cluster_wait() {
    emulator::cluster_wait();
}
inline void store_4_floats_to(uint32_t rank, uint32_t shared, float4 v, uint32_t barrier) {
    emulator::races::copied(emulator::shared_pointer(emulator::address_in(shared, rank)), nullptr, sizeof v);
    emulator::will_complete(emulator::address_in(barrier, rank));
    emulator::do_in_time([=] {
        memcpy(emulator::shared_pointer(emulator::address_in(shared, rank)), &v, sizeof v);
        emulator::mbarrier_complete(emulator::address_in(barrier, rank), sizeof v);
    });
}
inline uint32_t cluster_rank() {
    return emulator::cluster_rank();
}
inline uint32_t cluster_size() {
    return emulator::cluster_size();
}
inline uint32_t cluster_id() {
    return blockIdx.x / emulator::cluster_size();
}
inline uint32_t clusters() {
    return gridDim.x / emulator::cluster_size();
}

/* ---- flags in global memory: clusters run one after the other ---- */

inline void publish(uint64_t *flag, uint64_t value) {
    *flag = value;
}
inline void wait_for_flag(const uint64_t *flag, uint64_t value) {
    if (*flag != value)
        emulator::fail("a block waits for one that comes after it");
}

/* ---- arithmetic of two at once ---- */

inline uint32_t mul_bf16x2(uint32_t a, uint32_t b) {
    return fma_bf16x2(a, b, 0);
}

/* ---- wgmma ---- */

inline void wgmma_fence() {
    __syncwarp();
}
inline void wgmma_end_group() {
    emulator::wgmma_end_group();
}
template <int PENDING> inline void wgmma_wait() {
    emulator::wgmma_wait(PENDING);
}
template <int COUNT> inline void settle(float *) {}

inline uint64_t wgmma_descriptor(uint32_t shared) {
    return uint64_t(1) << 62 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 16 | (shared & 0x3ffff) >> 4;
}

inline void wgmma_n16_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 16, emulator::Number::f16});
}
inline void wgmma_n16_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 16, emulator::Number::bf16});
}
inline void wgmma_n32_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 32, emulator::Number::f16});
}
inline void wgmma_n32_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 32, emulator::Number::bf16});
}
inline void wgmma_n64_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 64, emulator::Number::f16});
}
inline void wgmma_n64_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 64, emulator::Number::bf16});
}
inline void wgmma_n128_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 128, emulator::Number::f16});
}
inline void wgmma_n128_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 128, emulator::Number::bf16});
}
inline void wgmma_n144_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 144, emulator::Number::f16});
}
inline void wgmma_n144_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 144, emulator::Number::bf16});
}
inline void wgmma_n160_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 160, emulator::Number::f16});
}
inline void wgmma_n160_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 160, emulator::Number::bf16});
}
inline void wgmma_n192_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 192, emulator::Number::f16});
}
inline void wgmma_n192_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 192, emulator::Number::bf16});
}
inline void wgmma_n224_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 224, emulator::Number::f16});
}
inline void wgmma_n224_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 224, emulator::Number::bf16});
}
inline void wgmma_n256_f16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 256, emulator::Number::f16});
}
inline void wgmma_n256_bf16(float *d, const uint32_t a[4], uint64_t b, bool add) {
    emulator::wgmma(emulator::Wgmma{d, {a[0], a[1], a[2], a[3]}, b, add, 256, emulator::Number::bf16});
}

#endif
