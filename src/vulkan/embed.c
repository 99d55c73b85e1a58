/* Puts the kernels into the library, as the shader compiler wrote them. */
#include "embed.h"

#define EMBED(name)                                                                                          \
    __asm__(".pushsection .rodata.fmk_shaders, \"a\", %progbits\n"                                           \
            ".balign 4\n"                                                                                    \
            ".globl fmk_" #name "_spv\n"                                                                     \
            ".hidden fmk_" #name "_spv\n"                                                                    \
            "fmk_" #name "_spv:\n"                                                                           \
            ".incbin \"" #name ".spv\"\n"                                                                    \
            ".globl fmk_" #name "_spv_end\n"                                                                 \
            ".hidden fmk_" #name "_spv_end\n"                                                                \
            "fmk_" #name "_spv_end:\n"                                                                       \
            ".popsection\n")

EMBED(gemv_dense);
EMBED(gemv_int4);
EMBED(gemv_q4k);
EMBED(gemv_q6k);
EMBED(gemv_dense_subgroups);
EMBED(gemv_int4_subgroups);
EMBED(gemv_q4k_subgroups);
EMBED(gemv_q6k_subgroups);
EMBED(gemm_dense);
EMBED(gemm_int4);
EMBED(gemm_q4k);
EMBED(gemm_q6k);
EMBED(gemm_dense_coopmat);
EMBED(gemm_int4_coopmat);
EMBED(gemm_q4k_coopmat);
EMBED(gemm_q6k_coopmat);
EMBED(gemm_dense_few);
EMBED(gemm_int4_few);
EMBED(gemm_q4k_few);
EMBED(gemm_q6k_few);
EMBED(gemm_dense_half);
EMBED(gemm_int4_half);
EMBED(gemm_q4k_half);
EMBED(gemm_q6k_half);
EMBED(plain);
EMBED(decode);
EMBED(gather);
EMBED(gather_routed);
EMBED(halve);
EMBED(glu);
EMBED(reduce);
EMBED(route);
EMBED(route_sort);
EMBED(copy);
