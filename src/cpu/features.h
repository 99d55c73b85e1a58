/* What this CPU can do, and the words for it in fmk_context_desc.disable and fmk_context_info_t.features. */
#ifndef FMK_CPU_FEATURES_H
#define FMK_CPU_FEATURES_H

#include <stddef.h>
#include <stdint.h>

enum fmk_cpu_feature {
    FMK_CPU_AVX2 = 1 << 0,
    FMK_CPU_FMA = 1 << 1,
    FMK_CPU_F16C = 1 << 2,
    FMK_CPU_AVX_VNNI = 1 << 3,    /* VNNI on 256 bits without AVX-512 */
    FMK_CPU_AVX512_VNNI = 1 << 4, /* with F, BW, DQ and VL, which every CPU with it has */
    FMK_CPU_AVX512_BF16 = 1 << 5, /* with the same */
    FMK_CPU_AMX_BF16 = 1 << 6,    /* with tiles, which the operating system lets the process use */
    FMK_CPU_AMX_INT8 = 1 << 7,
    FMK_CPU_STREAMS = 1 << 8, /* a core gets more from memory when it reads in several places by turns */
    FMK_CPU_NEON = 1 << 16,   /* every 64-bit ARM */
    FMK_CPU_DOTPROD = 1 << 17,
    FMK_CPU_I8MM = 1 << 18
};

/* The features present and enabled by the operating system, less those in `disable` (may be NULL). Asks for
 * leave to use AMX, where there is AMX: Linux gives the room for its registers to processes that ask. */
uint32_t fmk_cpu_features(const char *disable);
/* "avx2,fma" of a set. */
void fmk_cpu_feature_names(uint32_t features, char *text, size_t cap);

#endif
