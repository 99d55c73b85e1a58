/* int4.x8 times int8 activations, AVX2. */
#include "int8_x8.h"
#include "int4_x8.h"

FMK_INLINE __m256 scaled_zeros(const uint8_t *header, fmk_dtype dtype) {
    return _mm256_mul_ps(int4_scales(header, dtype), _mm256_cvtepi32_ps(int4_zeros(header, dtype)));
}

static void unpack_run(const uint8_t *panel, fmk_dtype dtype, const struct int4_run *at, struct run *run) {
    __m256 offset = scaled_zeros(panel + at->header, dtype);
    _mm256_store_ps(run->d, int4_scales(panel + at->header, dtype));
    for (int c = 0; c < at->chunks; c++) {
        _mm256_store_ps(run->offset[c], offset);
        unpack_nibbles(panel + at->nibbles + c * FMK_X8_CHUNK, run->codes[c]);
    }
}

/* One run of P panels (`stride` bytes apart), each nibble used as it is unpacked. */
FMK_INLINE void multiply_packed(const uint8_t *panel, uint64_t stride, int64_t ahead, fmk_dtype dtype,
                                const struct int4_run *at, const struct run_acts *acts, const int T,
                                const int P, float *out) {
    __m256 zeros[MAX_P], offset[MAX_T][MAX_P];
    __m256i total[MAX_T][MAX_P];
#pragma GCC unroll 2
    for (int p = 0; p < P; p++) {
        zeros[p] = scaled_zeros(panel + p * stride + at->header, dtype);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            offset[t][p] = _mm256_setzero_ps();
            total[t][p] = _mm256_setzero_si256();
        }
    }
    for (int c = 0; c < at->chunks; c++) {
        const uint8_t *nibbles = panel + at->nibbles + c * FMK_X8_CHUNK;
#pragma GCC unroll 2
        for (int p = 0; p < P; p++)
            fetch(nibbles + p * stride + ahead, FMK_X8_CHUNK + 32);
        __m256i sum[MAX_T][MAX_P];
        multiply_nibbles(nibbles, stride, acts, c, T, P, sum);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            __m256i ratios = act_ratios(acts, t, c);
            __m256 x = act_sum(acts, t, c);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) {
                total[t][p] = _mm256_add_epi32(total[t][p], _mm256_madd_epi16(sum[t][p], ratios));
                offset[t][p] = _mm256_fmadd_ps(zeros[p], x, offset[t][p]);
            }
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++)
            add_run(int4_scales(panel + p * stride + at->header, dtype), act_step(acts, t),
                    _mm256_cvtepi32_ps(total[t][p]), offset[t][p], out + t * FMK_TILE_N + 8 * p);
}

/* Chunks that share the weights' scale and zero point, and the activations' step. */
FMK_INLINE struct int4_run run_at(const struct fmk_packed *part, int64_t chunk, int64_t end) {
    return int4_run_at(part, chunk, end, RUN_CHUNKS - chunk % RUN_CHUNKS);
}

FMK_INLINE void few_tokens(const struct fmk_tile *tile, const int T) {
    const struct fmk_packed *part = tile->part;
    const uint64_t stride = part->stride;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * stride;
    const int64_t ahead = FETCH_AHEAD / tile->streams;
    int panels = (tile->rows + 7) / 8;
    int64_t chunks = part->k_packed / 32;
    for (int first = 0; first < panels; first += tile->streams) {
        int end = first + tile->streams < panels ? first + tile->streams : panels;
        for (int64_t c = 0; c < chunks;) {
            struct int4_run at = run_at(part, c, chunks);
            struct run_acts acts = acts_at(tile->acts, tile->token, c);
            int p = first;
            for (; p + 2 <= end; p += 2)
                multiply_packed(panel + p * stride, stride, ahead, part->dtype, &at, &acts, T, 2,
                                tile->out + 8 * p);
            if (p < end)
                multiply_packed(panel + p * stride, stride, ahead, part->dtype, &at, &acts, T, 1,
                                tile->out + 8 * p);
            c += at.chunks;
        }
    }
}

/* Chunks that are unpacked; the panels have more at `next`. */
FMK_INLINE void all_tokens(const struct run *run, const struct fmk_tile *tile, int64_t chunk, int chunks,
                           const uint8_t *next, const int P, float *out) {
    int t = 0;
    for (; t + 4 <= tile->tokens; t += 4) {
        struct run_acts acts = acts_at(tile->acts, tile->token + t, chunk);
        fetch_quarter(next, tile->part->stride, chunks * FMK_X8_CHUNK, t, P);
        multiply_run(run, chunks, &acts, false, 4, P, out + t * FMK_TILE_N);
    }
    if (t == tile->tokens)
        return;
    struct run_acts acts = acts_at(tile->acts, tile->token + t, chunk);
    switch (tile->tokens - t) {
    case 3:
        multiply_run(run, chunks, &acts, false, 3, P, out + t * FMK_TILE_N);
        return;
    case 2:
        multiply_run(run, chunks, &acts, false, 2, P, out + t * FMK_TILE_N);
        return;
    default:
        multiply_run(run, chunks, &acts, false, 1, P, out + t * FMK_TILE_N);
    }
}

/* Many tokens: two panels' runs are unpacked once and stay in L1 for all of them. */
static void many_tokens(const struct fmk_tile *tile) {
    const struct fmk_packed *part = tile->part;
    const uint8_t *panel = tile->data + (uint64_t)(tile->row / 8) * part->stride;
    int panels = (tile->rows + 7) / 8;
    int64_t chunks = part->k_packed / 32;
    struct run run[MAX_P];
    for (int64_t c = 0; c < chunks;) {
        struct int4_run at = run_at(part, c, chunks);
        for (int p = 0; p < panels; p += 2) {
            const uint8_t *next = panel + p * part->stride + at.nibbles + at.chunks * FMK_X8_CHUNK;
            unpack_run(panel + p * part->stride, part->dtype, &at, &run[0]);
            if (p + 1 < panels) {
                unpack_run(panel + (p + 1) * part->stride, part->dtype, &at, &run[1]);
                all_tokens(run, tile, c, at.chunks, next, 2, tile->out + 8 * p);
            } else {
                all_tokens(run, tile, c, at.chunks, next, 1, tile->out + 8 * p);
            }
        }
        c += at.chunks;
    }
}

void fmk_int4_x8_avx2_int8(const struct fmk_tile *tile) {
    multiply_tile(tile, few_tokens, many_tokens);
}
