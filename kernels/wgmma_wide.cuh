/* out = in . W^T on the tensor cores of compute capability 9.0, for more than 128 tokens: tiles of 128 weight
 * rows by T tokens.
 *
 * A block computes 64 rows of each of two warpgroups by all T tokens; codes are unpacked once for all of
 * them. Activations and weights have a ring each: 64 k of activations are as many bytes as 500 k of weights.
 * Otherwise this is wgmma.cuh, for groups of any size as `Scaled` does it. With an activation one warpgroup
 * has rows of gate, the other the same of up. */
#ifndef FMK_KERNELS_WGMMA_WIDE_CUH
#define FMK_KERNELS_WGMMA_WIDE_CUH

#include "ptx_wgmma.cuh"
#include "wgmma.cuh"
#include "wgmma_deal.cuh"

/* What lies where in shared memory: stages of 64 k of activations; units of 128 k of weights, 64 rows for
 * each warpgroup; outputs on their way; barriers. */
template <int WG_, int T_, int BLOCKS_> struct Wide {
    static constexpr int WG = WG_, R = 1, T = T_, BLOCKS = BLOCKS_, PANELS = WG, THREADS = 128 * WG;
    static constexpr bool DEEP = false;
    static constexpr int ROWS = 64 * WG * BLOCKS; /* of all the blocks that share activations */
    static constexpr int BOX = T / BLOCKS;        /* tokens that a block fetches, for all of them */
    static constexpr int ACTS = T * 2 * FMK_WGMMA_BOX, WEIGHTS = WG * FMK_WGMMA_UNIT;
    static constexpr int TOKENS = 32, PITCH = 144; /* of outputs on their way; bytes of a warpgroup's token */
    static constexpr int OUT = WG * TOKENS * PITCH;
    static constexpr int SUMS_TOKENS = 16,
                         SUMS_PITCH = 64 * WG + 4; /* floats, of sums that are to be finished */
    static constexpr int UNITS = 3, MOST_STAGES = 8;
    static constexpr int FIT = (FMK_WGMMA_SHARED - UNITS * (WEIGHTS + 16) - OUT - MOST_STAGES * 16) / ACTS;
    static constexpr int STAGES = FIT < MOST_STAGES ? FIT : MOST_STAGES;
    /* Sums of another block come through the stages of activations: so many times 16 bytes of each thread. */
    static constexpr int QUADS = T / 8, STAGE_QUADS = ACTS / 16 / THREADS;
    static constexpr int AT_WEIGHTS = STAGES * ACTS, AT_OUT = AT_WEIGHTS + UNITS * WEIGHTS,
                         AT_FULL = AT_OUT + OUT, AT_EMPTY = AT_FULL + 8 * STAGES,
                         AT_UNIT_FULL = AT_EMPTY + 8 * STAGES, AT_UNIT_EMPTY = AT_UNIT_FULL + 8 * UNITS;
    static_assert(AT_UNIT_EMPTY + 8 * UNITS <= FMK_WGMMA_SHARED, "no more than there is");
    static_assert(STAGES >= 3 && UNITS >= 2, "one is multiplied, one released, one fetched");
    static_assert(BOX * 128 % 1024 == 0, "boxes begin where swizzles do");
    static_assert(SUMS_TOKENS * SUMS_PITCH * 4 <= OUT && T % SUMS_TOKENS == 0, "sums lie over the outputs");
    static_assert(THREADS * T / 2 * 4 <= FMK_WIDE_SUMS, "sums that are given have room");
    static_assert(AT_OUT % 16 == 0 && AT_FULL % 8 == 0, "bulk copies and barriers are aligned");
};

/* Addresses of barriers, and of shared memory's beginning. */
struct WideRing {
    uint32_t base, full, empty, unit_full, unit_empty;
};

/* A slot of a ring of COUNT. */
template <int COUNT> struct Turn {
    int32_t slot, parity;
    __device__ __forceinline__ void next() {
        if (++slot == COUNT) {
            slot = 0;
            parity ^= 1;
        }
    }
};

/* A ring's barriers, which the warp makes that fetches: COUNT that say that a slot is full, then as many that
 * it is empty, when so many have let go of it. */
template <int COUNT> __device__ __forceinline__ void init_slots(uint32_t full, uint32_t releases) {
    if (elect_one()) {
#pragma unroll
        for (int32_t slot = 0; slot < COUNT; slot++) {
            mbarrier_init(full + 8 * slot, 1);
            mbarrier_init(full + 8 * (COUNT + slot), releases);
        }
        fence_mbarrier_init();
    }
    __syncwarp();
}

/* What the warp's products have read of a stage may be overwritten, in all blocks that it is fetched for. One
 * lane says so for all. */
template <class P> __device__ __forceinline__ void release_acts(const WideRing &ring, int32_t slot) {
    if (threadIdx.x % 32)
        return;
    mbarrier_arrive_for(ring.empty + 8 * slot, 32);
    if constexpr (P::BLOCKS == 2)
        mbarrier_arrive_at_for(cluster_rank() ^ 1, ring.empty + 8 * slot, 32);
}

/* What the thread has loaded from a stage may be overwritten: see release_stage. */
template <class P> __device__ __forceinline__ void release_given(const WideRing &ring, int32_t slot) {
    mbarrier_arrive(ring.empty + 8 * slot);
    if constexpr (P::BLOCKS == 2)
        mbarrier_arrive_at(cluster_rank() ^ 1, ring.empty + 8 * slot);
}

/* ---- fetching: one thread each ---- */

/* Past k, and past the last token, boxes are zeros. */
template <class P>
__device__ __forceinline__ void fetch_wide_acts(const void *map, const Tile &tile, const Share &share,
                                                const WideRing &ring, Turn<P::STAGES> &stage) {
    for (int32_t step = 2 * share.begin; step < 2 * share.end; step++) {
        const uint32_t full = ring.full + 8 * stage.slot;
        mbarrier_wait(ring.empty + 8 * stage.slot, stage.parity ^ 1);
        mbarrier_arrive_expecting(full, P::ACTS);
        const uint32_t to = ring.base + stage.slot * P::ACTS;
        if constexpr (P::BLOCKS == 2) {
            const uint32_t rank = cluster_rank();
            copy_box_to(3, to + rank * (P::ACTS / 2), map, FMK_WGMMA_BOX * step,
                        tile.token + (int32_t)rank * P::BOX, 0, tile.expert, full);
        } else {
            copy_box(to, map, FMK_WGMMA_BOX * step, tile.token, 0, tile.expert, full);
        }
        stage.next();
    }
}

/* What other blocks have given of a tile that this one has the end of. Flags are left as a later launch is to
 * find them. */
template <class P>
__device__ __forceinline__ void fetch_given(const struct fmk_wgmma_args &args, const Deal &deal,
                                            const Piece &piece, const WideRing &ring,
                                            Turn<P::STAGES> &stage) {
    for (int32_t worker = next_giver(deal, deal.worker, piece); worker >= 0;
         worker = next_giver(deal, worker, piece)) {
        uint64_t *flag = flag_of<P>(args, worker);
        wait_for_flag(flag, args.nonce);
        *flag = 0;
        fence_async_proxy_everywhere();
        for (int32_t quad = 0; quad < P::QUADS; quad += P::STAGE_QUADS) {
            const uint32_t full = ring.full + 8 * stage.slot;
            const uint32_t bytes = 16 * P::THREADS * min(P::STAGE_QUADS, P::QUADS - quad);
            mbarrier_wait(ring.empty + 8 * stage.slot, stage.parity ^ 1);
            mbarrier_arrive_expecting(full, bytes);
            copy_bulk(ring.base + stage.slot * P::ACTS, sums_of<P>(args, worker) + P::THREADS * quad, bytes,
                      full);
            stage.next();
        }
    }
}

template <class P>
__device__ __forceinline__ void fetch_wide_weights(const struct fmk_linear_kernel_args &args,
                                                   const Tile &tile, const Share &share, const WideRing &ring,
                                                   Turn<P::UNITS> &unit) {
    const uint8_t *from[P::PANELS];
    int32_t bytes = 0; /* gate and up have as many */
#pragma unroll
    for (int panel = 0; panel < P::PANELS; panel++) {
        const struct fmk_linear_part &part = args.part[args.glu ? panel : tile.part];
        const int32_t block = tile.row / FMK_T64_ROWS + (args.glu ? 0 : panel);
        bytes = unit_bytes(part);
        from[panel] =
            (const uint8_t *)part.data + (uint64_t)(args.expert + tile.expert) * part.expert_stride +
            (uint64_t)min(block, (part.n - 1) / FMK_T64_ROWS) * part.stride + (int64_t)share.begin * bytes;
    }
    for (int32_t i = share.begin; i < share.end; i++) {
        const uint32_t full = ring.unit_full + 8 * unit.slot;
        mbarrier_wait(ring.unit_empty + 8 * unit.slot, unit.parity ^ 1);
        mbarrier_arrive_expecting(full, P::PANELS * bytes);
#pragma unroll
        for (int panel = 0; panel < P::PANELS; panel++) {
            copy_bulk(ring.base + P::AT_WEIGHTS + unit.slot * P::WEIGHTS + panel * FMK_WGMMA_UNIT,
                      from[panel], bytes, full);
            from[panel] += bytes;
        }
        unit.next();
    }
}

/* ---- multiplying ---- */

template <class X, int T>
__device__ __forceinline__ void multiply_columns(float *d, const uint32_t a[4], uint64_t b) {
    constexpr bool HALF = X::TYPE == NUMBER_F16;
    if constexpr (T == 64)
        X::multiply_64(d, a, b, true);
    else if constexpr (T == 128)
        X::multiply_128(d, a, b, true);
    else if constexpr (T == 144)
        HALF ? wgmma_n144_f16(d, a, b, true) : wgmma_n144_bf16(d, a, b, true);
    else if constexpr (T == 160)
        HALF ? wgmma_n160_f16(d, a, b, true) : wgmma_n160_bf16(d, a, b, true);
    else if constexpr (T == 192)
        HALF ? wgmma_n192_f16(d, a, b, true) : wgmma_n192_bf16(d, a, b, true);
    else if constexpr (T == 224)
        HALF ? wgmma_n224_f16(d, a, b, true) : wgmma_n224_bf16(d, a, b, true);
    else
        HALF ? wgmma_n256_f16(d, a, b, true) : wgmma_n256_bf16(d, a, b, true);
}

/* Adds a piece of K to `total`. A unit is two batches of 64 k, in two sets of fragments: while the tensor
 * cores work on one, the other is unpacked. FINE: groups are of 32 or 64 k. */
template <class X, class P, bool FINE>
__device__ __forceinline__ void multiply_wide(const uint8_t *stages, const Part<1> &part, const Share &share,
                                              const WideRing &ring, Turn<P::STAGES> &stage,
                                              Turn<P::UNITS> &unit, float (&total)[1][P::T / 2]) {
    constexpr int STEPS = 4;
    const Place place = place_of<P>(part.at_zeros);
    const int shift = part.chunks == 2; /* from chunks of 32 k to groups */
    uint32_t fragment[2][STEPS][1][4];
    int32_t before = -1; /* the stage that may still be read */
    mbarrier_wait(ring.unit_full + 8 * unit.slot, unit.parity);
    uint4 codes = load_codes(stages, place, unit.slot * P::WEIGHTS);
    Group group = load_group(stages, place, unit.slot * P::WEIGHTS, 0);
    for (int32_t i = share.begin; i < share.end; i++) {
        const uint32_t at = unit.slot * P::WEIGHTS;
        typename X::Scales scales = X::scales(group, part.dtype, part.inverse[0]);
#pragma unroll
        for (int batch = 0; batch < 2; batch++) {
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                if (FINE && (batch || step) && step % 2 == 0)
                    scales = X::scales(load_group(stages, place, at, (2 * batch + step / 2) >> shift),
                                       part.dtype, part.inverse[0]);
                X::unpack(not_before_here(word_of(codes, step)), scales, fragment[batch][step][0]);
            }
            make_here(fragment[batch]);
            mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
            const uint64_t acts =
                wgmma_descriptor((uint32_t)same_in_all_lanes((int32_t)(ring.base + stage.slot * P::ACTS)));
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < STEPS; step++)
                multiply_columns<X, P::T>(total[0], fragment[batch][step][0], acts + 2 * step);
            wgmma_end_group();
            /* What comes next is loaded while the tensor cores work. */
            if (batch == 0) {
                codes = load_codes(stages, place, at + FMK_T16_TILE);
            } else {
                mbarrier_arrive(ring.unit_empty + 8 * unit.slot);
                unit.next();
                if (i + 1 < share.end) {
                    mbarrier_wait(ring.unit_full + 8 * unit.slot, unit.parity);
                    codes = load_codes(stages, place, unit.slot * P::WEIGHTS);
                    group = load_group(stages, place, unit.slot * P::WEIGHTS, 0);
                }
            }
            wgmma_wait<1>();
            if (batch || before >= 0)
                release_acts<P>(ring, before);
            before = stage.slot;
            stage.next();
        }
    }
    wgmma_wait<0>();
    settle<P::T / 2>(total[0]);
    release_acts<P>(ring, before);
}

/* ---- storing ---- */

/* Loops over a tile's tokens are loops: sums are in registers, whose numbers must be known, but one copy of
 * the code around them is soon in the instruction cache. */

/* Where is_packed: a warpgroup's rows, some tokens at a time. */
template <class X, class P>
__device__ __forceinline__ void store_wide_packed(const Target &target, uint8_t *out,
                                                  float (&total)[1][P::T / 2]) {
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    const struct fmk_linear_part &part = target.args.part[target.tile.part];
    const int32_t row = target.tile.row + 64 * group + thread % 8 * 8;
    uint16_t *column = (uint16_t *)target.out() + part.column + row;
    out += group * (P::OUT / P::WG);
    add_bias<P>(target, total);
#pragma unroll 1
    for (int first = 0; first < target.tile.count; first += P::TOKENS) {
        barrier_named(BARRIER_GROUP + group, 128); /* what was there is stored */
#pragma unroll
        for (int token = 0; token < P::T; token += 16)
            if (token / P::TOKENS == first / P::TOKENS)
                put_packed<X, P>(shared_address(out) + token % P::TOKENS * P::PITCH, token, total);
        barrier_named(BARRIER_GROUP + group, 128);
#pragma unroll
        for (int token = thread / 8; token < P::TOKENS; token += 16)
            if (first + token < target.tile.count && row < part.n)
                *(uint4 *)(column + target.row_of(first + token) * target.args.epilogue.out_stride) =
                    *(const uint4 *)(out + token * P::PITCH + thread % 8 * 16);
    }
}

/* Any other: sums of all warpgroups, some tokens at a time. */
template <class P>
__device__ __forceinline__ void store_wide(const Target &target, float *sums,
                                           const float (&total)[1][P::T / 2]) {
    const bool glu = target.args.glu;
    const int32_t quads = glu ? 16 : 16 * P::WG, n = target.args.part[target.tile.part].n;
#pragma unroll 1
    for (int first = 0; first < target.tile.count; first += P::SUMS_TOKENS) {
        barrier_named(BARRIER_MULTIPLY, P::THREADS); /* what was there is stored */
#pragma unroll
        for (int token = 0; token < P::T; token += 8)
            if (token / P::SUMS_TOKENS == first / P::SUMS_TOKENS)
                put_sums<1, P::T>(sums + token % P::SUMS_TOKENS * P::SUMS_PITCH + threadIdx.x / 128 * 64,
                                  P::SUMS_PITCH, total, token / 8);
        barrier_named(BARRIER_MULTIPLY, P::THREADS);
#pragma unroll 1
        for (int i = threadIdx.x; i < P::SUMS_TOKENS * quads; i += P::THREADS) {
            const int token = i / quads, row = i % quads * 4;
            const float *of = sums + token * P::SUMS_PITCH + row;
            if (first + token >= target.tile.count || target.tile.row + row >= n)
                continue;
            if (glu)
                finish_quad_glu(target, first + token, target.tile.row + row, load_4_floats(of),
                                load_4_floats(of + 64));
            else
                finish_quad(target, first + token, target.tile.row + row, load_4_floats(of));
        }
    }
}

/* ---- the kernel ---- */

enum { BARRIER_READY = BARRIER_HANDED, BARRIER_GIVEN };

/* A worker is as many blocks as share activations, or one; of its tile, a block has these rows. */
template <class P>
__device__ __forceinline__ Deal find_deal(const struct fmk_wgmma_args &args,
                                          const struct fmk_wgmma_walk &walk) {
    return make_deal(walk.tiles, args.start.units, gridDim.x / P::BLOCKS, blockIdx.x / P::BLOCKS,
                     args.room != NULL);
}

template <class P>
__device__ __forceinline__ Tile find_wide_tile(const struct fmk_wgmma_args &args,
                                               const struct fmk_wgmma_walk &walk, int32_t number) {
    Tile tile = find_tile<P>(args, walk, number);
    if (P::BLOCKS == 2)
        tile.row += (int32_t)cluster_rank() * P::ROWS / (args.linear.glu ? 4 : 2);
    tile.part = same_in_all_lanes(tile.part);
    return tile;
}

/* Warps that do one thing each, for all pieces: fetch activations, fetch weights, tell that sums are given.
 */
template <class P>
__device__ __forceinline__ void serve_wide(const struct fmk_wgmma_args &args, const WideRing &ring) {
    const int32_t warp = threadIdx.x % FMK_WGMMA_FETCHING / 32, lane = threadIdx.x % 32;
    if (warp > STORING_WARPS)
        return;
    /* Weights do not depend on the kernel before, but which tiles there are may. */
    if (warp != WEIGHTS_WARP || args.linear.m_dev)
        wait_for_dependency();
    const struct fmk_wgmma_walk walk = find_walk<P>(args);
    Deal deal = find_deal<P>(args, walk);
    Turn<P::STAGES> stage = {0, 0};
    Turn<P::UNITS> unit = {0, 0};
    Piece piece;
    while (next_piece(deal, piece)) {
        if (warp == STORING_WARPS) {
            if (!is_given(deal, piece))
                continue;
            barrier_named(BARRIER_GIVEN, P::THREADS + 32);
            if (lane == 0)
                publish(flag_of<P>(args, deal.worker), args.nonce);
            continue;
        }
        const Tile tile = find_wide_tile<P>(args, walk, piece.tile);
        if (lane == 0 && warp == ACTS_WARP) {
            fetch_wide_acts<P>(&args.in, tile, piece.share, ring, stage);
            if (!is_given(deal, piece))
                fetch_given<P>(args, deal, piece, ring, stage);
        } else if (lane == 0) {
            fetch_wide_weights<P>(args.linear, tile, piece.share, ring, unit);
        }
    }
}

/* Adds what fetch_given fetches. */
template <class P>
__device__ __forceinline__ void take_given(const uint8_t *stages, const Deal &deal, const Piece &piece,
                                           const WideRing &ring, Turn<P::STAGES> &stage,
                                           float (&total)[1][P::T / 2]) {
    for (int32_t worker = next_giver(deal, deal.worker, piece); worker >= 0;
         worker = next_giver(deal, worker, piece)) {
#pragma unroll
        for (int32_t quad = 0; quad < P::QUADS; quad += P::STAGE_QUADS) {
            const float *from = (const float *)(stages + stage.slot * P::ACTS) + 4 * threadIdx.x;
            mbarrier_wait(ring.full + 8 * stage.slot, stage.parity);
#pragma unroll
            for (int32_t i = 0; i < P::STAGE_QUADS && quad + i < P::QUADS; i++) {
                const float4 of = load_4_floats(from + 4 * P::THREADS * i);
                float *to = total[0] + 4 * (quad + i);
                to[0] += of.x, to[1] += of.y, to[2] += of.z, to[3] += of.w;
            }
            release_given<P>(ring, stage.slot);
            stage.next();
        }
    }
}

template <class X, class P>
__device__ __forceinline__ void multiply_wide_tiles(const struct fmk_wgmma_args &args, uint8_t *stages,
                                                    const WideRing &ring) {
    const struct fmk_linear_kernel_args &linear = args.linear;
    const int32_t group = same_in_all_lanes((int32_t)threadIdx.x / 128);
    wait_for_dependency();
    const struct fmk_wgmma_walk walk = find_walk<P>(args);
    Deal deal = find_deal<P>(args, walk);
    Turn<P::STAGES> stage = {0, 0};
    Turn<P::UNITS> unit = {0, 0};
    Piece piece;
    while (next_piece(deal, piece)) {
        const Tile tile = find_wide_tile<P>(args, walk, piece.tile);
        const Target target = {linear, tile};
        const Part<1> part = part_of<X, 1>(args, linear.glu ? group : tile.part);
        float total[1][P::T / 2];
        clear<P>(total);
        if (part.chunks == 4)
            multiply_wide<X, P, false>(stages, part, piece.share, ring, stage, unit, total);
        else
            multiply_wide<X, P, true>(stages, part, piece.share, ring, stage, unit, total);
        Scaled<X, P, true>::restore_range(part, total);
        if (is_given(deal, piece)) {
            give<P>(sums_of<P>(args, deal.worker), total);
            arrive_named(BARRIER_GIVEN, P::THREADS + 32);
            continue;
        }
        take_given<P>(stages, deal, piece, ring, stage, total);
        if (is_packed<X>(linear, linear.part[tile.part]))
            store_wide_packed<X, P>(target, stages + P::AT_OUT, total);
        else
            store_wide<P>(target, (float *)(stages + P::AT_OUT), total);
    }
}

/* A line of the arguments each: of all warps at once, what they wait for they do not wait for later, one line
 * after the other. */
__device__ __forceinline__ void prefetch_arguments(const struct fmk_wgmma_args &args) {
    enum { LINE = 64 };
    for (uint32_t at = LINE * (threadIdx.x / 32); at < sizeof args; at += LINE * (blockDim.x / 32))
        not_before_here(*(const uint32_t *)((const char *)&args + at));
}

template <class X, class P> __device__ __forceinline__ void linear_wide(const struct fmk_wgmma_args &args) {
    uint8_t *stages = dynamic_shared();
    const uint32_t base = shared_address(stages);
    const WideRing ring = {base, base + P::AT_FULL, base + P::AT_EMPTY, base + P::AT_UNIT_FULL,
                           base + P::AT_UNIT_EMPTY};
    const int32_t warp = same_in_all_lanes((int32_t)threadIdx.x / 32), serving = warp - 4 * P::WG;
    allow_dependents();
    if (serving == ACTS_WARP) {
        if (elect_one())
            prefetch_map(&args.in);
        init_slots<P::STAGES>(ring.full, P::THREADS * P::BLOCKS);
    } else if (serving == WEIGHTS_WARP) {
        init_slots<P::UNITS>(ring.unit_full, P::THREADS);
    } else {
        prefetch_arguments(args);
    }
    if constexpr (P::BLOCKS == 2) { /* both blocks' barriers are there */
        __syncthreads();
        cluster_arrive();
        cluster_wait();
    } else if (serving == ACTS_WARP || serving == WEIGHTS_WARP) {
        arrive_named(BARRIER_READY, P::THREADS + 64);
    } else if (serving < 0) {
        barrier_named(BARRIER_READY, P::THREADS + 64);
    }
    if (serving >= 0) {
        give_registers<P::WG == 2 ? 40 : 32>();
        serve_wide<P>(args, ring);
    } else {
        take_registers<P::WG == 2 ? 232 : 160>();
        multiply_wide_tiles<X, P>(args, stages, ring);
    }
    if constexpr (P::BLOCKS == 2) { /* nobody tells this block's barriers anything any more */
        __syncwarp();
        cluster_arrive();
        cluster_wait();
    }
}

#endif
