/* CPU features by CPUID; the compiler's helper also asks whether the operating system saves the registers. */
#include "features.h"

#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name;
} words[] = {
    {FMK_CPU_AVX2, "avx2"},
    {FMK_CPU_FMA, "fma"},
    {FMK_CPU_F16C, "f16c"},
};
enum { WORDS = sizeof words / sizeof words[0] };

#if defined(__x86_64__)
#include <cpuid.h>

static uint32_t detect(void) {
    uint32_t found = 0, a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2"))
        return 0;
    found |= FMK_CPU_AVX2;
    if (__builtin_cpu_supports("fma"))
        found |= FMK_CPU_FMA;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C))
        found |= FMK_CPU_F16C;
    return found;
}
#else
static uint32_t detect(void) {
    return 0;
}
#endif

static uint32_t feature_of(const char *word, size_t length) {
    for (int i = 0; i < WORDS; i++)
        if (strlen(words[i].name) == length && !memcmp(words[i].name, word, length))
            return words[i].bit;
    return 0;
}

uint32_t fmk_cpu_features(const char *disable) {
    uint32_t features = detect();
    while (disable && *disable) {
        size_t length = strcspn(disable, ", ");
        features &= ~feature_of(disable, length);
        disable += length;
        disable += strspn(disable, ", ");
    }
    return features;
}

void fmk_cpu_feature_names(uint32_t features, char *text, size_t cap) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < WORDS; i++)
        if (features & words[i].bit && used < cap) {
            int wrote = snprintf(text + used, cap - used, "%s%s", used ? "," : "", words[i].name);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
}
