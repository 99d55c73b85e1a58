/* How tiles are dealt out where they would leave workers idle: a worker is a block, and takes units
 * of K of one tile after the other, as many as every other worker. A tile that several workers have a part of
 * is finished by the one that has its end: the others, of lower numbers, put their sums into the workspace.
 *
 * A worker goes down its units from the highest: so it gives sums away before anything else, and asks for
 * others' last. Sums are added in the order of the workers' numbers, downwards: always the same. */
#ifndef FMK_KERNELS_WGMMA_DEAL_CUH
#define FMK_KERNELS_WGMMA_DEAL_CUH

#include "wgmma_tiles.cuh"

struct Deal {
    int32_t units, workers, worker; /* of K; blocks */
    int32_t whole, first_dealt;     /* the next tile that is not dealt; those from here on are */
    int32_t dealt;                  /* units in all, of which this worker still has begin .. end - 1 */
    int32_t begin, end;
};

/* Of one tile: units of K. */
struct Piece {
    int32_t tile;
    Share share;
};

/* The first of the dealt units that are a worker's. The host deals where this fits 32 bits. */
__device__ __forceinline__ int32_t first_unit_of(const Deal &deal, int32_t worker) {
    return deal.dealt * worker / deal.workers;
}

/* Tiles that all workers have as many of are not cut, but for a last turn: workers that have more than a
 * tile's worth do not wait for what they are given. */
__device__ __forceinline__ Deal make_deal(int32_t tiles, int32_t units, int32_t workers, int32_t worker,
                                          bool is_dealt) {
    tiles = same_in_all_lanes(tiles);
    Deal deal = {units, workers, worker, worker,
                 is_dealt ? same_in_all_lanes(max(tiles / workers - 1, 0) * workers) : tiles};
    deal.dealt = (tiles - deal.first_dealt) * units;
    deal.begin = same_in_all_lanes(first_unit_of(deal, worker));
    deal.end = same_in_all_lanes(first_unit_of(deal, worker + 1));
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
    const int32_t tile = same_in_all_lanes((deal.end - 1) / deal.units);
    const int32_t first = tile * deal.units, begin = max(deal.begin, first);
    piece = Piece{deal.first_dealt + tile, Share{begin - first, deal.end - first}};
    deal.end = begin;
    return true;
}

/* Whether another worker finishes the tile. */
__device__ __forceinline__ bool is_given(const Deal &deal, const Piece &piece) {
    return piece.share.end < deal.units;
}

/* Who, below `worker`, has some of the tile that deal's worker has the end of; or -1. */
__device__ __forceinline__ int32_t next_giver(const Deal &deal, int32_t worker, const Piece &piece) {
    const int32_t first = (piece.tile - deal.first_dealt) * deal.units;
    while (piece.share.begin > 0 && first_unit_of(deal, worker) > first) {
        worker--;
        if (first_unit_of(deal, worker) < first_unit_of(deal, worker + 1))
            return worker;
    }
    return -1;
}

/* ---- the workspace: a worker gives away one tile at most ---- */

template <class P> __device__ __forceinline__ int32_t block_of(int32_t worker) {
    return P::BLOCKS == 2 ? 2 * worker + (int32_t)cluster_rank() : worker;
}

template <class P>
__device__ __forceinline__ uint64_t *flag_of(const struct fmk_wgmma_args &args, int32_t worker) {
    return (uint64_t *)args.room + block_of<P>(worker);
}

/* First four of all threads' sums, then the next four. */
template <class P>
__device__ __forceinline__ float4 *sums_of(const struct fmk_wgmma_args &args, int32_t worker) {
    return (float4 *)((char *)args.room + FMK_WIDE_FLAGS +
                      (int64_t)block_of<P>(worker) * (P::THREADS * P::T / 2 * 4));
}

template <class P> __device__ __forceinline__ void give(float4 *to, const float (&total)[1][P::T / 2]) {
#pragma unroll
    for (int i = 0; i < P::QUADS; i++)
        to[P::THREADS * i + threadIdx.x] =
            make_float4(total[0][4 * i], total[0][4 * i + 1], total[0][4 * i + 2], total[0][4 * i + 3]);
}

#endif
