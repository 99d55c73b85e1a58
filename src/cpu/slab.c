/* Routing on the host: which input row meets which expert and where its result goes. */
#include "slab.h"

#include "../abi.h"
#include "../error.h"

#include <string.h>

static int32_t experts_of(const struct fmk_projection *w) {
    return w->num_experts ? w->num_experts : 1;
}

int64_t fmk_slab_units(const struct fmk_projection *w, const struct fmk_call *call, int64_t m) {
    const fmk_routing *r = &call->routing;
    if (r->kind == FMK_ROUTE_BATCH)
        return m * w->num_experts;
    if (r->kind == FMK_ROUTE_SORTED && !call->pairs) {
        int32_t total = ((const int32_t *)fmk_pointer(r->offsets))[w->num_experts];
        return fmk_min(m, total);
    }
    return m;
}

/* A pair that came twice would be written twice, and could be more rows than a slab has room for. `seen` has
 * a bit per pair, for as many pairs at a time as it holds. */
static fmk_status check_once(const int32_t *pairs, int32_t total, int64_t rows, uint8_t *seen, int64_t size) {
    int64_t window = 8 * fmk_min(size, (rows + 7) / 8);
    for (int64_t first = 0; first < rows; first += window) {
        memset(seen, 0, (size_t)window / 8);
        for (int32_t i = 0; i < total; i++) {
            int64_t at = pairs[i] - first;
            if (at < 0 || at >= window)
                continue;
            if (seen[at / 8] >> at % 8 & 1)
                return fmk_fail(FMK_EINVAL, "routing.pairs[%d] is %d, which comes a second time", i,
                                pairs[i]);
            seen[at / 8] |= (uint8_t)(1 << at % 8);
        }
    }
    return FMK_OK;
}

static fmk_status check_sorted(const struct fmk_projection *w, const struct fmk_call *call, uint8_t *scratch,
                               int64_t scratch_size) {
    const fmk_routing *r = &call->routing;
    const int32_t *offsets = fmk_pointer(r->offsets), *pairs = fmk_pointer(r->pairs);
    if (offsets[0])
        return fmk_fail(FMK_EINVAL, "routing.offsets[0] is %d; it must be 0", offsets[0]);
    for (int32_t e = 0; e < w->num_experts; e++)
        if (offsets[e + 1] < offsets[e] || offsets[e + 1] > call->rows)
            return fmk_fail(FMK_EINVAL, "routing.offsets[%d] is %d; it must be in %d..%lld", e + 1,
                            offsets[e + 1], offsets[e], (long long)call->rows);
    if (!pairs)
        return FMK_OK;
    int32_t total = offsets[w->num_experts];
    if (r->pairs.size && r->pairs.size / sizeof *pairs < (uint64_t)total)
        return fmk_fail(FMK_EINVAL, "routing.pairs.size %llu is less than that of %d pairs",
                        (unsigned long long)r->pairs.size, total);
    for (int32_t i = 0; i < total; i++)
        if (pairs[i] < 0 || pairs[i] >= call->rows)
            return fmk_fail(FMK_EINVAL, "routing.pairs[%d] is %d; it must be in 0..%lld", i, pairs[i],
                            (long long)call->rows - 1);
    return check_once(pairs, total, call->rows, scratch, scratch_size);
}

fmk_status fmk_slab_check(const struct fmk_projection *w, const struct fmk_call *call, int64_t m,
                          uint8_t *scratch, int64_t scratch_size) {
    const fmk_linear_args *a = &call->args;
    if (call->routing.kind == FMK_ROUTE_SORTED)
        return check_sorted(w, call, scratch, scratch_size);
    const int32_t *in_rows = fmk_pointer(a->in_rows);
    if (!in_rows)
        return FMK_OK;
    /* Rows that fit in what the caller told of `in`, or else in memory. */
    uint64_t in_size = a->in.size ? a->in.size : INT64_MAX;
    int64_t elements = (int64_t)(in_size / (uint64_t)fmk_dtype_size(a->in_type));
    int64_t limit = elements < w->k ? 0 : fmk_min((elements - w->k) / a->in_stride + 1, INT32_MAX);
    for (int64_t i = 0; i < m; i++)
        if (in_rows[i] < 0 || in_rows[i] >= limit)
            return fmk_fail(FMK_EINVAL, "in_rows[%lld] is %d; it must be in 0..%lld", (long long)i,
                            in_rows[i], (long long)limit - 1);
    return FMK_OK;
}

/* Calls visit(expert, pair) for each pair of tokens begin .. end-1 that some expert here serves, expert by
 * expert where the routing is sorted, else token by token. */
struct place {
    const struct fmk_call *call;
    int64_t begin;
    struct fmk_slab *slab;
};

static void count_pair(struct place *place, int32_t expert, int32_t pair) {
    (void)pair;
    place->slab->first[expert + 1]++;
}

static void place_pair(struct place *place, int32_t expert, int32_t pair) {
    const struct fmk_call *call = place->call;
    const fmk_routing *r = &call->routing;
    struct fmk_slab *slab = place->slab;
    int32_t at = slab->first[expert]++;
    int64_t in_row = r->in_per_pair ? pair : pair / r->top_k;
    slab->in[at] = in_row * call->args.in_stride;
    slab->row[at] = call->reduce ? (int32_t)(pair - place->begin * r->top_k) : pair;
    slab->out[at] = (int64_t)pair * call->args.out_stride;
    if (slab->weight)
        slab->weight[at] = ((const float *)fmk_pointer(r->pair_weights))[pair];
}

static void visit_pairs(const struct fmk_projection *w, const struct fmk_call *call, int64_t begin,
                        int64_t end, void (*visit)(struct place *, int32_t expert, int32_t pair),
                        struct place *place) {
    const fmk_routing *r = &call->routing;
    int64_t first = begin * r->top_k, last = end * r->top_k;
    if (r->kind == FMK_ROUTE_SORTED) {
        const int32_t *offsets = fmk_pointer(r->offsets), *pairs = fmk_pointer(r->pairs);
        for (int32_t e = 0; e < w->num_experts; e++)
            for (int32_t i = offsets[e]; i < offsets[e + 1]; i++)
                if (pairs[i] >= first && pairs[i] < last)
                    visit(place, e, pairs[i]);
        return;
    }
    const int32_t *ids = fmk_pointer(r->ids);
    for (int64_t pair = first; pair < last; pair++) {
        int64_t expert = (int64_t)ids[pair] - r->expert_base;
        if (ids[pair] >= 0 && expert >= 0 && expert < w->num_experts)
            visit(place, (int32_t)expert, (int32_t)pair);
    }
}

/* Counting sort by expert. Placing moves first[e] to where expert e + 1 begins; shifting by one puts the
 * beginnings back. */
static void fill_pairs(const struct fmk_projection *w, const struct fmk_call *call, int64_t begin,
                       int64_t end, struct fmk_slab *slab) {
    struct place place = {call, begin, slab};
    int32_t experts = w->num_experts;
    memset(slab->first, 0, ((size_t)experts + 1) * sizeof *slab->first);
    visit_pairs(w, call, begin, end, count_pair, &place);
    for (int32_t e = 0; e < experts; e++)
        slab->first[e + 1] += slab->first[e];
    slab->count = slab->first[experts];
    visit_pairs(w, call, begin, end, place_pair, &place);
    memmove(slab->first + 1, slab->first, (size_t)experts * sizeof *slab->first);
    slab->first[0] = 0;
}

/* Rows begin .. end-1 in the order in which they lie, group e being rows edge(e) .. edge(e+1)-1. */
static void fill_rows(const struct fmk_projection *w, const struct fmk_call *call, int64_t m, int64_t begin,
                      int64_t end, struct fmk_slab *slab) {
    const fmk_routing *r = &call->routing;
    const fmk_linear_args *a = &call->args;
    const int32_t *offsets = fmk_pointer(r->offsets), *in_rows = fmk_pointer(a->in_rows);
    const float *weights = fmk_pointer(r->pair_weights);
    int32_t experts = experts_of(w);
    for (int32_t e = 0; e <= experts; e++) {
        int64_t edge;
        if (r->kind == FMK_ROUTE_SORTED)
            edge = offsets[e];
        else if (r->kind == FMK_ROUTE_BATCH)
            edge = e * m;
        else
            edge = e <= r->expert ? 0 : m;
        slab->first[e] = (int32_t)(fmk_max(begin, fmk_min(edge, end)) - begin);
    }
    slab->count = end - begin;
    for (int64_t i = 0; i < slab->count; i++) {
        int64_t row = begin + i;
        slab->row[i] = (int32_t)row;
        if (r->kind == FMK_ROUTE_BATCH) {
            slab->in[i] = row / m * r->expert_in_stride + row % m * a->in_stride;
            slab->out[i] = row / m * r->expert_out_stride + row % m * a->out_stride;
        } else {
            slab->in[i] = (in_rows ? in_rows[row] : row) * a->in_stride;
            slab->out[i] = row * a->out_stride;
        }
        if (slab->weight)
            slab->weight[i] = weights[row];
    }
}

void fmk_slab_fill(const struct fmk_projection *w, const struct fmk_call *call, int64_t m, int64_t begin,
                   int64_t end, struct fmk_slab *slab) {
    if (call->pairs)
        fill_pairs(w, call, begin, end, slab);
    else
        fill_rows(w, call, m, begin, end, slab);
}

void fmk_sort_pairs(const fmk_routing *ids, int64_t m, int32_t num_experts, int32_t *offsets,
                    int32_t *pairs) {
    const int32_t *id = fmk_pointer(ids->ids);
    int64_t total = m * ids->top_k;
    memset(offsets, 0, ((size_t)num_experts + 1) * sizeof *offsets);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t pair = 0; pair < total; pair++) {
            int64_t expert = (int64_t)id[pair] - ids->expert_base;
            if (id[pair] < 0 || expert < 0 || expert >= num_experts)
                continue;
            if (pass == 0)
                offsets[expert + 1]++;
            else
                pairs[offsets[expert]++] = (int32_t)pair;
        }
        if (pass == 0)
            for (int32_t e = 0; e < num_experts; e++)
                offsets[e + 1] += offsets[e];
    }
    memmove(offsets + 1, offsets, (size_t)num_experts * sizeof *offsets);
    offsets[0] = 0;
}
