/* Grouped INT4 for few tokens on compute capability 9.0: out = in . W^T over int4.t64, weights as the A
 * operand of mma.m16n8k16.
 *
 * K is shared out to the blocks of a cluster, and within a block unit by unit to its warps. A block loads the
 * activations of its share once, and then walks with its cluster over row blocks of 64 rows. Each warp has a
 * ring in shared memory, filled by bulk copies of a unit each, across the borders of row blocks. At the end
 * of a row block the sums of the warps are added up in the order of the warps, then those of the blocks in
 * the order of the blocks. So an output's bits depend on K and on how it is shared out, not on m or on the
 * run.
 *
 * Per group, with scale s and zero point z of the row: total += s * (sum(code * x) - z * sum(x)). */
#include "few.cuh"

enum { WARPS = FMK_FEW_WARPS, THREADS = FMK_FEW_THREADS };

/* ---- row blocks ---- */

/* A row block of one part, or with an activation the same one of gate (side 0) and then of up. */
struct Job {
    int32_t block, side;
};

struct Walk {
    int32_t blocks, first, stride; /* this cluster's row blocks */
};

/* The next of the cluster's; false when there is none. */
__device__ __forceinline__ bool next_job(const struct fmk_linear_kernel_args &a, const Walk &walk, Job &job) {
    if (a.glu && !job.side) {
        job.side = 1;
        return true;
    }
    job.side = 0;
    job.block += walk.stride;
    return job.block < walk.blocks;
}

struct Rows {
    int32_t part, row; /* first row in the part */
};

__device__ __forceinline__ Rows rows_of(const struct fmk_linear_kernel_args &a, const Job &job) {
    RowBlock at = find_block(a, FMK_T64_ROWS, job.block);
    return Rows{at.part + job.side, at.row};
}

__device__ __forceinline__ int32_t unit_bytes(const struct fmk_linear_part &part) {
    return FMK_T64_CODES + (256 >> (part.chunks >> 1)) * (part.has_zeros ? 3 : 2);
}

/* ---- the ring of a warp: lane 0 fetches ---- */

struct Share {
    int32_t begin, end; /* units of K */
};

struct Feed {
    const uint8_t *from;
    Job job;
    int32_t unit, bytes, expert;
    bool more;
};

__device__ __forceinline__ void enter_job(const struct fmk_linear_kernel_args &a, const Share &share,
                                          int warp, Feed &feed) {
    Rows rows = rows_of(a, feed.job);
    const struct fmk_linear_part &part = a.part[rows.part];
    feed.bytes = unit_bytes(part);
    feed.unit = share.begin + warp;
    feed.from = (const uint8_t *)part.data + (uint64_t)feed.expert * part.expert_stride +
                (uint64_t)(rows.row / FMK_T64_ROWS) * part.stride + (int64_t)feed.unit * feed.bytes;
}

/* Starts the copy of the next unit. */
__device__ __forceinline__ void fetch(const struct fmk_linear_kernel_args &a, const Walk &walk,
                                      const Share &share, int warp, uint32_t slot, uint32_t full,
                                      Feed &feed) {
    mbarrier_arrive_expecting(full, (uint32_t)feed.bytes);
    copy_bulk(slot, feed.from, (uint32_t)feed.bytes, full);
    feed.unit += WARPS;
    feed.from += WARPS * feed.bytes;
    if (feed.unit < share.end)
        return;
    feed.more = next_job(a, walk, feed.job);
    if (feed.more)
        enter_job(a, share, warp, feed);
}

/* ---- activations ---- */

struct ActsPlace {
    uint8_t *at;
    int32_t pitch; /* bytes */
    uint8_t *row;  /* room for a whole one, or NULL */
};

/* Whether rows of activations can be copied 16 bytes at a time. */
__device__ __forceinline__ bool are_vectors(const struct fmk_linear_kernel_args &a) {
    return a.in_type != NUMBER_F32 && a.k % 8 == 0 && (uintptr_t)a.in % 16 == 0 &&
           (a.in_stride | a.expert_in_stride) % 8 == 0;
}

__device__ __forceinline__ int64_t row_of_token(const struct fmk_linear_kernel_args &a, int32_t token) {
    return (a.in_rows ? a.in_rows[token] : token) * a.in_stride + blockIdx.z * a.expert_in_stride;
}

/* Not by bulk copies: these would wait for those of the weights. Zeros past args.k. */
__device__ __forceinline__ void copy_acts(const struct fmk_linear_kernel_args &a, const Tokens &tokens,
                                          int32_t k0, int32_t count, const ActsPlace &to) {
    for (int32_t token = 0; token < tokens.count; token++) {
        const uint16_t *row = (const uint16_t *)a.in + row_of_token(a, tokens.first + token) + k0;
        for (int32_t k = 8 * (int32_t)threadIdx.x; k < count; k += 8 * THREADS)
            copy_16_async(to.at + token * to.pitch + 2 * k, row + k, k0 + k < a.k);
    }
    end_copies();
}

/* One token in act-order: its row is fetched as it is, and put in order from there. */
__device__ __forceinline__ void gather_acts(const struct fmk_linear_kernel_args &a, const Tokens &tokens,
                                            int32_t k0, int32_t count, const ActsPlace &to) {
    const uint16_t *row = (const uint16_t *)a.in + row_of_token(a, tokens.first);
    for (int32_t k = 8 * (int32_t)threadIdx.x; k < a.k; k += 8 * THREADS)
        copy_16_async(to.row + 2 * k, row + k);
    end_copies();
    const int32_t *index = a.part[0].k_index + (int64_t)tokens.expert * a.k_packed + k0;
    const int32_t first = 8 * (int32_t)threadIdx.x;
    int4 at[2];
    if (first < count) {
        at[0] = *(const int4 *)(index + first);
        at[1] = *(const int4 *)(index + first + 4);
    }
    wait_for_copies<0>();
    __syncthreads();
    const uint16_t *x = (const uint16_t *)to.row;
    for (int32_t k = first; k < count; k += 8 * THREADS) {
        if (k != first) {
            at[0] = *(const int4 *)(index + k);
            at[1] = *(const int4 *)(index + k + 4);
        }
        const int32_t from[8] = {at[0].x, at[0].y, at[0].z, at[0].w, at[1].x, at[1].y, at[1].z, at[1].w};
        uint16_t h[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            h[i] = from[i] >= 0 ? x[from[i]] : 0;
        *(uint4 *)(to.at + 2 * k) =
            make_uint4(pair_of(h[0], h[1]), pair_of(h[2], h[3]), pair_of(h[4], h[5]), pair_of(h[6], h[7]));
    }
}

/* Eight numbers in the type that mma multiplies; floats as planes. */
template <class X, int PLANES, int TOKENS>
__device__ __forceinline__ void put_acts(uint8_t *to, int32_t pitch, int32_t type, float (&x)[8]) {
#pragma unroll
    for (int plane = 0; plane < PLANES; plane++) {
        uint16_t h[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            h[i] = PLANES > 1 ? cut_bf16(x[i]) : type == NUMBER_F16 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
        *(uint4 *)(to + plane * TOKENS * pitch) =
            make_uint4(pair_of(h[0], h[1]), pair_of(h[2], h[3]), pair_of(h[4], h[5]), pair_of(h[6], h[7]));
    }
}

/* The same number by number: any type, order and alignment. */
template <class X, int PLANES, int TOKENS>
__device__ __forceinline__ void convert_acts(const struct fmk_linear_kernel_args &a, const Tokens &tokens,
                                             int32_t k0, int32_t count, const ActsPlace &to) {
    const int32_t octets = count / 8;
    const int32_t *index =
        a.part[0].k_index ? a.part[0].k_index + (int64_t)tokens.expert * a.k_packed : nullptr;
    const bool vectors = is_aligned(a.in, a.in_type) && (a.in_stride | a.expert_in_stride) % 4 == 0;
    for (int32_t i = threadIdx.x; i < tokens.count * octets; i += THREADS) {
        const int32_t token = i / octets, octet = i - token * octets, k = k0 + 8 * octet;
        const char *row = (const char *)a.in + row_of_token(a, tokens.first + token) * number_size(a.in_type);
        float x[8];
        if (index) {
            int32_t at[8];
#pragma unroll
            for (int j = 0; j < 8; j++)
                at[j] = index[k + j];
#pragma unroll
            for (int j = 0; j < 8; j++)
                x[j] = at[j] >= 0 ? load_number(row, a.in_type, at[j]) : 0.0f;
        } else {
            load_quad(row, a.in_type, k, a.k, vectors, x);
            load_quad(row, a.in_type, k + 4, a.k, vectors, x + 4);
        }
        put_acts<X, PLANES, TOKENS>(to.at + token * to.pitch + 16 * octet, to.pitch, a.in_type, x);
    }
}

/* Returns when all threads see them. */
template <class X, int PLANES, int TOKENS>
__device__ __forceinline__ void load_acts(const struct fmk_linear_kernel_args &a, const Tokens &tokens,
                                          const Share &units, const ActsPlace &to) {
    const int32_t k0 = UNIT_K * units.begin, count = UNIT_K * (units.end - units.begin);
    if (PLANES == 1 && !a.part[0].k_index && are_vectors(a))
        copy_acts(a, tokens, k0, count, to);
    else if (PLANES == 1 && TOKENS == 1 && to.row && are_vectors(a))
        gather_acts(a, tokens, k0, count, to);
    else
        convert_acts<X, PLANES, TOKENS>(a, tokens, k0, count, to);
    wait_for_copies<0>();
    __syncthreads();
}

/* ---- a unit ---- */

/* What a unit's sums want beside its bytes. */
template <int NT> struct UnitActs {
    uint32_t
        rows[NT];  /* the lane's row of each eight tokens, of the first plane: ldmatrix wants 8 a matrix */
    int32_t plane; /* bytes from plane to plane */
    float2 *sums;  /* of tokens 2 t and 2 t + 1 of every eight, of the first group; or NULL */
    bool made;     /* they are there */
};

/* 32 k of every panel, two steps: words[r] has their codes. */
template <class X, int NT, int PASSES>
__device__ __forceinline__ void multiply_32(const uint32_t (&words)[PANELS][2], const UnitActs<NT> &acts,
                                            int b, bool first, float (&acc)[PANELS][NT][4],
                                            float (&sum)[NT][4]) {
    Acts x[PASSES][NT];
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++)
#pragma unroll
        for (int n = 0; n < NT; n++)
            load_matrices(acts.rows[n] + (uint32_t)(pass * acts.plane + 64 * b), x[pass][n].b);
    if (!acts.made)
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++)
#pragma unroll
            for (int n = 0; n < NT; n++)
                sum_acts<X>(sum[n], x[pass][n], first && pass == 0);
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int r = 0; r < PANELS; r++) {
            uint32_t a[4];
            X::unpack(words[r][step], a);
#pragma unroll
            for (int pass = 0; pass < PASSES; pass++)
#pragma unroll
                for (int n = 0; n < NT; n++)
                    if (first && step == 0 && pass == 0)
                        mma_first<X>(acc[r][n], a, x[pass][n], step);
                    else
                        mma_add<X>(acc[r][n], a, x[pass][n], step);
        }
}

/* The sums of a group's activations: fetched, or kept for the next row blocks. */
template <int NT>
__device__ __forceinline__ void keep_sums(const UnitActs<NT> &acts, int group, int lane,
                                          float (&sum)[NT][4]) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float2 *at = acts.sums + 4 * (NT * group + n) + lane % 4;
        if (acts.made) {
            float2 kept = *at;
            sum[n][0] = kept.x;
            sum[n][1] = kept.y;
        } else if (acts.sums && lane < 4) {
            *at = make_float2(sum[n][0], sum[n][1]);
        }
    }
}

/* A unit that is one group. `release` is called when its bytes are in registers. */
template <class X, int NT, int PASSES, int COLUMNS, class Release>
__device__ __forceinline__ void multiply_group(const struct fmk_linear_part &part, const uint8_t *unit,
                                               const UnitActs<NT> &acts, int lane, Release release,
                                               float (&total)[PANELS][NT][4]) {
    uint4 codes[2][PANELS];
#pragma unroll
    for (int tile = 0; tile < 2; tile++)
#pragma unroll
        for (int r = 0; r < PANELS; r++)
            codes[tile][r] = load_16(unit + FMK_INT4_UNIT_CODES * r + FMK_T16_TILE * tile + 16 * lane);
    const GroupBits bits = load_group(part, unit, 0, 2, lane / 4);
    release();
    float acc[PANELS][NT][4], sum[NT][4];
#pragma unroll
    for (int b = 0; b < UNIT_K / 32; b++) {
        uint32_t words[PANELS][2];
#pragma unroll
        for (int r = 0; r < PANELS; r++)
#pragma unroll
            for (int step = 0; step < 2; step++)
                words[r][step] = word_of(codes[b / 2][r], b % 2 * 2 + step);
        multiply_32<X, NT, PASSES>(words, acts, b, b == 0, acc, sum);
    }
    keep_sums<NT>(acts, 0, lane, sum);
    add_group<X, NT, COLUMNS>(bits, part.dtype, acc, sum, total);
}

/* Any group size: scales are looked up for every 32 k. */
template <class X, int NT, int PASSES, int COLUMNS, class Release>
__device__ __forceinline__ void multiply_groups(const struct fmk_linear_part &part, const uint8_t *unit,
                                                const UnitActs<NT> &acts, int lane, Release release,
                                                float (&total)[PANELS][NT][4]) {
    const int shift = part.chunks >> 1; /* by 0, 1, 2: b / chunks */
#pragma unroll
    for (int b = 0; b < UNIT_K / 32; b++) {
        float acc[PANELS][NT][4], sum[NT][4];
        uint32_t words[PANELS][2];
#pragma unroll
        for (int r = 0; r < PANELS; r++) {
            uint2 two =
                load_8(unit + FMK_INT4_UNIT_CODES * r + FMK_T16_TILE * (b / 2) + 16 * lane + 8 * (b % 2));
            words[r][0] = two.x;
            words[r][1] = two.y;
        }
        const GroupBits bits = load_group(part, unit, b >> shift, shift, lane / 4);
        multiply_32<X, NT, PASSES>(words, acts, b, true, acc, sum);
        keep_sums<NT>(acts, b, lane, sum);
        add_group<X, NT, COLUMNS>(bits, part.dtype, acc, sum, total);
    }
    release();
}

/* ---- the sums of a row block ---- */

/* A warp's, for the other warps: [token][row]. */
template <int TOKENS, int PLANES>
__device__ __forceinline__ void put_sums(float *to, const float (&total)[PANELS][(TOKENS + 7) / 8][4],
                                         int lane) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < PANELS; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = 16 * r + 8 * i + g;
            if (TOKENS == 1) {
                float sum = total[r][0][2 * i];
                if (PLANES > 1) { /* columns 0, 1 and 2 are the token's planes */
                    sum += total[r][0][2 * i + 1];
                    sum += __shfl_down_sync(0xffffffff, total[r][0][2 * i], 1);
                }
                if (t == 0)
                    to[row] = sum;
                continue;
            }
#pragma unroll
            for (int n = 0; n < (TOKENS + 7) / 8; n++)
#pragma unroll
                for (int c = 0; c < 2; c++)
                    to[(8 * n + 2 * t + c) * FMK_FEW_SUMS_PITCH + row] = total[r][n][2 * i + c];
        }
}

__device__ __forceinline__ float4 add_quads(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* Four rows of a token, numbered token by token. */
template <int TOKENS> __device__ __forceinline__ float4 add_warps(const float *sums, int quad) {
    const float *at = sums + quad / 16 * FMK_FEW_SUMS_PITCH + quad % 16 * 4;
    float4 total = load_4_floats(at);
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        total = add_quads(total, load_4_floats(at + w * TOKENS * FMK_FEW_SUMS_PITCH));
    return total;
}

/* A block's place in its cluster; of its sums, those of quad q go to block q % ranks. */
struct Ranks {
    int32_t rank, shift; /* 1 << shift blocks */
    uint32_t done;       /* [2][rank][quad / ranks]: sums that came from the blocks */
    uint32_t barriers;   /* [2]: they have come */

    __device__ __forceinline__ int own_quad() const {
        return rank + ((int)threadIdx.x << shift);
    }
};

/* Adds up the sums of a row block: those of the thread's own quad. What lies at `sums` may be written again
 * afterwards. `turn` counts the row blocks: a block can be ahead of another by one, since each waits for sums
 * of all others. */
template <int TOKENS>
__device__ __forceinline__ float4 add_blocks(const float *sums, int quads, int32_t turn, const Ranks &ranks) {
    const int quad = threadIdx.x;
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    __syncthreads();
    if (quad < quads)
        total = add_warps<TOKENS>(sums, quad);
    if (ranks.shift) {
        const int each = quads >> ranks.shift;
        const uint32_t done = ranks.done + (uint32_t)(turn % 2 * TOKENS * FMK_T64_ROWS * 4);
        const uint32_t barrier = ranks.barriers + 8 * (uint32_t)(turn % 2);
        if (threadIdx.x == 0)
            mbarrier_arrive_expecting(barrier, 16 * (uint32_t)quads);
        if (quad < quads)
            store_4_floats_to((uint32_t)(quad & ((1 << ranks.shift) - 1)),
                              done + 16 * (uint32_t)(ranks.rank * each + (quad >> ranks.shift)), total,
                              barrier);
        if (quad < each) {
            mbarrier_wait(barrier, (uint32_t)turn / 2 % 2);
            const float *from = (const float *)(dynamic_shared() + (done - shared_address(dynamic_shared())));
            total = load_4_floats(from + 4 * quad);
            for (int rank = 1; rank < 1 << ranks.shift; rank++)
                total = add_quads(total, load_4_floats(from + 4 * (rank * each + quad)));
        }
    }
    __syncthreads();
    return total;
}

/* Bias, addend, activation: of up alone, with gate's sums in `gate`. */
__device__ __forceinline__ void store_quad(const struct fmk_linear_kernel_args &a, const Tokens &tokens,
                                           const Rows &rows, int quad, const float4 &sums,
                                           const float4 &gate) {
    const struct fmk_epilogue_args &e = a.epilogue;
    void *out = (char *)e.out + blockIdx.z * a.expert_out_stride * number_size(e.out_type);
    const struct fmk_linear_part &part = a.part[rows.part];
    const int64_t number = tokens.first + quad / 16;
    const int64_t out_row = a.out_rows ? a.out_rows[number] : number;
    const float t[4] = {sums.x, sums.y, sums.z, sums.w}, g[4] = {gate.x, gate.y, gate.z, gate.w};
#pragma unroll 1 /* it is long, and seldom done */
    for (int i = 0; i < 4; i++) {
        const int32_t row = rows.row + quad % 16 * 4 + i;
        if (row >= part.n)
            break;
        const float own = (i < 2 ? i < 1 ? t[0] : t[1] : i < 3 ? t[2] : t[3]);
        const float value = own + bias_at(part, tokens.expert, row);
        if (a.glu) {
            const float first = (i < 2 ? i < 1 ? g[0] : g[1] : i < 3 ? g[2] : g[3]);
            finish_glu(e, out, out_row, row, first + bias_at(a.part[0], tokens.expert, row), value);
        } else {
            finish(e, out, out_row, part.column + row, value);
        }
    }
}

/* ---- the kernel ---- */

/* X: how codes become numbers; PLANES: matrices whose sum the activations are; ANY: of the group sizes. Three
 * planes of one token are columns of one product. */
template <class X, int TOKENS, int PLANES, bool ANY>
__device__ __forceinline__ void linear_few(const struct fmk_few_args &args) {
    constexpr int NT = (TOKENS + 7) / 8, PASSES = TOKENS == 1 ? 1 : PLANES;
    constexpr int COLUMNS = TOKENS == 1 && PLANES == 1 ? 1 : 2;
    const struct fmk_linear_kernel_args &a = args.linear;
    const int warp = not_before_here(threadIdx.x / 32), lane = not_before_here(threadIdx.x % 32);
    uint8_t *shared = dynamic_shared(), *ring = shared + warp * args.stages * args.slot;
    const uint32_t full = shared_address(shared + args.at_barriers + 8 * warp * args.stages);
    const ActsPlace place = {shared + args.at_acts, FMK_FEW_PITCH(args.window),
                             args.at_row ? shared + args.at_row : nullptr};
    const Ranks ranks = {(int32_t)cluster_rank(), args.ranks_shift, shared_address(shared + args.at_done),
                         shared_address(shared + args.at_barriers + 8 * WARPS * args.stages)};
    allow_dependents();

    const int32_t units = a.k_packed / UNIT_K;
    const Share share = {min(ranks.rank * args.units, units), min((ranks.rank + 1) * args.units, units)};
    const Walk walk = {args.blocks, (int32_t)blockIdx.x >> ranks.shift, (int32_t)gridDim.x >> ranks.shift};

    /* Weights do not depend on the kernel before, but which ones are wanted may. */
    Feed feed = {nullptr, {walk.first, 0}, 0, 0, a.expert + (int32_t)blockIdx.z, false};
    if (a.tiles) {
        wait_for_dependency();
        if (!a.tiles[blockIdx.y].count)
            return;
        feed.expert = a.tiles[blockIdx.y].expert;
    }
    int32_t started = 0;
    if (lane == 0) {
#pragma unroll 1
        for (int s = 0; s < args.stages; s++)
            mbarrier_init(full + 8 * s, 1);
        for (int i = 0; warp == 0 && i < 2; i++)
            mbarrier_init(ranks.barriers + 8 * i, 1);
        fence_mbarrier_init();
        feed.more = walk.first < walk.blocks && share.begin + warp < share.end;
        if (feed.more)
            enter_job(a, share, warp, feed);
        for (; started < args.stages && feed.more; started++)
            fetch(a, walk, share, warp, shared_address(ring + started * args.slot), full + 8 * started, feed);
    }
    __syncwarp();
    if (ranks.shift)
        cluster_arrive(); /* its barriers are there */

    wait_for_dependency();
    const Tokens tokens = find_tokens<TOKENS>(a);
    if (tokens.count <= 0) {
        for (int32_t s = 0; s < started; s++)
            mbarrier_wait(full + 8 * s, 0);
        return;
    }

    UnitActs<NT> acts;
    acts.plane = TOKENS * place.pitch;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        int row = min(lane % 8 + 8 * n, (TOKENS == 1 ? PLANES : tokens.count) - 1);
        acts.rows[n] = shared_address(place.at + row * place.pitch + lane / 8 * 16);
    }
    float *sums = (float *)(shared + args.at_sums);
    const bool whole = args.window >= share.end - share.begin;
    float4 gate = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    int slot = 0;
    int32_t turn = 0;
    uint32_t parity = 0;
    Job job = {walk.first, 0};
    acts.made = false;
    for (bool more = walk.first < walk.blocks, loaded = false; more;) {
        const Rows rows = rows_of(a, job);
        const struct fmk_linear_part &part = a.part[rows.part];
        float total[PANELS][NT][4] = {};
        int32_t unit = share.begin + warp;
        for (Share held = {share.begin, 0}; held.begin < share.end; held.begin = held.end) {
            held.end = min(held.begin + args.window, share.end);
            if (!whole || !loaded) {
                if (loaded)
                    __syncthreads(); /* nobody reads any more what was there */
                load_acts<X, PLANES, TOKENS>(a, tokens, held, place);
                loaded = true;
            }
            for (; unit < held.end; unit += WARPS) {
                UnitActs<NT> own = acts;
#pragma unroll
                for (int n = 0; n < NT; n++)
                    own.rows[n] += (uint32_t)(2 * UNIT_K * (unit - held.begin));
                own.sums = args.keeps_sums ? (float2 *)(shared + args.at_act_sums) +
                                                 4 * NT * (ANY ? 4 : 1) * (unit - share.begin)
                                           : nullptr;
                mbarrier_wait(full + 8 * slot, parity);
                auto release = [&]() {
                    __syncwarp();
                    if (lane == 0 && feed.more)
                        fetch(a, walk, share, warp, shared_address(ring + slot * args.slot), full + 8 * slot,
                              feed);
                };
                if (ANY)
                    multiply_groups<X, NT, PASSES, COLUMNS>(part, ring + slot * args.slot, own, lane, release,
                                                            total);
                else
                    multiply_group<X, NT, PASSES, COLUMNS>(part, ring + slot * args.slot, own, lane, release,
                                                           total);
                if (++slot == args.stages) {
                    slot = 0;
                    parity ^= 1;
                }
            }
        }
        put_sums<TOKENS, PLANES>(sums + warp * TOKENS * FMK_FEW_SUMS_PITCH, total, lane);
        const int quads = 16 * tokens.count;
        if (ranks.shift && !turn) {
            __syncwarp();
            cluster_wait();
        }
        const float4 sum = add_blocks<TOKENS>(sums, quads, turn++, ranks);
        if (a.glu && !job.side)
            gate = sum;
        else if (ranks.own_quad() < quads)
            store_quad(a, tokens, rows, ranks.own_quad(), sum, gate);
        acts.made = args.keeps_sums;
        __syncwarp(); /* lanes read the sums that others kept */
        more = next_job(a, walk, job);
    }
    if (ranks.shift && !turn)
        cluster_wait();
}

extern "C" __global__ __launch_bounds__(THREADS,
                                        2) void few_f16_1(const __grid_constant__ struct fmk_few_args args) {
    linear_few<HalfCodes, 1, 1, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS,
                                        2) void few_f16_8(const __grid_constant__ struct fmk_few_args args) {
    linear_few<HalfCodes, 8, 1, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS,
                                        1) void few_f16_16(const __grid_constant__ struct fmk_few_args args) {
    linear_few<HalfCodes, 16, 1, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS,
                                        2) void few_bf16_1(const __grid_constant__ struct fmk_few_args args) {
    linear_few<Bf16Codes, 1, 1, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS,
                                        2) void few_bf16_8(const __grid_constant__ struct fmk_few_args args) {
    linear_few<Bf16Codes, 8, 1, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void few_bf16_16(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<Bf16Codes, 16, 1, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS,
                                        2) void few_f32_1(const __grid_constant__ struct fmk_few_args args) {
    linear_few<PlaneCodes, 1, 3, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS,
                                        1) void few_f32_8(const __grid_constant__ struct fmk_few_args args) {
    linear_few<PlaneCodes, 8, 3, false>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void few_any_f16_1(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<HalfCodes, 1, 1, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void few_any_f16_8(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<HalfCodes, 8, 1, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void few_any_f16_16(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<HalfCodes, 16, 1, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void few_any_bf16_1(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<Bf16Codes, 1, 1, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void few_any_bf16_8(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<Bf16Codes, 8, 1, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void few_any_bf16_16(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<Bf16Codes, 16, 1, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 2) void few_any_f32_1(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<PlaneCodes, 1, 3, true>(args);
}
extern "C" __global__ __launch_bounds__(THREADS, 1) void few_any_f32_8(
    const __grid_constant__ struct fmk_few_args args) {
    linear_few<PlaneCodes, 8, 3, true>(args);
}
