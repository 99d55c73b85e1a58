/* int4.x8 times int8 activations, NEON with products of matrices. */
#include "int4_quads.h"
#include "i8mm_x8.h"

void fmk_int4_x8_i8mm(const struct fmk_tile *tile) {
    multiply_sheets(tile, int4_quads, false);
}
