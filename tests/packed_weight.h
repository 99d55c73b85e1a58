/* A random weight as the library packs it, and what its numbers are. */
#ifndef PACKED_WEIGHT_H
#define PACKED_WEIGHT_H

#include "reference.h"

#include "abi.h"
#include "formats/k_quants.h"
#include "plan/layout.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct packed_weight {
    struct ref_weight ref;
    struct fmk_source source;
    struct fmk_packed packed;
    uint8_t *bytes;
    int32_t *k_index;
};

static inline void *allocate(uint64_t bytes) {
    void *p = aligned_alloc(128, (bytes + 255) / 128 * 128);
    assert_non_null(p);
    return p;
}

static inline void pack_weight(struct packed_weight *w, const struct ref_spec *spec,
                               const struct fmk_layout *layout, struct ref_rng *rng) {
    ref_make(&w->ref, spec, rng);
    assert_int_equal(fmk_source_init(&w->source, &w->ref.part, spec->experts, true), FMK_OK);
    struct fmk_packed *packed = &w->packed;
    *packed = (struct fmk_packed){
        .layout = layout, .n = w->source.n, .k = w->source.k, .experts = w->source.experts};
    bool index;
    assert_true(layout->shape(&w->source, packed, &index));
    assert_true(layout->valid(packed));
    w->bytes = allocate(packed->bytes);
    memset(w->bytes, 0xee, packed->bytes);
    w->k_index = NULL;
    if (index) {
        w->k_index = allocate((uint64_t)(packed->experts * packed->k_packed) * 4);
        for (int64_t e = 0; e < packed->experts; e++)
            layout->index(&w->source, packed, e, w->k_index + e * packed->k_packed);
    }
    for (int64_t e = 0; e < packed->experts; e++)
        for (int64_t row = 0; row < packed->n; row += 16) /* in pieces, as threads do */
            layout->pack(&w->source, packed, index ? w->k_index + e * packed->k_packed : NULL, e, row,
                         fmk_min(16, packed->n - row), w->bytes + (uint64_t)e * packed->expert_stride);
    packed->data = w->bytes;
    packed->k_index = w->k_index;
}

static inline void free_weight(struct packed_weight *w) {
    free(w->bytes);
    free(w->k_index);
    ref_free(&w->ref);
}

/* The k of a packed position, -1 for padding. */
static inline int64_t k_at(const struct packed_weight *w, int64_t expert, int64_t position) {
    if (w->k_index)
        return w->k_index[expert * w->packed.k_packed + position];
    return position < w->packed.k ? position : -1;
}

/* A weight's magnitude before codes cancel against zero points, minima or the middle code. */
static inline double magnitude(const struct packed_weight *w, int64_t row, int64_t k) {
    const struct fmk_source *source = &w->source;
    const uint8_t *bytes;
    uint8_t scale[8], min[8];
    uint32_t bits;
    switch (source->family) {
    case FMK_FAMILY_Q4_K:
        bytes = fmk_source_row(source, 0, row) + k / 256 * FMK_Q4K_BLOCK;
        fmk_q4k_scales(bytes + FMK_Q4K_SCALES, scale, min);
        return fabs(15.0 * fmk_load_f16(bytes + FMK_Q4K_D) * scale[k % 256 / 32]) +
               fabs((double)fmk_load_f16(bytes + FMK_Q4K_DMIN) * min[k % 256 / 32]);
    case FMK_FAMILY_Q6_K:
        bytes = fmk_source_row(source, 0, row) + k / 256 * FMK_Q6K_BLOCK;
        return fabs(96.0 * fmk_load_f16(bytes + FMK_Q6K_D) * (int8_t)bytes[FMK_Q6K_SCALES + k % 256 / 16]);
    case FMK_FAMILY_INT4:
        fmk_int4_scale_bits(source, 0, row, 1, fmk_int4_group(source, 0, k), &bits);
        return fabs(30 * ref_number(source->part.scales.dtype, &bits));
    default:
        return fabs(ref_value(&w->ref, 0, row, k));
    }
}

/* A row's weights, and their magnitudes unless that is NULL, in packed order; 0 in padding. */
static inline void decode_row(const struct packed_weight *w, int64_t row, double *weight,
                              double *magnitudes) {
    for (int64_t i = 0; i < w->packed.k_packed; i++) {
        int64_t k = k_at(w, 0, i);
        weight[i] = k < 0 ? 0 : ref_value(&w->ref, 0, row, k);
        if (magnitudes)
            magnitudes[i] = k < 0 ? 0 : magnitude(w, row, k);
    }
}

#endif
