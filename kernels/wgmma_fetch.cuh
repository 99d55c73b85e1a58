/* The ring of the wgmma kernels: units of 128 k, fetched by one warpgroup and released by the others. */
#ifndef FMK_KERNELS_WGMMA_FETCH_CUH
#define FMK_KERNELS_WGMMA_FETCH_CUH

#include "wgmma_tiles.cuh"

enum { ACTS_WARP, WEIGHTS_WARP, STORING_WARPS /* from here on */, FETCHING_WARPS = FMK_WGMMA_FETCHING / 32 };

struct Ring {
    uint32_t base, full, empty; /* addresses: stages, barriers */
};

struct Stage {
    int32_t slot, parity;
};

template <class P> __device__ __forceinline__ void next_stage(Stage &stage) {
    if (++stage.slot == P::STAGES) {
        stage.slot = 0;
        stage.parity ^= 1;
    }
}

/* A stage is full when activations and weights have come, and empty when every multiplying thread has let go
 * of it. Each warp makes the barriers of some stages: one after the other they take a thousand clocks. */
template <class P> __device__ __forceinline__ void init_ring(const Ring &ring) {
    if (threadIdx.x % 32)
        return;
    for (int32_t stage = threadIdx.x / 32; stage < P::STAGES; stage += blockDim.x / 32) {
        mbarrier_init(ring.full + 8 * stage, 2);
        mbarrier_init(ring.empty + 8 * stage, 128 * P::WG);
    }
    fence_mbarrier_init();
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

/* One warp; a lane 64 rows. */
template <class P>
__device__ __forceinline__ void fetch_weights(const struct fmk_linear_kernel_args &args, const Tile &tile,
                                              const Share &share, const Ring &ring, Stage &stage) {
    const int lane = threadIdx.x % 32, group = lane / P::R, r = lane % P::R;
    const struct fmk_linear_part &part = args.part[args.glu ? r : tile.part];
    const int32_t bytes = unit_bytes(part);
    int32_t block = tile.row / FMK_T64_ROWS + (args.glu ? group : lane);
    block = min(block, (part.n - 1) / FMK_T64_ROWS); /* rows that are not there are not stored */
    const uint8_t *from = (const uint8_t *)part.data +
                          (uint64_t)(args.expert + tile.expert) * part.expert_stride +
                          (uint64_t)block * part.stride + (int64_t)share.begin * bytes;
    for (int32_t unit = share.begin; unit < share.end; unit++) {
        const uint32_t full = ring.full + 8 * stage.slot;
        mbarrier_wait(ring.empty + 8 * stage.slot, stage.parity ^ 1);
        if (lane == 0)
            mbarrier_arrive_expecting(full, P::PANELS * bytes);
        __syncwarp();
        if (lane < P::PANELS)
            copy_bulk(ring.base + P::AT_WEIGHTS + stage.slot * P::WEIGHTS + lane * FMK_WGMMA_UNIT, from,
                      bytes, full);
        from += bytes;
        next_stage<P>(stage);
    }
}

/* One thread. Past k, boxes are zeros. Those without a token are not fetched: each token has sums of its own,
 * and what is not there takes as long to be made zero as to be fetched. */
template <class P>
__device__ __forceinline__ void fetch_acts(const void *map, const Tile &tile, const Share &share,
                                           const Ring &ring, Stage &stage) {
    constexpr int TOKENS = P::T < FMK_WGMMA_BOX_TOKENS ? P::T : FMK_WGMMA_BOX_TOKENS;
    constexpr int BYTES = 2 * FMK_WGMMA_BOX * TOKENS;
    const int32_t boxes = (tile.count + TOKENS - 1) / TOKENS;
    for (int32_t unit = share.begin; unit < share.end; unit++) {
        const uint32_t at = ring.base + stage.slot * P::ACTS, full = ring.full + 8 * stage.slot;
        mbarrier_wait(ring.empty + 8 * stage.slot, stage.parity ^ 1);
        mbarrier_arrive_expecting(full, 2 * BYTES * boxes);
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int box = 0; box < P::T / TOKENS; box++)
                if (box < boxes)
                    copy_box(at + half * P::ACTS / 2 + BYTES * box, map,
                             FMK_WGMMA_K * unit + FMK_WGMMA_BOX * half, tile.token + TOKENS * box,
                             tile.expert, full);
        next_stage<P>(stage);
    }
}

#endif
