/* Sheets of integers times int16 activations, AVX2. */
#include "vectors.h"

#include "row_codes.h"

#include "../gemm/i16_decode.h"
#include "../gemm/i16_multiply.h"

static void run(const struct fmk_gemm_job *job) {
    i16_job(job, decode_integers);
}

const struct fmk_gemm fmk_gemm_avx2_i16 = {
    .run = run,
    .rows = FMK_TILE_N,
    .sheet_bytes = FMK_TILE_N / FMK_STRIP * sizeof(struct i16_strip),
    .decode_cost = 8,
    .fetch_cost = 1,
};
