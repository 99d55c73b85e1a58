/* What a CUDA context makes use of, and the words for it in fmk_context_desc.disable and
 * fmk_context_info_t.features. Also built where the library is without CUDA: the table of kernels names them.
 */
#ifndef FMK_CUDA_FEATURES_H
#define FMK_CUDA_FEATURES_H

#include <stddef.h>
#include <stdint.h>

enum fmk_cuda_feature {
    FMK_CUDA_SM90 = 1, /* compute capability 9.0 and later */
    FMK_CUDA_CUBLAS = 2,
    FMK_CUDA_SM90A = 4,    /* 9.0 itself, without which there is none */
    FMK_CUDA_FAST_GEMM = 8 /* cuBLAS has instructions twice as fast as mma.sync: 9.0, 10.x; has no word */
};

/* The features that a list like "sm90,cublas" (or NULL) names; other words count as nothing. */
uint32_t fmk_cuda_features_of(const char *list);
/* "sm90,cublas" of a set. */
void fmk_cuda_feature_names(uint32_t features, char *text, size_t cap);

#endif
