/* Gathers and converts activation rows, 256 at a time through a buffer on the stack. */
#include "activations.h"

#include "../abi.h"
#include "../floats.h"
#include "../half.h"
#include "features.h"
#include "layouts/x16.h"

enum { ALIGN = 64 };

static fmk_quantize_row *best_of_blocks(uint32_t features) {
#if defined(__x86_64__)
    if (!(FMK_X16_NEEDS & ~features))
        return fmk_quantize_blocks_avx512;
    if (features & FMK_CPU_AVX2)
        return fmk_quantize_blocks_avx2;
#elif defined(__aarch64__)
    if (features & FMK_CPU_NEON)
        return fmk_quantize_blocks_neon;
#endif
    (void)features;
    return fmk_quantize_blocks_portable;
}

static fmk_quantize_row *best_of_lanes(uint32_t features) {
#if defined(__x86_64__)
    if (!(FMK_X16_NEEDS & ~features))
        return fmk_quantize_lanes_avx512;
    if (features & FMK_CPU_AVX2)
        return fmk_quantize_lanes_avx2;
#endif
    (void)features;
    return fmk_quantize_lanes_portable;
}

static fmk_quantize_row *best_of_i16(uint32_t features) {
#if defined(__x86_64__)
    if (features & FMK_CPU_AVX2)
        return fmk_gemm_fill_i16_avx2;
#endif
    (void)features;
    return fmk_gemm_fill_i16_portable;
}

fmk_quantize_row *fmk_quantize_row_best(enum fmk_acts_form form, uint32_t features) {
    switch (form) {
    case FMK_ACTS_Q8_BLOCKS:
        return best_of_blocks(features);
    case FMK_ACTS_Q8_LANES:
        return best_of_lanes(features);
    case FMK_ACTS_GEMM_F32:
        return fmk_gemm_fill_f32;
    case FMK_ACTS_GEMM_I16:
        return best_of_i16(features);
#if defined(__x86_64__)
    case FMK_ACTS_GEMM_BF16:
        return fmk_gemm_fill_bf16;
    case FMK_ACTS_GEMM_BF16X2:
        return fmk_gemm_fill_bf16x2;
    case FMK_ACTS_GEMM_INT8:
        return fmk_gemm_fill_int8;
#endif
    default:
        break;
    }
#if defined(__x86_64__)
    const uint32_t avx2 = FMK_CPU_AVX2 | FMK_CPU_FMA | FMK_CPU_F16C;
    if ((features & avx2) == avx2)
        return fmk_quantize_row_avx2;
#elif defined(__aarch64__)
    if (features & FMK_CPU_NEON)
        return fmk_quantize_row_neon;
#endif
    (void)features;
    return fmk_quantize_row_portable;
}

int64_t fmk_acts_length(const struct fmk_packed *part) {
    return fmk_round_up(part->k_packed, 32);
}

bool fmk_acts_shared(const struct fmk_packed *a, const struct fmk_packed *b) {
    return fmk_acts_length(a) == fmk_acts_length(b) && !a->k_index && !b->k_index;
}

/* The next `bytes` bytes, rounded up; NULL while only sizes are asked for. */
static char *take(int64_t *at, char *base, int64_t bytes) {
    char *p = base ? base + *at : NULL;
    *at += fmk_round_up(bytes, ALIGN);
    return p;
}

/* Whole blocks of 256, for gemm kernels. */
static int64_t place_gemm(enum fmk_acts_form form, int64_t k, int64_t rows, char *base,
                          struct fmk_gemm_acts *acts) {
    /* Of tiles, 32 tokens by 256 k are eight runs of 2 KB, or four, `rows` lines apart. An odd number of 2 KB
     * keeps them from falling on the same half of L1's sets. */
    if (form >= FMK_ACTS_GEMM_BF16 && rows >= 64)
        rows = fmk_round_up(rows, 64) + 32;
    int64_t blocks = rows * ((k + FMK_K_BLOCK - 1) / FMK_K_BLOCK), at = 0;
    *acts = (struct fmk_gemm_acts){.capacity = rows};
    if (form == FMK_ACTS_GEMM_F32) {
        acts->f32 = (float *)take(&at, base, blocks * FMK_K_BLOCK * 4);
    } else if (form == FMK_ACTS_GEMM_INT8) {
        acts->i8 = (int8_t *)take(&at, base, blocks * FMK_K_BLOCK);
        acts->step = (float *)take(&at, base, blocks * 4);
    } else if (form != FMK_ACTS_GEMM_I16) {
        for (int i = 0; i < (form == FMK_ACTS_GEMM_BF16X2 ? 2 : 1); i++)
            acts->bf16[i] = (uint16_t *)take(&at, base, blocks * FMK_K_BLOCK * 2);
    } else {
        acts->i16 = (int16_t *)take(&at, base, blocks * FMK_K_BLOCK * 2);
        acts->step = (float *)take(&at, base, blocks * 4);
        acts->sum32 = (float *)take(&at, base, blocks * 8 * 4);
    }
    return at;
}

int64_t fmk_acts_place(struct fmk_slot *slot, int64_t rows, char *base) {
    struct fmk_acts *acts = &slot->acts;
    int64_t k = acts->k = fmk_acts_length(slot->part);
    int64_t at = 0;
    if (slot->form == FMK_ACTS_F32) {
        acts->f32 = (float *)base;
        return fmk_round_up(rows * k * 4, ALIGN);
    }
    if (slot->form == FMK_ACTS_Q8_BLOCKS) {
        acts->blocks = (struct fmk_acts_block *)base;
        return rows * ((k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) * (int64_t)sizeof *acts->blocks;
    }
    if (slot->form == FMK_ACTS_Q8_LANES) {
        acts->lanes = (struct fmk_acts_lanes *)base;
        return rows * (k / FMK_K_BLOCK) * (int64_t)sizeof *acts->lanes;
    }
    if (slot->form >= FMK_ACTS_GEMM_F32)
        return place_gemm(slot->form, k, rows, base, &acts->gemm);
    acts->q = (int8_t *)take(&at, base, rows * k);
    acts->step = (float *)take(&at, base, rows * ((k + FMK_K_BLOCK - 1) / FMK_K_BLOCK) * 4);
    acts->ratio = (int16_t(*)[2])take(&at, base, rows * (k / 32) * 4);
    acts->sum16 = (float *)take(&at, base, rows * (k / 16) * 4);
    acts->sum32 = (float *)take(&at, base, rows * (k / 32) * 4);
    return at;
}

fmk_load_acts *fmk_load_acts_best(uint32_t features) {
#if defined(__x86_64__)
    if (features & FMK_CPU_AVX2 && features & FMK_CPU_F16C)
        return fmk_load_acts_avx2;
#endif
    (void)features;
    return fmk_load_floats;
}

static float load_one(const void *x, fmk_dtype type, int64_t i) {
    if (type == FMK_F32)
        return ((const float *)x)[i];
    uint16_t half = ((const uint16_t *)x)[i];
    return type == FMK_F16 ? fmk_f16_to_f32(half) : fmk_bf16_to_f32(half);
}

/* out[i] = x at packed position k + i, zero where there is none. */
static void gather(const struct fmk_slot *slot, int32_t expert, const void *x, fmk_dtype type, int64_t k,
                   int64_t count, float *out) {
    const struct fmk_packed *part = slot->part;
    int64_t there = fmk_max(0, fmk_min(count, part->k_packed - k));
    if (part->k_index) {
        const int32_t *index = part->k_index + expert * part->k_packed + k;
        for (int64_t i = 0; i < there; i++)
            out[i] = index[i] < 0 ? 0 : load_one(x, type, index[i]);
    } else {
        there = fmk_max(0, fmk_min(there, part->k - k));
        slot->load(x, type, k, there, out);
    }
    for (int64_t i = there; i < count; i++)
        out[i] = 0;
}

void fmk_acts_fill(const struct fmk_slot *slot, int32_t expert, const void *x, fmk_dtype type, int64_t row,
                   int64_t run) {
    const struct fmk_acts *acts = &slot->acts;
    int64_t end = fmk_min(acts->k, (run + 1) * FMK_ACTS_RUN);
    for (int64_t k = run * FMK_ACTS_RUN; k < end; k += FMK_K_BLOCK) {
        int64_t count = fmk_min(FMK_K_BLOCK, end - k);
        if (slot->form == FMK_ACTS_F32) {
            gather(slot, expert, x, type, k, count, (float *)acts->f32 + row * acts->k + k);
            continue;
        }
        _Alignas(64) float block[FMK_K_BLOCK];
        gather(slot, expert, x, type, k, count, block);
        slot->quantize(block, count, acts, row, k);
    }
}
