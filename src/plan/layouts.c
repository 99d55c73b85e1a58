/* The table of layouts, and the choice among them. */
#include "../cpu/layouts/layouts.h"
#include "../cuda/layouts.h"
#include "layout_rows.h"

/* Of a backend's and family's rows, the first that is not in place and needs nothing that is not there is the
 * one to pack into; the kernels that read it are the fastest. */
static const struct fmk_layout *const table[] = {
    &fmk_layout_q4k_x16,  &fmk_layout_q6k_x16,  &fmk_layout_int4_x16,   &fmk_layout_q4k_x8,
    &fmk_layout_q6k_x8,   &fmk_layout_int4_x8,  &fmk_layout_q4k_t16,    &fmk_layout_q6k_t16,
    &fmk_layout_int4_t64, &fmk_layout_int4_t16, &fmk_layout_dense_rows, &fmk_layout_q4k_rows,
    &fmk_layout_q6k_rows,
};

enum { ROWS = sizeof table / sizeof table[0] };

const struct fmk_layout *fmk_layout_by_id(int32_t id) {
    for (int i = 0; i < ROWS; i++)
        if ((int32_t)table[i]->id == id)
            return table[i];
    return NULL;
}

const struct fmk_layout *fmk_layout_choose(fmk_backend backend, uint32_t features,
                                           const struct fmk_source *source, bool borrow) {
    const struct fmk_layout *only = NULL;
    for (int i = 0; i < ROWS; i++) {
        if (table[i]->family != source->family || !(table[i]->backends >> backend & 1) ||
            table[i]->needs & ~features || (table[i]->takes && !table[i]->takes(source)))
            continue;
        if (table[i]->in_place == borrow)
            return table[i];
        only = table[i]; /* dense has only rows, int4 on the CPU only panels */
    }
    return only;
}
