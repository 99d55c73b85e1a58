/* What the shader compiler made of kernels/vulkan/NAME.comp: NAME.spv. */
#ifndef FMK_VULKAN_EMBED_H
#define FMK_VULKAN_EMBED_H

#include <stdint.h>

#define FMK_SHADER(name)                                                                                     \
    extern const uint32_t fmk_##name##_spv[] __attribute__((visibility("hidden")));                          \
    extern const uint32_t fmk_##name##_spv_end[] __attribute__((visibility("hidden")))

FMK_SHADER(gemv_dense);
FMK_SHADER(gemv_int4);
FMK_SHADER(gemv_q4k);
FMK_SHADER(gemv_q6k);
FMK_SHADER(gemv_dense_subgroups);
FMK_SHADER(gemv_int4_subgroups);
FMK_SHADER(gemv_q4k_subgroups);
FMK_SHADER(gemv_q6k_subgroups);
FMK_SHADER(gemm_dense);
FMK_SHADER(gemm_int4);
FMK_SHADER(gemm_q4k);
FMK_SHADER(gemm_q6k);
FMK_SHADER(gemm_dense_coopmat);
FMK_SHADER(gemm_int4_coopmat);
FMK_SHADER(gemm_q4k_coopmat);
FMK_SHADER(gemm_q6k_coopmat);
FMK_SHADER(gemm_dense_few);
FMK_SHADER(gemm_int4_few);
FMK_SHADER(gemm_q4k_few);
FMK_SHADER(gemm_q6k_few);
FMK_SHADER(gemm_dense_half);
FMK_SHADER(gemm_int4_half);
FMK_SHADER(gemm_q4k_half);
FMK_SHADER(gemm_q6k_half);
FMK_SHADER(plain);
FMK_SHADER(decode);
FMK_SHADER(gather);
FMK_SHADER(gather_routed);
FMK_SHADER(halve);
FMK_SHADER(glu);
FMK_SHADER(reduce);
FMK_SHADER(route);
FMK_SHADER(route_sort);
FMK_SHADER(copy);

#endif
