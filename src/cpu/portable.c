/* Any layout on any machine: each weight row is decoded 256 weights at a time and multiplied in float.
 * A block's products are summed in eight lanes and the block sums added up, so that an output's error grows
 * with 32 + 8 + k/256 additions, not with k. */
#include "tile.h"

enum { LANES = 8 };

static float dot(const float *w, const float *x, int64_t count) {
    float lane[LANES] = {0};
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (int i = 0; i < LANES; i++)
            lane[i] += w[k + i] * x[k + i];
    for (int i = 0; k + i < count; i++)
        lane[i] += w[k + i] * x[k + i];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

void fmk_portable(const struct fmk_tile *tile) {
    const struct fmk_packed *part = tile->part;
    const struct fmk_acts *acts = tile->acts;
    float w[FMK_K_BLOCK];
    for (int32_t r = 0; r < tile->rows; r++) {
        for (int32_t t = 0; t < tile->tokens; t++)
            tile->out[t * FMK_TILE_N + r] = 0;
        for (int64_t k = 0; k < part->k_packed; k += FMK_K_BLOCK) {
            int64_t count = part->k_packed - k < FMK_K_BLOCK ? part->k_packed - k : FMK_K_BLOCK;
            part->layout->decode(part, tile->data, tile->row + r, k, count, w);
            for (int32_t t = 0; t < tile->tokens; t++)
                tile->out[t * FMK_TILE_N + r] += dot(w, acts->f32 + (tile->token + t) * acts->k + k, count);
        }
    }
}
