/* Where the blocks, scales and zero points of int4.x8 lie, for its AVX2 kernels. */
#ifndef FMK_CPU_INT4_X8_AVX2_H
#define FMK_CPU_INT4_X8_AVX2_H

#include "../layouts/x8.h"

#include <immintrin.h>

/* Chunks in a row that share a scale: at most as many as the kernels take at once, and as are left. */
struct int4_run {
    int chunks;
    int64_t header, nibbles; /* byte offsets in the panel */
};

static inline struct int4_run int4_run_at(const struct fmk_packed *part, int64_t chunk, int64_t end,
                                          int64_t most) {
    int64_t size = part->dtype == FMK_F32 ? 4 : 2, header = fmk_int4_x8_header(size);
    int64_t block = chunk / part->chunks, in_block = chunk % part->chunks;
    int64_t start = block * (header + part->chunks * FMK_X8_CHUNK);
    int64_t count = fmk_min(fmk_min(most, part->chunks - in_block), end - chunk);
    return (struct int4_run){(int)count, start, start + header + in_block * FMK_X8_CHUNK};
}

static inline __m256 int4_scales(const uint8_t *header, fmk_dtype dtype) {
    if (dtype == FMK_F32)
        return _mm256_loadu_ps((const float *)header);
    __m128i halves = _mm_loadu_si128((const __m128i *)header);
    return dtype == FMK_F16 ? _mm256_cvtph_ps(halves)
                            : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static inline __m256i int4_zeros(const uint8_t *header, fmk_dtype dtype) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(header + (dtype == FMK_F32 ? 32 : 16))));
}

#endif
