/* Activations to int8 by lanes (tile.h): blocks, put in another order. */
#include "tile.h"

#include <string.h>

FMK_INLINE void put_in_lanes(const struct fmk_acts_block *block, struct fmk_acts_lanes *out) {
    for (int lane = 0; lane < FMK_ACTS_LANES; lane++) {
        int run = fmk_lane_run(lane);
        for (int quad = 0; quad < 4; quad++)
            memcpy(out->q[quad][lane], block->q + 16 * run + 4 * quad, 4);
        out->scale[lane] = block->scale[run];
        out->start[lane] = block->start[run];
        out->sum[lane] = block->scale[run] * (float)(block->start[run] / -32);
    }
}

FMK_INLINE void quantize(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row, int64_t k,
                         fmk_quantize_row *to_blocks) {
    struct fmk_acts_lanes *out = acts->lanes + (row * acts->k + k) / FMK_K_BLOCK;
    _Alignas(64) struct fmk_acts_block block;
    const struct fmk_acts one = {.k = FMK_K_BLOCK, .blocks = &block};
    for (int64_t done = 0; done < count; done += FMK_K_BLOCK) {
        to_blocks(x + done, FMK_K_BLOCK, &one, 0, 0);
        put_in_lanes(&block, out++);
    }
}

void fmk_quantize_lanes_portable(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                                 int64_t k) {
    quantize(x, count, acts, row, k, fmk_quantize_blocks_portable);
}

#if defined(__x86_64__)
void fmk_quantize_lanes_avx2(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                             int64_t k) {
    quantize(x, count, acts, row, k, fmk_quantize_blocks_avx2);
}

void fmk_quantize_lanes_avx512(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                               int64_t k) {
    quantize(x, count, acts, row, k, fmk_quantize_blocks_avx512);
}
#endif
