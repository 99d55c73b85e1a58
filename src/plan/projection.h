/* What a weight is to a backend: parts side by side along N, the same experts in each. */
#ifndef FMK_PLAN_PROJECTION_H
#define FMK_PLAN_PROJECTION_H

#include "layout.h"

enum { FMK_MAX_PARTS = 64 };

struct fmk_projection {
    int64_t n, k; /* n of all parts together */
    int32_t num_parts;
    int32_t num_experts;      /* as the caller said: 0 = dense */
    bool glu;                 /* parts[0] gate, parts[1] up, of equal n */
    struct fmk_packed *parts; /* [num_parts] */
};

#endif
