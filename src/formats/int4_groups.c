#include "int4_groups.h"

#include "../abi.h"

#include <string.h>

int64_t fmk_int4_scale_row(const struct fmk_source *source, int64_t expert, int64_t k) {
    if (!source->act_order)
        return (source->part.k_begin + k) / source->part.group_size;
    return fmk_int4_group(source, expert, k);
}

/* Groups are counted this many at a time, so that no memory is needed. */
enum { WINDOW = 1024 };

/* Where weights of the groups first .. first+WINDOW-1 can lie: anywhere in act-order, else in a run. */
static void window_of(const struct fmk_source *source, int64_t first, int64_t *k, int64_t *end) {
    *k = 0;
    *end = source->k;
    if (source->act_order)
        return;
    int64_t size = source->part.group_size, begin = source->part.k_begin;
    *k = fmk_max(0, first * size - begin);
    *end = fmk_min(source->k, (first + WINDOW) * size - begin);
}

/* Weights of the shard in each of the groups first .. first+WINDOW-1. */
static void count_groups(const struct fmk_source *source, int64_t expert, int64_t first,
                         int32_t count[WINDOW]) {
    int64_t k, end;
    memset(count, 0, WINDOW * sizeof *count);
    for (window_of(source, first, &k, &end); k < end; k++) {
        int64_t group = fmk_int4_scale_row(source, expert, k);
        if (group >= first && group < first + WINDOW)
            count[group - first]++;
    }
}

/* Whether the shard is all of one group, as far as it goes. */
static bool single(const struct fmk_source *source) {
    int64_t size = source->part.group_size, begin = source->part.k_begin;
    return !source->act_order && begin / size == (begin + source->k - 1) / size;
}

/* Whether runs of group_size, as they lie in the file, are whole chunks. */
static bool regular(const struct fmk_source *source) {
    int64_t size = source->part.group_size, begin = source->part.k_begin;
    return single(source) || (!source->act_order && size % 32 == 0 && begin % size == 0);
}

static int64_t granule_of(int64_t chunks) {
    return chunks % 4 == 0 ? 4 : chunks % 2 == 0 ? 2 : 1;
}

static void add_expert(const struct fmk_source *source, int64_t expert, struct fmk_int4_groups *groups) {
    int32_t count[WINDOW];
    int64_t chunks = 0, last = 0;
    for (int64_t first = 0; first < source->groups; first += WINDOW) {
        count_groups(source, expert, first, count);
        for (int64_t g = 0; g < WINDOW; g++) {
            if (!count[g])
                continue;
            if (last && last != groups->common)
                groups->common = 0; /* what looked like the last group was not */
            groups->granule = fmk_min(groups->granule, granule_of(chunks));
            last = (count[g] + 31) / 32;
            chunks += last;
            if (groups->common < 0)
                groups->common = last;
            if (last > groups->common)
                groups->common = 0;
        }
    }
    groups->chunks = fmk_max(groups->chunks, chunks);
}

void fmk_int4_groups(const struct fmk_source *source, struct fmk_int4_groups *groups) {
    *groups = (struct fmk_int4_groups){.index = !regular(source), .common = -1, .granule = 4};
    if (groups->index) {
        for (int64_t e = 0; e < source->experts; e++)
            add_expert(source, e, groups);
        return;
    }
    groups->chunks = (source->k + 31) / 32;
    groups->common = (source->part.group_size + 31) / 32;
    if (!single(source))
        groups->granule = granule_of(groups->common);
}

void fmk_int4_index(const struct fmk_source *source, int64_t positions, int64_t expert, int32_t *k_index) {
    int32_t count[WINDOW];
    int64_t place[WINDOW], end = 0;
    memset(k_index, -1, (size_t)positions * sizeof *k_index);
    for (int64_t first = 0; first < source->groups; first += WINDOW) {
        count_groups(source, expert, first, count);
        for (int64_t g = 0; g < WINDOW; g++) {
            place[g] = end;
            end += fmk_round_up(count[g], 32);
        }
        int64_t k, stop;
        for (window_of(source, first, &k, &stop); k < stop; k++) {
            int64_t group = fmk_int4_scale_row(source, expert, k);
            if (group >= first && group < first + WINDOW)
                k_index[place[group - first]++] = (int32_t)k;
        }
    }
}
