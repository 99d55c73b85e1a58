/* Which tiles a block of the wgmma kernels computes, and which units of K of each. */
#ifndef FMK_KERNELS_WGMMA_TILES_CUH
#define FMK_KERNELS_WGMMA_TILES_CUH

#include "ptx_sm90.cuh"
#include "wgmma.h"

enum { TOKEN_TILES_TOGETHER = 16 /* so many tiles of tokens take turns with the same weights */ };

/* What lies where in shared memory: a ring of stages, activations first; sums on their way out; barriers.
 * Of how many steps of 16 k codes are unpacked at a time: see Summed (0: there is no room for it) and Scaled
 * in wgmma.cuh. */
template <int WG_, int R_, int T_, int SUMMED_STEPS_, int SCALED_STEPS_> struct Plan {
    static constexpr int WG = WG_, R = R_, T = T_;
    static constexpr int SUMMED_STEPS = SUMMED_STEPS_, SCALED_STEPS = SCALED_STEPS_;
    static constexpr int ROWS = 64 * R * WG, PANELS = WG * R;
    static constexpr int ACTS = T * 2 * FMK_WGMMA_K, WEIGHTS = PANELS * FMK_WGMMA_UNIT;
    static constexpr int STAGES = FMK_WGMMA_STAGES(WG, R, T);
    static constexpr int PITCH = 128 * R + 16; /* bytes, of a token's outputs on their way */
    static constexpr int OUT = FMK_WGMMA_OUT(WG, R, T);
    static constexpr int SUMS_PITCH = 64 * R + 4; /* floats, of sums that are to be finished */
    static constexpr int SUMS_TOKENS = T * PITCH / (4 * SUMS_PITCH) / 8 * 8;
    static constexpr int AT_WEIGHTS = STAGES * ACTS, AT_OUT = AT_WEIGHTS + STAGES * WEIGHTS,
                         AT_FULL = AT_OUT + OUT, AT_EMPTY = AT_FULL + 8 * STAGES,
                         AT_SENT = AT_EMPTY + 8 * STAGES;
    /* A tile that a cluster shares lies over the ring: the block's own sums, and those that blocks send it of
     * its tokens, where there is room for both. */
    static constexpr int SPLIT_PITCH = ROWS + 4; /* floats */
    static constexpr int AT_RECEIVED = T * SPLIT_PITCH * 4;
    static constexpr bool SENDS = AT_RECEIVED + (T + FMK_WGMMA_MOST_CLUSTER) * SPLIT_PITCH * 4 <= AT_OUT;
    static_assert(AT_SENT + 8 <= FMK_WGMMA_SHARED(WG, R, T), "as much as the host asks for");
    static_assert(SUMS_TOKENS >= 8 && T % SUMS_TOKENS == 0, "sums are put down eight tokens at a time");
    static_assert(STAGES >= 3, "one is multiplied, one released, one fetched");
    static_assert(T * SPLIT_PITCH * 4 <= AT_OUT, "a tile's sums lie over the ring");
    static_assert(ACTS / 2 % 1024 == 0, "boxes begin where swizzles do");
    static_assert(WEIGHTS % 16 == 0 && AT_FULL % 8 == 0, "bulk copies and barriers are aligned");
};

/* ---- tiles ---- */

struct Walk {
    int32_t row_tiles, token_tiles, tiles, tokens; /* tiles of all experts */
};

/* glu: the rows are those of gate, and of up. */
struct Tile {
    int32_t part, expert, row, token, count; /* first row in the part, first token in the slab, tokens */
};

__device__ __forceinline__ int32_t tiles_of(const struct fmk_linear_part &part, int32_t rows) {
    return (part.n + rows - 1) / rows;
}

/* Rows of a part that a cluster's tile has. */
template <class P>
__device__ __forceinline__ int32_t rows_of_tile(const struct fmk_linear_kernel_args &args) {
    return args.glu ? P::ROWS / 2 : P::ROWS;
}

template <class P> __device__ __forceinline__ Walk make_walk(const struct fmk_wgmma_args &args) {
    const struct fmk_linear_kernel_args &a = args.linear;
    Walk walk = {0, 0, 0, 0};
    for (int32_t p = 0; p < (a.glu ? 1 : a.num_parts); p++)
        walk.row_tiles += tiles_of(a.part[p], rows_of_tile<P>(a));
    const int32_t m = a.m_dev ? min(a.m, max(*a.m_dev, 0)) : a.m;
    walk.tokens = max(m - a.first_row, 0);
    walk.token_tiles = (walk.tokens + P::T - 1) / P::T;
    walk.tiles = walk.row_tiles * walk.token_tiles * args.experts;
    return walk;
}

template <class P>
__device__ __forceinline__ Tile find_tile(const struct fmk_linear_kernel_args &args, const Walk &walk,
                                          int32_t number) {
    int32_t expert = 0, token_tile = 0, row_tile = number, part = 0;
    if (walk.tiles > walk.row_tiles) { /* else those of one row of tiles, and no divisions */
        const int32_t of_expert = walk.row_tiles * walk.token_tiles;
        expert = number / of_expert;
        number -= expert * of_expert;
        const int32_t together = min(walk.token_tiles, (int32_t)TOKEN_TILES_TOGETHER);
        const int32_t group = number / (walk.row_tiles * together),
                      in_group = number - group * walk.row_tiles * together;
        const int32_t first = group * together, width = min(together, walk.token_tiles - first);
        row_tile = in_group / width;
        token_tile = first + in_group - row_tile * width;
    }
    const int32_t token = P::T * token_tile, rows = rows_of_tile<P>(args);
    while (!args.glu && part < args.num_parts - 1 && row_tile >= tiles_of(args.part[part], rows))
        row_tile -= tiles_of(args.part[part++], rows);
    return Tile{part, expert, row_tile * rows, token, min(P::T, walk.tokens - token)};
}

/* ---- units of K ---- */

struct Share {
    int32_t begin, end;
};

__device__ __forceinline__ int32_t units_of_k(const struct fmk_linear_kernel_args &args) {
    return (args.k_packed + FMK_WGMMA_K - 1) / FMK_WGMMA_K;
}

/* That of a block in its cluster, where a cluster shares K. */
__device__ __forceinline__ Share share_of(int32_t units, uint32_t rank, uint32_t size) {
    return Share{(int32_t)(units * rank / size), (int32_t)(units * (rank + 1) / size)};
}

#endif
