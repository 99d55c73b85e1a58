/* Arguments of the pack kernels. Each launch makes a run of whole panels of one expert; pointers are device
 * addresses. Plain C, read by both compilers. */
#ifndef FMK_KERNELS_PACK_H
#define FMK_KERNELS_PACK_H

#include <stdint.h>

enum {
    FMK_PACK_WARPS = 4, /* of a block; a warp makes a unit: 16 rows by 128 or 256 k */
    FMK_PACK_COPY_THREADS = 128
};

/* pack_int4: warps of a block make the same unit of neighbouring panels of 16 rows; grid (units, panels /
 * FMK_PACK_WARPS). */
struct fmk_pack_int4_args {
    const uint8_t *words;   /* GPTQ: a word is 8 k of a column; Marlin: its tiles of 16 k by 64 columns */
    const int32_t *order;   /* [rows]: the column of each row, less `column`; NULL: its number */
    const int32_t *k_index; /* [k_packed]: the k of each position, -1 = none; NULL: its number */
    const void *scales; /* [128 / (32 * chunks) * units][scale_stride], of each position's group; 0 = none */
    const uint8_t *zeros; /* likewise; NULL: all are 8, and none are stored */
    uint8_t *out;         /* the expert's first byte */
    float *largest;       /* of struct fmk_range */
    uint64_t stride;      /* bytes from panel to panel, or with t64 from block to block */
    int64_t row_words;    /* words from row to row of `words` */
    int64_t column;       /* in `words`, of row 0 */
    int32_t marlin;       /* 0: GPTQ */
    int32_t aligned;      /* words lies at a multiple of 4 */
    int32_t first_panel;  /* of 16 rows: the one that row 0 is in */
    int32_t panels;       /* to write; of t64 whole blocks at the end of the matrix */
    int32_t rows, units;
    int32_t k, k_begin;   /* of the weight, and of its first k in `words` */
    int32_t dtype;        /* fmk_dtype of the scales */
    int32_t chunks;       /* of 32 k that share a scale */
    int32_t scale_stride; /* elements */
    int32_t t64;          /* 0: int4.t16 */
};

/* pack_q4k, pack_q6k: warps of a block make neighbouring units; grid (units / FMK_PACK_WARPS, panels). */
struct fmk_pack_blocks_args {
    const uint8_t *blocks; /* of row 0, from the first k that is kept */
    const int32_t *order;  /* [rows]: where each row lies; NULL: its number */
    uint8_t *out;          /* the first panel */
    float *largest;
    uint64_t stride;   /* bytes from panel to panel */
    int64_t row_bytes; /* from row to row of `blocks` */
    int32_t alignment; /* of every block: 4, 2 or 1 bytes */
    int32_t rows, units;
    int32_t reserved;
};

/* pack_rows: copies rows; grid (rows). */
struct fmk_pack_rows_args {
    const uint8_t *from;
    const int32_t *order; /* [rows], or NULL */
    uint8_t *to;
    int64_t from_stride, to_stride, bytes;
    int32_t alignment; /* of every row on both sides: 16, 4 or 1 */
    int32_t reserved;
};

/* pack_range: completes a struct fmk_range from its first field; one thread. */
struct fmk_pack_range_args {
    float *range;
};

#endif
