/* How tiles are dealt out where they would leave workers idle: a worker is a pair of blocks, and takes units
 * of K of one tile after the other, as many as every other worker. A tile that several workers have a part of
 * is finished by the one that has its end: the others, of lower numbers, put their sums into the workspace.
 *
 * A worker goes down its units from the highest: so it gives sums away before anything else, and asks for
 * others' last. Sums are added in the order of the workers' numbers, downwards: always the same. */
#ifndef FMK_KERNELS_WGMMA_DEAL_CUH
#define FMK_KERNELS_WGMMA_DEAL_CUH

#include "wgmma_tiles.cuh"

struct Deal {
    int32_t units, workers, worker; /* of K; pairs of blocks */
    int32_t whole, first_dealt;     /* the next tile that is not dealt; those from here on are */
    int64_t dealt;                  /* units in all, of which this worker still has begin .. end - 1 */
    int64_t begin, end;
};

/* Of one tile: units of K. */
struct Piece {
    int32_t tile;
    Share share;
};

/* The first of the dealt units that are a worker's. */
__device__ __forceinline__ int64_t first_unit_of(const Deal &deal, int32_t worker) {
    return deal.dealt * worker / deal.workers;
}

/* Tiles that all workers have as many of are not cut, but for a last turn: workers that have more than a
 * tile's worth do not wait for what they are given. */
__device__ __forceinline__ Deal make_deal(int32_t tiles, int32_t units, int32_t workers, int32_t worker,
                                          bool is_dealt) {
    Deal deal = {units, workers, worker, worker, is_dealt ? max(tiles / workers - 1, 0) * workers : tiles};
    deal.dealt = (int64_t)(tiles - deal.first_dealt) * units;
    deal.begin = first_unit_of(deal, worker);
    deal.end = first_unit_of(deal, worker + 1);
    return deal;
}

__device__ __forceinline__ bool next_piece(Deal &deal, Piece &piece) {
    if (deal.whole < deal.first_dealt) {
        piece = Piece{deal.whole, Share{0, deal.units}};
        deal.whole += deal.workers;
        return true;
    }
    if (deal.begin >= deal.end)
        return false;
    const int32_t tile = (int32_t)((deal.end - 1) / deal.units);
    const int64_t first = (int64_t)tile * deal.units, begin = max(deal.begin, first);
    piece = Piece{deal.first_dealt + tile, Share{(int32_t)(begin - first), (int32_t)(deal.end - first)}};
    deal.end = begin;
    return true;
}

/* Whether another worker finishes the tile. */
__device__ __forceinline__ bool is_given(const Deal &deal, const Piece &piece) {
    return piece.share.end < deal.units;
}

/* Where a block's sums lie in the workspace: a thread's own, four by four. A block gives away one tile at
 * most. */
struct Given {
    uint64_t *flag;
    float4 *sums;
};

template <class P>
__device__ __forceinline__ Given given_by(const struct fmk_wgmma_args &args, int32_t worker, uint32_t rank) {
    const int32_t block = 2 * worker + (int32_t)rank;
    return Given{(uint64_t *)args.room + block,
                 (float4 *)((char *)args.room + FMK_WIDE_FLAGS + (int64_t)block * FMK_WIDE_SUMS(P::T)) +
                     threadIdx.x};
}

template <class P> __device__ __forceinline__ void give(const Given &to, const float (&total)[1][P::T / 2]) {
#pragma unroll
    for (int i = 0; i < P::T / 8; i++)
        to.sums[P::THREADS * i] =
            make_float4(total[0][4 * i], total[0][4 * i + 1], total[0][4 * i + 2], total[0][4 * i + 3]);
}

template <class P> __device__ __forceinline__ void take(const Given &from, float (&total)[1][P::T / 2]) {
    constexpr int TOGETHER = 8; /* loads on their way */
#pragma unroll
    for (int first = 0; first < P::T / 8; first += TOGETHER) {
        float4 of[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER && first + i < P::T / 8; i++)
            of[i] = load_4_floats(from.sums + P::THREADS * (first + i));
#pragma unroll
        for (int i = 0; i < TOGETHER && first + i < P::T / 8; i++) {
            float *to = total[0] + 4 * (first + i);
            to[0] += of[i].x, to[1] += of[i].y, to[2] += of[i].z, to[3] += of[i].w;
        }
    }
}

#endif
