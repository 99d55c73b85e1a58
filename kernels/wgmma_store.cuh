/* Sums of the wgmma kernels on their way out: between the blocks that share K, and to the output. A thread's
 * sums of 64 rows by T tokens are total[T / 2]: see wgmma in ptx_sm90.cuh. */
#ifndef FMK_KERNELS_WGMMA_STORE_CUH
#define FMK_KERNELS_WGMMA_STORE_CUH

#include "epilogue.cuh"
#include "wgmma_tiles.cuh"

/* Named barriers: of all multiplying warpgroups; of each; of each with the warp that stores its tiles. */
enum { BARRIER_MULTIPLY = 1, BARRIER_GROUP = 2, BARRIER_HANDED = 6, BARRIER_STORED = 10 /* 4 each */ };
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

/* ---- a tile that a cluster shares: of every size-th token a block adds up the sums of all, in their order
 * ---- */

/* What a block has in its cluster. */
struct Rank {
    uint32_t rank, size;

    __device__ __forceinline__ int tokens_of(int count, uint32_t of) const {
        return (count - (int)of + (int)size - 1) / (int)size;
    }
};

/* Each block puts its sums over its ring. */
template <class P>
__device__ __forceinline__ void put_shared_tile(float *sums, const float (&total)[P::R][P::T / 2]) {
    const int group = threadIdx.x / 128;
    barrier_named(BARRIER_MULTIPLY, 128 * P::WG); /* nobody reads the ring any more */
#pragma unroll
    for (int j = 0; j < P::T / 8; j++)
        put_sums<P::R, P::T>(sums + 8 * j * P::SPLIT_PITCH + 64 * P::R * group, P::SPLIT_PITCH, total, j);
}

/* Finishes the block's tokens; `sum_of(i, row)` is the sum of the i-th of them. */
template <class P, class Sum>
__device__ __forceinline__ void finish_shared_tile(const Target &target, const Rank &in, const Sum &sum_of) {
    const bool glu = target.args.glu;
    const int32_t n = target.args.part[target.tile.part].n, quads = glu ? P::ROWS / 8 : P::ROWS / 4;
    for (int i = threadIdx.x; i < in.tokens_of(target.tile.count, in.rank) * quads; i += 128 * P::WG) {
        const int own = i / quads, token = own * in.size + in.rank, row = i % quads * 4;
        if (target.tile.row + row >= n)
            continue;
        if (P::R == 2 && glu) { /* of each warpgroup 64 rows of gate, then of up */
            const int at = row / 64 * 128 + row % 64;
            finish_quad_glu(target, token, target.tile.row + row, sum_of(own, at), sum_of(own, at + 64));
        } else {
            finish_quad(target, token, target.tile.row + row, sum_of(own, row));
        }
    }
}

/* Four sums of all blocks; the i-th is at i * step from the first. They are loaded together. */
template <class Load> __device__ __forceinline__ float4 add_up(uint32_t size, const Load &load) {
    float4 of[FMK_WGMMA_MOST_CLUSTER], sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (uint32_t from = 0; from < FMK_WGMMA_MOST_CLUSTER; from++)
        of[from] = from < size ? load(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (uint32_t from = 0; from < FMK_WGMMA_MOST_CLUSTER; from++)
        sum.x += of[from].x, sum.y += of[from].y, sum.z += of[from].z, sum.w += of[from].w;
    return sum;
}

/* Every block sends the others their tokens' sums: none waits for what others have written, which would be a
 * fence of the whole device. `sent` counts the bytes. */
template <class P>
__device__ __forceinline__ void send_shared_tile(const Target &target, const Rank &in, const float *sums,
                                                 uint32_t base, uint32_t parity) {
    const int count = target.tile.count, room = (P::T + in.size - 1) / in.size;
    const uint32_t sent = base + P::AT_SENT;
    if (threadIdx.x == 0)
        mbarrier_arrive_expecting(sent, in.size * in.tokens_of(count, in.rank) * P::ROWS * 4);
    barrier_named(BARRIER_MULTIPLY, 128 * P::WG);
    __syncwarp();
    cluster_arrive();
    cluster_wait(); /* no block needs its ring any more */
    for (int i = threadIdx.x; i < count * (P::ROWS / 4); i += 128 * P::WG) {
        const int token = i / (P::ROWS / 4), row = i % (P::ROWS / 4) * 4, to = token % in.size;
        const int at = (in.rank * room + token / in.size) * P::SPLIT_PITCH + row;
        store_4_floats_to(to, base + P::AT_RECEIVED + 4 * at,
                          load_4_floats(sums + token * P::SPLIT_PITCH + row), sent);
    }
    mbarrier_wait(sent, parity);
    const float *received = sums + P::AT_RECEIVED / 4;
    finish_shared_tile<P>(target, in, [&](int own, int row) {
        return add_up(in.size, [&](uint32_t from) {
            return load_4_floats(received + (from * room + own) * P::SPLIT_PITCH + row);
        });
    });
}

/* The same where there is room for a block's own sums alone: others read them. */
template <class P>
__device__ __forceinline__ void read_shared_tile(const Target &target, const Rank &in, uint32_t base) {
    cluster_sync();
    finish_shared_tile<P>(target, in, [&](int own, int row) {
        return add_up(in.size, [&](uint32_t from) {
            return load_4_floats_of(from, base + ((own * in.size + in.rank) * P::SPLIT_PITCH + row) * 4);
        });
    });
}

#endif
