/* The kernel of src/cpu/amx for sums of two bf16 on tiles in C, under a name of its own. */
#define fmk_gemm_amx_bf16x2 fmk_emulated_amx_bf16x2
#include "tiles.h"

#include "../../src/cpu/amx/gemm_bf16x2.c"
