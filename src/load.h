/* From names in a checkpoint to a weight: the one place where the two meet. */
#ifndef FMK_LOAD_H
#define FMK_LOAD_H

#include "checkpoint/checkpoint.h"

/* One weight out of `count` matrices; `desc` is a whole struct without parts. */
fmk_status fmk_load_weight(fmk_weight **out, fmk_queue *queue, fmk_checkpoint *c, const char *const *names,
                           int32_t count, const fmk_weight_desc *desc);

#endif
