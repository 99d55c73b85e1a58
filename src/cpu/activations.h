/* Activation rows as the kernels want them: gathered, in the packed order of K, as float or as int8. */
#ifndef FMK_CPU_ACTIVATIONS_H
#define FMK_CPU_ACTIVATIONS_H

#include "../plan/kernels.h"

enum { FMK_ACTS_RUN = 4096 }; /* k per task: a long row is shared by threads; a multiple of 256 */

/* out[i] = data[first + i], as fmk_load_floats. */
typedef void fmk_load_acts(const void *data, fmk_dtype type, int64_t first, int64_t count, float *out);
fmk_load_acts fmk_load_acts_avx2;
/* The fastest of them. */
fmk_load_acts *fmk_load_acts_best(uint32_t features);

/* Parts that want the same activations share one slot. */
struct fmk_slot {
    enum fmk_acts_form form;
    const struct fmk_packed *part; /* whose k_index orders it */
    fmk_quantize_row *quantize;    /* NULL where form is F32 */
    fmk_load_acts *load;
    struct fmk_acts acts;
};

/* The fastest quantizer to `form` that these features allow; all give the same bits. */
fmk_quantize_row *fmk_quantize_row_best(enum fmk_acts_form form, uint32_t features);
/* Row length of a part's activations. */
int64_t fmk_acts_length(const struct fmk_packed *part);
/* Whether two parts can share a slot when both want `form`. */
bool fmk_acts_shared(const struct fmk_packed *a, const struct fmk_packed *b);
/* Points acts at memory for `rows` rows from `base` (aligned to 64) and answers the bytes it takes; with base
 * NULL only the bytes matter. */
int64_t fmk_acts_place(struct fmk_slot *slot, int64_t rows, char *base);
/* Fills run number `run` of row `row` from one expert's point of view: x is the input row. */
void fmk_acts_fill(const struct fmk_slot *slot, int32_t expert, const void *x, fmk_dtype type, int64_t row,
                   int64_t run);

#endif
