/* The one table of kernels. A plan is the first row, best first, that has no objection. */
#ifndef FMK_PLAN_KERNELS_H
#define FMK_PLAN_KERNELS_H

#include "../cpu/tile.h"

/* What a choice depends on: nothing else does. */
struct fmk_query {
    fmk_backend backend;
    uint32_t features; /* of the context */
    const struct fmk_packed *part;
    uint32_t flags; /* FMK_LINEAR_* */
};

enum fmk_acts_form { FMK_ACTS_F32, FMK_ACTS_Q8 };

struct fmk_kernel {
    const char *name;
    fmk_backend backend;
    int32_t layout; /* enum fmk_layout_id, or 0 = any */
    uint32_t needs; /* features */
    enum fmk_acts_form acts;
    const char *(*why_not)(const struct fmk_query *query); /* NULL = no objection */
    fmk_tile_kernel *tile;
};

/* Row i of the table, NULL past its end. */
const struct fmk_kernel *fmk_kernel_row(int32_t i);
/* The objection of a row, written to text when it has one. */
bool fmk_kernel_objects(const struct fmk_kernel *row, const struct fmk_query *query, char *text, size_t cap);
/* The first row that does not object. There always is one: fmk_reference serves anything on the CPU. */
const struct fmk_kernel *fmk_kernel_choose(const struct fmk_query *query);

#endif
