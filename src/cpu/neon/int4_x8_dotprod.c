/* int4.x8 times int8 activations, NEON with dot products. */
#include "int4_quads.h"

void fmk_int4_x8_dotprod(const struct fmk_tile *tile) {
    multiply_panels(tile, int4_quads, false);
}
