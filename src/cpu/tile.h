/* What a CPU kernel computes: one tile of the output, up to 64 tokens by 64 weight rows, over all of K.
 * Everything else (threads, routing, gathering, bias, activation, output types) is common code in linear.c
 * and epilogue.c, so that a kernel is only its inner loops.
 *
 * The sums of one output element are made in an order that depends on K alone, not on the tile, the token's
 * place in it or the number of threads: so results are the same however the work is cut. */
#ifndef FMK_CPU_TILE_H
#define FMK_CPU_TILE_H

#include "../plan/layout.h"
#include "gemm/acts.h"

/* A kernel's steps, whose loops unroll by arguments that are constants where they are called. */
#define FMK_INLINE static inline __attribute__((always_inline))

enum { FMK_TILE_M = 64, FMK_TILE_N = 64, FMK_K_BLOCK = 256 };

/* 256 activations as int8 for instructions that add up four consecutive products: x = q * scale, |q| <= 127,
 * a scale per 16. Where one of 16 is not finite, their scale and sum are NaN. One block has all that a kernel
 * wants of a token for 256 k, so that it finds it by one pointer. */
struct fmk_acts_block {
    int8_t q[FMK_K_BLOCK];
    float scale[FMK_K_BLOCK / 16];
    int32_t start[FMK_K_BLOCK / 16]; /* -32 * sum of q: where a sum starts whose codes are 32 too large */
    float sum[FMK_K_BLOCK / 32];     /* of q * scale over 32 */
    float reserved[FMK_K_BLOCK / 32];
};

/* The same by lanes, for kernels whose registers have sixteen of 32 bits: each has what belongs to 16 of the
 * 256. */
enum { FMK_ACTS_LANES = 16 };
struct fmk_acts_lanes {
    int8_t q[4][FMK_ACTS_LANES][4]; /* [quad of four k] */
    float scale[FMK_ACTS_LANES];
    int32_t start[FMK_ACTS_LANES];
    float sum[FMK_ACTS_LANES]; /* of q * scale */
};

/* Which run of 16 k a lane has. */
static inline int fmk_lane_run(int lane) {
    return 4 * (lane % 4) + lane / 4;
}

/* Activation rows, gathered, in the packed order of K, padded with zeros to `k`. Either f32, the q8 fields,
 * blocks or gemm are there, as the kernel's table row asks. */
struct fmk_acts {
    int64_t k;        /* row length: k_packed rounded up to a multiple of 32 */
    const float *f32; /* [m][k] */
    /* q8: x = q * step * ratio, |q| <= 127, a step per 256 and a ratio of 1..4095 per 16: those of 32 whose k
     * leaves 0 or 1 when divided by 4, and those that leave 2 or 3. So after vpmaddubsw, which adds up pairs,
     * they are the first and the second of two 16-bit numbers, and one vpmaddwd multiplies by both ratios.
     * The sums are those of the quantized values of 16 and 32 consecutive k. Where one of 256 values is not
     * finite, their step and sums are NaN. */
    int8_t *q;                     /* [m][k] */
    float *step;                   /* [m][k / 256, rounded up] */
    int16_t (*ratio)[2];           /* [m][k / 32] */
    float *sum16;                  /* [m][k / 16] */
    float *sum32;                  /* [m][k / 32] */
    struct fmk_acts_block *blocks; /* [m][k / 256, rounded up]; past k they are not set */
    struct fmk_acts_lanes *lanes;  /* [m][k / 256], where k is a multiple of 256 */
    struct fmk_gemm_acts gemm;
};

struct fmk_tile {
    const struct fmk_packed *part;
    const uint8_t *data; /* the expert's first byte */
    const struct fmk_acts *acts;
    int64_t row;     /* first weight row: a multiple of 8, and of the layout's panel_rows */
    int32_t rows;    /* 1..64; whole panels are computed, the rest is padding */
    int64_t token;   /* first activation row */
    int32_t tokens;  /* 1..64 */
    float *out;      /* [tokens][FMK_TILE_N]; columns rows..63 are don't-care */
    int32_t streams; /* panels, at least 1, to walk in turns, so that memory is read in so many places */
};

typedef void fmk_tile_kernel(const struct fmk_tile *tile);

/* x86 kernels; each file holds one layout and one ISA. *_int8 use acts.q, *_vnni acts.blocks, those of rows
 * acts.lanes, the others acts.f32. */
fmk_tile_kernel fmk_dense_avx2, fmk_q4k_rows_avx2, fmk_q6k_rows_avx2; /* f32 */
fmk_tile_kernel fmk_q4k_rows_avx2_int8, fmk_q6k_rows_avx2_int8;
fmk_tile_kernel fmk_q4k_x8_avx2, fmk_q6k_x8_avx2, fmk_int4_x8_avx2; /* f32 */
fmk_tile_kernel fmk_q4k_x8_avx2_int8, fmk_q6k_x8_avx2_int8, fmk_int4_x8_avx2_int8;
fmk_tile_kernel fmk_dense_avx512, fmk_q4k_x16_avx512, fmk_q6k_x16_avx512, fmk_int4_x16_avx512; /* f32 */
fmk_tile_kernel fmk_q4k_rows_vnni, fmk_q6k_rows_vnni;
fmk_tile_kernel fmk_q4k_x16_vnni, fmk_q6k_x16_vnni, fmk_int4_x16_vnni;
/* 64-bit ARM, likewise: *_dotprod and *_i8mm use acts.blocks. */
fmk_tile_kernel fmk_dense_neon, fmk_q4k_rows_neon, fmk_q6k_rows_neon; /* f32 */
fmk_tile_kernel fmk_q4k_x8_neon, fmk_q6k_x8_neon, fmk_int4_x8_neon;   /* f32 */
fmk_tile_kernel fmk_q4k_rows_dotprod, fmk_q6k_rows_dotprod;
fmk_tile_kernel fmk_q4k_x8_dotprod, fmk_q6k_x8_dotprod, fmk_int4_x8_dotprod;
fmk_tile_kernel fmk_q4k_x8_i8mm, fmk_q6k_x8_i8mm, fmk_int4_x8_i8mm;
/* Any layout, any machine. */
fmk_tile_kernel fmk_portable, fmk_reference;

enum { FMK_RATIO_MAX = 4095 };

/* Quantizes `count` floats (a multiple of 32) into a row of acts, from k (a multiple of 256) on. */
typedef void fmk_quantize_row(const float *x, int64_t count, const struct fmk_acts *acts, int64_t row,
                              int64_t k);
fmk_quantize_row fmk_quantize_row_portable, fmk_quantize_row_avx2, fmk_quantize_row_neon;
/* Likewise, into blocks. */
fmk_quantize_row fmk_quantize_blocks_portable, fmk_quantize_blocks_avx2, fmk_quantize_blocks_avx512,
    fmk_quantize_blocks_neon;
/* Likewise, into lanes; `count` is a multiple of 256. */
fmk_quantize_row fmk_quantize_lanes_portable, fmk_quantize_lanes_avx2, fmk_quantize_lanes_avx512;

#endif
