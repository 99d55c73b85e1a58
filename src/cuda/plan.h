/* How a linear call runs: a pure function of (weight, arguments, workspace size, context). */
#ifndef FMK_CUDA_PLAN_H
#define FMK_CUDA_PLAN_H

#include "../../kernels/args.h"
#include "../plan/kernels.h"

struct fmk_context;

/* Activations as a product wants them. */
struct fmk_cuda_form {
    bool direct; /* the caller's own rows will do; else they are gathered to the workspace */
    fmk_dtype type;
    int32_t planes;                 /* matrices whose sum they are */
    int64_t width;                  /* columns */
    const struct fmk_packed *index; /* whose k_index the columns follow; NULL: in their own order */
    uint64_t at;                    /* gathered: offset in the workspace, [planes][rows][width] */
};

/* Parts that one launch, or one series of GEMMs, multiplies by. */
struct fmk_cuda_product {
    enum fmk_cuda_path path;
    int32_t form;
    int32_t num_parts, parts[FMK_LAUNCH_PARTS];
    bool glu;    /* gate and up meet in the kernel */
    bool narrow; /* mma: so few rows that 16 a block occupy the device better than 32 */
};

struct fmk_cuda_plan {
    const struct fmk_projection *w;
    const struct fmk_call *call;
    int32_t multiprocessors;
    bool routed; /* rows are listed by expert, on the device */
    bool one;    /* token by token */
    int32_t num_forms, num_products;
    struct fmk_cuda_form forms[FMK_MAX_PARTS];
    struct fmk_cuda_product products[FMK_MAX_PARTS];
    int32_t tile;           /* tokens that a block of the mma kernels, or of all where routed, takes */
    bool split_glu;         /* gate and up meet behind the products */
    bool gemm;              /* cuBLAS has a part in it, */
    bool sums;              /* whose results need finishing */
    fmk_dtype decoded_type; /* 0: nothing is decoded */
    int64_t decoded_width;

    /* A slab: what is computed at once. */
    int64_t units;    /* tokens, or rows where there are no pairs; of each expert with BATCH */
    int64_t experts;  /* BATCH: so many */
    int64_t columns;  /* of one GEMM: rows of a part */
    int64_t window;   /* of sums that are finished together; with split_glu of gate, and as many of up */
    bool small_route; /* one kernel lists the rows */
    int32_t num_tiles;
    uint64_t room; /* bytes for sums of the wgmma kernels, where there are so many; else 0 */

    /* Offsets in the workspace. */
    uint64_t at_gemm, at_decoded, at_sums, at_first, at_first_tile, at_tiles, at_in_rows, at_out_rows,
        at_pairs, at_present, at_room;
};

/* Every kernel that serves part p of a call of so many rows and workspace. */
void fmk_cuda_plan_make(struct fmk_cuda_plan *plan, const struct fmk_context *ctx,
                        const struct fmk_projection *w, const struct fmk_call *call, uint64_t workspace,
                        bool addresses);
/* A bit for every path that part p can take: with any number of rows up to the call's, and any workspace. */
uint32_t fmk_cuda_paths(const struct fmk_context *ctx, const struct fmk_projection *w,
                        const struct fmk_call *call, int32_t p);
/* Rows of a slab of so many units. */
int64_t fmk_cuda_plan_rows(const struct fmk_cuda_plan *plan, int64_t units);
/* The GEMM's own type for a part. */
fmk_dtype fmk_cuda_gemm_type(const struct fmk_packed *part, fmk_dtype in_type);
/* Whether int4 needs the mma kernels that look up a scale for every 32 k. */
bool fmk_cuda_any_groups(const struct fmk_packed *part);
/* Bytes of the slowest plan that is legal. */
uint64_t fmk_cuda_least(const struct fmk_projection *w, const struct fmk_call *call);

#endif
