/* int4.x16 times int8 activations, AVX-512 VNNI. */
#include "vnni_x16.h"
#include "int4_x16.h"

/* total += a chunk's codes less the zero point, times chunk c of a token. */
FMK_INLINE __m512 add_chunk(const __m512i codes[8], __m512 zero, const struct fmk_acts_block *x, int c,
                            __m512 total) {
    __m512 sum[2];
    sum_halves(codes, x, c, sum);
    total = _mm512_fmadd_ps(sum[0], _mm512_set1_ps(x->scale[2 * c]), total);
    total = _mm512_fmadd_ps(sum[1], _mm512_set1_ps(x->scale[2 * c + 1]), total);
    return _mm512_fnmadd_ps(zero, _mm512_set1_ps(x->sum[c]), total);
}

/* Chunks that share a scale and a zero point make a sum of their own, which the scale multiplies. */
FMK_INLINE void multiply(const struct step *step, const int T) {
    const struct fmk_packed *part = step->part;
    int64_t first = step->k / 32, end = fmk_min(first + FMK_K_BLOCK / 32, part->k_packed / 32);
    __m512 all[MAX_T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++)
        all[t] = _mm512_setzero_ps();
    /* Where the first run lies takes a division; the others follow one another. */
    const int64_t header_bytes = fmk_int4_x16_header(part->dtype == FMK_F32 ? 4 : 2);
    struct int4_run at = int4_run_at(part, first, end, end - first);
    const uint8_t *header = step->panel + at.header, *nibbles = step->panel + at.nibbles;
    for (int64_t c = first; c < end; header = nibbles, nibbles += header_bytes) {
        int64_t next = c == first ? c + at.chunks : fmk_min(c + part->chunks, end);
        __m512 zero = int4_zeros(header, part->dtype), total[MAX_T];
#pragma GCC unroll 8
        for (int t = 0; t < T; t++)
            total[t] = _mm512_setzero_ps();
        fetch(header + step->ahead, 1);
        for (; c < next; c++, nibbles += FMK_X16_CHUNK) {
            fetch(nibbles + step->ahead, FMK_X16_CHUNK / 64);
            __m512i codes[8];
            unpack_nibbles(nibbles, codes);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++)
                total[t] = add_chunk(codes, zero, step->x + t * step->tokens, (int)(c - first), total[t]);
        }
        __m512 scale = int4_scales(header, part->dtype);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++)
            all[t] = _mm512_fmadd_ps(scale, total[t], all[t]);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        float *place = step->out + t * FMK_TILE_N;
        _mm512_storeu_ps(place, _mm512_add_ps(all[t], _mm512_loadu_ps(place)));
    }
}

void fmk_int4_x16_vnni(const struct fmk_tile *tile) {
    multiply_tile(tile, multiply);
}
