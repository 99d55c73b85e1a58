/* Eight lanes, in the words of the headers in ../gemm: AVX2, FMA, F16C. */
#ifndef FMK_CPU_AVX2_VECTORS_H
#define FMK_CPU_AVX2_VECTORS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FMK_INLINE static inline __attribute__((always_inline))

/* Four tokens by two vectors of rows: eight sums in 16 registers, which leaves room for products that wait to
 * be added. */
enum { LANES = 8, MOST_T = 4 };

typedef __m256i ints;
typedef __m256 floats;

FMK_INLINE ints no_ints(void) {
    return _mm256_setzero_si256();
}
FMK_INLINE floats no_floats(void) {
    return _mm256_setzero_ps();
}
FMK_INLINE ints load_ints(const void *p) {
    return _mm256_loadu_si256(p);
}
FMK_INLINE void store_ints(void *p, ints x) {
    _mm256_storeu_si256(p, x);
}
FMK_INLINE floats load_floats(const float *p) {
    return _mm256_loadu_ps(p);
}
FMK_INLINE void store_floats(float *p, floats x) {
    _mm256_storeu_ps(p, x);
}
FMK_INLINE ints all_32(int32_t x) {
    return _mm256_set1_epi32(x);
}
FMK_INLINE ints all_16(int16_t x) {
    return _mm256_set1_epi16(x);
}
/* A pair of int16 in memory, to all lanes. */
FMK_INLINE ints all_pairs(const int16_t *pair) {
    int32_t both;
    memcpy(&both, pair, sizeof both);
    return _mm256_set1_epi32(both);
}
FMK_INLINE floats all_floats(float x) {
    return _mm256_set1_ps(x);
}
FMK_INLINE ints and (ints a, ints b) {
    return _mm256_and_si256(a, b);
}
FMK_INLINE ints or (ints a, ints b) {
    return _mm256_or_si256(a, b);
}
FMK_INLINE ints shift_left(ints a, const int bits) {
    return _mm256_slli_epi32(a, bits);
}
FMK_INLINE ints shift_right(ints a, const int bits) {
    return _mm256_srli_epi32(a, bits);
}
FMK_INLINE ints shift_right_signed(ints a, const int bits) {
    return _mm256_srai_epi32(a, bits);
}
FMK_INLINE ints subtract_16(ints a, ints b) {
    return _mm256_sub_epi16(a, b);
}
FMK_INLINE ints multiply_16(ints a, ints b) {
    return _mm256_mullo_epi16(a, b);
}
/* sum + a0 * b0 + a1 * b1 of the int16 pairs in each lane. */
FMK_INLINE ints dot_pairs(ints sum, ints a, ints b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
FMK_INLINE floats to_floats(ints x) {
    return _mm256_cvtepi32_ps(x);
}
FMK_INLINE floats multiply(floats a, floats b) {
    return _mm256_mul_ps(a, b);
}
FMK_INLINE floats add(floats a, floats b) {
    return _mm256_add_ps(a, b);
}
/* a * b + c, c - a * b and a * b - c, rounded once. */
FMK_INLINE floats multiply_add(floats a, floats b, floats c) {
    return _mm256_fmadd_ps(a, b, c);
}
FMK_INLINE floats multiply_from(floats a, floats b, floats c) {
    return _mm256_fnmadd_ps(a, b, c);
}
FMK_INLINE floats multiply_less(floats a, floats b, floats c) {
    return _mm256_fmsub_ps(a, b, c);
}
/* One number a lane, from bytes, halves or bf16 in memory. */
FMK_INLINE ints widen_u8(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
FMK_INLINE ints widen_i8(const uint8_t *p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
FMK_INLINE floats widen_f16(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
FMK_INLINE floats widen_bf16(const uint8_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
/* Of the low 16 bits of each lane. */
FMK_INLINE floats low_f16(ints x) {
    x = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}
FMK_INLINE ints as_ints(floats x) {
    return _mm256_castps_si256(x);
}
FMK_INLINE floats as_floats(ints x) {
    return _mm256_castsi256_ps(x);
}

/* Vector i's lane j to vector j's lane i: first within 4 x 4 blocks, then the blocks. */
FMK_INLINE void transpose(ints x[LANES]) {
    ints y[LANES];
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += 4) {
        ints a = _mm256_unpacklo_epi32(x[i], x[i + 1]), b = _mm256_unpackhi_epi32(x[i], x[i + 1]);
        ints c = _mm256_unpacklo_epi32(x[i + 2], x[i + 3]), d = _mm256_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm256_unpacklo_epi64(a, c);
        y[i + 1] = _mm256_unpackhi_epi64(a, c);
        y[i + 2] = _mm256_unpacklo_epi64(b, d);
        y[i + 3] = _mm256_unpackhi_epi64(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2x128_si256(y[i], y[4 + i], 0x20);
        x[4 + i] = _mm256_permute2x128_si256(y[i], y[4 + i], 0x31);
    }
}

#endif
