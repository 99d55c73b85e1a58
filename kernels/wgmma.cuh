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
 * then add up their share of the tokens, in the order of the blocks: where tiles are few. Or they are a pair
 * (PAIR = 2), which has neighbouring rows and shares the fetching of activations. */
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

/* A warp's rows of a unit: the scales of group `group`; at_zeros as in Part. */
__device__ __forceinline__ Group load_group(const uint8_t *unit, int32_t at_zeros, int group) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, at = FMK_T64_PLACE(16 * warp + lane / 4);
    return Group{*(const uint32_t *)(unit + FMK_T64_CODES + 2 * (FMK_T64_ROWS * group + at)),
                 at_zeros ? *(const uint16_t *)(unit + at_zeros + FMK_T64_ROWS * group + at) : 0x0808u};
}

/* A lane's codes of 64 k. */
__device__ __forceinline__ uint4 load_codes(const uint8_t *unit, int tile) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return *(const uint4 *)(unit + FMK_INT4_UNIT_CODES * warp + FMK_T16_TILE * tile + 16 * lane);
}

/* STEPS of 16 k are unpacked at a time. */
template <class X, class P, int STEPS>
__device__ __forceinline__ void multiply_units(const uint8_t *stages, const Part<P::R> &part,
                                               const Share &share, const Ring &ring, Stage &stage,
                                               float (&total)[P::R][P::T / 2]) {
    const uint8_t *weights = stages + P::AT_WEIGHTS + threadIdx.x / 128 * P::R * FMK_WGMMA_UNIT;
    uint32_t fragment[2][STEPS][P::R][4];
    uint4 codes[P::R];
    Group groups[P::R];
    typename X::Scales scales[P::R];
    int32_t before = -1;
#pragma unroll
    for (int r = 0; r < P::R; r++)
#pragma unroll
        for (int i = 0; i < P::T / 2; i++)
            total[r][i] = 0.0f;
    if (share.begin < share.end) {
        mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
        for (int r = 0; r < P::R; r++) {
            const uint8_t *unit = weights + stage.slot * P::WEIGHTS + r * FMK_WGMMA_UNIT;
            codes[r] = load_codes(unit, 0);
            groups[r] = load_group(unit, part.at_zeros, 0);
        }
    }
    for (int32_t i = share.begin; i < share.end; i++) {
        const int32_t slot = stage.slot;
        const uint8_t *unit = weights + slot * P::WEIGHTS;
        const uint64_t acts = wgmma_descriptor(ring.base + slot * P::ACTS);
#pragma unroll
        for (int r = 0; r < P::R; r++)
            scales[r] = X::scales(groups[r], part.dtype, part.inverse[r]);
#pragma unroll
        for (int batch = 0; batch < 8 / STEPS; batch++) {
#pragma unroll
            for (int s = 0; s < STEPS; s++)
#pragma unroll
                for (int r = 0; r < P::R; r++) {
                    const int step = batch * STEPS + s, chunk = step / 2;
                    if (step && step % 2 == 0 && part.chunks <= 2 && (part.chunks == 1 || chunk % 2 == 0))
                        scales[r] = X::scales(load_group(unit + r * FMK_WGMMA_UNIT, part.at_zeros,
                                                         part.chunks == 1 ? chunk : chunk / 2),
                                              part.dtype, part.inverse[r]);
                    X::unpack(not_before_here(word_of(codes[r], step % 4)), scales[r],
                              fragment[batch % 2][s][r]);
                }
            wgmma_fence();
#pragma unroll
            for (int s = 0; s < STEPS; s++)
#pragma unroll
                for (int r = 0; r < P::R; r++) {
                    const int step = batch * STEPS + s;
                    multiply_tokens<X, P::T>(total[r], fragment[batch % 2][s][r],
                                             acts + step / 4 * (P::ACTS / 2 >> 4) + step % 4 * 2);
                }
            wgmma_end_group();
            /* What comes next is loaded while the tensor cores work. */
            if ((batch + 1) * STEPS == 4) {
#pragma unroll
                for (int r = 0; r < P::R; r++)
                    codes[r] = load_codes(unit + r * FMK_WGMMA_UNIT, 1);
            }
            if ((batch + 1) * STEPS == 8) {
                next_stage<P>(stage);
                if (i + 1 < share.end) {
                    mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
                    for (int r = 0; r < P::R; r++) {
                        const uint8_t *next = weights + stage.slot * P::WEIGHTS + r * FMK_WGMMA_UNIT;
                        codes[r] = load_codes(next, 0);
                        groups[r] = load_group(next, part.at_zeros, 0);
                    }
                }
            }
            wgmma_wait<1>();
            if (batch == 0 && before >= 0)
                release_stage<P>(ring, before);
        }
        before = slot;
    }
    wgmma_wait<0>();
#pragma unroll
    for (int r = 0; r < P::R; r++)
        settle<P::T / 2>(total[r]);
    if (before >= 0)
        release_stage<P>(ring, before);
}

/* Sums of weights that were brought into range become those of the weights. */
template <class P>
__device__ __forceinline__ void restore_range(const Part<P::R> &part, float (&total)[P::R][P::T / 2]) {
#pragma unroll
    for (int r = 0; r < P::R; r++) {
        if (part.scale[r] == 1.0f)
            continue;
#pragma unroll
        for (int i = 0; i < P::T / 2; i++)
            total[r][i] *= part.scale[r];
    }
}

/* ---- the kernel ---- */

/* What a block does with tiles. */
struct Work {
    int32_t first, stride; /* tiles */
    int32_t of_pair;       /* the block's rank in its pair */
    bool split;            /* the cluster shares K, */
    Share share;           /* of which this is the block's */
};

template <class P> __device__ __forceinline__ Work find_work(const struct fmk_linear_kernel_args &args) {
    const uint32_t rank = cluster_rank(), size = cluster_size();
    const int32_t units = units_of_k(args);
    const bool split = P::PAIR == 1 && size > 1;
    Work work;
    work.first = blockIdx.x / size;
    work.stride = gridDim.x / size;
    work.of_pair = P::PAIR == 1 ? 0 : rank;
    work.split = split;
    work.share = split ? share_of(units, rank, size) : Share{0, units};
    return work;
}

/* Whether the warps beside those that fetch store a tile: not the block's last, after which the warpgroups,
 * which are more, have nothing else to do. */
template <class X, class P>
__device__ __forceinline__ bool hands_over(const struct fmk_linear_kernel_args &args, const Tile &tile,
                                           bool split, bool last) {
    return P::HANDS_OVER && !split && !last && is_packed<X>(args, args.part[tile.part]);
}

/* Fetches, or stores what is handed over. */
template <class X, class P>
__device__ __forceinline__ void fetch_all(const struct fmk_wgmma_args &args, const uint8_t *out,
                                          const Ring &ring) {
    const int32_t warp = threadIdx.x % FMK_WGMMA_FETCHING / 32, group = warp - STORING_WARPS;
    const Work work = find_work<P>(args.linear);
    /* Weights do not depend on the kernel before, but which tiles there are may. */
    if (warp != WEIGHTS_WARP || args.linear.m_dev)
        wait_for_dependency();
    const Walk walk = make_walk<P>(args);
    Stage stage = {0, 0};
    bool stored = false;
    for (int32_t number = work.first; number < walk.tiles; number += work.stride) {
        const Tile tile = find_tile<P>(args.linear, walk, number, work.of_pair);
        const bool last = number + work.stride >= walk.tiles;
        if (stored)
            arrive_named(BARRIER_STORED + group, WITH_STORING);
        stored = group >= 0 && hands_over<X, P>(args.linear, tile, work.split, last);
        if (stored) {
            barrier_named(BARRIER_HANDED + group, WITH_STORING);
            store_packed<P>(Target{args.linear, tile}, group, out + group * (P::OUT / P::WG), 0, P::T,
                            threadIdx.x % 32, 32);
        }
        if (warp == ACTS_WARP && threadIdx.x % 32 == 0)
            fetch_acts<P>(&args.in, tile, work.share, work.of_pair, ring, stage);
        else if (warp == WEIGHTS_WARP)
            fetch_weights<P>(args.linear, tile, work.share, ring, stage);
        if (work.split) { /* the ring is the tile's sums for a while */
            __syncwarp();
            cluster_arrive();
            cluster_wait();
            cluster_arrive();
            cluster_wait();
        }
    }
}

template <class X, class P, int STEPS>
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
        const Tile tile = find_tile<P>(linear, walk, number, work.of_pair);
        const Target target = {linear, tile};
        const bool last = number + work.stride >= walk.tiles;
        float total[P::R][P::T / 2];
        const Part<P::R> part = part_of<X, P::R>(args, tile.part);
        multiply_units<X, P, STEPS>(stages, part, work.share, ring, stage, total);
        restore_range<P>(part, total);
        if (work.split) {
            const Rank in = {cluster_rank(), cluster_size()};
            put_shared_tile<P>((float *)stages, total);
            __syncwarp();
            if constexpr (P::SENDS)
                send_shared_tile<P>(target, in, (const float *)stages, ring.base, parity);
            else
                read_shared_tile<P>(target, in, ring.base);
            parity ^= 1;
            fence_async_proxy(); /* copies will overwrite the sums */
            __syncwarp();
            cluster_arrive();
            cluster_wait();
            continue;
        }
        if (handed)
            barrier_named(BARRIER_STORED + group, WITH_STORING);
        handed = false;
        if (is_packed<X>(linear, linear.part[tile.part]))
            handed =
                finish_packed<X, P>(target, out, hands_over<X, P>(linear, tile, work.split, last), total);
        else
            finish_tile<P>(target, (float *)out, total);
    }
}

template <class X, int WG, int R, int T, int STEPS, int PAIR>
__device__ __forceinline__ void linear_wgmma(const struct fmk_wgmma_args &args) {
    using P = Plan<WG, R, T, PAIR>;
    static_assert(WG == 2, "registers are dealt out for two");
    uint8_t *stages = dynamic_shared();
    const uint32_t base = shared_address(stages);
    const Ring ring = {base, base + P::AT_FULL, base + P::AT_EMPTY};
    allow_dependents();
    if (threadIdx.x == 32)
        prefetch_map(&args.in);
    if (threadIdx.x == 0) {
        mbarrier_init(base + P::AT_SENT, 1);
        init_ring<P>(ring);
    }
    __syncthreads();
    if (PAIR > 1)
        cluster_sync();
    if (threadIdx.x >= 128 * WG) {
        give_registers<56>();
        fetch_all<X, P>(args, stages + P::AT_OUT, ring);
    } else {
        take_registers<224>();
        multiply_all<X, P, STEPS>(args, stages, ring);
    }
    if (PAIR > 1) {
        __syncwarp();
        cluster_arrive(); /* a block does not leave while the other may still copy to it */
        cluster_wait();
    }
}

#endif
