/* The kernel of src/cpu/amx for codes on tiles in C, under a name of its own. */
#define fmk_gemm_amx_codes fmk_emulated_amx_codes
#include "tiles.h"

#include "../../src/cpu/amx/gemm_codes.c"
