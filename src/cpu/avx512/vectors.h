/* Sixteen lanes, in the words of the headers in ../gemm: AVX-512 F, BW, DQ, VL and VNNI. */
#ifndef FMK_CPU_AVX512_VECTORS_H
#define FMK_CPU_AVX512_VECTORS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FMK_INLINE static inline __attribute__((always_inline))

/* Eight tokens by two vectors of rows: 16 sums, twice what the latency of a multiplication asks for. */
enum { LANES = 16, MOST_T = 8 };

typedef __m512i ints;
typedef __m512 floats;

FMK_INLINE ints no_ints(void) {
    return _mm512_setzero_si512();
}
FMK_INLINE floats no_floats(void) {
    return _mm512_setzero_ps();
}
FMK_INLINE ints load_ints(const void *p) {
    return _mm512_loadu_si512(p);
}
FMK_INLINE void store_ints(void *p, ints x) {
    _mm512_storeu_si512(p, x);
}
FMK_INLINE floats load_floats(const float *p) {
    return _mm512_loadu_ps(p);
}
FMK_INLINE void store_floats(float *p, floats x) {
    _mm512_storeu_ps(p, x);
}
FMK_INLINE ints all_32(int32_t x) {
    return _mm512_set1_epi32(x);
}
FMK_INLINE ints all_16(int16_t x) {
    return _mm512_set1_epi16(x);
}
/* A pair of int16 in memory, to all lanes. */
FMK_INLINE ints all_pairs(const int16_t *pair) {
    int32_t both;
    memcpy(&both, pair, sizeof both);
    return _mm512_set1_epi32(both);
}
FMK_INLINE floats all_floats(float x) {
    return _mm512_set1_ps(x);
}
FMK_INLINE ints and (ints a, ints b) {
    return _mm512_and_si512(a, b);
}
FMK_INLINE ints or (ints a, ints b) {
    return _mm512_or_si512(a, b);
}
FMK_INLINE ints shift_left(ints a, const int bits) {
    return _mm512_slli_epi32(a, (unsigned)bits);
}
FMK_INLINE ints shift_right(ints a, const int bits) {
    return _mm512_srli_epi32(a, (unsigned)bits);
}
FMK_INLINE ints shift_right_signed(ints a, const int bits) {
    return _mm512_srai_epi32(a, (unsigned)bits);
}
FMK_INLINE ints subtract_16(ints a, ints b) {
    return _mm512_sub_epi16(a, b);
}
FMK_INLINE ints multiply_16(ints a, ints b) {
    return _mm512_mullo_epi16(a, b);
}
/* sum + a0 * b0 + a1 * b1 of the int16 pairs in each lane. */
FMK_INLINE ints dot_pairs(ints sum, ints a, ints b) {
    return _mm512_dpwssd_epi32(sum, a, b);
}
FMK_INLINE floats to_floats(ints x) {
    return _mm512_cvtepi32_ps(x);
}
FMK_INLINE floats multiply(floats a, floats b) {
    return _mm512_mul_ps(a, b);
}
FMK_INLINE floats add(floats a, floats b) {
    return _mm512_add_ps(a, b);
}
/* a * b + c, c - a * b and a * b - c, rounded once. */
FMK_INLINE floats multiply_add(floats a, floats b, floats c) {
    return _mm512_fmadd_ps(a, b, c);
}
FMK_INLINE floats multiply_from(floats a, floats b, floats c) {
    return _mm512_fnmadd_ps(a, b, c);
}
FMK_INLINE floats multiply_less(floats a, floats b, floats c) {
    return _mm512_fmsub_ps(a, b, c);
}
/* One number a lane, from bytes, halves or bf16 in memory. */
FMK_INLINE ints widen_u8(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
FMK_INLINE ints widen_i8(const uint8_t *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
FMK_INLINE floats widen_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
FMK_INLINE floats widen_bf16(const uint8_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
/* Of the low 16 bits of each lane. */
FMK_INLINE floats low_f16(ints x) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
}

/* Vector i's lane j to vector j's lane i: first within 4 x 4 blocks, then the blocks. */
FMK_INLINE void transpose(ints x[LANES]) {
    ints y[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        ints a = _mm512_unpacklo_epi32(x[i], x[i + 1]), b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        ints c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_epi64(a, c);
        y[i + 1] = _mm512_unpackhi_epi64(a, c);
        y[i + 2] = _mm512_unpacklo_epi64(b, d);
        y[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        ints a = _mm512_shuffle_i32x4(y[i], y[4 + i], 0x44), b = _mm512_shuffle_i32x4(y[i], y[4 + i], 0xee);
        ints c = _mm512_shuffle_i32x4(y[8 + i], y[12 + i], 0x44),
             d = _mm512_shuffle_i32x4(y[8 + i], y[12 + i], 0xee);
        x[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        x[4 + i] = _mm512_shuffle_i32x4(a, c, 0xdd);
        x[8 + i] = _mm512_shuffle_i32x4(b, d, 0x88);
        x[12 + i] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

FMK_INLINE ints as_ints(floats x) {
    return _mm512_castps_si512(x);
}
FMK_INLINE floats as_floats(ints x) {
    return _mm512_castsi512_ps(x);
}

#endif
