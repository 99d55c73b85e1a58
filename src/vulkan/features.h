/* What a Vulkan context makes use of, and the words for it in fmk_context_desc.disable and
 * fmk_context_info_t.features. Also built where the library is without Vulkan: the table of kernels names
 * them.
 */
#ifndef FMK_VULKAN_FEATURES_H
#define FMK_VULKAN_FEATURES_H

#include <stddef.h>
#include <stdint.h>

enum fmk_vulkan_feature {
    FMK_VK_IMPORT = 1,    /* VK_EXT_external_memory_host: host memory read where it lies */
    FMK_VK_SUBGROUPS = 2, /* VK_EXT_subgroup_size_control: shuffles in subgroups of a known size */
    FMK_VK_COOPMAT = 4,   /* VK_NV_cooperative_matrix: matrices of f16, 16 x 16 x 16, with sums of f32 */
    FMK_VK_FLOAT16 = 8    /* shaderFloat16: arithmetic in f16 */
};

/* The features that a list like "import,coopmat" (or NULL) names; other words count as nothing. */
uint32_t fmk_vk_features_of(const char *list);
/* "import,coopmat" of a set. */
void fmk_vk_feature_names(uint32_t features, char *text, size_t cap);

#endif
