/* A sheet of bf16: what stands between decoding and multiplying by tiles (../gemm/gemm.h). A strip is pairs
 * of k, 2p and 2p+1, of 16 rows: 64 bytes. 16 of them, 32 k, are a tile. */
#ifndef FMK_CPU_AMX_BF16_SHEET_H
#define FMK_CPU_AMX_BF16_SHEET_H

#include "../gemm/gemm.h"

typedef uint16_t bf16_pair[FMK_STRIP][2];

enum { BF16_SHEET_BYTES = 256 << 10 };

/* A job of some dozens of tokens (gemm_bf16_deep.c). */
void fmk_amx_bf16_deep(const struct fmk_gemm_job *job);

#endif
