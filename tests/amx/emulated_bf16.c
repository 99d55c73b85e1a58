/* The bf16 kernel of src/cpu/amx on tiles in C, under a name of its own. */
#define fmk_gemm_amx_bf16 fmk_emulated_amx_bf16
#define fmk_amx_bf16_deep fmk_emulated_amx_bf16_deep
#include "tiles.h"

#include "../../src/cpu/amx/gemm_bf16.c"
