/* q4_k.x8 times int8 activations, NEON with dot products. */
#include "q4k_quads.h"

void fmk_q4k_x8_dotprod(const struct fmk_tile *tile) {
    multiply_panels(tile, q4k_quads, false);
}
