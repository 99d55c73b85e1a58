/* The int8 kernel of src/cpu/amx on tiles in C, under a name of its own. */
#define fmk_gemm_amx_int8 fmk_emulated_amx_int8
#include "tiles.h"

#include "../../src/cpu/amx/gemm_int8.c"
