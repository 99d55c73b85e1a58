/* The arguments of one fmk_linear call, checked, with every default filled in. */
#ifndef FMK_PLAN_CALL_H
#define FMK_PLAN_CALL_H

#include "../context.h"
#include "projection.h"

struct fmk_call {
    fmk_linear_args args;   /* strides and SWIGLU constants filled in */
    fmk_routing routing;    /* kind NONE and expert 0 for a dense call */
    int64_t width;          /* columns of out: n, or n / 2 with an activation */
    int64_t rows;           /* products in * W at most: m, m * top_k (IDS, SORTED with pairs), m * experts */
    int64_t rows_per_token; /* rows that a slab cannot divide: top_k where rows are pairs, else 1 */
    bool pairs;             /* rows are numbered token * top_k + slot */
    bool reduce;            /* FMK_LINEAR_REDUCE_TOP_K */
};

/* Checks args against the weight. With `buffers` the addresses, into which handles that `ctx` knows are
 * turned, sizes, alignment and overlap too (but for the workspace's size, which depends on the plan);
 * without, only which of them are present matters, and ctx may be NULL. */
fmk_status fmk_call_check(const struct fmk_context *ctx, const struct fmk_projection *w,
                          const fmk_linear_args *args, bool buffers, struct fmk_call *call);

#endif
