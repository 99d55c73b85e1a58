/* The kernels for few tokens (kernels/int4_few.cu): how a product is shared out to their blocks. */
#ifndef FMK_CUDA_FEW_H
#define FMK_CUDA_FEW_H

#include "../../kernels/few.h"
#include "device.h"

/* What the choice depends on. */
struct fmk_few_product {
    int64_t blocks;   /* of 64 rows; with an activation of gate alone */
    int64_t units;    /* of K */
    int64_t unit;     /* bytes of the largest */
    int64_t tiles;    /* of tokens, and of experts, that there are likely to be */
    int32_t tokens;   /* of a tile: 1, 8, 16 */
    int32_t planes;   /* 3 of f32 activations, else 1 */
    int64_t row;      /* bytes of a token's activations, where they are to be put in order; or 0 */
    bool exact_tiles; /* so many, not at most */
    bool any;         /* of the group sizes */
    bool glu;
    bool invariant; /* of the number of tokens */
};

/* Sets args but for args->linear, and grid but for y and z. */
void fmk_few_share(const struct fmk_cuda *cuda, const struct fmk_few_product *product,
                   struct fmk_few_args *args, struct fmk_cuda_grid *grid);

#endif
