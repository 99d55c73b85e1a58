/* q4_k.x8 times int8 activations, NEON with products of matrices. */
#include "q4k_quads.h"
#include "i8mm_x8.h"

void fmk_q4k_x8_i8mm(const struct fmk_tile *tile) {
    multiply_sheets(tile, q4k_quads, false);
}
