/* A sheet of int8: what stands between decoding and multiplying by tiles (../gemm/gemm.h). 4 k of 16 rows are
 * 64 bytes, a *quad*; 16 of them, 64 k, are a tile. */
#ifndef FMK_CPU_AMX_INT8_SHEET_H
#define FMK_CPU_AMX_INT8_SHEET_H

#include "../gemm/gemm.h"

typedef int8_t int8_quad[FMK_STRIP][4];

/* 256 k of 16 rows: a weight is quad * step. The step is NaN where one of 256 weights is not finite. */
struct int8_strip {
    _Alignas(64) int8_quad quad[FMK_K_BLOCK / 4];
    float step[FMK_STRIP];
};

#endif
