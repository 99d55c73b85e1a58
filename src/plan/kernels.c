/* The table of kernels, best first within a layout. Adding a kernel is one file and one row here. */
#include "kernels.h"

#include "../abi.h"
#include "../context.h"
#include "../cpu/features.h"
#include "../cuda/features.h"
#include "../vulkan/features.h"
#include "../formats/source.h"

#include <stdio.h>

static const char *no_objection(const struct fmk_query *query) {
    (void)query;
    return NULL;
}

#if defined(__x86_64__) || defined(__aarch64__)
static const char *rounds_activations(const struct fmk_query *query) {
    return query->flags & FMK_LINEAR_EXACT ? "it rounds activations and the call asks for EXACT" : NULL;
}

enum {
    AVX2 = FMK_CPU_AVX2 | FMK_CPU_FMA | FMK_CPU_F16C,
    VNNI = AVX2 | FMK_CPU_AVX512_VNNI,
    AMX = VNNI | FMK_CPU_AVX512_BF16 | FMK_CPU_AMX_BF16,
    AMX_INT8 = VNNI | FMK_CPU_AVX512_BF16 | FMK_CPU_AMX_INT8,
    NEON = FMK_CPU_NEON,
    DOTPROD = NEON | FMK_CPU_DOTPROD,
    I8MM = DOTPROD | FMK_CPU_I8MM
};
#endif

#if defined(__x86_64__)
static const char *not_gemm(const struct fmk_query *query) {
    if (query->flags & FMK_LINEAR_BATCH_INVARIANT)
        return "fewer rows have other sums and the call asks for BATCH_INVARIANT";
    return query->depth < FMK_SHEET_M ? "it is slower for so few rows" : NULL;
}

/* Where a register holds sixteen rows, panels of eight are not read. */
static const char *not_gemm_x16(const struct fmk_query *query) {
    return query->part->layout->panel_rows == 8 ? "it reads panels of sixteen rows" : not_gemm(query);
}

static const char *not_integers(const struct fmk_query *query) {
    return query->part->layout->family == FMK_FAMILY_DENSE ? "the weights are no codes"
                                                           : rounds_activations(query);
}

/* bf16 is what it is given: else 8 bits of f32 or f16 would be kept. */
static const char *not_gemm_bf16(const struct fmk_query *query) {
    bool dense = query->part->layout->family == FMK_FAMILY_DENSE;
    bool rounds = query->part->dtype != FMK_BF16 || query->in_type != FMK_BF16;
    if (dense && rounds && !(query->flags & FMK_LINEAR_FAST_REDUCE))
        return "it rounds to bf16 and the call does not ask for FAST_REDUCE";
    return query->flags & FMK_LINEAR_EXACT ? "it rounds weights and the call asks for EXACT"
                                           : not_gemm_x16(query);
}

static const char *not_gemm_int8(const struct fmk_query *query) {
    if (!(query->flags & FMK_LINEAR_FAST_REDUCE))
        return "it rounds weights to int8 and the call does not ask for FAST_REDUCE";
    const char *why = not_integers(query);
    if (!why && query->depth < FMK_INT8_M)
        why = "it is hardly faster for so few rows";
    return why ? why : not_gemm_x16(query);
}

static const char *not_gemm_bf16x2(const struct fmk_query *query) {
    return query->flags & FMK_LINEAR_EXACT ? "it rounds to 16 bits and the call asks for EXACT"
                                           : not_gemm_x16(query);
}

/* Without VNNI, integers of 16 bits take twice the instructions that those of 8 take. */
static const char *not_gemm_i16(const struct fmk_query *query) {
    const char *why = not_integers(query);
    if (!why && query->part->layout->panel_rows == 8)
        why = "int8 sums of panels are faster";
    return why ? why : not_gemm(query);
}

/* Of codes, in default mode, panels of eight are left to their int8 sums. */
static const char *not_gemm_f32(const struct fmk_query *query) {
    if (!not_integers(query) && query->part->layout->panel_rows == 8)
        return "int8 sums of panels are faster";
    return not_gemm(query);
}

static const char *not_gemm_i16_x16(const struct fmk_query *query) {
    const char *why = not_integers(query);
    return why ? why : not_gemm_x16(query);
}
#endif

/* ---- CUDA ---- */

static const char *not_for_gemm(const struct fmk_query *query) {
    if (query->flags & FMK_LINEAR_EXACT)
        return "the call asks for EXACT";
    if (query->flags & FMK_LINEAR_BATCH_INVARIANT)
        return "its sums depend on m and the call asks for BATCH_INVARIANT";
    if (query->route != FMK_ROUTE_NONE)
        return "it multiplies one expert's rows and the call routes them to many";
    if (query->workspace < query->gemm_workspace)
        return "the workspace is too small for it";
    return NULL;
}

static const char *not_gemm_dense(const struct fmk_query *query) {
    if (query->part->dtype != query->in_type)
        return "the weights are of another type than the activations";
    if (query->m <= FMK_GEMM_M_DENSE && query->part->n * query->part->k < FMK_GEMM_WEIGHTS)
        return "it is no faster for so few rows and weights";
    if (query->m <= FMK_GEMM_M_DENSE && !query->bare)
        return "bias, addend or activation would need a kernel of their own";
    return not_for_gemm(query);
}

static const char *not_wgmma(const struct fmk_query *query) {
    if (query->flags & FMK_LINEAR_EXACT)
        return "the call asks for EXACT";
    if (query->flags & FMK_LINEAR_BATCH_INVARIANT)
        return "its sums depend on m and the call asks for BATCH_INVARIANT";
    if (query->in_type == FMK_F32)
        return "it multiplies activations of f16 or bf16";
    if (query->route == FMK_ROUTE_IDS || query->route == FMK_ROUTE_SORTED)
        return "it multiplies one expert's rows and the call routes them to many";
    const int64_t weights = query->n * query->part->k;
    const int32_t least = weights <= FMK_WGMMA_SMALL    ? FMK_WGMMA_LEAST_M_SMALL
                          : weights <= FMK_WGMMA_MEDIUM ? FMK_WGMMA_LEAST_M_MEDIUM
                                                        : FMK_WGMMA_LEAST_M;
    if (query->depth < least)
        return "it is slower for so few rows";
    if (query->depth > FMK_WGMMA_MOST_M && query->features & FMK_CUDA_CUBLAS && !not_for_gemm(query))
        return "cuBLAS is faster for so many rows";
    return NULL;
}

static const char *not_many(const struct fmk_query *query) {
    const int32_t least = query->n < FMK_MANY_ROWS ? FMK_MANY_LEAST_M : FMK_MANY_LEAST_M_ROWS;
    const int32_t most = query->features & FMK_CUDA_FAST_GEMM ? FMK_MANY_MOST_M_FAST : FMK_MANY_MOST_M;
    if (query->flags & FMK_LINEAR_EXACT)
        return "the call asks for EXACT";
    if (query->flags & FMK_LINEAR_BATCH_INVARIANT)
        return "fewer rows have other sums and the call asks for BATCH_INVARIANT";
    if (query->in_type == FMK_F32)
        return "it multiplies activations of f16 or bf16";
    if (query->route == FMK_ROUTE_IDS || query->route == FMK_ROUTE_SORTED)
        return "it multiplies one expert's rows and the call routes them to many";
    if (query->depth < least)
        return "it is slower for so few rows";
    if (query->depth > most && query->features & FMK_CUDA_CUBLAS && !not_for_gemm(query))
        return "cuBLAS is faster for so many rows";
    return NULL;
}

static const char *not_gemm_decoded(const struct fmk_query *query) {
    return query->m <= FMK_GEMM_M_DECODE ? "it is slower for so few rows" : not_for_gemm(query);
}

static const char *not_mma(const struct fmk_query *query) {
    return query->flags & FMK_LINEAR_EXACT ? "the call asks for EXACT" : NULL;
}

static const char *not_rows_of_8(const struct fmk_packed *part) {
    if (part->k % 8)
        return "k is not a multiple of 8";
    if ((uintptr_t)part->data % 16 || part->stride % 16 || part->expert_stride % 16)
        return "the weight's rows are not aligned to 16 bytes";
    return NULL;
}

static const char *not_one(const struct fmk_query *query) {
    return query->one ? not_rows_of_8(query->part) : "it takes token by token";
}

static const char *not_mma_dense(const struct fmk_query *query) {
    const struct fmk_packed *part = query->part;
    if (part->dtype == FMK_F32)
        return "tensor cores do not multiply f32";
    if (part->dtype == FMK_F16 && query->in_type != FMK_F16)
        return "f16 weights go with f16 activations only";
    const char *why = not_rows_of_8(part);
    return why ? why : not_mma(query);
}

/* ---- Vulkan ---- */

static const char *not_vulkan_gemm(const struct fmk_query *query) {
    int64_t experts =
        query->route == FMK_ROUTE_IDS || query->route == FMK_ROUTE_SORTED ? query->part->experts : 1;
    if (query->flags & FMK_LINEAR_BATCH_INVARIANT)
        return "its sums are not those of one token and the call asks for BATCH_INVARIANT";
    return query->m <= FMK_VULKAN_GEMV_ROWS * experts ? "it is slower for so few rows" : NULL;
}

static const char *not_vulkan_gemm_dense(const struct fmk_query *query) {
    const char *why = not_rows_of_8(query->part);
    return why ? why : not_vulkan_gemm(query);
}

static const char *rounds_to_f16(const struct fmk_query *query) {
    if (query->flags & FMK_LINEAR_EXACT)
        return "it rounds to f16 and the call asks for EXACT";
    if (query->route == FMK_ROUTE_IDS || query->route == FMK_ROUTE_SORTED)
        return "it takes tokens of one expert";
    return NULL;
}

static const char *not_vulkan_f16(const struct fmk_query *query) {
    const char *why = rounds_to_f16(query);
    return why ? why : not_vulkan_gemm(query);
}

static const char *not_vulkan_half(const struct fmk_query *query) {
    if (!(query->flags & FMK_LINEAR_FAST_REDUCE))
        return "it sums in f16 and the call does not ask for FAST_REDUCE";
    return not_vulkan_f16(query);
}

static const char *not_vulkan_half_dense(const struct fmk_query *query) {
    const char *why = not_rows_of_8(query->part);
    return why ? why : not_vulkan_half(query);
}

static const char *not_vulkan_f16_dense(const struct fmk_query *query) {
    const char *why = not_rows_of_8(query->part);
    return why ? why : not_vulkan_f16(query);
}

static const char *not_vulkan_few(const struct fmk_query *query) {
    const char *why = rounds_to_f16(query);
    if (why)
        return why;
    if (query->flags & FMK_LINEAR_BATCH_INVARIANT)
        return "its sums are not those of one token and the call asks for BATCH_INVARIANT";
    return query->m < FMK_VULKAN_FEW_LEAST  ? "it is slower for so few rows"
           : query->m > FMK_VULKAN_FEW_MOST ? "it takes few rows"
                                            : NULL;
}

static const char *not_vulkan_few_dense(const struct fmk_query *query) {
    const char *why = not_rows_of_8(query->part);
    return why ? why : not_vulkan_few(query);
}

static const char *not_vulkan_gemv_dense(const struct fmk_query *query) {
    return not_rows_of_8(query->part);
}

static const struct fmk_kernel rows[] = {
#if defined(__x86_64__)
    {"cpu.gemm.amx.int8", FMK_BACKEND_CPU, 0, AMX_INT8, FMK_ACTS_GEMM_INT8, not_gemm_int8, NULL,
     FMK_CUDA_NONE, &fmk_gemm_amx_int8},
    {"cpu.gemm.amx.bf16", FMK_BACKEND_CPU, 0, AMX, FMK_ACTS_GEMM_BF16, not_gemm_bf16, NULL, FMK_CUDA_NONE,
     &fmk_gemm_amx_bf16},
    {"cpu.gemm.amx.bf16x2", FMK_BACKEND_CPU, FMK_LAYOUT_DENSE_ROWS, AMX, FMK_ACTS_GEMM_BF16X2,
     not_gemm_bf16x2, NULL, FMK_CUDA_NONE, &fmk_gemm_amx_bf16x2},
    {"cpu.gemm.avx512.i16", FMK_BACKEND_CPU, 0, VNNI, FMK_ACTS_GEMM_I16, not_gemm_i16_x16, NULL,
     FMK_CUDA_NONE, &fmk_gemm_avx512_i16},
    {"cpu.gemm.avx2.i16", FMK_BACKEND_CPU, 0, AVX2, FMK_ACTS_GEMM_I16, not_gemm_i16, NULL, FMK_CUDA_NONE,
     &fmk_gemm_avx2_i16},
    {"cpu.gemm.avx512.f32", FMK_BACKEND_CPU, 0, VNNI, FMK_ACTS_GEMM_F32, not_gemm_x16, NULL, FMK_CUDA_NONE,
     &fmk_gemm_avx512_f32},
    {"cpu.gemm.avx2.f32", FMK_BACKEND_CPU, 0, AVX2, FMK_ACTS_GEMM_F32, not_gemm_f32, NULL, FMK_CUDA_NONE,
     &fmk_gemm_avx2_f32},
    {"cpu.dense.avx512", FMK_BACKEND_CPU, FMK_LAYOUT_DENSE_ROWS, VNNI, FMK_ACTS_F32, no_objection,
     fmk_dense_avx512, FMK_CUDA_NONE, NULL},
    {"cpu.dense.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_DENSE_ROWS, AVX2, FMK_ACTS_F32, no_objection,
     fmk_dense_avx2, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x16.vnni", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X16, VNNI, FMK_ACTS_Q8_BLOCKS, rounds_activations,
     fmk_q4k_x16_vnni, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x16.avx512", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X16, VNNI, FMK_ACTS_F32, no_objection,
     fmk_q4k_x16_avx512, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x16.vnni", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X16, VNNI, FMK_ACTS_Q8_BLOCKS, rounds_activations,
     fmk_q6k_x16_vnni, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x16.avx512", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X16, VNNI, FMK_ACTS_F32, no_objection,
     fmk_q6k_x16_avx512, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x16.vnni", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X16, VNNI, FMK_ACTS_Q8_BLOCKS, rounds_activations,
     fmk_int4_x16_vnni, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x16.avx512", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X16, VNNI, FMK_ACTS_F32, no_objection,
     fmk_int4_x16_avx512, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x8.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_q4k_x8_avx2_int8, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x8.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q4k_x8_avx2, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x8.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_q6k_x8_avx2_int8, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x8.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q6k_x8_avx2, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x8.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_int4_x8_avx2_int8, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x8.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, AVX2, FMK_ACTS_F32, no_objection,
     fmk_int4_x8_avx2, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.rows.vnni", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, VNNI, FMK_ACTS_Q8_LANES, rounds_activations,
     fmk_q4k_rows_vnni, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.rows.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, AVX2, FMK_ACTS_Q8_LANES,
     rounds_activations, fmk_q4k_rows_avx2_int8, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.rows.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q4k_rows_avx2, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.rows.vnni", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, VNNI, FMK_ACTS_Q8_LANES, rounds_activations,
     fmk_q6k_rows_vnni, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.rows.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, AVX2, FMK_ACTS_Q8_LANES,
     rounds_activations, fmk_q6k_rows_avx2_int8, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.rows.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q6k_rows_avx2, FMK_CUDA_NONE, NULL},
#elif defined(__aarch64__)
    {"cpu.dense.neon", FMK_BACKEND_CPU, FMK_LAYOUT_DENSE_ROWS, NEON, FMK_ACTS_F32, no_objection,
     fmk_dense_neon, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x8.i8mm", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, I8MM, FMK_ACTS_Q8_BLOCKS, rounds_activations,
     fmk_q4k_x8_i8mm, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x8.dotprod", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, DOTPROD, FMK_ACTS_Q8_BLOCKS,
     rounds_activations, fmk_q4k_x8_dotprod, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.x8.neon", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, NEON, FMK_ACTS_F32, no_objection,
     fmk_q4k_x8_neon, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x8.i8mm", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, I8MM, FMK_ACTS_Q8_BLOCKS, rounds_activations,
     fmk_q6k_x8_i8mm, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x8.dotprod", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, DOTPROD, FMK_ACTS_Q8_BLOCKS,
     rounds_activations, fmk_q6k_x8_dotprod, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.x8.neon", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, NEON, FMK_ACTS_F32, no_objection,
     fmk_q6k_x8_neon, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x8.i8mm", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, I8MM, FMK_ACTS_Q8_BLOCKS, rounds_activations,
     fmk_int4_x8_i8mm, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x8.dotprod", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, DOTPROD, FMK_ACTS_Q8_BLOCKS,
     rounds_activations, fmk_int4_x8_dotprod, FMK_CUDA_NONE, NULL},
    {"cpu.int4.x8.neon", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, NEON, FMK_ACTS_F32, no_objection,
     fmk_int4_x8_neon, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.rows.dotprod", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, DOTPROD, FMK_ACTS_Q8_BLOCKS,
     rounds_activations, fmk_q4k_rows_dotprod, FMK_CUDA_NONE, NULL},
    {"cpu.q4_k.rows.neon", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, NEON, FMK_ACTS_F32, no_objection,
     fmk_q4k_rows_neon, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.rows.dotprod", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, DOTPROD, FMK_ACTS_Q8_BLOCKS,
     rounds_activations, fmk_q6k_rows_dotprod, FMK_CUDA_NONE, NULL},
    {"cpu.q6_k.rows.neon", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, NEON, FMK_ACTS_F32, no_objection,
     fmk_q6k_rows_neon, FMK_CUDA_NONE, NULL},
#endif
    {"cpu.portable", FMK_BACKEND_CPU, 0, 0, FMK_ACTS_F32, no_objection, fmk_portable, FMK_CUDA_NONE, NULL},
    {"cpu.reference", FMK_BACKEND_CPU, 0, 0, FMK_ACTS_F32, no_objection, fmk_reference, FMK_CUDA_NONE, NULL},
    {"cuda.dense.cublas", FMK_BACKEND_CUDA, FMK_LAYOUT_DENSE_ROWS, FMK_CUDA_CUBLAS, FMK_ACTS_F32,
     not_gemm_dense, NULL, FMK_CUDA_GEMM, NULL},
    {"cuda.dense.one", FMK_BACKEND_CUDA, FMK_LAYOUT_DENSE_ROWS, 0, FMK_ACTS_F32, not_one, NULL, FMK_CUDA_ONE,
     NULL},
    {"cuda.int4.wgmma", FMK_BACKEND_CUDA, FMK_LAYOUT_INT4_T64, FMK_CUDA_SM90 | FMK_CUDA_SM90A, FMK_ACTS_F32,
     not_wgmma, NULL, FMK_CUDA_WGMMA, NULL},
    {"cuda.int4.many", FMK_BACKEND_CUDA, FMK_LAYOUT_INT4_T16, 0, FMK_ACTS_F32, not_many, NULL, FMK_CUDA_MANY,
     NULL},
    {"cuda.dequant.cublas", FMK_BACKEND_CUDA, 0, FMK_CUDA_CUBLAS, FMK_ACTS_F32, not_gemm_decoded, NULL,
     FMK_CUDA_DECODE_GEMM, NULL},
    {"cuda.dense.mma", FMK_BACKEND_CUDA, FMK_LAYOUT_DENSE_ROWS, 0, FMK_ACTS_F32, not_mma_dense, NULL,
     FMK_CUDA_MMA, NULL},
    {"cuda.int4.mma", FMK_BACKEND_CUDA, FMK_LAYOUT_INT4_T16, 0, FMK_ACTS_F32, not_mma, NULL, FMK_CUDA_MMA,
     NULL},
    {"cuda.int4.few", FMK_BACKEND_CUDA, FMK_LAYOUT_INT4_T64, FMK_CUDA_SM90 | FMK_CUDA_SM90A, FMK_ACTS_F32,
     not_mma, NULL, FMK_CUDA_FEW, NULL},
    {"cuda.q4_k.mma", FMK_BACKEND_CUDA, FMK_LAYOUT_Q4_K_T16, 0, FMK_ACTS_F32, not_mma, NULL, FMK_CUDA_MMA,
     NULL},
    {"cuda.q6_k.mma", FMK_BACKEND_CUDA, FMK_LAYOUT_Q6_K_T16, 0, FMK_ACTS_F32, not_mma, NULL, FMK_CUDA_MMA,
     NULL},
    {"cuda.plain", FMK_BACKEND_CUDA, 0, 0, FMK_ACTS_F32, no_objection, NULL, FMK_CUDA_PLAIN, NULL},
    {"cuda.reference", FMK_BACKEND_CUDA, 0, 0, FMK_ACTS_F32, no_objection, NULL, FMK_CUDA_DOUBLE, NULL},
    {"vulkan.dense.few", FMK_BACKEND_VULKAN, FMK_LAYOUT_DENSE_ROWS, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_few_dense, NULL, FMK_VULKAN_FEW, NULL},
    {"vulkan.dense.coopmat", FMK_BACKEND_VULKAN, FMK_LAYOUT_DENSE_ROWS, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_f16_dense, NULL, FMK_VULKAN_COOPMAT, NULL},
    {"vulkan.dense.half", FMK_BACKEND_VULKAN, FMK_LAYOUT_DENSE_ROWS, FMK_VK_FLOAT16, FMK_ACTS_F32,
     not_vulkan_half_dense, NULL, FMK_VULKAN_HALF, NULL},
    {"vulkan.dense.gemm", FMK_BACKEND_VULKAN, FMK_LAYOUT_DENSE_ROWS, 0, FMK_ACTS_F32, not_vulkan_gemm_dense,
     NULL, FMK_VULKAN_GEMM, NULL},
    {"vulkan.dense.gemv", FMK_BACKEND_VULKAN, FMK_LAYOUT_DENSE_ROWS, 0, FMK_ACTS_F32, not_vulkan_gemv_dense,
     NULL, FMK_VULKAN_GEMV, NULL},
    {"vulkan.int4.few", FMK_BACKEND_VULKAN, FMK_LAYOUT_INT4_X8, FMK_VK_COOPMAT, FMK_ACTS_F32, not_vulkan_few,
     NULL, FMK_VULKAN_FEW, NULL},
    {"vulkan.int4.coopmat", FMK_BACKEND_VULKAN, FMK_LAYOUT_INT4_X8, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_f16, NULL, FMK_VULKAN_COOPMAT, NULL},
    {"vulkan.int4.half", FMK_BACKEND_VULKAN, FMK_LAYOUT_INT4_X8, FMK_VK_FLOAT16, FMK_ACTS_F32,
     not_vulkan_half, NULL, FMK_VULKAN_HALF, NULL},
    {"vulkan.int4.gemm", FMK_BACKEND_VULKAN, FMK_LAYOUT_INT4_X8, 0, FMK_ACTS_F32, not_vulkan_gemm, NULL,
     FMK_VULKAN_GEMM, NULL},
    {"vulkan.int4.gemv", FMK_BACKEND_VULKAN, FMK_LAYOUT_INT4_X8, 0, FMK_ACTS_F32, no_objection, NULL,
     FMK_VULKAN_GEMV, NULL},
    {"vulkan.q4_k.few", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q4_K_ROWS, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_few, NULL, FMK_VULKAN_FEW, NULL},
    {"vulkan.q4_k.coopmat", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q4_K_ROWS, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_f16, NULL, FMK_VULKAN_COOPMAT, NULL},
    {"vulkan.q4_k.half", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q4_K_ROWS, FMK_VK_FLOAT16, FMK_ACTS_F32,
     not_vulkan_half, NULL, FMK_VULKAN_HALF, NULL},
    {"vulkan.q4_k.gemm", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q4_K_ROWS, 0, FMK_ACTS_F32, not_vulkan_gemm, NULL,
     FMK_VULKAN_GEMM, NULL},
    {"vulkan.q4_k.gemv", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q4_K_ROWS, 0, FMK_ACTS_F32, no_objection, NULL,
     FMK_VULKAN_GEMV, NULL},
    {"vulkan.q6_k.few", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q6_K_ROWS, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_few, NULL, FMK_VULKAN_FEW, NULL},
    {"vulkan.q6_k.coopmat", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q6_K_ROWS, FMK_VK_COOPMAT, FMK_ACTS_F32,
     not_vulkan_f16, NULL, FMK_VULKAN_COOPMAT, NULL},
    {"vulkan.q6_k.half", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q6_K_ROWS, FMK_VK_FLOAT16, FMK_ACTS_F32,
     not_vulkan_half, NULL, FMK_VULKAN_HALF, NULL},
    {"vulkan.q6_k.gemm", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q6_K_ROWS, 0, FMK_ACTS_F32, not_vulkan_gemm, NULL,
     FMK_VULKAN_GEMM, NULL},
    {"vulkan.q6_k.gemv", FMK_BACKEND_VULKAN, FMK_LAYOUT_Q6_K_ROWS, 0, FMK_ACTS_F32, no_objection, NULL,
     FMK_VULKAN_GEMV, NULL},
    {"vulkan.plain", FMK_BACKEND_VULKAN, 0, 0, FMK_ACTS_F32, no_objection, NULL, FMK_VULKAN_PLAIN, NULL},
    {"vulkan.reference", FMK_BACKEND_VULKAN, 0, 0, FMK_ACTS_F32, no_objection, NULL, FMK_VULKAN_DOUBLE, NULL},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

const struct fmk_kernel *fmk_kernel_row(int32_t i) {
    return i >= 0 && i < ROWS ? &rows[i] : NULL;
}

/* Bytes for some hundred rows by some hundred columns: cuBLAS's own, activations, decoded weights, sums.
 * src/cuda/plan.c lays a call out in no more. */
static uint64_t gemm_workspace(const struct fmk_projection *w, const struct fmk_call *call) {
    int64_t m = fmk_min(call->rows, FMK_GEMM_LEAST_ROWS), columns = FMK_GEMM_LEAST_COLUMNS;
    int64_t k = 0, forms = 1, size = fmk_dtype_size(call->args.in_type);
    bool decodes = call->rows > FMK_GEMM_M_DECODE;
    bool mixed = !decodes; /* other kernels may serve some of the parts, and where few rows are, all that
                              cuBLAS would have to decode */
    bool floats = false;   /* some part's product is one of f32 */
    for (int32_t p = 0; p < w->num_parts; p++) {
        const struct fmk_packed *part = &w->parts[p];
        k = fmk_max(k, part->k_packed + 8);
        forms += part->k_index != NULL;
        floats |= part->layout->family == FMK_FAMILY_DENSE && part->dtype != call->args.in_type;
        mixed |= part->layout->family == FMK_FAMILY_INT4;
    }
    /* Beside the activations as they are: f32, and planes of bf16, three of f32 and two of f16. */
    int64_t number = size + (mixed ? (size == 4 ? 6 : 4) : floats && size < 4 ? 4 : 0);
    int64_t decoded = decodes ? columns * k * (floats ? 4 : size) : 0;
    /* Where one of gate and up is not made by cuBLAS, both are finished in one go. */
    int64_t sums = m * (!call->args.act ? columns : mixed ? fmk_max(w->n, 2 * columns) : 2 * columns) * 4;
    return FMK_GEMM_WORKSPACE + 256 * (uint64_t)(forms + 8) + (uint64_t)(forms * m * k * number) +
           (uint64_t)decoded + (uint64_t)sums;
}

bool fmk_call_one(const struct fmk_projection *w, const struct fmk_call *call) {
    int64_t experts = w->num_experts ? w->num_experts : 1;
    bool routed = call->routing.kind == FMK_ROUTE_IDS || call->routing.kind == FMK_ROUTE_SORTED;
    if (call->args.flags & FMK_LINEAR_BATCH_INVARIANT)
        return false;
    return routed ? 4 * call->rows <= experts : call->args.m == 1;
}

struct fmk_query fmk_kernel_query(const struct fmk_context *ctx, const struct fmk_projection *w,
                                  const struct fmk_call *call, int32_t p, uint64_t workspace) {
    bool cuda = ctx->backend->id == FMK_BACKEND_CUDA;
    return (struct fmk_query){
        .backend = ctx->backend->id,
        .features = ctx->features,
        .part = &w->parts[p],
        .n = w->n,
        .flags = call->args.flags,
        .m = call->rows,
        .depth = call->routing.kind == FMK_ROUTE_NONE ? call->rows : call->rows / w->num_experts,
        .one = fmk_call_one(w, call),
        .bare = !call->args.act && !call->args.addend.handle && !call->args.m_dev.handle &&
                !w->parts[p].bias && !call->routing.pair_weights.handle,
        .in_type = call->args.in_type,
        .route = call->routing.kind,
        .workspace = workspace < FMK_BEST_WORKSPACE ? workspace : FMK_BEST_WORKSPACE,
        .gemm_workspace = cuda ? gemm_workspace(w, call) : 0,
    };
}

/* NULL: none, unless there are features that it lacks. */
static const char *objection(const struct fmk_kernel *row, const struct fmk_query *query) {
    if (row->backend != query->backend)
        return "it is of another backend";
    if (row->layout && row->layout != (int32_t)query->part->layout->id)
        return "the weight is in another layout";
    bool reference =
        row->tile == fmk_reference || row->path == FMK_CUDA_DOUBLE || row->path == FMK_VULKAN_DOUBLE;
    if (query->flags & FMK_LINEAR_REFERENCE && !reference)
        return "the call asks for REFERENCE";
    return row->needs & ~query->features ? NULL : row->why_not(query);
}

bool fmk_kernel_objects(const struct fmk_kernel *row, const struct fmk_query *query, char *text, size_t cap) {
    const char *why = objection(row, query);
    uint32_t lacks = row->needs & ~query->features;
    if (why) {
        snprintf(text, cap, "%s", why);
    } else if (lacks) {
        char missing[64];
        if (row->backend == FMK_BACKEND_CUDA)
            fmk_cuda_feature_names(lacks, missing, sizeof missing);
        else if (row->backend == FMK_BACKEND_VULKAN)
            fmk_vk_feature_names(lacks, missing, sizeof missing);
        else
            fmk_cpu_feature_names(lacks, missing, sizeof missing);
        snprintf(text, cap, "it needs %s", missing);
    }
    return why || lacks;
}

const struct fmk_kernel *fmk_kernel_choose(const struct fmk_query *query) {
    int i = 0;
    while (i < ROWS - 1 && (objection(&rows[i], query) || rows[i].needs & ~query->features))
        i++;
    return &rows[i];
}
