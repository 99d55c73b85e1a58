/* How layouts of the int4 family keep K: sorted by group, stably, each group from a new chunk of 32 k on.
 * Where the groups lie so in the file, K is as it was; otherwise (act-order, a group size or a shard's first
 * k that is not a multiple of 32) an index says which k stands where, and fills up each group's last chunk.
 */
#ifndef FMK_FORMATS_INT4_GROUPS_H
#define FMK_FORMATS_INT4_GROUPS_H

#include "source.h"

struct fmk_int4_groups {
    bool index;      /* K must be put in another order or filled up */
    int64_t chunks;  /* of the expert with the most */
    int64_t common;  /* that each group takes, but for an expert's last, which may take fewer; 0 = unequal */
    int64_t granule; /* the largest of 4, 2 and 1 of which each group's first chunk is a multiple */
};

void fmk_int4_groups(const struct fmk_source *source, struct fmk_int4_groups *groups);
/* k_index [positions] of one expert: the k of each position, -1 = filled up. */
void fmk_int4_index(const struct fmk_source *source, int64_t positions, int64_t expert, int32_t *k_index);
/* The scale row of a k of the shard. */
int64_t fmk_int4_scale_row(const struct fmk_source *source, int64_t expert, int64_t k);

#endif
