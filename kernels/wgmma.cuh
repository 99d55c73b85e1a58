/* out = in . W^T on the tensor cores of compute capability 9.0, weights as the A operand of wgmma from
 * registers: 64 weight rows by up to 128 tokens a product.
 *
 * A block computes 64 R weight rows of each of its WG multiplying warpgroups by T tokens, or the same 64 R
 * rows by all of them, which then share K. One more warpgroup fetches: units of 128 k travel through a ring
 * of stages in shared memory, activations swizzled, by a tensor map, codes and scales as they lie. The
 * multiplying warps unpack codes into fragments of A, scaled, while the tensor cores work on those before.
 *
 * With an activation the two blocks of 64 rows of a warpgroup (R = 2) are the same rows of gate and of up.
 *
 * A cluster of blocks computes a tile after the other. Its blocks each sum their share of the units of K, and
 * then add up and finish their share of the pieces, in the order of the blocks and warpgroups. */
#ifndef FMK_KERNELS_WGMMA_CUH
#define FMK_KERNELS_WGMMA_CUH

#include "wgmma_fetch.cuh"
#include "wgmma_numbers.cuh"
#include "wgmma_store.cuh"

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* ---- multiplying ---- */

/* What sums want to know of a tile's part; of gate and up, which differ in their range alone, with each its
 * own. */
template <int R> struct Part {
    int32_t dtype, chunks, at_zeros; /* of scales; as in struct fmk_linear_part; offset in a unit, 0: none */
    float scale[R], inverse[R];      /* of struct fmk_range, for each block of 64 rows of a warpgroup */
};

template <class X, int R>
__device__ __forceinline__ Part<R> part_of(const struct fmk_wgmma_args &args, int32_t p) {
    const struct fmk_linear_part &from = args.linear.part[p];
    const int32_t groups = 4 >> (from.chunks >> 1);
    Part<R> part;
    part.dtype = from.dtype;
    part.chunks = from.chunks;
    part.at_zeros = from.has_zeros ? FMK_T64_CODES + 2 * FMK_T64_ROWS * groups : 0;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float *range = X::RANGED ? args.range[R == 2 && args.linear.glu ? r : p] : NULL;
        part.scale[r] = range ? range[1] : 1.0f;
        part.inverse[r] = range ? range[2] : 1.0f;
    }
    return part;
}

/* Where a thread finds what is its own of a unit, from the beginning of shared memory on, with slot 0. */
struct Place {
    uint32_t codes, scales, zeros; /* of 64 k; of a group of k */
    bool has_zeros;
};

template <class P> __device__ __forceinline__ Place place_of(int32_t at_zeros) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
    const uint32_t unit = P::AT_WEIGHTS + (P::DEEP ? 0 : group * P::R * FMK_WGMMA_UNIT);
    const uint32_t row = FMK_T64_PLACE(16 * warp + lane / 4);
    return Place{not_before_here(unit + FMK_INT4_UNIT_CODES * warp + 16 * lane),
                 not_before_here(unit + FMK_T64_CODES + 2 * row), not_before_here(unit + at_zeros + row),
                 not_before_here((uint32_t)at_zeros) != 0};
}

/* A lane's codes of 64 k. */
__device__ __forceinline__ uint4 load_codes(const uint8_t *stages, const Place &place, uint32_t at) {
    return *(const uint4 *)(stages + place.codes + at);
}

__device__ __forceinline__ Group load_group(const uint8_t *stages, const Place &place, uint32_t at,
                                            uint32_t group) {
    return Group{*(const uint32_t *)(stages + place.scales + at + 2 * FMK_T64_ROWS * group),
                 place.has_zeros ? *(const uint16_t *)(stages + place.zeros + at + FMK_T64_ROWS * group)
                                 : 0x0808u};
}

template <class P> __device__ __forceinline__ void clear(float (&total)[P::R][P::T / 2]) {
#pragma unroll
    for (int r = 0; r < P::R; r++)
#pragma unroll
        for (int i = 0; i < P::T / 2; i++)
            total[r][i] = 0.0f;
}

/* Fragments are made here, and not between products, which the assembler would then do one by one. */
template <int STEPS, int R> __device__ __forceinline__ void make_here(uint32_t (&fragment)[STEPS][R][4]) {
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                fragment[s][r][i] = not_before_here(fragment[s][r][i]);
}

/* Steps of 16 k of a stage, from `step` on, whose activations begin at `acts`. */
template <class X, class P, int STEPS>
__device__ __forceinline__ void multiply_steps(float (&sum)[P::R][P::T / 2],
                                               const uint32_t (&fragment)[STEPS][P::R][4], uint64_t acts,
                                               int step, bool add) {
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int r = 0; r < P::R; r++)
            multiply_tokens<X, P::T>(sum[r], fragment[s][r],
                                     acts + (step + s) / 4 * (P::ACTS / 2 >> 4) + (step + s) % 4 * 2,
                                     add || s > 0);
    wgmma_end_group();
}

/* Groups of 128 k or more: codes are multiplied as they are, less their zero points, and what a unit of k
 * comes to is scaled, in f32. While the tensor cores work on STEPS of 16 k, those after are unpacked. */
template <class X, class P> struct Summed {
    static constexpr int STEPS = P::SUMMED_STEPS;

    static __device__ __forceinline__ void unpack(const uint4 (&codes)[P::R],
                                                  const typename X::Zeros (&zeros)[P::R], int step,
                                                  uint32_t (&fragment)[STEPS][P::R][4]) {
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int r = 0; r < P::R; r++)
                X::integers(not_before_here(word_of(codes[r], (step + s) % 4)), zeros[r], fragment[s][r]);
        make_here(fragment);
    }

    static __device__ __forceinline__ void add(int32_t dtype, const uint32_t (&scales)[P::R],
                                               float (&sum)[P::R][P::T / 2], float (&total)[P::R][P::T / 2]) {
#pragma unroll
        for (int r = 0; r < P::R; r++) {
            settle<P::T / 2>(sum[r]);
            const float scale[] = {scale_to_f32((uint16_t)scales[r], dtype),
                                   scale_to_f32((uint16_t)(scales[r] >> 16), dtype)};
#pragma unroll
            for (int i = 0; i < P::T / 2; i++)
                total[r][i] = fmaf(sum[r][i], scale[i / 2 % 2], total[r][i]);
        }
    }

    static __device__ __forceinline__ void multiply(const uint8_t *stages, const Part<P::R> &part,
                                                    int32_t units, const Ring &ring, Stage &stage,
                                                    float (&total)[P::R][P::T / 2]) {
        const Place place = place_of<P>(part.at_zeros);
        uint32_t fragment[2][STEPS][P::R][4], scales[P::R] = {}, next[P::R];
        typename X::Zeros zeros[P::R];
        uint4 codes[P::R];
        float sum[P::R][P::T / 2];
        int32_t before = -1;
        clear<P>(sum);
        for (int32_t i = 0; i < units; i++) {
            const uint32_t at = stage.slot * P::WEIGHTS;
            const uint64_t acts = wgmma_descriptor(acts_at<P>(ring, stage));
            mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
            for (int r = 0; r < P::R; r++) {
                codes[r] = load_codes(stages, place, at + r * FMK_WGMMA_UNIT);
                const Group group = load_group(stages, place, at + r * FMK_WGMMA_UNIT, 0);
                zeros[r] = X::zeros(group.zeros);
                next[r] = group.scales;
            }
            unpack(codes, zeros, 0, fragment[0]);
            wgmma_wait<0>();
            add(part.dtype, scales, sum, total);
            if (before >= 0)
                release_stage(ring, before);
            before = stage.slot;
#pragma unroll
            for (int r = 0; r < P::R; r++)
                scales[r] = next[r];
#pragma unroll
            for (int step = 0; step < 8; step += STEPS) {
                if (step)
                    wgmma_wait<0>();
                multiply_steps<X, P, STEPS>(sum, fragment[step / STEPS % 2], acts, step, step > 0);
                if (step + STEPS == 4) {
#pragma unroll
                    for (int r = 0; r < P::R; r++)
                        codes[r] = load_codes(stages, place, at + r * FMK_WGMMA_UNIT + FMK_T16_TILE);
                }
                if (step + STEPS < 8)
                    unpack(codes, zeros, step + STEPS, fragment[(step / STEPS + 1) % 2]);
            }
            next_stage<P, P::STRIDE>(stage);
        }
        wgmma_wait<0>();
        add(part.dtype, scales, sum, total);
        if (before >= 0)
            release_stage(ring, before);
    }
};

/* Groups of any size: codes become weights before they are multiplied. A turn is two batches of STEPS, of
 * which the tensor cores work on one while the other is unpacked. FINE: groups of 32 or 64 k. */
template <class X, class P, bool FINE> struct Scaled {
    static constexpr int STEPS = P::SCALED_STEPS, TURNS = 4 / STEPS; /* a unit's */

    static __device__ __forceinline__ void multiply(const uint8_t *stages, const Part<P::R> &part,
                                                    int32_t units, const Ring &ring, Stage &stage,
                                                    float (&total)[P::R][P::T / 2]) {
        const Place place = place_of<P>(part.at_zeros);
        const int32_t shift = part.chunks == 2; /* from chunks of 32 k to groups */
        uint32_t fragment[2][STEPS][P::R][4];
        uint4 codes[P::R];
        Group groups[P::R];
        typename X::Scales scales[P::R];
        int32_t before = -1;
        if (units > 0) {
            mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
            for (int r = 0; r < P::R; r++) {
                const uint32_t at = stage.slot * P::WEIGHTS + r * FMK_WGMMA_UNIT;
                codes[r] = load_codes(stages, place, at);
                groups[r] = load_group(stages, place, at, 0);
            }
        }
        for (int32_t i = 0; i < TURNS * units; i++) {
            const int32_t slot = stage.slot, turn = i % TURNS;
            const uint32_t at = slot * P::WEIGHTS;
            const uint64_t acts = wgmma_descriptor(acts_at<P>(ring, stage) + turn * (P::ACTS / TURNS));
#pragma unroll
            for (int r = 0; r < P::R; r++)
                scales[r] = X::scales(groups[r], part.dtype, part.inverse[r]);
#pragma unroll
            for (int batch = 0; batch < 2; batch++) {
#pragma unroll
                for (int s = 0; s < STEPS; s++)
#pragma unroll
                    for (int r = 0; r < P::R; r++) {
                        const int step = batch * STEPS + s;
                        if (FINE && step && step % 2 == 0)
                            scales[r] = X::scales(load_group(stages, place, at + r * FMK_WGMMA_UNIT,
                                                             (turn * STEPS + step / 2) >> shift),
                                                  part.dtype, part.inverse[r]);
                        X::unpack(not_before_here(word_of(codes[r], step % 4)), scales[r],
                                  fragment[batch][s][r]);
                    }
                make_here(fragment[batch]);
                multiply_steps<X, P, STEPS>(total, fragment[batch], acts, batch * STEPS, true);
                /* What comes next is loaded while the tensor cores work. */
                const bool last = batch == 1 && turn == TURNS - 1;
                if (last)
                    next_stage<P, P::STRIDE>(stage);
                if (last && i + 1 < TURNS * units) {
                    mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
                    for (int r = 0; r < P::R; r++) {
                        const uint32_t next = stage.slot * P::WEIGHTS + r * FMK_WGMMA_UNIT;
                        codes[r] = load_codes(stages, place, next);
                        groups[r] = load_group(stages, place, next, 0);
                    }
                }
                if (!last && (batch + 1) * STEPS % 4 == 0) {
#pragma unroll
                    for (int r = 0; r < P::R; r++) {
                        codes[r] = load_codes(stages, place, at + r * FMK_WGMMA_UNIT + FMK_T16_TILE);
                        if (FINE && batch == 1)
                            groups[r] = load_group(stages, place, at + r * FMK_WGMMA_UNIT,
                                                   ((turn + 1) * STEPS) >> shift);
                    }
                }
                wgmma_wait<1>();
                if (batch == 0 && turn == 0 && before >= 0)
                    release_stage(ring, before);
            }
            before = slot;
        }
        wgmma_wait<0>();
#pragma unroll
        for (int r = 0; r < P::R; r++)
            settle<P::T / 2>(total[r]);
        if (before >= 0)
            release_stage(ring, before);
    }

    /* Sums of weights that were brought into range become those of the weights. */
    static __device__ __forceinline__ void restore_range(const Part<P::R> &part,
                                                         float (&total)[P::R][P::T / 2]) {
#pragma unroll
        for (int r = 0; r < P::R; r++) {
            if (part.scale[r] == 1.0f)
                continue;
#pragma unroll
            for (int i = 0; i < P::T / 2; i++)
                total[r][i] *= part.scale[r];
        }
    }
};

template <class X, class P>
__device__ __forceinline__ void multiply_units(const uint8_t *stages, const Part<P::R> &part, int32_t units,
                                               const Ring &ring, Stage &stage,
                                               float (&total)[P::R][P::T / 2]) {
    clear<P>(total);
    if constexpr (P::SUMMED_STEPS > 0) {
        if (part.chunks == 4) {
            Summed<X, P>::multiply(stages, part, units, ring, stage, total);
            return;
        }
    } else if (part.chunks == 4) {
        Scaled<X, P, false>::multiply(stages, part, units, ring, stage, total);
        Scaled<X, P, false>::restore_range(part, total);
        return;
    }
    Scaled<X, P, true>::multiply(stages, part, units, ring, stage, total);
    Scaled<X, P, true>::restore_range(part, total);
}

/* ---- the kernel ---- */

/* What a block does with tiles. */
struct Work {
    int32_t first, stride; /* tiles */
    bool split;            /* several share a tile's K, */
    Share share;           /* of which this is the block's */
};

__device__ __forceinline__ Work find_work(const struct fmk_wgmma_start &start, bool deep) {
    return Work{(int32_t)cluster_id(), (int32_t)clusters(), deep || cluster_size() > 1, share_of(start)};
}

/* Whether the warps beside those that fetch store a tile: not the block's last, after which the warpgroups,
 * which are more, have nothing else to do. */
template <class X>
__device__ __forceinline__ bool hands_over(const struct fmk_linear_kernel_args &args, const Tile &tile,
                                           bool last) {
    return !last && is_packed<X>(args, args.part[tile.part]);
}

/* Between two tiles whose sums lie over the ring: all of the block are done with the first. */
__device__ __forceinline__ void meet_block() {
    fence_async_proxy(); /* copies will overwrite the sums */
    __syncthreads();
}

/* No block needs its ring any more. */
__device__ __forceinline__ void meet_cluster() {
    __syncwarp();
    cluster_arrive();
    cluster_wait();
}

/* Stores what is handed over, or the sums that meet in the block, but for its last tile's. */
template <class X, class P>
__device__ __forceinline__ void store_tiles(const struct fmk_wgmma_args &args, const Work &work,
                                            uint8_t *stages, const Ring &ring) {
    const uint32_t warp = threadIdx.x % FMK_WGMMA_FETCHING / 32 - STORING_WARPS;
    const struct fmk_wgmma_walk walk = find_walk<P>(args);
    bool stored = false;
    uint32_t parity = 0;
    for (int32_t number = work.first; number < walk.tiles; number += work.stride) {
        const Tile tile = find_tile<P>(args, walk, number);
        const Target target = {args.linear, tile};
        const bool last = number + work.stride >= walk.tiles;
        if (work.split && P::OVER_RING) {
            meet_cluster();
            if (!last)
                meet_block();
            continue;
        }
        if (work.split) {
            if (last)
                break;
            const Rank in = {cluster_rank(), cluster_size(), args.start.per_block};
            const Outlet outlet = find_outlet<X>(target);
            mbarrier_wait(ring.base + P::AT_SENT, parity);
            finish_pieces<X, P>(target, outlet, in, stages + P::AT_SUMS, warp, MOST_STORING);
            __syncwarp();
            if (in.size == 1)
                mbarrier_arrive(ring.base + P::AT_TAKEN);
            else if (threadIdx.x % 32 < in.size)
                mbarrier_arrive_at(threadIdx.x % 32, ring.base + P::AT_TAKEN);
            parity ^= 1;
            continue;
        }
        for (uint32_t group = warp; stored && group < P::WG; group += MOST_STORING)
            arrive_named(BARRIER_STORED + group, WITH_STORING);
        stored = hands_over<X>(args.linear, tile, last);
        for (uint32_t group = warp; stored && group < P::WG; group += MOST_STORING) {
            barrier_named(BARRIER_HANDED + group, WITH_STORING);
            store_packed<P>(target, (int)group, stages + P::AT_OUT + group * (P::OUT / P::WG),
                            threadIdx.x % 32, 32);
        }
    }
}

/* All units of all tiles, but for the first `fetched`, which are on their way: `feed` and `stage` are past
 * them. */
template <class P, class Feed>
__device__ __forceinline__ void fetch_tiles(const struct fmk_wgmma_args &args, const Work &work,
                                            const struct fmk_wgmma_walk &walk, const Ring &ring, Feed &feed,
                                            int32_t fetched, Stage &stage) {
    const int32_t units = work.share.end - work.share.begin;
    for (int32_t number = work.first; number < walk.tiles; number += work.stride, fetched = 0) {
        if (!fetched)
            feed.find(args, find_tile<P>(args, walk, number), work.share.begin, number == work.first);
        feed.template fetch<false>(units - fetched, ring, stage);
        if (work.split && P::OVER_RING) {
            meet_cluster();
            if (number + work.stride < walk.tiles)
                meet_block();
        }
    }
}

template <class X, class P>
__device__ __forceinline__ void multiply_tiles(const struct fmk_wgmma_args &args, const Work &work,
                                               uint8_t *stages, const Ring &ring) {
    const struct fmk_linear_kernel_args &linear = args.linear;
    /* From one lane, so that the compiler knows that a warp's lanes agree on what it makes of it. */
    const int32_t group = __shfl_sync(0xffffffff, (int)threadIdx.x / 128, 0);
    uint8_t *out = stages + P::AT_OUT + group * (P::OUT / P::WG);
    const int32_t units = work.share.end - work.share.begin;
    const int32_t of_group = P::DEEP ? (units - group + P::WG - 1) / P::WG : units;
    const struct fmk_wgmma_walk walk = find_walk<P>(args);
    const bool kept = keeps_acts<P>(walk, units);
    Stage stage = {0, 0, 0}; /* of the tile's first unit */
    bool handed = false;     /* and `out` not taken back */
    uint32_t parity = 0;     /* of the next tile that several share */
    for (int32_t number = work.first; number < walk.tiles; number += work.stride) {
        const Tile tile = find_tile<P>(args, walk, number);
        const Target target = {linear, tile};
        const bool last = number + work.stride >= walk.tiles;
        float total[P::R][P::T / 2];
        const Part<P::R> part = part_of<X, P::R>(args, tile.part);
        if (kept)
            stage.acts = 0;
        Stage own = stage;
        if (P::DEEP)
            advance<P>(own, group);
        multiply_units<X, P>(stages, part, of_group, ring, own, total);
        if (P::DEEP)
            advance<P>(stage, units);
        else
            stage = own;
        if (work.split) {
            const Rank in = {cluster_rank(), cluster_size(), args.start.per_block};
            if (number == work.first && in.size > 1)
                cluster_wait(); /* the others' barriers are there */
            if (P::OVER_RING)
                meet_cluster();
            else if (number != work.first)
                mbarrier_wait(ring.base + P::AT_TAKEN, parity ^ 1);
            send_pieces<P>(in, tile, stages, ring.base, total);
            if (P::OVER_RING || last) {
                const Outlet outlet = find_outlet<X>(target);
                mbarrier_wait(ring.base + P::AT_SENT, parity);
                finish_pieces<X, P>(target, outlet, in, stages + P::AT_SUMS, threadIdx.x / 32, 4 * P::WG);
            }
            parity ^= 1;
            if (P::OVER_RING && !last)
                meet_block();
            continue;
        }
        if (handed)
            barrier_named(BARRIER_STORED + group, WITH_STORING);
        handed = false;
        if (is_packed<X>(linear, linear.part[tile.part]))
            handed = finish_packed<X, P>(target, out, hands_over<X>(linear, tile, last), total);
        else
            finish_tile<P>(target, (float *)out, total);
    }
}

/* Fetches weights. They do not depend on the kernel before, but which tiles there are may. The copy engine
 * takes one copy after the other: if the ring's weights went first, the first activations would come when all
 * of them have. */
template <class P>
__device__ __forceinline__ void run_weights(const struct fmk_wgmma_args &args, const Ring &ring) {
    const Work work = find_work(args.start, P::DEEP);
    const int32_t units = work.share.end - work.share.begin, fresh = min(units, P::STAGES);
    Stage stage = {0, 0, 0};
    WeightsFeed<P> weights;
    const bool early = weights.find_first(args, work.first, work.share.begin);
    init_early<P>(ring);
    if (early)
        weights.template fetch<true>(min(units, P::EARLY), ring, stage);
    __syncthreads();
    if (cluster_size() > 1)
        cluster_arrive();
    give_registers<P::LEFT_REGISTERS>();
    const bool meets = is_early(args.start, work.first), ahead = args.start.flags & FMK_WGMMA_AHEAD;
    if (meets && !ahead)
        barrier_named(BARRIER_ACTS, 64);
    if (early && fresh > P::EARLY)
        weights.template fetch<true>(fresh - P::EARLY, ring, stage);
    if (meets && ahead)
        barrier_named(BARRIER_ACTS, 64);
    if (args.linear.m_dev)
        wait_for_dependency();
    if (cluster_size() > 1)
        cluster_wait();
    fetch_tiles<P>(args, work, find_walk<P>(args), ring, weights, early ? fresh : 0, stage);
}

template <class P>
__device__ __forceinline__ void run_acts(const struct fmk_wgmma_args &args, const Ring &ring) {
    const Work work = find_work(args.start, P::DEEP);
    const int32_t units = work.share.end - work.share.begin, fresh = min(units, P::STAGES);
    Stage stage = {0, 0, 0};
    ActsFeed<P> acts;
    if (elect_one())
        prefetch_map(&args.in);
    const bool early = acts.find_first(args, work.first, work.share);
    __syncthreads();
    if (cluster_size() > 1)
        cluster_arrive();
    give_registers<P::LEFT_REGISTERS>(); /* others wait for them */
    wait_for_dependency();
    if (early) {
        acts.template fetch<true>(min(units, P::EARLY), ring, stage);
        arrive_named(BARRIER_ACTS, 64);
        if (fresh > P::EARLY)
            acts.template fetch<true>(fresh - P::EARLY, ring, stage);
    }
    const struct fmk_wgmma_walk walk = find_walk<P>(args);
    acts.kept = keeps_acts<P>(walk, units);
    if (cluster_size() > 1)
        cluster_wait();
    fetch_tiles<P>(args, work, walk, ring, acts, early ? fresh : 0, stage);
}

template <class X, class P> __device__ __forceinline__ void linear_wgmma(const struct fmk_wgmma_args &args) {
    uint8_t *stages = dynamic_shared();
    const uint32_t base = shared_address(stages);
    /* From one lane, so that the compiler knows that a warp's lanes agree on it. */
    const int32_t warp = __shfl_sync(0xffffffff, (int32_t)threadIdx.x / 32, 0), fetching = warp - 4 * P::WG;
    const Ring ring = {base, base + P::AT_FULL, base + P::AT_EMPTY};
    allow_dependents();
    if (fetching == WEIGHTS_WARP) {
        run_weights<P>(args, ring);
        return;
    }
    if (fetching == ACTS_WARP) {
        run_acts<P>(args, ring);
        return;
    }
    if (warp == 0 && elect_one()) {
        mbarrier_init(base + P::AT_SENT, senders<P>(cluster_size()));
        mbarrier_init(base + P::AT_TAKEN, takers(cluster_size()));
    }
    init_ring<P>(ring, fetching < 0 ? warp : warp - STORING_WARPS, 4 * P::WG + MOST_STORING);
    __syncthreads();
    if (cluster_size() > 1)
        cluster_arrive();
    const Work work = find_work(args.start, P::DEEP);
    if (fetching < 0) {
        take_registers<P::TAKEN_REGISTERS>();
        wait_for_dependency();
        multiply_tiles<X, P>(args, work, stages, ring);
        return;
    }
    give_registers<P::LEFT_REGISTERS>();
    wait_for_dependency();
    if (cluster_size() > 1)
        cluster_wait();
    store_tiles<X, P>(args, work, stages, ring);
}

#endif
