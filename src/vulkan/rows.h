/* Rows of weights as numbers, and the sorting of routes: the functions of fmk_backend_row. */
#ifndef FMK_VULKAN_ROWS_H
#define FMK_VULKAN_ROWS_H

#include "../context.h"
#include "../plan/projection.h"

fmk_status fmk_vk_dequantize(struct fmk_queue *queue, const struct fmk_projection *w, int32_t expert,
                             void *out, fmk_dtype out_type, int64_t out_stride);
fmk_status fmk_vk_rows(struct fmk_queue *queue, const struct fmk_projection *w, const fmk_rows_args *args);
fmk_status fmk_vk_route_sort(struct fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                             const fmk_routing *out);

#endif
