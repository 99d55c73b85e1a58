/* The ring of the wgmma kernels: units of 128 k, fetched by one warpgroup and released by the others. */
#ifndef FMK_KERNELS_WGMMA_FETCH_CUH
#define FMK_KERNELS_WGMMA_FETCH_CUH

#include "wgmma_tiles.cuh"

enum { ACTS_WARP, WEIGHTS_WARP, STORING_WARPS /* from here on */, FETCHING_WARPS = FMK_WGMMA_FETCHING / 32 };
enum { MOST_STORING = FETCHING_WARPS - STORING_WARPS };

struct Ring {
    uint32_t base, full, empty; /* addresses: stages, barriers */
};

/* Where a unit lies: activations and weights, and in which turn of the ring. */
struct Stage {
    int32_t acts, slot, parity;
};

template <class P> __device__ __forceinline__ void advance(Stage &stage, int32_t stages) {
    stage.slot += stages;
    while (stage.slot >= P::STAGES) {
        stage.slot -= P::STAGES;
        stage.parity ^= 1;
    }
    stage.acts += stages;
    while (stage.acts >= P::ACT_STAGES)
        stage.acts -= P::ACT_STAGES;
}

/* The same, of few. */
template <class P, int STRIDE = 1> __device__ __forceinline__ void next_stage(Stage &stage) {
    stage.slot += STRIDE;
    if (stage.slot >= P::STAGES) {
        stage.slot -= P::STAGES;
        stage.parity ^= 1;
    }
    stage.acts += STRIDE;
    if (stage.acts >= P::ACT_STAGES)
        stage.acts -= P::ACT_STAGES;
}

template <class P> __device__ __forceinline__ uint32_t acts_at(const Ring &ring, const Stage &stage) {
    return ring.base + (uint32_t)(P::DEEP ? stage.acts : stage.slot) * P::ACTS;
}

/* Whether a block's activations are the same for all its tiles, and stay in shared memory. */
template <class P>
__device__ __forceinline__ bool keeps_acts(const struct fmk_wgmma_walk &walk, int32_t units) {
    return P::DEEP && walk.tiles == walk.row_tiles && units <= P::ACT_STAGES;
}

/* A stage is full when activations and weights have come, and empty when every thread that multiplies it has
 * let go of it. Warp `warp` of `warps` makes the barriers of some stages, for one after the other they take a
 * thousand clocks; but those of the first EARLY stages that say that they are full are made by the warp that
 * fetches weights, which then need not wait for anybody. */
template <class P> __device__ __forceinline__ void init_ring(const Ring &ring, int32_t warp, int32_t warps) {
    if (elect_one()) {
#pragma unroll 1
        for (int32_t stage = warp; stage < P::STAGES; stage += warps) {
            if (stage >= P::EARLY)
                mbarrier_init(ring.full + 8 * stage, 2);
            mbarrier_init(ring.empty + 8 * stage, P::RELEASES);
        }
        fence_mbarrier_init();
    }
    __syncwarp();
}

template <class P> __device__ __forceinline__ void init_early(const Ring &ring) {
    if (elect_one()) {
#pragma unroll
        for (int32_t stage = 0; stage < P::EARLY; stage++)
            mbarrier_init(ring.full + 8 * stage, 2);
        fence_mbarrier_init();
    }
    __syncwarp();
}

/* Copies may fetch into the stage again, as far as this thread is concerned. One arrival for a warp is no
 * faster, and compute-sanitizer's racecheck would not see that it comes after what other lanes have read. */
__device__ __forceinline__ void release_stage(const Ring &ring, int32_t slot) {
    mbarrier_arrive(ring.empty + 8 * slot);
}

__device__ __forceinline__ int32_t unit_bytes(const struct fmk_linear_part &part) {
    const int32_t groups = 4 >> (part.chunks >> 1); /* 4 / chunks: 1, 2 or 4 */
    return FMK_T64_CODES + groups * FMK_T64_ROWS * (part.has_zeros ? 3 : 2);
}

/* What one warp fetches, and from where: one of its threads does. `find` begins with a unit of a tile; FRESH:
 * no stage has been fetched into yet. */

/* Whether a block has this first tile for certain, and it is simple to tell which it is. */
__device__ __forceinline__ bool is_early(const struct fmk_wgmma_start &start, int32_t number) {
    return start.flags & FMK_WGMMA_EARLY && number < start.walk.tiles;
}

template <class P> struct WeightsFeed {
    const uint8_t *from;
    uint64_t next[2]; /* bytes to the next 64 rows of a warpgroup, and from one's first to the next's */
    int32_t bytes;    /* of a unit */
    int32_t panels;   /* of 64 rows, that are there: what is not is not stored either */

    __device__ __forceinline__ void find_next(const struct fmk_wgmma_args &args, bool glu, uint64_t stride,
                                              int32_t left) {
        const struct fmk_linear_part *part = args.linear.part;
        next[0] = glu ? (const uint8_t *)part[1].data - (const uint8_t *)part[0].data : stride;
        next[1] = glu ? stride : stride * P::R;
        panels = min(glu ? left * P::R : left, (int32_t)P::PANELS);
    }

    /* Of a block's first tile, in few instructions; false where it takes more. */
    __device__ __forceinline__ bool find_first(const struct fmk_wgmma_args &args, int32_t number,
                                               int32_t unit) {
        const struct fmk_wgmma_start &start = args.start;
        const bool glu = P::R == 2 && start.flags & FMK_WGMMA_GLU;
        const int32_t row_tile = (int32_t)(((float)number + 0.5f) * start.walk.per_row);
        const int32_t block = row_tile * (glu ? P::PANELS / P::R : P::PANELS);
        bytes = start.bytes;
        from = start.data + (uint64_t)block * start.stride + (int64_t)unit * bytes;
        find_next(args, glu, start.stride, start.last + 1 - block);
        return is_early(start, number) && row_tile < start.row_tiles;
    }

    __device__ __forceinline__ void find(const struct fmk_wgmma_args &args, const Tile &tile, int32_t unit,
                                         bool) {
        const struct fmk_linear_kernel_args &a = args.linear;
        const struct fmk_linear_part &part = a.part[tile.part];
        const int32_t block = tile.row / FMK_T64_ROWS,
                      left = (part.n + FMK_T64_ROWS - 1) / FMK_T64_ROWS - block;
        bytes = unit_bytes(part);
        from = (const uint8_t *)part.data + (uint64_t)(a.expert + tile.expert) * part.expert_stride +
               (uint64_t)block * part.stride + (int64_t)unit * bytes;
        find_next(args, a.glu, part.stride, left);
    }

    template <bool FRESH>
    __device__ __forceinline__ void fetch(int32_t units, const Ring &ring, Stage &stage) {
        if (elect_one())
            for (int32_t i = 0; i < units; i++) {
                const uint32_t full = ring.full + 8 * stage.slot,
                               at = ring.base + P::AT_WEIGHTS + stage.slot * P::WEIGHTS;
                if (!FRESH)
                    mbarrier_wait(ring.empty + 8 * stage.slot, stage.parity ^ 1);
                mbarrier_arrive_expecting(full, panels * bytes);
#pragma unroll
                for (int panel = 0; panel < P::PANELS; panel++)
                    if (panel < panels)
                        copy_bulk(at + panel * FMK_WGMMA_UNIT,
                                  from + panel / P::R * next[1] + panel % P::R * next[0], bytes, full);
                from += bytes;
                next_stage<P>(stage);
            }
        __syncwarp();
    }
};

/* Past k, boxes are zeros. Those without a token are not fetched: each token has sums of its own, and what is
 * not there takes as long to be made zero as to be fetched. */
template <class P> struct ActsFeed {
    static constexpr int TOKENS = P::T < FMK_WGMMA_BOX_TOKENS ? P::T : FMK_WGMMA_BOX_TOKENS;
    static constexpr int BYTES = 2 * FMK_WGMMA_BOX * TOKENS;

    const void *map;
    int32_t token, expert, boxes, k;
    bool kept, here; /* they are the same for all tiles; they have been fetched for the tile before */
    bool pairs;      /* a box is a stage's */

    __device__ __forceinline__ bool find_first(const struct fmk_wgmma_args &args, int32_t number,
                                               const Share &share) {
        const struct fmk_wgmma_start &start = args.start;
        const int32_t row_tile = (int32_t)(((float)number + 0.5f) * start.walk.per_row);
        kept = keeps_acts<P>(start.walk, share.end - share.begin);
        here = false;
        pairs = start.flags & FMK_WGMMA_PAIRS;
        map = &args.in;
        token = P::T * (number - row_tile * start.walk.token_tiles);
        expert = 0;
        boxes = (min((int32_t)P::T, start.walk.tokens - token) + TOKENS - 1) / TOKENS;
        k = FMK_WGMMA_K * share.begin;
        return is_early(start, number);
    }

    __device__ __forceinline__ void find(const struct fmk_wgmma_args &args, const Tile &tile, int32_t unit,
                                         bool first) {
        here = kept && !first;
        pairs = args.start.flags & FMK_WGMMA_PAIRS;
        map = &args.in;
        token = tile.token;
        expert = tile.expert;
        boxes = (tile.count + TOKENS - 1) / TOKENS;
        k = FMK_WGMMA_K * unit;
    }

    __device__ __forceinline__ void copy(uint32_t at, uint32_t full) const {
        if (P::T == TOKENS && pairs) {
            copy_box(at, map, 0, token, k / FMK_WGMMA_BOX, expert, full);
            return;
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int box = 0; box < P::T / TOKENS; box++)
                if (box < boxes)
                    copy_box(at + half * P::ACTS / 2 + BYTES * box, map, k + FMK_WGMMA_BOX * half,
                             token + TOKENS * box, 0, expert, full);
    }

    template <bool FRESH>
    __device__ __forceinline__ void fetch(int32_t units, const Ring &ring, Stage &stage) {
        if (elect_one())
#pragma unroll 1
            for (int32_t i = 0; i < units; i++) {
                const uint32_t full = ring.full + 8 * stage.slot;
                if (!FRESH)
                    mbarrier_wait(ring.empty + 8 * stage.slot, stage.parity ^ 1);
                if (here) {
                    mbarrier_arrive(full);
                } else {
                    mbarrier_arrive_expecting(full, 2 * BYTES * boxes);
                    copy(acts_at<P>(ring, stage), full);
                }
                k += FMK_WGMMA_K;
                next_stage<P>(stage);
            }
        __syncwarp();
    }
};

#endif
