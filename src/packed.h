/* Packed bytes: what fmk_weight_export writes and format PACKED reads. */
#ifndef FMK_PACKED_H
#define FMK_PACKED_H

#include "weight.h"

uint64_t fmk_packed_layout_id(const struct fmk_projection *projection);
uint64_t fmk_packed_size(const struct fmk_weight *weight);
/* The weight is ready. */
fmk_status fmk_packed_write(const struct fmk_weight *weight, uint8_t *out);
/* Bytes of storage that a weight made of this one part needs. */
fmk_status fmk_packed_storage(struct fmk_context *ctx, const fmk_weight_desc *desc, const fmk_part *part,
                              uint64_t *size);
fmk_status fmk_packed_read(struct fmk_weight **out, struct fmk_queue *queue, const fmk_weight_desc *desc,
                           const fmk_part *part);

#endif
