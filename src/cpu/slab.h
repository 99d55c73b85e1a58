/* A slab: the rows of one call that are computed together, grouped by expert. Dense calls are one group.
 *
 * A call's rows come in units that a slab does not divide: a token with its top_k pairs, or a row. */
#ifndef FMK_CPU_SLAB_H
#define FMK_CPU_SLAB_H

#include "../plan/call.h"

struct fmk_slab {
    int64_t count;  /* rows in it */
    int32_t *first; /* [experts + 1]: rows first[e] .. first[e+1]-1 are expert e's */
    int64_t *in;    /* [count] where the input row begins, in elements of args.in */
    int64_t *out;   /* [count] where the output row begins, in elements of args.out */
    int32_t *row;   /* [count] number of the output row; REDUCE_TOP_K: of the pair within the slab */
    float *weight;  /* [count] pair weight, or NULL */
};

/* Units of the call when m tokens are really there. */
int64_t fmk_slab_units(const struct fmk_projection *w, const struct fmk_call *call, int64_t m);
/* What the arrays hold, checked before anything is written. m: tokens really there; scratch: some bytes, at
 * least one. */
fmk_status fmk_slab_check(const struct fmk_projection *w, const struct fmk_call *call, int64_t m,
                          uint8_t *scratch, int64_t scratch_size);
/* Fills in the slab of units begin .. end-1; its arrays have room for (end - begin) * rows_per_token rows. */
void fmk_slab_fill(const struct fmk_projection *w, const struct fmk_call *call, int64_t m, int64_t begin,
                   int64_t end, struct fmk_slab *slab);

/* ids -> offsets and pairs, stable. */
void fmk_sort_pairs(const fmk_routing *ids, int64_t m, int32_t num_experts, int32_t *offsets, int32_t *pairs);

#endif
