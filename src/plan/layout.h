/* A layout is how a part lies in memory for the kernels. One table row each: adding one is one file and one
 * row in layouts.c. */
#ifndef FMK_PLAN_LAYOUT_H
#define FMK_PLAN_LAYOUT_H

#include "../formats/source.h"

enum fmk_layout_id {                            /* written into exported bytes: never renumber */
                     FMK_LAYOUT_DENSE_ROWS = 1, /* rows of f32, f16 or bf16, as in the file */
                     FMK_LAYOUT_Q4_K_ROWS = 2,  /* rows of ggml blocks, as in the file */
                     FMK_LAYOUT_Q6_K_ROWS = 3,
                     FMK_LAYOUT_Q4_K_X8 = 4, /* eight rows interleaved: see cpu/layouts/panels.h */
                     FMK_LAYOUT_Q6_K_X8 = 5,
                     FMK_LAYOUT_INT4_X8 = 6,
                     FMK_LAYOUT_Q4_K_T16 = 7, /* for tensor cores: see kernels/layout.h */
                     FMK_LAYOUT_Q6_K_T16 = 8,
                     FMK_LAYOUT_INT4_T16 = 9,
                     FMK_LAYOUT_Q4_K_X16 = 10, /* sixteen rows interleaved */
                     FMK_LAYOUT_Q6_K_X16 = 11,
                     FMK_LAYOUT_INT4_X16 = 12,
                     FMK_LAYOUT_INT4_T64 = 13
};

/* In the device's memory, written when the part is packed: half precision has a smaller range than a weight.
 */
struct fmk_range {
    float largest; /* no weight of any expert is larger in magnitude */
    float scale;   /* 2^e, 1 where f16 holds every weight */
    float inverse; /* 2^-e: weights times this are in f16's range */
    float zero;    /* 0 */
};

/* One part in memory. The numbers are all that is needed to find any weight; they are what an export
 * writes. */
struct fmk_packed {
    const struct fmk_layout *layout;
    int64_t n, k;     /* of the part */
    int64_t k_packed; /* k in packed order: with each group padded to whole chunks; else k */
    fmk_dtype dtype;  /* dense: of the weights. int4: of the scales */
    int32_t chunks;   /* int4: chunks of 32 weights that share one scale */
    bool has_zeros;   /* int4.t16, t64: zero points are stored, not all 8 */
    int32_t experts;
    uint64_t stride;        /* bytes from row to row, or from panel to panel */
    uint64_t expert_stride; /* bytes from expert to expert */
    uint64_t bytes;         /* of all experts' packed bytes, or of the borrowed rows */
    uint64_t run;           /* bytes of a row or panel: less than stride where the rows are borrowed from a
                               wider matrix. Not set by `shape` */
    const uint8_t *data;    /* expert 0, row 0 */
    const int32_t *k_index; /* [experts][k_packed]: the k of each packed position, -1 = padding; NULL =
                               identity */
    const float *bias;      /* [experts][n], or NULL */
    const struct fmk_range *range; /* t16 layouts, t64: on the device; else NULL */
};

struct fmk_layout {
    enum fmk_layout_id id;
    const char *name;  /* "q4_k.x8" */
    uint32_t backends; /* a bit per fmk_backend: whose kernels read it */
    uint32_t needs;    /* features without which weights are not packed into it: those of its fast kernels */
    enum fmk_family family;
    bool in_place;      /* the file's own bytes: can be borrowed */
    bool range;         /* packed->range is kept */
    int32_t panel_rows; /* 1, or how many rows are interleaved */
    int32_t k_multiple; /* of packed k: 1, 32, 256 */
    /* Whether it can hold a source of its family; NULL: any. */
    bool (*takes)(const struct fmk_source *source);
    /* Fills in the numbers of `packed` (k_packed, dtype, chunks, stride, expert_stride, bytes) for packed
     * bytes of its own; *index: k_index is needed. False when the sizes overflow. */
    bool (*shape)(const struct fmk_source *source, struct fmk_packed *packed, bool *index);
    /* Whether numbers that came from outside are ones that `shape` could have made. */
    bool (*valid)(const struct fmk_packed *packed);
    /* Writes k_index [k_packed] of one expert; NULL where none is ever needed. */
    void (*index)(const struct fmk_source *source, const struct fmk_packed *packed, int64_t expert,
                  int32_t *k_index);
    /* Packs rows row .. row+rows-1 (a multiple of panel_rows, except at the end) of one expert; dst is the
     * expert's first byte. k_index is the expert's, or NULL. Any two disjoint calls may run at once. NULL, as
     * decode, in layouts that only a device packs and reads. */
    void (*pack)(const struct fmk_source *source, const struct fmk_packed *packed, const int32_t *k_index,
                 int64_t expert, int64_t row, int64_t rows, uint8_t *dst);
    /* out[0..count) = W[row][k .. k+count) in packed order; data is the expert's first byte. k is a multiple
     * of 256; count <= 256 and, but at the end, 256. By the format's published formula in float, so that
     * dequantizing is bit-exact. */
    void (*decode)(const struct fmk_packed *packed, const uint8_t *data, int64_t row, int64_t k,
                   int64_t count, float *out);
};

/* The rows of layouts.c; NULL for an unknown id. */
const struct fmk_layout *fmk_layout_by_id(int32_t id);
/* The layout in which a backend whose device has these features keeps a source: in place when borrowing is
 * asked for and possible. */
const struct fmk_layout *fmk_layout_choose(fmk_backend backend, uint32_t features,
                                           const struct fmk_source *source, bool borrow);

#endif
