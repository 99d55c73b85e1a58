/* A part of a weight as a file holds it, checked: what the packers read from. A format is how bytes lie in
 * a file, a family what they mean; here is where the one becomes the other. */
#ifndef FMK_FORMATS_SOURCE_H
#define FMK_FORMATS_SOURCE_H

#include "ferrumk.h"

#include <stdbool.h>

enum fmk_family {
    FMK_FAMILY_DENSE, /* f32, f16, bf16 */
    FMK_FAMILY_INT4,  /* codes 0..15, a scale and a zero point per group of K and row */
    FMK_FAMILY_Q4_K,
    FMK_FAMILY_Q6_K
};

struct fmk_source {
    fmk_part part; /* as given, with n_end, k_end, group_size and dtypes filled in */
    enum fmk_family family;
    int64_t n, k;        /* of the shard */
    int32_t experts;     /* at least 1 */
    bool has_data;       /* false: shapes only (fmk_can_run), nothing below was read */
    bool accepts_device; /* FMK_SOURCE_DEVICE */
    /* int4 */
    int64_t groups; /* scale rows in the file */
    bool act_order; /* some k of the shard is not in group k / group_size */
    bool symmetric; /* every zero point is 8 */
    int32_t zero_declared, zero_detected, zero_used;
};

enum {
    FMK_SOURCE_READ = 1,  /* check data too; of the tensors, only qweight may lie in device memory */
    FMK_SOURCE_DEVICE = 2 /* memory DEVICE is accepted */
};

/* Checks everything that a part says against itself and, with READ, the data that later steps rely on
 * (g_idx in range, zero points against `symmetric`, n_order a permutation). The sentence starts with the
 * field's name; the caller puts parts[i] before it. num_experts 0 = dense. */
fmk_status fmk_source_init(struct fmk_source *source, const fmk_part *part, int32_t num_experts,
                           uint32_t flags);

/* The tensors of a part: first qweight, then the small ones. */
enum { FMK_SOURCE_TENSORS = 6 };
struct fmk_source_tensor {
    const char *name;
    fmk_tensor *tensor;
    int64_t bytes; /* of one expert */
};
void fmk_source_tensors(struct fmk_source *source, struct fmk_source_tensor out[FMK_SOURCE_TENSORS]);

const char *fmk_format_name(fmk_format format); /* "GPTQ" ... ; "unknown format" */
const char *fmk_dtype_name(fmk_dtype dtype);    /* "F16" ... ; "unknown type" */
int64_t fmk_dtype_size(fmk_dtype dtype);        /* bytes; 0 for an unknown one */

/* Rows are rows of the shard, after n_order. */

/* Dense and K-quants: row `row`'s bytes from k_begin on, in whatever memory they are. */
const uint8_t *fmk_source_row(const struct fmk_source *source, int64_t expert, int64_t row);

/* Row of the whole tensor that is the shard's row `row`. */
int64_t fmk_source_file_row(const struct fmk_source *source, int64_t expert, int64_t row);
/* out [n] = the bias of one expert's rows. */
void fmk_source_bias(const struct fmk_source *source, int64_t expert, float *out);

/* int4. k counts in the shard. */
int32_t fmk_int4_group(const struct fmk_source *source, int64_t expert, int64_t k);
/* out[i][r] = code of (row + r, k[i]); k[i] = -1 gives code 0. rows <= 8; out is [count][8], columns past
 * `rows` are 0. */
void fmk_int4_codes(const struct fmk_source *source, int64_t expert, int64_t row, int32_t rows,
                    const int32_t *k, int64_t count, uint8_t *out);
/* Words of eight codes, the lowest nibble first: those of k .. k+7 of `row`, behind which lie the following
 * rows'; the next eight k are *stride bytes on. NULL where the file has them otherwise, or n_order or k cut
 * across them. */
const uint8_t *fmk_int4_words(const struct fmk_source *source, int64_t expert, int64_t row, int64_t k,
                              int64_t *stride);
/* As stored, in the bits of scales.dtype. */
void fmk_int4_scale_bits(const struct fmk_source *source, int64_t expert, int64_t row, int32_t rows,
                         int64_t group, uint32_t *out);
/* The same, one behind the other in scales.dtype. */
void fmk_int4_scales(const struct fmk_source *source, int64_t expert, int64_t row, int64_t rows,
                     int64_t group, void *out);
/* The real zero points, 0..15. */
void fmk_int4_zeros(const struct fmk_source *source, int64_t expert, int64_t row, int32_t rows, int64_t group,
                    uint8_t *out);

#endif
