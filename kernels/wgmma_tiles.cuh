/* Which tiles a block of the wgmma kernels computes, and which units of K of each. */
#ifndef FMK_KERNELS_WGMMA_TILES_CUH
#define FMK_KERNELS_WGMMA_TILES_CUH

#include "ptx_sm90.cuh"
#include "wgmma.h"

/* A block's warpgroups, WG of them, compute 64 R rows of weights each by T tokens; or, DEEP, the same 64 R
 * rows, of which each takes every WG-th unit of K. Of how many steps of 16 k codes are unpacked at a time:
 * see Summed (0: there is no room for it) and Scaled in wgmma.cuh.
 *
 * What lies where in shared memory: the ring's activations, and weights; outputs on their way, or the sums
 * that meet in the block where some are shared, which over the ring where tiles are large; barriers. Where
 * warpgroups share K, activations have more room than the ring's stages want, so that they may stay there
 * from tile to tile. */
template <int WG_, int R_, int T_, int SUMMED_STEPS_, int SCALED_STEPS_, bool DEEP_ = false> struct Plan {
    static constexpr int WG = WG_, R = R_, T = T_;
    static constexpr int SUMMED_STEPS = SUMMED_STEPS_, SCALED_STEPS = SCALED_STEPS_;
    static constexpr bool DEEP = DEEP_;
    static constexpr int PANELS = DEEP ? R : WG * R, ROWS = 64 * PANELS;
    static constexpr int STRIDE = DEEP ? WG : 1; /* stages from one of a warpgroup's to its next */
    static constexpr int RELEASES = DEEP ? 128 : 128 * WG;
    /* Of a thread: a block begins with 168 or 96, and what some take others have given. */
    static constexpr int LEFT_REGISTERS = WG == 4 ? 64 : R * T < 128 ? 88 : 56;
    static constexpr int TAKEN_REGISTERS = WG == 4 ? 104 : R * T < 128 ? 208 : 224;
    static_assert(WG * (TAKEN_REGISTERS - (WG == 4 ? 96 : 168)) == (WG == 4 ? 96 : 168) - LEFT_REGISTERS,
                  "nobody waits for registers that do not come");
    static constexpr int PITCH = 128 * R + 16; /* bytes, of a token's outputs on their way */
    static constexpr int OUT = WG * T * PITCH;
    static constexpr int SUMS_PITCH = 64 * R + 4; /* floats, of sums that are to be finished */
    static constexpr int SUMS_TOKENS = T * PITCH / (4 * SUMS_PITCH) / 8 * 8;
    /* Sums that are shared, in pieces of 16 R rows by 8 tokens: of so many warps side by side, from so many
     * warps of each block. */
    static constexpr int WARPS = DEEP ? 4 : 4 * WG, SOURCES = DEEP ? WG : 1, PIECE = R * 512;
    static constexpr int SUMS = (WARPS * T / 8 + FMK_WGMMA_MOST_CLUSTER - 1) * SOURCES * PIECE;
    static constexpr bool OVER_RING = !DEEP && T >= 128;
    static constexpr int BARRIERS = 16 * FMK_WGMMA_MOST_STAGES + 16;
    static constexpr int LEAVING = DEEP ? SUMS : OVER_RING || OUT > SUMS ? OUT : SUMS;
    static constexpr int ROOM = FMK_WGMMA_SHARED - BARRIERS - LEAVING;
    static constexpr int ACTS = T * 2 * FMK_WGMMA_K, WEIGHTS = PANELS * FMK_WGMMA_UNIT;
    static constexpr int KEPT = DEEP ? (128 << 10) / ACTS : 0; /* units of activations */
    static constexpr int FIT = DEEP ? (ROOM - KEPT * ACTS) / WEIGHTS : ROOM / (ACTS + WEIGHTS);
    static constexpr int STAGES = FIT < FMK_WGMMA_MOST_STAGES ? FIT : FMK_WGMMA_MOST_STAGES;
    static constexpr int EARLY = STAGES < 4 ? 2 : 4; /* stages whose weights wait for nobody */
    static constexpr int ACT_STAGES = DEEP ? KEPT : STAGES;
    static constexpr int AT_WEIGHTS = ACT_STAGES * ACTS, AT_OUT = AT_WEIGHTS + STAGES * WEIGHTS,
                         AT_SUMS = OVER_RING ? 0 : AT_OUT, AT_FULL = AT_OUT + LEAVING,
                         AT_EMPTY = AT_FULL + 8 * STAGES, AT_SENT = AT_EMPTY + 8 * STAGES,
                         AT_TAKEN = AT_SENT + 8;
    static_assert(AT_TAKEN + 8 <= FMK_WGMMA_SHARED, "no more than there is");
    static_assert(SUMS_TOKENS >= 8 && T % SUMS_TOKENS == 0, "sums are put down eight tokens at a time");
    static_assert(STAGES >= 3 && STAGES >= STRIDE, "one is multiplied, one released, one fetched");
    static_assert(ACT_STAGES >= STAGES, "activations are there as long as weights");
    static_assert(!OVER_RING || SUMS <= AT_OUT, "sums do not touch barriers");
    static_assert(ACTS / 2 % 1024 == 0, "boxes begin where swizzles do");
    static_assert(WEIGHTS % 16 == 0 && AT_OUT % 16 == 0 && AT_FULL % 8 == 0, "all is aligned");
};

/* ---- tiles ---- */

/* glu: the rows are those of gate, and of up. */
struct Tile {
    int32_t part, expert, row, token, count; /* first row in the part, first token in the slab, tokens */
};

__device__ __forceinline__ int32_t tiles_of(const struct fmk_linear_part &part, int32_t rows) {
    return (part.n + rows - 1) / rows;
}

template <class P>
__device__ __forceinline__ struct fmk_wgmma_walk find_walk(const struct fmk_wgmma_args &args) {
    const struct fmk_linear_kernel_args &a = args.linear;
    struct fmk_wgmma_walk walk = args.start.walk;
    if (a.m_dev) {
        walk.tokens = max(min(a.m, *a.m_dev) - a.first_row, 0);
        walk.token_tiles = (walk.tokens + P::T - 1) / P::T;
        walk.tiles = walk.row_tiles * walk.token_tiles * args.experts;
        walk.per_row = 0.0f;
    }
    return walk;
}

/* A tile, and whether its weights are those of args.start. */
template <class P>
__device__ __forceinline__ Tile find_tile(const struct fmk_wgmma_args &args,
                                          const struct fmk_wgmma_walk &walk, int32_t number) {
    const struct fmk_linear_kernel_args &a = args.linear;
    int32_t expert = 0, token_tile, row_tile, part = 0;
    if (walk.per_row != 0.0f) { /* no divisions */
        row_tile = (int32_t)(((float)number + 0.5f) * walk.per_row);
        token_tile = number - row_tile * walk.token_tiles;
    } else {
        const int32_t of_expert = walk.row_tiles * walk.token_tiles;
        expert = number / of_expert;
        number -= expert * of_expert;
        const int32_t together = min(walk.token_tiles, (int32_t)FMK_WGMMA_TOGETHER);
        const int32_t group = number / (walk.row_tiles * together),
                      in_group = number - group * walk.row_tiles * together;
        const int32_t first = group * together, width = min(together, walk.token_tiles - first);
        row_tile = in_group / width;
        token_tile = first + in_group - row_tile * width;
    }
    const int32_t token = P::T * token_tile, rows = a.glu ? P::ROWS / 2 : P::ROWS;
    if (row_tile >= args.start.row_tiles)
        while (!a.glu && part < a.num_parts - 1 && row_tile >= tiles_of(a.part[part], rows))
            row_tile -= tiles_of(a.part[part++], rows);
    return Tile{part, expert, row_tile * rows, token, min(P::T, walk.tokens - token)};
}

/* ---- units of K ---- */

struct Share {
    int32_t begin, end;
};

/* That of a block in its cluster. */
__device__ __forceinline__ Share share_of(const struct fmk_wgmma_start &start) {
    const int32_t begin = min((int32_t)cluster_rank() * start.share, start.units);
    return Share{begin, min(begin + start.share, start.units)};
}

#endif
