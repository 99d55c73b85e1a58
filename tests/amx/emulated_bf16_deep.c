/* The kernels of src/cpu/amx for deep sheets of bf16 on tiles in C, under names of their own. */
#define fmk_gemm_amx_bf16x2 fmk_emulated_amx_bf16x2
#define fmk_amx_bf16_deep fmk_emulated_amx_bf16_deep
#include "tiles.h"

#include "../../src/cpu/amx/gemm_bf16_deep.c"
