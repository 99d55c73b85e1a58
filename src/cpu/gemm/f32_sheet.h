/* A sheet of floats: what stands between decoding and multiplying (gemm.h). */
#ifndef FMK_CPU_GEMM_F32_SHEET_H
#define FMK_CPU_GEMM_F32_SHEET_H

#include "gemm.h"

/* 256 k of 16 rows. */
struct f32_strip {
    _Alignas(64) float w[FMK_K_BLOCK][FMK_STRIP];
};

#endif
