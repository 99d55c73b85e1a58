/* The table of kernels, best first within a layout. Adding a kernel is one file and one row here. */
#include "kernels.h"

#include "../cpu/features.h"

#include <stdio.h>

static const char *no_objection(const struct fmk_query *query) {
    (void)query;
    return NULL;
}

#if defined(__x86_64__)
static const char *rounds_activations(const struct fmk_query *query) {
    return query->flags & FMK_LINEAR_EXACT ? "it rounds activations to int8 and the call asks for EXACT"
                                           : NULL;
}

enum { AVX2 = FMK_CPU_AVX2 | FMK_CPU_FMA | FMK_CPU_F16C };
#endif

static const struct fmk_kernel rows[] = {
#if defined(__x86_64__)
    {"cpu.dense.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_DENSE_ROWS, AVX2, FMK_ACTS_F32, no_objection,
     fmk_dense_avx2},
    {"cpu.q4_k.x8.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_q4k_x8_avx2_int8},
    {"cpu.q4_k.x8.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_X8, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q4k_x8_avx2},
    {"cpu.q6_k.x8.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_q6k_x8_avx2_int8},
    {"cpu.q6_k.x8.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_X8, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q6k_x8_avx2},
    {"cpu.int4.x8.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_int4_x8_avx2_int8},
    {"cpu.int4.x8.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_INT4_X8, AVX2, FMK_ACTS_F32, no_objection,
     fmk_int4_x8_avx2},
    {"cpu.q4_k.rows.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_q4k_rows_avx2_int8},
    {"cpu.q4_k.rows.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q4_K_ROWS, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q4k_rows_avx2},
    {"cpu.q6_k.rows.avx2.int8", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, AVX2, FMK_ACTS_Q8, rounds_activations,
     fmk_q6k_rows_avx2_int8},
    {"cpu.q6_k.rows.avx2", FMK_BACKEND_CPU, FMK_LAYOUT_Q6_K_ROWS, AVX2, FMK_ACTS_F32, no_objection,
     fmk_q6k_rows_avx2},
#endif
    {"cpu.portable", FMK_BACKEND_CPU, 0, 0, FMK_ACTS_F32, no_objection, fmk_portable},
    {"cpu.reference", FMK_BACKEND_CPU, 0, 0, FMK_ACTS_F32, no_objection, fmk_reference},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

const struct fmk_kernel *fmk_kernel_row(int32_t i) {
    return i >= 0 && i < ROWS ? &rows[i] : NULL;
}

bool fmk_kernel_objects(const struct fmk_kernel *row, const struct fmk_query *query, char *text, size_t cap) {
    const char *objection = NULL;
    char missing[64];
    if (row->backend != query->backend)
        objection = "it is of another backend";
    else if (row->layout && row->layout != (int32_t)query->part->layout->id)
        objection = "the weight is in another layout";
    else if (query->flags & FMK_LINEAR_REFERENCE && row->tile != fmk_reference)
        objection = "the call asks for REFERENCE";
    else if (row->needs & ~query->features)
        fmk_cpu_feature_names(row->needs & ~query->features, missing, sizeof missing);
    else
        objection = row->why_not(query);

    if (objection)
        snprintf(text, cap, "%s", objection);
    else if (row->needs & ~query->features)
        snprintf(text, cap, "it needs %s", missing);
    else
        return false;
    return true;
}

const struct fmk_kernel *fmk_kernel_choose(const struct fmk_query *query) {
    char objection[128];
    int i = 0;
    while (i < ROWS - 1 && fmk_kernel_objects(&rows[i], query, objection, sizeof objection))
        i++;
    return &rows[i];
}
