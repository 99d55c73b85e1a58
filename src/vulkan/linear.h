/* One linear call on Vulkan: the functions of fmk_backend_row. All of them only record, but for prepare. */
#ifndef FMK_VULKAN_LINEAR_H
#define FMK_VULKAN_LINEAR_H

#include "../context.h"
#include "../plan/call.h"

/* Makes every pipeline that a call of any m up to call's may want. */
fmk_status fmk_vk_prepare(struct fmk_queue *queue, const struct fmk_projection *w,
                          const struct fmk_call *call);
fmk_status fmk_vk_linear(struct fmk_queue *queue, const struct fmk_projection *w,
                         const struct fmk_call *call);

#endif
