/* Sheets of integers times int16 activations, AVX2. */
#include "vectors.h"

#include "row_codes.h"

#include "../gemm/i16_decode.h"
#include "../gemm/i16_multiply.h"

static void decode(const struct fmk_gemm_job *job, int64_t row, int64_t k, int32_t count,
                   struct i16_strip *strip) {
    i16_decode_strip(job, row, k, count, strip);
}

void fmk_gemm_avx2_i16(const struct fmk_gemm_job *job) {
    i16_job(job, decode);
}
