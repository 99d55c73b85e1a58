/* out = in . W^T on the tensor cores of compute capability 9.0, weights as the A operand of wgmma from
 * registers: 64 weight rows by up to 128 tokens a product.
 *
 * A block computes 64 R weight rows of each of its WG multiplying warpgroups by T tokens. One more warpgroup
 * fetches: units of 128 k travel through a ring of stages in shared memory, activations swizzled, by a tensor
 * map, codes and scales as they lie. The multiplying warps unpack codes into fragments of A, scaled, while
 * the tensor cores work on those before.
 *
 * With an activation the two blocks of 64 rows of a warpgroup (R = 2) are the same rows of gate and of up.
 *
 * A cluster of blocks computes a tile after the other. Its blocks each sum their share of the units of K, and
 * then add up their share of the tokens, in the order of the blocks: where tiles are few. */
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
    const uint32_t unit = P::AT_WEIGHTS + group * P::R * FMK_WGMMA_UNIT;
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
                                                    const Share &share, const Ring &ring, Stage &stage,
                                                    float (&total)[P::R][P::T / 2]) {
        const Place place = place_of<P>(part.at_zeros);
        uint32_t fragment[2][STEPS][P::R][4], scales[P::R] = {}, next[P::R];
        typename X::Zeros zeros[P::R];
        uint4 codes[P::R];
        float sum[P::R][P::T / 2];
        int32_t before = -1;
        clear<P>(sum);
        for (int32_t i = share.begin; i < share.end; i++) {
            const uint32_t at = stage.slot * P::WEIGHTS;
            const uint64_t acts = wgmma_descriptor(ring.base + stage.slot * P::ACTS);
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
            next_stage<P>(stage);
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
                                                    const Share &share, const Ring &ring, Stage &stage,
                                                    float (&total)[P::R][P::T / 2]) {
        const Place place = place_of<P>(part.at_zeros);
        const int32_t shift = part.chunks == 2; /* from chunks of 32 k to groups */
        uint32_t fragment[2][STEPS][P::R][4];
        uint4 codes[P::R];
        Group groups[P::R];
        typename X::Scales scales[P::R];
        int32_t before = -1;
        if (share.begin < share.end) {
            mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
            for (int r = 0; r < P::R; r++) {
                const uint32_t at = stage.slot * P::WEIGHTS + r * FMK_WGMMA_UNIT;
                codes[r] = load_codes(stages, place, at);
                groups[r] = load_group(stages, place, at, 0);
            }
        }
        for (int32_t i = TURNS * share.begin; i < TURNS * share.end; i++) {
            const int32_t slot = stage.slot, turn = i % TURNS;
            const uint32_t at = slot * P::WEIGHTS;
            const uint64_t acts = wgmma_descriptor(ring.base + slot * P::ACTS + turn * (P::ACTS / TURNS));
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
                    next_stage<P>(stage);
                if (last && i + 1 < TURNS * share.end) {
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
__device__ __forceinline__ void multiply_units(const uint8_t *stages, const Part<P::R> &part,
                                               const Share &share, const Ring &ring, Stage &stage,
                                               float (&total)[P::R][P::T / 2]) {
    clear<P>(total);
    if constexpr (P::SUMMED_STEPS > 0) {
        if (part.chunks == 4) {
            Summed<X, P>::multiply(stages, part, share, ring, stage, total);
            return;
        }
    } else if (part.chunks == 4) {
        Scaled<X, P, false>::multiply(stages, part, share, ring, stage, total);
        Scaled<X, P, false>::restore_range(part, total);
        return;
    }
    Scaled<X, P, true>::multiply(stages, part, share, ring, stage, total);
    Scaled<X, P, true>::restore_range(part, total);
}

/* ---- the kernel ---- */

/* A line of the arguments each: of all warps at once, what they wait for they do not wait for later, one line
 * after the other. */
__device__ __forceinline__ void prefetch_arguments(const struct fmk_wgmma_args &args) {
    enum { LINE = 64 };
    for (uint32_t at = LINE * (threadIdx.x / 32); at < sizeof args; at += LINE * (blockDim.x / 32))
        not_before_here(*(const uint32_t *)((const char *)&args + at));
}

/* What a block does with tiles. */
struct Work {
    int32_t first, stride; /* tiles */
    bool split;            /* the cluster shares K, */
    Share share;           /* of which this is the block's */
};

template <class P> __device__ __forceinline__ Work find_work(const struct fmk_linear_kernel_args &args) {
    const uint32_t rank = cluster_rank(), size = cluster_size();
    const int32_t units = units_of_k(args);
    const bool split = size > 1;
    Work work;
    work.first = blockIdx.x / size;
    work.stride = gridDim.x / size;
    work.split = split;
    work.share = split ? share_of(units, rank, size) : Share{0, units};
    return work;
}

/* Whether the warps beside those that fetch store a tile: not the block's last, after which the warpgroups,
 * which are more, have nothing else to do. */
template <class X>
__device__ __forceinline__ bool hands_over(const struct fmk_linear_kernel_args &args, const Tile &tile,
                                           bool split, bool last) {
    return !split && !last && is_packed<X>(args, args.part[tile.part]);
}

/* Whether somebody wants what lies in shared memory, or its room, when a block is done with a tile that the
 * cluster shares: the next tile, or blocks that read the sums. Those that were sent have come. */
template <class P> __device__ __forceinline__ bool shared_again(bool last) {
    return !P::SENDS || !last;
}

/* Fetches, or stores what is handed over. */
template <class X, class P>
__device__ __forceinline__ void fetch_all(const struct fmk_wgmma_args &args, const uint8_t *out,
                                          const Ring &ring) {
    const int32_t warp = threadIdx.x % FMK_WGMMA_FETCHING / 32;
    const int32_t first =
        warp < STORING_WARPS ? P::WG : warp - STORING_WARPS; /* group whose tiles it stores */
    const Work work = find_work<P>(args.linear);
    /* Weights do not depend on the kernel before, but which tiles there are may. */
    if (warp != WEIGHTS_WARP || args.linear.m_dev)
        wait_for_dependency();
    const Walk walk = make_walk<P>(args);
    Stage stage = {0, 0};
    bool stored = false;
    for (int32_t number = work.first; number < walk.tiles; number += work.stride) {
        const Tile tile = find_tile<P>(args.linear, walk, number);
        const bool last = number + work.stride >= walk.tiles;
        for (int32_t group = first; stored && group < P::WG; group += FETCHING_WARPS - STORING_WARPS)
            arrive_named(BARRIER_STORED + group, WITH_STORING);
        stored = hands_over<X>(args.linear, tile, work.split, last);
        for (int32_t group = first; stored && group < P::WG; group += FETCHING_WARPS - STORING_WARPS) {
            barrier_named(BARRIER_HANDED + group, WITH_STORING);
            store_packed<P>(Target{args.linear, tile}, group, out + group * (P::OUT / P::WG),
                            threadIdx.x % 32, 32);
        }
        if (warp == ACTS_WARP && threadIdx.x % 32 == 0)
            fetch_acts<P>(&args.in, tile, work.share, ring, stage);
        else if (warp == WEIGHTS_WARP)
            fetch_weights<P>(args.linear, tile, work.share, ring, stage);
        if (work.split) { /* the ring is the tile's sums for a while */
            __syncwarp();
            cluster_arrive();
            cluster_wait();
            if (shared_again<P>(last)) {
                cluster_arrive();
                cluster_wait();
            }
        }
    }
}

template <class X, class P>
__device__ __forceinline__ void multiply_all(const struct fmk_wgmma_args &args, uint8_t *stages,
                                             const Ring &ring) {
    const struct fmk_linear_kernel_args &linear = args.linear;
    const int32_t group = threadIdx.x / 128;
    uint8_t *out = stages + P::AT_OUT + group * (P::OUT / P::WG);
    const Work work = find_work<P>(linear);
    wait_for_dependency();
    const Walk walk = make_walk<P>(args);
    Stage stage = {0, 0};
    bool handed = false; /* and `out` not taken back */
    uint32_t parity = 0; /* of the next tile that the cluster shares */
    for (int32_t number = work.first; number < walk.tiles; number += work.stride) {
        const Tile tile = find_tile<P>(linear, walk, number);
        const Target target = {linear, tile};
        const bool last = number + work.stride >= walk.tiles;
        float total[P::R][P::T / 2];
        const Part<P::R> part = part_of<X, P::R>(args, tile.part);
        multiply_units<X, P>(stages, part, work.share, ring, stage, total);
        if (work.split) {
            const Rank in = {cluster_rank(), cluster_size()};
            put_shared_tile<P>((float *)stages, total);
            __syncwarp();
            if constexpr (P::SENDS)
                send_shared_tile<P>(target, in, (const float *)stages, ring.base, parity);
            else
                read_shared_tile<P>(target, in, ring.base);
            parity ^= 1;
            if (shared_again<P>(last)) {
                fence_async_proxy(); /* copies will overwrite the sums */
                __syncwarp();
                cluster_arrive();
                cluster_wait();
            }
            continue;
        }
        if (handed)
            barrier_named(BARRIER_STORED + group, WITH_STORING);
        handed = false;
        if (is_packed<X>(linear, linear.part[tile.part]))
            handed = finish_packed<X, P>(target, out, hands_over<X>(linear, tile, work.split, last), total);
        else
            finish_tile<P>(target, (float *)out, total);
    }
}

template <class X, class P> __device__ __forceinline__ void linear_wgmma(const struct fmk_wgmma_args &args) {
    uint8_t *stages = dynamic_shared();
    const uint32_t base = shared_address(stages);
    const Ring ring = {base, base + P::AT_FULL, base + P::AT_EMPTY};
    allow_dependents();
    prefetch_arguments(args);
    if (threadIdx.x == 0)
        prefetch_map(&args.in);
    if (threadIdx.x == 0)
        mbarrier_init(base + P::AT_SENT, 1);
    init_ring<P>(ring);
    __syncthreads();
    if (threadIdx.x >= 128 * P::WG) {
        give_registers<56>();
        fetch_all<X, P>(args, stages + P::AT_OUT, ring);
    } else {
        take_registers<P::WG == 2 ? 224 : 104>();
        multiply_all<X, P>(args, stages, ring);
    }
}

#endif
