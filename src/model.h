/* A whole model's weights and norms by layer and role. */
#ifndef FMK_MODEL_H
#define FMK_MODEL_H

#include "ferrumk.h"

/* desc is a whole struct without parts, storage and source. */
fmk_status fmk_model_make(fmk_model **out, fmk_queue *queue, fmk_checkpoint *c, const fmk_weight_desc *desc);
const fmk_model_info_t *fmk_model_described(const fmk_model *model);
fmk_status fmk_model_find_weight(fmk_model *model, int32_t layer, fmk_role role, fmk_weight **out);
fmk_status fmk_model_find_vector(fmk_model *model, int32_t layer, fmk_role role, const float **data,
                                 int64_t *count);
void fmk_model_free(fmk_model *model);

#endif
