/* Sheets of floats times float activations, AVX-512. */
#include "vectors.h"

#include "row_codes.h"

#include "../gemm/f32_decode.h"
#include "../gemm/f32_multiply.h"

static void decode(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                   struct f32_strip *strip) {
    f32_decode_strip(job, row, k, count, strip, decode_integers);
}

static void run(const struct fmk_gemm_job *job) {
    f32_job(job, decode);
}

const struct fmk_gemm fmk_gemm_avx512_f32 = {
    .run = run,
    .rows = FMK_TILE_N,
    .sheet_bytes = FMK_TILE_N / FMK_STRIP * sizeof(struct f32_strip),
    .decode_cost = 12,
    .fetch_cost = 1,
};
