/* Instructions and conversions, each wrapped once. Nothing else in this folder holds assembly or a CUDA
 * header, so that the kernels can be read, and compiled, without either. */
#ifndef FMK_KERNELS_PTX_CUH
#define FMK_KERNELS_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

/* ---- numbers: bits of f16 and bf16 to float and back, to nearest even ---- */

__device__ __forceinline__ float f16_to_f32(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

__device__ __forceinline__ uint16_t f32_to_f16(float value) {
    return __half_as_ushort(__float2half_rn(value));
}

__device__ __forceinline__ float bf16_to_f32(uint16_t bits) {
    return __uint_as_float((uint32_t)bits << 16);
}

__device__ __forceinline__ uint16_t f32_to_bf16(float value) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

/* Two at once: `low` in bits 0..15, `high` in bits 16..31. */
__device__ __forceinline__ uint32_t f32_to_f16x2(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

__device__ __forceinline__ uint32_t f32_to_bf16x2(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

/* Two bf16 differences: both halves of a minus those of b. */
__device__ __forceinline__ uint32_t sub_bf16x2(uint32_t a, uint32_t b) {
    __nv_bfloat162 x = *reinterpret_cast<__nv_bfloat162 *>(&a), y = *reinterpret_cast<__nv_bfloat162 *>(&b);
    __nv_bfloat162 d = __hsub2(x, y);
    return *reinterpret_cast<uint32_t *>(&d);
}

/* Two f16 products, and differences. */
__device__ __forceinline__ uint32_t mul_f16x2(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ uint32_t sub_f16x2(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

/* value & mask | bits, in one instruction: `mask` is to be a constant, `bits` in a register. */
__device__ __forceinline__ uint32_t and_or(uint32_t value, uint32_t mask, uint32_t bits) {
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(value), "r"(mask), "r"(bits));
    return d;
}

/* a b + c */
__device__ __forceinline__ uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* Products, sums and differences that are never contracted: dequantized values are bit-exact. */
__device__ __forceinline__ float mul_rn(float a, float b) {
    return __fmul_rn(a, b);
}

__device__ __forceinline__ float sub_rn(float a, float b) {
    return __fsub_rn(a, b);
}

__device__ __forceinline__ float bits_to_f32(uint32_t bits) {
    return __uint_as_float(bits);
}

__device__ __forceinline__ uint32_t f32_to_bits(float value) {
    return __float_as_uint(value);
}

/* Nothing, but what is made of the value is made after the wrapped instructions before this one: it keeps the
 * compiler from computing far ahead, into registers that are not there. */
__device__ __forceinline__ uint32_t not_before_here(uint32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

/* ---- memory ---- */

/* The block's dynamic shared memory. It begins at a multiple of 1024 in a kernel that has no other. */
__device__ __forceinline__ uint8_t *dynamic_shared() {
    extern __shared__ __align__(1024) uint8_t memory[];
    return memory;
}

/* What others may be changing meanwhile. */
__device__ __forceinline__ uint32_t load_volatile(const uint32_t *from) {
    return *(const volatile uint32_t *)from;
}

/* An address as instructions of the shared window take it. */
__device__ __forceinline__ uint32_t shared_address(const void *at) {
    return (uint32_t)__cvta_generic_to_shared(at);
}

__device__ __forceinline__ uint4 load_shared_16(uint32_t from) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from));
    return v;
}

__device__ __forceinline__ uint2 load_shared_8(uint32_t from) {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(from));
    return v;
}

/* 16 bytes that nobody else will read: weights. They do not displace what the first cache holds. */
__device__ __forceinline__ uint4 load_stream(const void *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

/* Activations, which other warps read too. Plain loads, not .nc: an earlier kernel may still be writing them
 * when this one starts. */
__device__ __forceinline__ uint4 load_16(const void *from) {
    return *reinterpret_cast<const uint4 *>(from);
}

__device__ __forceinline__ float4 load_4_floats(const void *from) {
    return *reinterpret_cast<const float4 *>(from);
}

__device__ __forceinline__ uint2 load_8(const void *from) {
    return *reinterpret_cast<const uint2 *>(from);
}

/* Starts a copy of 16 bytes to shared memory; `there` false: of zeros, and `from` is not read. Both addresses
 * are multiples of 16. */
__device__ __forceinline__ void copy_16_async(uint32_t shared, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_16_async(void *shared, const void *from, bool there) {
    copy_16_async(shared_address(shared), from, there);
}

__device__ __forceinline__ void copy_16_async(void *shared, const void *from) {
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/* The thread's copies started since the last end of a group are a group. */
__device__ __forceinline__ void end_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most PENDING of the thread's last groups are not done. What other threads copied is seen
 * after a barrier. */
template <int PENDING> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* ---- tensor cores ---- */

/* d = A B + c: 16 x 8 = 16 x 16 . 16 x 8. d may be c. */
__device__ __forceinline__ void mma_f16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
                                        const float c[4]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
                   "f"(c[2]), "f"(c[3]));
}

__device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
                                         const float c[4]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
                   "f"(c[2]), "f"(c[3]));
}

/* The warp's 8 x 8 matrix of 16-bit numbers, of which a lane has two neighbours of row lane / 4, transposed.
 */
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t pair) {
    uint32_t transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
    return transposed;
}

/* ---- programmatic dependent launch; before sm_90 there is none, and the kernel before has ended ---- */

/* The next kernel on the stream may start now, if it was launched to. */
__device__ __forceinline__ void allow_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Returns when the kernel before has ended and what it wrote can be seen. */
__device__ __forceinline__ void wait_for_dependency() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#endif
