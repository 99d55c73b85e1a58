/* What this CPU can do, and the words for it in fmk_context_desc.disable and fmk_context_info_t.features. */
#ifndef FMK_CPU_FEATURES_H
#define FMK_CPU_FEATURES_H

#include <stddef.h>
#include <stdint.h>

enum fmk_cpu_feature { FMK_CPU_AVX2 = 1, FMK_CPU_FMA = 2, FMK_CPU_F16C = 4 };

/* The features present and enabled by the operating system, less those in `disable` (may be NULL). */
uint32_t fmk_cpu_features(const char *disable);
/* "avx2,fma" of a set. */
void fmk_cpu_feature_names(uint32_t features, char *text, size_t cap);

#endif
