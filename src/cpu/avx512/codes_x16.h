/* Codes and scales of x16 panels in registers: a quad is four consecutive k of sixteen rows, a byte each. */
#ifndef FMK_CPU_CODES_X16_H
#define FMK_CPU_CODES_X16_H

#include "../tile.h"
#include "../layouts/x16.h"

#include <immintrin.h>

FMK_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}

/* The same, in a register: left to itself gcc makes it an operand of each instruction that uses it, and where
 * panels are not aligned to cache lines every load counts twice. */
FMK_INLINE __m512i load_once(const void *p) {
    __m512i x = load(p);
    __asm__("" : "+v"(x));
    return x;
}

/* Sixteen f16, bytes, signed bytes as floats. */
FMK_INLINE __m512 widen_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

FMK_INLINE __m512 widen_u8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

FMK_INLINE __m512 widen_i8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* The eight quads of a chunk of nibbles. */
FMK_INLINE void unpack_nibbles(const uint8_t *nibbles, __m512i codes[8]) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m512i both = load_once(nibbles + 64 * v);
        codes[v] = _mm512_and_si512(both, low);
        codes[v + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
}

/* The eight quads of a chunk of q6_k: codes 0..63. */
FMK_INLINE void unpack_six_bits(const uint8_t *low, const uint8_t *high, __m512i codes[8]) {
    unpack_nibbles(low, codes);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512i pairs = load_once(high + 64 * h);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m512i two = j < 2 ? _mm512_slli_epi16(pairs, 4 - 2 * j) : _mm512_srli_epi16(pairs, 2 * j - 4);
            /* (two & 0x30) | nibbles */
            codes[4 * h + j] = _mm512_ternarylogic_epi32(two, _mm512_set1_epi8(0x30), codes[4 * h + j], 0xea);
        }
    }
}

#endif
