/* A sheet of floats: what stands between decoding and multiplying (gemm.h). */
#ifndef FMK_CPU_GEMM_F32_SHEET_H
#define FMK_CPU_GEMM_F32_SHEET_H

#include "gemm.h"

#include <assert.h>

/* 256 k of 16 rows. */
struct f32_strip {
    _Alignas(64) float w[FMK_K_BLOCK][FMK_STRIP];
};
static_assert(4 * sizeof(struct f32_strip) <= FMK_SHEET_BYTES, "64 rows by 256 k");

#endif
