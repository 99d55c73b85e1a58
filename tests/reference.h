/* For tests: random weights in every file format, and decoders of those formats in double, written from
 * docs/formats.md alone. Nothing here shares code with the library. A test that runs out of memory here
 * aborts. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "ferrumk.h"

#include <stdbool.h>

/* ---- numbers ---- */

struct ref_rng {
    uint64_t state;
};

/* Seeded by FMK_TEST_SEED, else by a fixed number; prints the seed. */
struct ref_rng ref_rng_start(const char *test_name);
uint64_t ref_next(struct ref_rng *rng);
int64_t ref_below(struct ref_rng *rng, int64_t limit); /* 0 .. limit-1 */
double ref_uniform(struct ref_rng *rng);               /* [0, 1) */
double ref_normal(struct ref_rng *rng);                /* N(0, 1) */
/* A random permutation of 0 .. count-1. */
void ref_shuffle(struct ref_rng *rng, int32_t *out, int64_t count);

double ref_f16(uint16_t bits);
double ref_bf16(uint16_t bits);
double ref_number(fmk_dtype dtype, const void *at); /* f16, bf16 or f32 at any address */
/* Rounds to the nearest value of the type, ties to even, and writes its bytes. */
void ref_store(fmk_dtype dtype, void *at, double value);
int64_t ref_size(fmk_dtype dtype);

/* ---- weights ---- */

enum ref_zeros { REF_ZEROS_ABSENT, REF_ZEROS_ALL_7, REF_ZEROS_ALL_8, REF_ZEROS_RANDOM };

enum ref_groups {
    REF_GROUPS_NONE,     /* no g_idx */
    REF_GROUPS_RUNS,     /* g_idx[k] = k / group_size */
    REF_GROUPS_SHUFFLED, /* the same, permuted along k */
    REF_GROUPS_NEGATIVE, /* and some counted from the end */
    REF_GROUPS_UNEQUAL   /* any group for any k; some may be empty */
};

struct ref_spec {
    fmk_format format;
    int64_t n, k;
    int32_t group_size; /* GPTQ, Marlin */
    int32_t experts;    /* 0 = dense */
    fmk_dtype dtype;    /* of a dense matrix, of int4 scales; 0 = F16 */
    fmk_dtype bias;     /* 0 = none */
    enum ref_zeros zeros;
    enum ref_groups groups;
    bool extremes;    /* scales (dense: weights) of 0, the type's largest and smallest, negative ones */
    int32_t misalign; /* every tensor begins this many bytes past an aligned address */
};

struct ref_weight {
    fmk_part part;   /* the whole tensor; struct_size is set */
    int32_t experts; /* as in the spec */
    double *values;  /* [experts][n][k] */
    double *bias;    /* [experts][n], NULL = none */
    void *memory[8]; /* what part points to */
};

void ref_make(struct ref_weight *weight, const struct ref_spec *spec, struct ref_rng *rng);
void ref_free(struct ref_weight *weight);

/* Puts `count` numbers as the weight's n_order: [experts][count]. */
void ref_set_order(struct ref_weight *weight, const int32_t *order, int64_t count);

/* values = [experts][n][k] of the whole tensor, whatever its shard. zero_point: 1 = stored + 1 (mod 16),
 * 2 = as stored. */
void ref_decode(const fmk_part *part, int32_t experts, int32_t zero_point, double *values);

/* Weight and bias of the part's shard, after n_order. */
double ref_value(const struct ref_weight *weight, int64_t expert, int64_t row, int64_t k);
double ref_bias(const struct ref_weight *weight, int64_t expert, int64_t row);
int64_t ref_rows(const struct ref_weight *weight); /* of the shard */
int64_t ref_columns(const struct ref_weight *weight);

#endif
