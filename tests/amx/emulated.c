/* The kernels of src/cpu/amx on tiles in C, under names of their own. */
#define fmk_gemm_amx_bf16 fmk_emulated_amx_bf16
#define fmk_gemm_amx_bf16x2 fmk_emulated_amx_bf16x2
#include "tiles.h"

#include "../../src/cpu/amx/gemm_bf16.c"
