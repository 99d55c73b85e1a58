/* q6_k.x8 times int8 activations, NEON with dot products. */
#include "q6k_quads.h"

void fmk_q6k_x8_dotprod(const struct fmk_tile *tile) {
    multiply_panels(tile, q6k_quads, true);
}
