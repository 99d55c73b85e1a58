/* Activations to blocks of int8 with AVX-512 (../quantize_blocks.c), a register for each 16 that share a
 * scale; what is wanted of each 16 is computed for 16 of them at once. */
#include "../tile.h"

#include <immintrin.h>
#include <string.h>

typedef __m512i combine(__m512i a, __m512i b);

FMK_INLINE __m512i larger(__m512i a, __m512i b) {
    return _mm512_max_epi32(a, b);
}

FMK_INLINE __m512i plus(__m512i a, __m512i b) {
    return _mm512_add_epi32(a, b);
}

/* Lane 4l + i of the result: x[i]'s four lanes 4l .. 4l+3 combined. */
FMK_INLINE __m512i fold_fours(const __m512i x[4], combine *of) {
    __m512i first = of(_mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[0], x[1]));
    __m512i second = of(_mm512_unpacklo_epi32(x[2], x[3]), _mm512_unpackhi_epi32(x[2], x[3]));
    return of(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
}

/* Lane i of the result: all of x[i] combined. */
FMK_INLINE __m512i fold(const __m512i x[16], combine *of) {
    __m512i four[4], half[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        four[i] = fold_fours(x + 4 * i, of);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        half[i] = of(_mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0x44),
                     _mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0xee));
    return of(_mm512_shuffle_i32x4(half[0], half[1], 0x88), _mm512_shuffle_i32x4(half[0], half[1], 0xdd));
}

/* Lane i: the sum of q[16 i .. 16 i + 15]. */
FMK_INLINE __m512i sums_of(const int8_t q[FMK_K_BLOCK]) {
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i quads[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        quads[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_load_si512(q + 64 * i));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    fold_fours(quads, plus));
}

/* `count` of 256, a multiple of 32; the others are taken for zeros. */
static void quantize_block(const float *x, int count, struct fmk_acts_block *out) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i bits[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        bits[i] = 16 * i < count ? _mm512_and_si512(_mm512_loadu_si512(x + 16 * i), magnitude)
                                 : _mm512_setzero_si512();
    __m512i largest = fold(bits, larger);
    __m512 amax = _mm512_castsi512_ps(largest), most = _mm512_set1_ps(127);
    __mmask16 infinite = _mm512_cmpge_epi32_mask(largest, _mm512_set1_epi32(0x7f800000));
    __mmask16 usable = _mm512_cmp_ps_mask(amax, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ) & (__mmask16)~infinite;
    __m512 scale = _mm512_maskz_div_ps(usable, amax, most);
    scale = _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(_mm512_castps_si512(scale), infinite, _mm512_set1_epi32(0x7fc00000)));
    _Alignas(64) float inverse[16];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(usable, most, amax));
#pragma GCC unroll 4
    for (int i = 0; i < 16; i++) {
        /* inverse is 0 where x may be infinite: the mask keeps NaN out */
        __mmask16 there = 16 * i < count && inverse[i] > 0 ? 0xffff : 0;
        __m512 code = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, x + 16 * i), _mm512_set1_ps(inverse[i]));
        _mm_store_si128((__m128i *)(out->q + 16 * i), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(code)));
    }
    __m512i sum = sums_of(out->q);
    _mm512_store_ps(out->scale, scale);
    _mm512_store_si512(out->start, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-32)));
    __m512 parts = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum));
    __m512i even = _mm512_castps_si512(_mm512_add_ps(parts, _mm512_shuffle_ps(parts, parts, 0xb1)));
    __m512i pairs = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14), even);
    _mm256_store_ps(out->sum, _mm512_castps512_ps256(_mm512_castsi512_ps(pairs)));
}

void fmk_quantize_blocks_avx512(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                                int64_t k) {
    struct fmk_acts_block *block =
        acts->blocks + row * ((acts->k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) + k / FMK_K_BLOCK;
    for (; count >= FMK_K_BLOCK; count -= FMK_K_BLOCK, x += FMK_K_BLOCK)
        quantize_block(x, FMK_K_BLOCK, block++);
    if (count)
        quantize_block(x, (int)count, block);
}
