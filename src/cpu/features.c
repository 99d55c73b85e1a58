/* CPU features by CPUID, where the compiler's helper also asks whether the operating system saves the
 * registers; on ARM by what Linux tells a process of them. */
#include "features.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name;
} words[] = {
    {FMK_CPU_AVX2, "avx2"},
    {FMK_CPU_FMA, "fma"},
    {FMK_CPU_F16C, "f16c"},
    {FMK_CPU_AVX_VNNI, "avx_vnni"},
    {FMK_CPU_AVX512_VNNI, "avx512_vnni"},
    {FMK_CPU_AVX512_BF16, "avx512_bf16"},
    {FMK_CPU_AMX_BF16, "amx_bf16"},
    {FMK_CPU_AMX_INT8, "amx_int8"},
    {FMK_CPU_STREAMS, "streams"},
    {FMK_CPU_NEON, "neon"},
    {FMK_CPU_DOTPROD, "dotprod"},
    {FMK_CPU_I8MM, "i8mm"},
};
enum { WORDS = sizeof words / sizeof words[0] };

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of CPUID leaf 7: bits of EDX, and of EAX in subleaf 1, in words that older compilers' cpuid.h lacks. */
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, AVX_VNNI = 1 << 4, AVX512_BF16 = 1 << 5 };

/* Linux since 5.16; asked again, it answers the same. */
static bool may_use_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static uint32_t detect(void) {
    uint32_t found = 0, a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2"))
        return 0;
    found |= FMK_CPU_AVX2;
    /* Sapphire Rapids reads 10 to 14 GB/s in one place and 16 to 18 in four to eight; Zen 5 40 in one and 30
     * in four. */
    if (__builtin_cpu_is("intel"))
        found |= FMK_CPU_STREAMS;
    if (__builtin_cpu_supports("fma"))
        found |= FMK_CPU_FMA;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C))
        found |= FMK_CPU_F16C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return found;
    uint32_t subleaves = a, leaf7 = d;
    if (!subleaves || !__get_cpuid_count(7, 1, &a, &b, &c, &d))
        a = 0;
    if (a & AVX_VNNI)
        found |= FMK_CPU_AVX_VNNI;
    if (has_avx512() && __builtin_cpu_supports("avx512vnni"))
        found |= FMK_CPU_AVX512_VNNI;
    if (has_avx512() && a & AVX512_BF16)
        found |= FMK_CPU_AVX512_BF16;
    if (leaf7 & AMX_TILE && leaf7 & (AMX_BF16 | AMX_INT8) && may_use_tiles()) {
        found |= leaf7 & AMX_BF16 ? FMK_CPU_AMX_BF16 : 0;
        found |= leaf7 & AMX_INT8 ? FMK_CPU_AMX_INT8 : 0;
    }
    return found;
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static uint32_t detect(void) {
    unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
    uint32_t found = FMK_CPU_NEON;
    if (one & HWCAP_ASIMDDP)
        found |= FMK_CPU_DOTPROD;
    if (one & HWCAP_ASIMDDP && two & HWCAP2_I8MM)
        found |= FMK_CPU_I8MM;
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
