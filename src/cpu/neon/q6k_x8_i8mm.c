/* q6_k.x8 times int8 activations, NEON with products of matrices. */
#include "q6k_quads.h"
#include "i8mm_x8.h"

void fmk_q6k_x8_i8mm(const struct fmk_tile *tile) {
    multiply_sheets(tile, q6k_quads, true);
}
