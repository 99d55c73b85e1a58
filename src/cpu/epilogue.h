/* From a kernel's tile to the output: bias, addend, gate/up activation, pair weight, type. */
#ifndef FMK_CPU_EPILOGUE_H
#define FMK_CPU_EPILOGUE_H

#include "slab.h"

struct fmk_epilogue {
    const struct fmk_projection *w;
    const struct fmk_call *call;
    const struct fmk_slab *slab;
    float *pairs; /* REDUCE_TOP_K: [pairs of the slab][width], else NULL */
};

/* Stores columns column .. column+count-1 of `tokens` rows of the slab, starting at `first`. bias: of these
 * columns, or NULL. tile: [tokens][FMK_TILE_N]. */
void fmk_store_tile(const struct fmk_epilogue *e, const float *tile, const float *bias, int64_t first,
                    int32_t tokens, int64_t column, int32_t count);
/* The same for out = act(gate) * up; column counts in gate. */
void fmk_store_glu(const struct fmk_epilogue *e, const float *gate, const float *up, const float *gate_bias,
                   const float *up_bias, int64_t first, int32_t tokens, int64_t column, int32_t count);
/* REDUCE_TOP_K: sums token `token` of the slab (number `first_token` of the call being its first) over its
 * slots, in their order, leaving out those that `present` [pairs of the slab] says were skipped. */
void fmk_reduce_token(const struct fmk_epilogue *e, const uint8_t *present, int64_t first_token,
                      int64_t token);

#endif
