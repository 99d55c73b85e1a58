/* How a linear call runs: a pure function of (weight, arguments, workspace size, context). */
#ifndef FMK_VULKAN_PLAN_H
#define FMK_VULKAN_PLAN_H

#include "../plan/kernels.h"

/* Activations as a product wants them. */
struct fmk_vk_form {
    bool direct;   /* the caller's own rows will do; else they are gathered to the workspace */
    bool halves;   /* gathered as kernels/vulkan/halve.comp does it */
    int64_t width; /* columns */
    const struct fmk_packed *index; /* whose k_index the columns follow; NULL: in their own order */
    uint64_t at;                    /* gathered: offset in the workspace of the first row */
};

/* A part, or gate and up together. */
struct fmk_vk_product {
    int32_t path; /* enum fmk_vulkan_path */
    int32_t part, form;
    bool glu; /* gate and up meet in the kernel */
};

struct fmk_vk_plan {
    const struct fmk_projection *w;
    const struct fmk_call *call;
    bool routed; /* rows are listed by expert, on the device */
    int32_t num_forms, num_products;
    struct fmk_vk_form forms[FMK_MAX_PARTS];
    struct fmk_vk_product products[FMK_MAX_PARTS];
    bool split_glu; /* gate and up meet behind the products */
    int32_t tile;   /* entries of a list's tile */

    /* A slab: what is computed at once. */
    int64_t units; /* tokens, or rows where there are no pairs; of each expert with BATCH */
    int32_t num_tiles;

    /* Offsets in the workspace. */
    uint64_t at_sums, at_lists, at_counts, at_pairs, at_present;
};

/* Bytes of a gathered row. */
int64_t fmk_vk_form_row(const struct fmk_vk_plan *plan, const struct fmk_vk_form *form);
/* `addresses`: those of args' buffers are known. */
void fmk_vk_plan_make(struct fmk_vk_plan *plan, const struct fmk_context *ctx, const struct fmk_projection *w,
                      const struct fmk_call *call, uint64_t workspace, bool addresses);
/* Bytes with which the call can run, and those that a whole slab takes. */
void fmk_vk_workspace(struct fmk_context *ctx, const struct fmk_projection *w, const struct fmk_call *call,
                      uint64_t *least, uint64_t *best);

#endif
