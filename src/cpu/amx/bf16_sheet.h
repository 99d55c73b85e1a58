/* A sheet of bf16: what stands between decoding and multiplying by tiles (../gemm/gemm.h). */
#ifndef FMK_CPU_AMX_BF16_SHEET_H
#define FMK_CPU_AMX_BF16_SHEET_H

#include "../gemm/gemm.h"

/* 256 k of 16 rows: pair p of a row is k 2p and 2p+1. 32 k are a tile. */
struct bf16_strip {
    _Alignas(64) uint16_t pair[FMK_K_BLOCK / 2][FMK_STRIP][2];
};

#endif
