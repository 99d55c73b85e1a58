/* Sums of the wgmma kernels on their way out: between the blocks that share K, and to the output. A thread's
 * sums of 64 rows by T tokens are total[T / 2]: see wgmma in ptx_sm90.cuh. */
#ifndef FMK_KERNELS_WGMMA_STORE_CUH
#define FMK_KERNELS_WGMMA_STORE_CUH

#include "epilogue.cuh"
#include "wgmma_fetch.cuh"

/* Named barriers: of all multiplying warpgroups; of each; of each with the warp that stores its tiles; of the
 * two warps that fetch. */
enum {
    BARRIER_MULTIPLY = 1,
    BARRIER_GROUP = 2,
    BARRIER_HANDED = 6,
    BARRIER_STORED = 10 /* 4 each */,
    BARRIER_ACTS = 14
};
enum { WITH_STORING = 128 + 32 /* threads */ };

/* A warp's sums of tokens 8 j .. 8 j + 7 to [token][row]. */
template <int R, int T>
__device__ __forceinline__ void put_sums(float *to, int pitch, const float (&total)[R][T / 2], int j) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[(2 * (lane % 4) + i % 2) * pitch + 64 * r + 16 * warp + lane / 4 + i / 2 * 8] =
                total[r][4 * j + i];
}

/* ---- what becomes of four rows of a token ---- */

/* Where a tile's outputs lie. */
struct Target {
    const struct fmk_linear_kernel_args &args;
    const Tile &tile;

    __device__ __forceinline__ void *out() const {
        const struct fmk_epilogue_args &e = args.epilogue;
        return (char *)e.out + tile.expert * args.expert_out_stride * number_size(e.out_type);
    }
    __device__ __forceinline__ int64_t row_of(int token) const {
        const int64_t number = (int64_t)args.first_row + tile.token + token;
        return args.out_rows ? args.out_rows[number] : number;
    }
    __device__ __forceinline__ const float *bias(const struct fmk_linear_part &part) const {
        return part.bias ? part.bias + (int64_t)(args.expert + tile.expert) * part.n : NULL;
    }
};

__device__ __forceinline__ void add_quad(float t[4], const float *bias, int32_t row, int count) {
    if (!bias)
        return;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < count)
            t[i] += bias[row + i];
}

__device__ __forceinline__ void store_quad(const struct fmk_epilogue_args &e, void *out, int64_t row,
                                           int32_t column, int count, const float t[4]) {
    const int64_t at = row * e.out_stride + column;
    uint16_t *to = (uint16_t *)out + at;
    if (!e.weights && e.out_type == NUMBER_F32 && count == 4 && ((uintptr_t)((float *)out + at) & 15) == 0) {
        *(float4 *)((float *)out + at) = make_float4(t[0], t[1], t[2], t[3]);
        return;
    }
    if (!e.weights && e.out_type != NUMBER_F32 && count == 4 && ((uintptr_t)to & 7) == 0) {
        *(uint2 *)to = e.out_type == NUMBER_F16
                           ? make_uint2(f32_to_f16x2(t[0], t[1]), f32_to_f16x2(t[2], t[3]))
                           : make_uint2(f32_to_bf16x2(t[0], t[1]), f32_to_bf16x2(t[2], t[3]));
        return;
    }
    for (int i = 0; i < count; i++)
        store_result(e, out, row, column + i, t[i]);
}

/* Rows row .. row + 3 of the tile's part; what is past its end is left alone. */
__device__ __forceinline__ void finish_quad(const Target &to, int token, int32_t row, float4 sum) {
    const struct fmk_epilogue_args &e = to.args.epilogue;
    const struct fmk_linear_part &part = to.args.part[to.tile.part];
    const int64_t out_row = to.row_of(token);
    const int count = min(4, part.n - row);
    float t[4] = {sum.x, sum.y, sum.z, sum.w};
    add_quad(t, to.bias(part), row, count);
    if (e.addend)
        for (int i = 0; i < count; i++)
            t[i] += addend_at(e, out_row, part.column + row + i);
    store_quad(e, to.out(), out_row, part.column + row, count, t);
}

/* The same rows of gate and up. */
__device__ __forceinline__ void finish_quad_glu(const Target &to, int token, int32_t row, float4 gate,
                                                float4 up) {
    const struct fmk_epilogue_args &e = to.args.epilogue;
    const int64_t out_row = to.row_of(token);
    const int count = min(4, to.args.part[0].n - row);
    float g[4] = {gate.x, gate.y, gate.z, gate.w}, u[4] = {up.x, up.y, up.z, up.w};
    add_quad(g, to.bias(to.args.part[0]), row, count);
    add_quad(u, to.bias(to.args.part[1]), row, count);
    for (int i = 0; i < count; i++) {
        g[i] += addend_at(e, out_row, row + i);
        u[i] += addend_at(e, out_row, e.up_column + row + i);
        g[i] = activate(e, g[i], u[i]);
    }
    store_quad(e, to.out(), out_row, row, count, g);
}

/* ---- a tile of one block ---- */

/* Whether a row's outputs are runs of 8 numbers of 16 bits, aligned, and nothing but a bias is added. */
template <class X>
__device__ __forceinline__ bool is_packed(const struct fmk_linear_kernel_args &args,
                                          const struct fmk_linear_part &part) {
    const struct fmk_epilogue_args &e = args.epilogue;
    return e.out_type == X::TYPE && !args.glu && !e.addend && !e.weights && ((uintptr_t)e.out & 15) == 0 &&
           ((e.out_stride | args.expert_out_stride | part.column | part.n) & 7) == 0;
}

/* Tokens first .. first + 15 of a warpgroup's tile, as they will lie in the output, to [token][row]. */
template <class X, class P>
__device__ __forceinline__ void put_packed(uint32_t to, int first, const float (&total)[P::R][P::T / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    /* Lane 8 i + n: token n of eight, or of the eight after (i / 2); rows 0..7 or 8..15 of the warp (i % 2).
     */
    to += (lane / 16 * 8 + lane % 8) * P::PITCH + 32 * warp + lane / 8 % 2 * 16;
#pragma unroll
    for (int r = 0; r < P::R; r++) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *of = total[r] + first / 2 + i / 2 * 4 + i % 2 * 2;
            pairs[i] = X::pack(of[0], of[1]);
        }
        store_transposed(to + 128 * r, pairs);
    }
}

/* Copies a warpgroup's tile from there to the output; `threads` of the block do. */
template <class P>
__device__ __forceinline__ void store_packed(const Target &target, int group, const uint8_t *out, int thread,
                                             int threads) {
    const struct fmk_linear_part &part = target.args.part[target.tile.part];
    const int32_t row = target.tile.row + 64 * P::R * group;
    uint16_t *rows = (uint16_t *)target.out() + part.column + row;
#pragma unroll 4
    for (int i = thread; i < target.tile.count * 8 * P::R; i += threads) {
        const int token = i / (8 * P::R), eight = i % (8 * P::R);
        if (row + 8 * eight < part.n)
            *(uint4 *)(rows + target.row_of(token) * target.args.epilogue.out_stride + 8 * eight) =
                *(const uint4 *)(out + token * P::PITCH + 16 * eight);
    }
}

template <class P>
__device__ __forceinline__ void add_bias(const Target &target, float (&total)[P::R][P::T / 2]) {
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const struct fmk_linear_part &part = target.args.part[target.tile.part];
    const float *bias = target.bias(part);
    if (!bias)
        return;
#pragma unroll
    for (int r = 0; r < P::R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int32_t row = target.tile.row + 64 * (P::R * group + r) + 16 * warp + 8 * i + lane / 4;
            const float b = row < part.n ? bias[row] : 0.0f;
#pragma unroll
            for (int j = 0; j < P::T / 8; j++)
                total[r][4 * j + 2 * i] += b, total[r][4 * j + 2 * i + 1] += b;
        }
}

/* A warpgroup's own tile, where is_packed. Whether it is handed over: then another warp stores it, and tells
 * at BARRIER_STORED when `out` is free again. */
template <class X, class P>
__device__ __forceinline__ bool finish_packed(const Target &target, uint8_t *out, bool hand_over,
                                              float (&total)[P::R][P::T / 2]) {
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    const uint32_t to = shared_address(out);
    add_bias<P>(target, total);
    barrier_named(BARRIER_GROUP + group, 128); /* what was there is stored */
#pragma unroll
    for (int token = 0; token < P::T; token += 16)
        put_packed<X, P>(to + token * P::PITCH, token, total);
    if (hand_over) {
        arrive_named(BARRIER_HANDED + group, WITH_STORING);
        return true;
    }
    barrier_named(BARRIER_GROUP + group, 128);
    store_packed<P>(target, group, out, thread, 128);
    return false;
}

/* A warpgroup's own tile, some tokens at a time. */
template <class P>
__device__ __forceinline__ void finish_tile(const Target &target, float *sums,
                                            const float (&total)[P::R][P::T / 2]) {
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    const bool glu = target.args.glu;
    const int32_t quads = glu ? 16 : 16 * P::R, first_row = target.tile.row + 4 * quads * group;
    const int32_t n = target.args.part[target.tile.part].n;
#pragma unroll
    for (int first = 0; first < P::T; first += P::SUMS_TOKENS) {
        if (first >= target.tile.count)
            break;
        barrier_named(BARRIER_GROUP + group, 128); /* what was there is stored */
#pragma unroll
        for (int j = 0; j < P::SUMS_TOKENS / 8; j++)
            put_sums<P::R, P::T>(sums + 8 * j * P::SUMS_PITCH, P::SUMS_PITCH, total, first / 8 + j);
        barrier_named(BARRIER_GROUP + group, 128);
        for (int i = thread; i < P::SUMS_TOKENS * quads; i += 128) {
            const int token = i / quads, row = i % quads * 4;
            const float *of = sums + token * P::SUMS_PITCH + row;
            if (first + token >= target.tile.count || first_row + row >= n)
                continue;
            if (P::R == 2 && glu)
                finish_quad_glu(target, first + token, first_row + row, *(const float4 *)of,
                                *(const float4 *)(of + 64));
            else
                finish_quad(target, first + token, first_row + row, *(const float4 *)of);
        }
    }
}

/* ---- a tile that several share: blocks of a cluster, or a block's warpgroups ---- */

/* A piece is what a warp has of 8 tokens. Piece p is finished by block p % size, where the pieces of all
 * meet, as they lie in registers. */
struct Rank {
    uint32_t rank, size;
    float per_block; /* 1 / size */

    __device__ __forceinline__ uint32_t over_size(uint32_t i) const {
        return (uint32_t)(((float)i + 0.5f) * per_block);
    }
    __device__ __forceinline__ uint32_t own_of(uint32_t pieces) const {
        return over_size(pieces + size - 1 - rank);
    }
};

template <class P> __device__ __forceinline__ uint32_t pieces_of(const Tile &tile) {
    return (uint32_t)(tile.count + 7) / 8 * P::WARPS;
}

/* What a phase of `sent` waits for: one thread, which says how many bytes will come; or within a block, which
 * cannot send, every thread. */
template <class P> __device__ __forceinline__ uint32_t senders(uint32_t size) {
    return P::DEEP && size == 1 ? 128 * P::WG : 1;
}

/* And one of `taken`: a thread of each warp that stores, of all blocks; or within a block each of their
 * threads, for compute-sanitizer's racecheck does not see what one stands for. */
__device__ __forceinline__ uint32_t takers(uint32_t size) {
    return MOST_STORING * (size == 1 ? 32 : size);
}

template <class P>
__device__ __forceinline__ void send_pieces(const Rank &in, const Tile &tile, uint8_t *stages, uint32_t base,
                                            const float (&total)[P::R][P::T / 2]) {
    const uint32_t warp = threadIdx.x / 32 % P::WARPS, group = threadIdx.x / 128;
    const uint32_t sources = in.size * P::SOURCES, source = in.rank * P::SOURCES + (P::DEEP ? group : 0);
    const uint32_t whole = in.over_size(P::WARPS), rest = P::WARPS - whole * in.size;
    const bool alone = P::DEEP && in.size == 1;
    uint32_t own = in.over_size(warp), owner = warp - own * in.size;
    if (!alone && threadIdx.x == 0)
        mbarrier_arrive_expecting(base + P::AT_SENT, in.own_of(pieces_of<P>(tile)) * sources * P::PIECE);
#pragma unroll
    for (int j = 0; j < P::T / 8; j++) {
        if (8 * j >= tile.count)
            break;
        const uint32_t to = P::AT_SUMS + (own * sources + source) * P::PIECE + threadIdx.x % 32 * 16;
#pragma unroll
        for (int r = 0; r < P::R; r++) {
            const float4 sum =
                make_float4(total[r][4 * j], total[r][4 * j + 1], total[r][4 * j + 2], total[r][4 * j + 3]);
            if (alone)
                *(float4 *)(stages + to + r * 512) = sum;
            else
                store_4_floats_to(owner, base + to + r * 512, sum, base + P::AT_SENT);
        }
        own += whole;
        owner += rest;
        if (owner >= in.size)
            owner -= in.size, own++;
    }
    if (alone)
        mbarrier_arrive(base + P::AT_SENT);
}

/* Rows row and row + 8 by tokens token and token + 1, as a lane has them. */
__device__ __forceinline__ void finish_piece(const Target &to, int32_t row, int token, const float4 &sum) {
    const struct fmk_linear_kernel_args &args = to.args;
    const struct fmk_linear_part &part = args.part[to.tile.part];
    const float *bias = to.bias(part);
    const float s[2][2] = {{sum.x, sum.y}, {sum.z, sum.w}};
#pragma unroll
    for (int c = 0; c < 2; c++) {
        if (token + c >= to.tile.count)
            break;
        const int64_t out_row = to.row_of(token + c);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int32_t at = row + 8 * half;
            if (at < part.n)
                finish(args.epilogue, to.out(), out_row, part.column + at,
                       s[half][c] + (bias ? bias[at] : 0.0f));
        }
    }
}

/* The same of gate and up. */
__device__ __forceinline__ void finish_piece_glu(const Target &to, int32_t row, int token, const float4 &gate,
                                                 const float4 &up) {
    const struct fmk_linear_kernel_args &args = to.args;
    const float *gate_bias = to.bias(args.part[0]), *up_bias = to.bias(args.part[1]);
    const float g[2][2] = {{gate.x, gate.y}, {gate.z, gate.w}}, u[2][2] = {{up.x, up.y}, {up.z, up.w}};
#pragma unroll
    for (int c = 0; c < 2; c++) {
        if (token + c >= to.tile.count)
            break;
        const int64_t out_row = to.row_of(token + c);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int32_t at = row + 8 * half;
            if (at < args.part[0].n)
                finish_glu(args.epilogue, to.out(), out_row, at,
                           g[half][c] + (gate_bias ? gate_bias[at] : 0.0f),
                           u[half][c] + (up_bias ? up_bias[at] : 0.0f));
        }
    }
}

/* Where pieces go that are stored as they are, and all of it that can be known before they come. */
struct Outlet {
    uint16_t *out;     /* of the lane's first row and token; NULL: elsewhere, or more is to be done */
    const float *bias; /* of its first row, or NULL */
    int64_t stride;
    int32_t rows, tokens; /* that are there, from its first on */
};

template <class X> __device__ __forceinline__ Outlet find_outlet(const Target &target) {
    const struct fmk_linear_kernel_args &args = target.args;
    const struct fmk_epilogue_args &e = args.epilogue;
    const struct fmk_linear_part &part = args.part[target.tile.part];
    const int32_t lane = threadIdx.x % 32, row = target.tile.row + lane / 4, token = lane % 4 * 2;
    Outlet outlet = {NULL, NULL, e.out_stride, part.n - row, target.tile.count - token};
    if (e.out_type == X::TYPE && !args.glu && !e.addend && !e.weights && !args.out_rows)
        outlet.out = (uint16_t *)target.out() +
                     ((int64_t)args.first_row + target.tile.token + token) * outlet.stride + part.column +
                     row;
    if (part.bias)
        outlet.bias = target.bias(part) + row;
    return outlet;
}

/* A piece whose rows begin at `row` of the tile and whose tokens at `token`. Numbers are not put together
 * first: with a movmatrix in it the compiler takes the loop around for one in which lanes part. */
template <class X>
__device__ __forceinline__ void store_piece(const Outlet &outlet, int32_t row, int token, float4 sum) {
    const bool first = row < outlet.rows, second = row + 8 < outlet.rows;
    if (outlet.bias) {
        const float low = first ? outlet.bias[row] : 0.0f, high = second ? outlet.bias[row + 8] : 0.0f;
        sum.x += low, sum.y += low, sum.z += high, sum.w += high;
    }
    const uint32_t low = X::pack(sum.x, sum.y), high = X::pack(sum.z, sum.w);
    uint16_t *to = outlet.out + token * outlet.stride + row, *next = to + outlet.stride;
    if (first && token < outlet.tokens)
        to[0] = (uint16_t)low;
    if (second && token < outlet.tokens)
        to[8] = (uint16_t)high;
    if (first && token + 1 < outlet.tokens)
        next[0] = (uint16_t)(low >> 16);
    if (second && token + 1 < outlet.tokens)
        next[8] = (uint16_t)(high >> 16);
}

/* The sum of the block's i-th piece over all that have sent it, in their order. */
template <class P>
__device__ __forceinline__ void add_up(const uint8_t *sums, uint32_t i, uint32_t sources,
                                       float4 (&sum)[P::R]) {
    const uint8_t *at = sums + i * sources * P::PIECE + threadIdx.x % 32 * 16;
#pragma unroll
    for (int r = 0; r < P::R; r++)
        sum[r] = load_4_floats(at + r * 512);
#pragma unroll 4
    for (uint32_t from = 1; from < sources; from++)
#pragma unroll
        for (int r = 0; r < P::R; r++) {
            const float4 more = load_4_floats(at + from * P::PIECE + r * 512);
            sum[r].x += more.x, sum[r].y += more.y, sum[r].z += more.z, sum[r].w += more.w;
        }
}

/* The block's own pieces, from `first` on every `step`-th, which is this warp's. All have come. */
template <class X, class P>
__device__ __forceinline__ void finish_pieces(const Target &target, const Outlet &outlet, const Rank &in,
                                              const uint8_t *sums, uint32_t first, uint32_t step) {
    const uint32_t lane = threadIdx.x % 32, own = in.own_of(pieces_of<P>(target.tile));
    const uint32_t sources = in.size * P::SOURCES;
#pragma unroll P::R == 1 && P::T >= 64 ? 2 : 1
    for (uint32_t i = first; i < own; i += step) {
        const uint32_t piece = i * in.size + in.rank, warp = piece % P::WARPS;
        const int token = (int)(piece / P::WARPS * 8);
        const int32_t row = (int32_t)(16 * (warp % 4)), group = (int32_t)warp / 4;
        float4 sum[P::R];
        add_up<P>(sums, i, sources, sum);
        if (outlet.out) {
#pragma unroll
            for (int r = 0; r < P::R; r++)
                store_piece<X>(outlet, row + 64 * (P::R * group + r), token, sum[r]);
            continue;
        }
        const int own_token = token + (int)(lane % 4 * 2);
        const int32_t own_row = target.tile.row + row + (int32_t)(lane / 4);
        if (P::R == 2 && target.args.glu) {
            finish_piece_glu(target, own_row + 64 * group, own_token, sum[0], sum[P::R - 1]);
            continue;
        }
#pragma unroll
        for (int r = 0; r < P::R; r++)
            finish_piece(target, own_row + 64 * (P::R * group + r), own_token, sum[r]);
    }
}

#endif
