/* int4.x16 times int8 activations, AVX-512 VNNI. */
#include "vnni_x16.h"
#include "int4_x16.h"

/* Bytes of a panel between what is used and what is fetched: less than the panels of a tile take turns at. */
enum { FETCH_AHEAD = 2048 };

/* Chunks that share a scale and a zero point, to out. */
FMK_INLINE void multiply_run(const uint8_t *header, const uint8_t *nibbles, int chunks, fmk_dtype dtype,
                             const struct fmk_acts_block *x, int c, int64_t tokens, const int T, float *out) {
    __m512 zero = int4_zeros(header, dtype), total[MAX_T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
        total[t] = _mm512_setzero_ps();
    for (int i = 0; i < chunks; i++, c++, nibbles += FMK_X16_CHUNK) {
        fetch(nibbles + FETCH_AHEAD, FMK_X16_CHUNK / 64);
        __m512i codes[8];
        unpack_nibbles(nibbles, codes);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const struct fmk_acts_block *y = x + t * tokens;
            total[t] = _mm512_add_ps(total[t], sum_chunk(codes, y, c));
            total[t] = _mm512_fnmadd_ps(zero, _mm512_set1_ps(y->sum[c]), total[t]);
        }
    }
    __m512 scale = int4_scales(header, dtype);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        float *place = out + t * FMK_TILE_N;
        _mm512_storeu_ps(place, _mm512_fmadd_ps(scale, total[t], _mm512_loadu_ps(place)));
    }
}

FMK_INLINE void multiply(const struct fmk_packed *part, const uint8_t *panel, int64_t k,
                         const struct fmk_acts_block *x, int64_t tokens, const int T, float *out) {
    int64_t first = k / 32, end = fmk_min(first + FMK_K_BLOCK / 32, part->k_packed / 32);
    for (int64_t c = first; c < end;) {
        struct int4_run at = int4_run_at(part, c, end, end - c);
        multiply_run(panel + at.header, panel + at.nibbles, at.chunks, part->dtype, x, (int)(c - first),
                     tokens, T, out);
        c += at.chunks;
    }
}

void fmk_int4_x16_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply);
}
