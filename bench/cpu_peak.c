/* Peaks of x86-64: registers only, but for the tiles of AMX, which also come from a panel in the second-level
 * cache, as those of a real product must. Operations count a multiplication and an addition as two. */
#include "cpu_peak.h"

/* ---- reading ---- */

typedef uint64_t words __attribute__((vector_size(16)));

/* Asks for the turn that lies `ahead` bytes further on, if that is not 0. */
static inline void fetch(const char *from, size_t ahead) {
    enum { LINE = 64 };
    for (size_t i = 0; ahead && i < PEAK_TURN; i += LINE)
        __builtin_prefetch(from + ahead + i);
}

static uint64_t read_words(const char *from, size_t run, int streams, size_t ahead) {
    words sum[4] = {{0}};
    for (size_t at = 0; at < run; at += PEAK_TURN)
        for (int s = 0; s < streams; s++) {
            const words *v = (const words *)(const void *)(from + (size_t)s * run + at);
            fetch(from + (size_t)s * run + at, ahead);
            for (size_t i = 0; i < PEAK_TURN / sizeof(words); i += 4)
                for (size_t j = 0; j < 4; j++)
                    sum[j] ^= v[i + j];
        }
    words all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    return all[0] ^ all[1];
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx512_vnni(void) {
    return __builtin_cpu_supports("avx512vnni");
}

__attribute__((target("avx512f"))) static uint64_t read_zmm(const char *from, size_t run, int streams,
                                                            size_t ahead) {
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                      _mm512_setzero_si512()};
    for (size_t at = 0; at < run; at += PEAK_TURN)
        for (int s = 0; s < streams; s++) {
            const __m512i *v = (const __m512i *)(const void *)(from + (size_t)s * run + at);
            fetch(from + (size_t)s * run + at, ahead);
            for (size_t i = 0; i < PEAK_TURN / sizeof(__m512i); i += 4)
                for (size_t j = 0; j < 4; j++)
                    sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(v + i + j));
        }
    sum[0] = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
    return (uint64_t)_mm512_reduce_add_epi64(sum[0]);
}

__attribute__((target("avx2"))) static uint64_t read_ymm(const char *from, size_t run, int streams,
                                                         size_t ahead) {
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (size_t at = 0; at < run; at += PEAK_TURN)
        for (int s = 0; s < streams; s++) {
            const __m256i *v = (const __m256i *)(const void *)(from + (size_t)s * run + at);
            fetch(from + (size_t)s * run + at, ahead);
            for (size_t i = 0; i < PEAK_TURN / sizeof(__m256i); i += 4)
                for (size_t j = 0; j < 4; j++)
                    sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(v + i + j));
        }
    sum[0] = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
    __m128i half = _mm_xor_si128(_mm256_castsi256_si128(sum[0]), _mm256_extracti128_si256(sum[0], 1));
    return (uint64_t)_mm_cvtsi128_si64(half) ^ (uint64_t)_mm_extract_epi64(half, 1);
}

uint64_t peak_read(const void *from, size_t run, int streams, size_t ahead) {
    if (has_avx512())
        return read_zmm(from, run, streams, ahead);
    return has_avx2() ? read_ymm(from, run, streams, ahead) : read_words(from, run, streams, ahead);
}

/* ---- registers ---- */

static bool leaf7(uint32_t subleaf, uint32_t *eax, uint32_t *edx) {
    uint32_t b, c;
    *eax = *edx = 0;
    return __get_cpuid_count(7, subleaf, eax, &b, &c, edx);
}

static bool has_avx512_bf16(void) {
    uint32_t eax, edx;
    return has_avx512() && leaf7(1, &eax, &edx) && eax & 1u << 5;
}

static bool has_tiles(uint32_t bit) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    uint32_t eax, edx;
    return leaf7(0, &eax, &edx) && edx & 1u << 24 && edx & bit &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bool has_amx_bf16(void) {
    return has_tiles(1u << 22);
}

static bool has_amx_int8(void) {
    return has_tiles(1u << 25);
}

/* CHAINS sums that do not wait for each other, more than latency times units, in registers that are zero. In
 * assembly, because compilers keep an array of sums in memory. */
enum { CHAINS = 12 };

static void zero_registers(void) {
    __asm__ volatile("vzeroall"
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13");
}

static double fma256(int64_t rounds, void *panel) {
    (void)panel;
    zero_registers();
    for (int64_t i = 0; i < rounds; i++)
        __asm__ volatile(
            ".irp sum, 0,1,2,3,4,5,6,7,8,9,10,11\n\tvfmadd231ps %%ymm12, %%ymm13, %%ymm\\sum\n\t.endr"
            :
            :
            : "memory");
    zero_registers();
    return 2.0 * 8 * CHAINS * (double)rounds;
}

static double fma512(int64_t rounds, void *panel) {
    (void)panel;
    zero_registers();
    for (int64_t i = 0; i < rounds; i++)
        __asm__ volatile(
            ".irp sum, 0,1,2,3,4,5,6,7,8,9,10,11\n\tvfmadd231ps %%zmm12, %%zmm13, %%zmm\\sum\n\t.endr"
            :
            :
            : "memory");
    zero_registers();
    return 2.0 * 16 * CHAINS * (double)rounds;
}

static double vnni512(int64_t rounds, void *panel) {
    (void)panel;
    zero_registers();
    for (int64_t i = 0; i < rounds; i++)
        __asm__ volatile(
            ".irp sum, 0,1,2,3,4,5,6,7,8,9,10,11\n\tvpdpbusd %%zmm12, %%zmm13, %%zmm\\sum\n\t.endr"
            :
            :
            : "memory");
    zero_registers();
    return 2.0 * 64 * CHAINS * (double)rounds;
}

static double bf16_512(int64_t rounds, void *panel) {
    (void)panel;
    zero_registers();
    for (int64_t i = 0; i < rounds; i++)
        __asm__ volatile(
            ".irp sum, 0,1,2,3,4,5,6,7,8,9,10,11\n\tvdpbf16ps %%zmm12, %%zmm13, %%zmm\\sum\n\t.endr"
            :
            :
            : "memory");
    zero_registers();
    return 2.0 * 32 * CHAINS * (double)rounds;
}

/* ---- tiles: 16 rows of 64 bytes ---- */

enum { TILE_BYTES = 1024, TILE_ROWS = 16, TILE_COLUMNS = 64, PALETTE = 1 };

struct tile_configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t columns[16]; /* bytes of a row */
    uint8_t rows[16];
};

/* Wrapped here because gcc 12 tells the compiler of only 8 of the 64 bytes that its own wrapper reads. */
static void configure_tiles(void) {
    struct tile_configuration all = {.palette = PALETTE};
    for (int t = 0; t < 8; t++) {
        all.columns[t] = TILE_COLUMNS;
        all.rows[t] = TILE_ROWS;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(all));
}

static void release_tiles(void) {
    __asm__ volatile("tilerelease");
}

/* Four sums of two by two tiles; the sums are zeros, as the panel is. */
static void zero_sums(void) {
    __asm__ volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3"
                     :
                     :
                     : "memory");
}

static void load_tiles(const char *a, const char *b) {
    __asm__ volatile("tileloadd (%0,%2,1), %%tmm4\n\ttileloadd 1024(%0,%2,1), %%tmm5\n\t"
                     "tileloadd (%1,%2,1), %%tmm6\n\ttileloadd 1024(%1,%2,1), %%tmm7"
                     :
                     : "r"(a), "r"(b), "r"((intptr_t)TILE_COLUMNS)
                     : "memory");
}

static void multiply_bf16(void) {
    __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3"
                     :
                     :
                     : "memory");
}

static void multiply_int8(void) {
    __asm__ volatile("tdpbusd %%tmm6, %%tmm4, %%tmm0\n\ttdpbusd %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbusd %%tmm6, %%tmm5, %%tmm2\n\ttdpbusd %%tmm7, %%tmm5, %%tmm3"
                     :
                     :
                     : "memory");
}

enum { PRODUCTS = 4, BF16_OPERATIONS = 2 * 16 * 16 * 32, INT8_OPERATIONS = 2 * 16 * 16 * 64 };

static double tiles(int64_t rounds, char *panel, void (*multiply)(void), double operations, bool load) {
    /* Weights come from the panel, of which each tile is used by two tiles of tokens; those lie in its first
     * 32 KB, which the first-level cache holds. */
    enum { STEP = 2 * TILE_BYTES, TOKENS = 16 << 10 };
    configure_tiles();
    zero_sums();
    load_tiles(panel, panel);
    size_t at = TOKENS;
    for (int64_t i = 0; i < rounds; i++) {
        if (load) {
            load_tiles(panel + at % TOKENS, panel + at);
            at += STEP;
            at = at + STEP > PEAK_PANEL_BYTES ? TOKENS : at;
        }
        multiply();
    }
    release_tiles();
    return operations * PRODUCTS * (double)rounds;
}

static double tiles_bf16(int64_t rounds, void *panel) {
    return tiles(rounds, panel, multiply_bf16, BF16_OPERATIONS, false);
}

static double tiles_bf16_loaded(int64_t rounds, void *panel) {
    return tiles(rounds, panel, multiply_bf16, BF16_OPERATIONS, true);
}

static double tiles_int8(int64_t rounds, void *panel) {
    return tiles(rounds, panel, multiply_int8, INT8_OPERATIONS, false);
}

static double tiles_int8_loaded(int64_t rounds, void *panel) {
    return tiles(rounds, panel, multiply_int8, INT8_OPERATIONS, true);
}

const struct peak peaks[] = {
    {"f32 FMA, AVX2", has_avx2, fma256},
    {"f32 FMA, AVX-512", has_avx512, fma512},
    {"int8 VNNI, AVX-512", has_avx512_vnni, vnni512},
    {"bf16, AVX-512", has_avx512_bf16, bf16_512},
    {"bf16 AMX, tiles in registers", has_amx_bf16, tiles_bf16},
    {"bf16 AMX, panel in L2", has_amx_bf16, tiles_bf16_loaded},
    {"int8 AMX, tiles in registers", has_amx_int8, tiles_int8},
    {"int8 AMX, panel in L2", has_amx_int8, tiles_int8_loaded},
    {NULL, NULL, NULL},
};
#else
uint64_t peak_read(const void *from, size_t run, int streams, size_t ahead) {
    return read_words(from, run, streams, ahead);
}

const struct peak peaks[] = {{NULL, NULL, NULL}};
#endif
