/* The truth that kernels are measured against: decoded weight times float activation, product and sum in
 * double, rounded to float once. */
#include "tile.h"

void fmk_reference(const struct fmk_tile *tile) {
    const struct fmk_packed *part = tile->part;
    const struct fmk_acts *acts = tile->acts;
    float w[FMK_K_BLOCK];
    double sum[FMK_TILE_M];
    for (int32_t r = 0; r < tile->rows; r++) {
        for (int32_t t = 0; t < tile->tokens; t++)
            sum[t] = 0;
        for (int64_t k = 0; k < part->k_packed; k += FMK_K_BLOCK) {
            int64_t count = part->k_packed - k < FMK_K_BLOCK ? part->k_packed - k : FMK_K_BLOCK;
            part->layout->decode(part, tile->data, tile->row + r, k, count, w);
            for (int32_t t = 0; t < tile->tokens; t++) {
                const float *x = acts->f32 + (tile->token + t) * acts->k + k;
                for (int64_t i = 0; i < count; i++)
                    sum[t] += (double)w[i] * x[i];
            }
        }
        for (int32_t t = 0; t < tile->tokens; t++)
            tile->out[t * FMK_TILE_N + r] = (float)sum[t];
    }
}
