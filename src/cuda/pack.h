/* A part's data into its layout on the device: slices go through the staging ring, or are read where they
 * lie, and a kernel makes panels of each. */
#ifndef FMK_CUDA_PACK_H
#define FMK_CUDA_PACK_H

#include "../plan/fill.h"
#include "staging.h"

struct fmk_pack {
    struct fmk_stage stage;
    const struct fmk_fill *fill;
    const int32_t *k_index; /* of the expert at hand, in host memory; or NULL */
    CUcontext before;       /* current while the caller's progress runs */
};

/* One expert's data. int4: k_index is set and has been enqueued to its place. */
fmk_status fmk_pack_dense(struct fmk_pack *pack, int64_t expert);
fmk_status fmk_pack_int4(struct fmk_pack *pack, int64_t expert);
fmk_status fmk_pack_k_quant(struct fmk_pack *pack, int64_t expert);

/* What the three share. */

/* Tells progress of `bytes` more. */
fmk_status fmk_pack_advance(struct fmk_pack *pack, uint64_t bytes);
/* Whether qweight is read where it lies. */
bool fmk_pack_in_place(const struct fmk_pack *pack);
/* A run of n_order to the device; NULL where there is none. The kernel that reads it must be enqueued before
 * any other piece of a slot is taken. */
fmk_status fmk_pack_order(struct fmk_pack *pack, int64_t expert, int64_t row, int64_t rows,
                          const int32_t **order);
/* Rows to take at a time when each needs so many bytes of a slot, beside some of all together; a multiple of
 * 64 where so many fit, else of 16; or all that are left. Refuses where not even 16 fit. */
fmk_status fmk_pack_rows_at_once(struct fmk_pack *pack, uint64_t row_bytes, uint64_t fixed, int64_t left,
                                 int64_t *rows);

#endif
