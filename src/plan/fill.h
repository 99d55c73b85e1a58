/* What a backend is given to bring a part into its memory. */
#ifndef FMK_PLAN_FILL_H
#define FMK_PLAN_FILL_H

#include "layout.h"

/* How far the creation of a weight has come. */
struct fmk_progress {
    const fmk_weight_desc *desc;
    uint64_t done, total; /* bytes */
};

/* Tells the caller's progress, if there is one; FMK_ECANCELED where it wants no more. */
fmk_status fmk_progress(struct fmk_progress *progress, uint64_t bytes);

struct fmk_fill {
    const struct fmk_source *source; /* in host memory but for a qweight that says DEVICE */
    const struct fmk_packed
        *packed; /* its pointers lead to where the sections shall be; written by nobody else */
    bool data;   /* pack the data; else it is borrowed, and index and bias alone are wanted */
    struct fmk_progress *progress; /* to be told of packed->bytes in all, if `data` */
};

#endif
