/* Grouped INT4 for many tokens: out = in . W^T over int4.t16 by mma.m16n8k16, weights as the A operand, on
 * any GPU since compute capability 8.0.
 *
 * A block computes a tile of weight rows by tokens. Stages of K travel through a ring in shared memory, by
 * cp.async; a warp multiplies 32 rows by 64 tokens, of all of a stage's K or, in the smaller tile, of a
 * quarter of it. Codes become weights, rounded once, in registers. At the end sums go through shared memory,
 * those of the quarters in their order. */
#include "layout.h"
#include "linear_mma.cuh"
#include "many.h"

enum { STAGES = FMK_MANY_STAGES, PANELS = 2, COLUMNS = 8 }; /* of a warp: 32 rows, 64 tokens */

/* Warps along rows, tokens and K. */
template <int WR, int WT, int WK, bool ANY_GROUPS> struct TileOf {
    static constexpr int ROWS = 32 * WR, TOKENS = 64 * WT, BLOCK_PANELS = ROWS / 16;
    static constexpr int K = WK == 1 ? 64 : 32 * WK, WARP_K = K / WK; /* of a stage */
    static constexpr int ROWS_WARPS = WR, TOKEN_WARPS = WT, K_WARPS = WK;
    static constexpr bool ANY = ANY_GROUPS;
    static constexpr int ACTS = TOKENS * K * 2, CODES = ROWS * K / 2; /* bytes */
    static constexpr int SCALES = FMK_MANY_SCALES(ANY), STAGE = FMK_MANY_STAGE(ANY);
    static constexpr int PITCH = ROWS + 4; /* of a token's sums: a warp's stores meet no bank twice */
    static_assert(WR * WT * WK * 32 == FMK_MANY_THREADS, "eight warps");
    static_assert(ACTS + CODES == FMK_MANY_TILE, "a stage holds activations and codes");
    static_assert(4 * WK * TOKENS * PITCH <= FMK_MANY_SHARED(ANY), "sums go where the ring was");
};

/* ---- codes to weights ---- */

/* Scales and zero points of rows g and g + 8. */
struct Group {
    float scale[2];
    uint32_t zero[2];
};

/* 1024 has a last place of 1: its low bits take a code, or four bits higher 16 times it. */
struct HalfWeights : F16 {
    static constexpr int TYPE = NUMBER_F16;
    static constexpr bool RANGED = true; /* weights may be out of its range: see struct fmk_range */
    uint32_t scale[2], zeros[2];         /* each twice: of row g 1024 + zero, of row g + 8 -(64 + zero) */

    __device__ __forceinline__ void set(const Group &group) {
#pragma unroll
        for (int i = 0; i < 2; i++)
            scale[i] = f32_to_f16x2(group.scale[i], group.scale[i]);
        zeros[0] = 0x64006400 + 0x10001 * group.zero[0];
        zeros[1] = 0xd400d400 + 0x100010 * group.zero[1];
    }

    __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) const {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t w = word >> 8 * half;
            const uint32_t low = sub_f16x2(and_or(w, 0x000f000f, 0x64006400), zeros[0]);
            const uint32_t high = fma_f16x2(and_or(w, 0x00f000f0, 0x64006400), 0x2c002c00, zeros[1]);
            a[2 * half] = mul_f16x2(low, scale[0]);
            a[2 * half + 1] = mul_f16x2(high, scale[1]);
        }
    }
};

/* 128 likewise takes a code in its low bits. A scale is the sum of two. */
struct Bf16Weights : Bf16 {
    static constexpr int TYPE = NUMBER_BF16;
    static constexpr bool RANGED = false;
    uint32_t scale[2], rest[2], zeros[2]; /* each twice */

    __device__ __forceinline__ void set(const Group &group) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            scale[i] = f32_to_bf16x2(group.scale[i], group.scale[i]);
            const float left = group.scale[i] - bits_to_f32(scale[i] << 16);
            rest[i] = f32_to_bf16x2(left, left);
            zeros[i] = 0x43004300 + 0x10001 * group.zero[i];
        }
    }

    __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t code = sub_bf16x2(and_or(word >> 4 * i, 0x000f000f, 0x43004300), zeros[i % 2]);
            const uint32_t minus_0 = 0x80008000;
            a[i] = fma_bf16x2(code, scale[i % 2], fma_bf16x2(code, rest[i % 2], minus_0));
        }
    }
};

/* ---- copies ---- */

/* What a thread copies of every stage: 16 bytes of codes, of scales in some lanes, and of activations of
 * FROM_TOKENS tokens. */
template <class T> struct Copies {
    static constexpr int CHUNKS = T::K / 8, FROM_TOKENS = T::TOKENS * CHUNKS / FMK_MANY_THREADS,
                         APART = FMK_MANY_THREADS / CHUNKS; /* tokens from one to the next */
    const uint8_t *codes, *scales;
    const uint16_t *acts;                  /* of the first of its tokens */
    int64_t apart;                         /* elements to the next */
    uint32_t at_codes, at_scales, at_acts; /* in a stage */
    int32_t unit;                          /* bytes */
    int32_t k, tokens;                     /* columns, and tokens, from the thread's first on */
    bool has_scales;

    __device__ __forceinline__ void start(const struct fmk_linear_kernel_args &args, const RowBlock &at,
                                          int32_t first, int32_t count) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        /* A warp has 64 k of a panel: one of eight, or one of four and of a unit's two tiles. */
        const int panel = T::BLOCK_PANELS == 8 ? warp : warp / 2, tile = T::BLOCK_PANELS == 8 ? 0 : warp % 2;
        const struct fmk_linear_part &part = args.part[args.glu ? panel % 2 : at.part];
        const int32_t row = at.row + 16 * (args.glu ? panel / 2 : panel);
        const int32_t scale_bytes =
            4 / part.chunks * 16 * ((int32_t)number_size(part.dtype) + (part.has_zeros ? 1 : 0));
        unit = FMK_INT4_UNIT_CODES + scale_bytes;
        const uint8_t *data = (const uint8_t *)part.data +
                              (uint64_t)(args.expert + (int32_t)blockIdx.z) * part.expert_stride +
                              (uint64_t)min(row / 16, (part.n - 1) / 16) * part.stride;
        codes = data + FMK_T16_TILE * tile + 16 * lane;
        scales = data + FMK_INT4_UNIT_CODES + 16 * lane;
        has_scales = tile == 0 && 16 * lane < scale_bytes;
        at_codes = T::ACTS + 16 * threadIdx.x;
        at_scales = T::ACTS + T::CODES + T::SCALES * panel + 16 * lane;
        const int chunk = threadIdx.x % CHUNKS, token = threadIdx.x / CHUNKS;
        k = args.k - 8 * chunk;
        at_acts = 2 * T::K * token + 16 * (chunk ^ token % 2 * 4);
        acts = (const uint16_t *)args.in + blockIdx.z * args.expert_in_stride +
               (int64_t)(first + token) * args.in_stride + 8 * chunk;
        apart = APART * args.in_stride;
        tokens = count - token;
    }

    /* Of stage `stage` of K. */
    __device__ __forceinline__ void copy(int32_t stage, uint8_t *to) const {
        const int32_t tiles = T::K / 64, from = stage * T::K;
        const int64_t of_unit = (int64_t)(stage * tiles / 2) * unit;
        copy_16_async(to + at_codes, codes + of_unit + (tiles == 1 ? stage % 2 * FMK_T16_TILE : 0));
        if (has_scales)
            copy_16_async(to + at_scales, scales + of_unit);
#pragma unroll
        for (int i = 0; i < FROM_TOKENS; i++)
            copy_16_async(to + at_acts + 2 * T::K * APART * i, acts + i * apart + from,
                          from < k && APART * i < tokens);
    }
};

/* ---- products ---- */

/* Where a warp's work is in a tile. */
struct Share {
    int rows, tokens, k; /* numbers of warps along each */
};

template <class T> struct Groups {
    int32_t dtype, chunks, zeros; /* of scales; k by 32 to a group; offset behind the scales, 0: none */
    float inverse[PANELS];        /* of struct fmk_range */

    __device__ __forceinline__ Group load(const uint8_t *scales, int panel, int32_t group, int g) const {
        const uint8_t *from = scales + T::SCALES * panel;
        Group found;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int32_t row = 16 * group + g + 8 * i;
            found.scale[i] = load_number(from, dtype, row) * inverse[panel % PANELS];
            found.zero[i] = zeros ? from[zeros + row] : 8;
        }
        return found;
    }
};

template <class X, class T>
__device__ __forceinline__ void multiply_stage(const uint8_t *stage, int32_t number, const Share &share,
                                               const Groups<T> &groups, int lane, X (&weights)[PANELS],
                                               float (&total)[PANELS][COLUMNS][4]) {
    constexpr int BLOCKS = T::WARP_K / 32;
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const int block = BLOCKS * share.k + b;                   /* of 32 k, in the stage */
        const int32_t in_unit = (T::K / 32 * number + block) % 4; /* and in the unit */
        uint32_t a[2][PANELS][4];
#pragma unroll
        for (int r = 0; r < PANELS; r++) {
            const int panel = PANELS * share.rows + r;
            if (T::ANY || b == 0)
                weights[r].set(
                    groups.load(stage + T::ACTS + T::CODES, panel, T::ANY ? in_unit / groups.chunks : 0, g));
            const uint2 words = load_8(stage + T::ACTS + T::K * 8 * panel + block / 2 * FMK_T16_TILE +
                                       16 * lane + block % 2 * 8);
            weights[r].unpack(words.x, a[0][r]);
            weights[r].unpack(words.y, a[1][r]);
        }
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
            const int token = 64 * share.tokens + 8 * n + g;
            const uint4 x = load_16(stage + 2 * T::K * token + 16 * ((4 * block + t) ^ token % 2 * 4));
#pragma unroll
            for (int r = 0; r < PANELS; r++) {
                X::mma(total[r][n], a[0][r], x.x, x.y, total[r][n]);
                X::mma(total[r][n], a[1][r], x.z, x.w, total[r][n]);
            }
        }
    }
}

/* ---- sums ---- */

template <class T>
__device__ __forceinline__ void put_sums(float *sums, const Share &share, const float (&scale)[PANELS],
                                         int lane, const float (&total)[PANELS][COLUMNS][4]) {
#pragma unroll
    for (int r = 0; r < PANELS; r++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int row = 32 * share.rows + 16 * r + lane / 4 + 8 * (c / 2);
                const int token = 64 * share.tokens + 8 * n + 2 * (lane % 4) + c % 2;
                sums[(share.k * T::TOKENS + token) * T::PITCH + row] = total[r][n][c] * scale[r];
            }
}

template <class T> __device__ __forceinline__ float sum_at(const float *sums, int token, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < T::K_WARPS; k++)
        sum += sums[(k * T::TOKENS + token) * T::PITCH + row];
    return sum;
}

/* Whether two neighbours of a row can be stored at once, as they are but for a bias. */
__device__ __forceinline__ bool in_pairs(const struct fmk_linear_kernel_args &args, const RowBlock &at) {
    const struct fmk_epilogue_args &e = args.epilogue;
    const int32_t column = args.part[at.part].column + at.row;
    return !args.glu && !e.addend && !e.weights && e.out_type != NUMBER_F32 &&
           ((uintptr_t)e.out / 2 + column) % 2 == 0 && (e.out_stride | args.expert_out_stride) % 2 == 0;
}

template <class T>
__device__ __forceinline__ void store_pairs(const struct fmk_linear_kernel_args &args, const RowBlock &at,
                                            int32_t first, int32_t count, const float *sums) {
    const struct fmk_epilogue_args &e = args.epilogue;
    const struct fmk_linear_part &part = args.part[at.part];
    const int32_t expert = args.expert + (int32_t)blockIdx.z, pair = threadIdx.x % (T::ROWS / 2);
    const int32_t row = at.row + 2 * pair;
    if (row >= part.n)
        return;
    const bool both = row + 1 < part.n;
    const float bias[2] = {bias_at(part, expert, row), both ? bias_at(part, expert, row + 1) : 0.0f};
    uint16_t *out =
        (uint16_t *)e.out + blockIdx.z * args.expert_out_stride + first * e.out_stride + part.column + row;
    for (int32_t token = threadIdx.x / (T::ROWS / 2); token < count;
         token += FMK_MANY_THREADS / (T::ROWS / 2)) {
        const float low = sum_at<T>(sums, token, 2 * pair) + bias[0];
        const float high = sum_at<T>(sums, token, 2 * pair + 1) + bias[1];
        const uint32_t v = e.out_type == NUMBER_F16 ? f32_to_f16x2(low, high) : f32_to_bf16x2(low, high);
        uint16_t *to = out + token * e.out_stride;
        if (both)
            *(uint32_t *)to = v;
        else
            *to = (uint16_t)v;
    }
}

template <class T>
__device__ __forceinline__ void store_tile(const struct fmk_linear_kernel_args &args, const RowBlock &at,
                                           int32_t first, int32_t count, const float *sums) {
    const struct fmk_epilogue_args &e = args.epilogue;
    const struct fmk_linear_part &part = args.part[at.part];
    const int32_t expert = args.expert + (int32_t)blockIdx.z, rows = args.glu ? T::ROWS / 2 : T::ROWS;
    void *out = (char *)e.out + blockIdx.z * args.expert_out_stride * number_size(e.out_type);
    for (int32_t i = threadIdx.x; i < count * rows; i += FMK_MANY_THREADS) {
        const int32_t token = i / rows, of_tile = i % rows, row = at.row + of_tile;
        if (row >= part.n)
            continue;
        const float bias = bias_at(part, expert, row);
        if (args.glu) { /* panels of gate and up in turn */
            const int32_t gate = 32 * (of_tile / 16) + of_tile % 16;
            finish_glu(e, out, first + token, row, sum_at<T>(sums, token, gate) + bias,
                       sum_at<T>(sums, token, gate + 16) + bias_at(args.part[1], expert, row));
        } else {
            finish(e, out, first + token, part.column + row, sum_at<T>(sums, token, of_tile) + bias);
        }
    }
}

/* ---- the kernel ---- */

template <class X, class T> __device__ __forceinline__ void linear_many(const struct fmk_many_args &args) {
    const struct fmk_linear_kernel_args &linear = args.linear;
    uint8_t *ring = dynamic_shared();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Share share = {warp % T::ROWS_WARPS, warp / T::ROWS_WARPS % T::TOKEN_WARPS,
                         warp / (T::ROWS_WARPS * T::TOKEN_WARPS)};
    allow_dependents();
    wait_for_dependency();
    const RowBlock at = find_block(linear, linear.glu ? T::ROWS / 2 : T::ROWS, (int32_t)blockIdx.x);
    const int32_t m = linear.m_dev ? min(linear.m, max(*linear.m_dev, 0)) : linear.m;
    const int32_t first = linear.first_row + T::TOKENS * (int32_t)blockIdx.y,
                  count = min(T::TOKENS, m - first);
    if (count <= 0)
        return;

    Copies<T> copies;
    copies.start(linear, at, first, count);
    const int32_t stages = linear.k_packed / T::K;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < stages)
            copies.copy(stage, ring + stage * T::STAGE);
        end_copies();
    }

    const struct fmk_linear_part &part = linear.part[at.part];
    Groups<T> groups = {part.dtype,
                        part.chunks,
                        part.has_zeros ? 4 / part.chunks * 16 * (int32_t)number_size(part.dtype) : 0,
                        {1.0f, 1.0f}};
    float scale[PANELS] = {1.0f, 1.0f}, total[PANELS][COLUMNS][4] = {};
#pragma unroll
    for (int r = 0; X::RANGED && r < PANELS; r++) {
        const float *range = args.range[linear.glu ? r : at.part];
        scale[r] = range ? range[1] : 1.0f;
        groups.inverse[r] = range ? range[2] : 1.0f;
    }
    X weights[PANELS];
    int32_t slot = 0;
    for (int32_t stage = 0; stage < stages; stage++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads(); /* all have what all copied, and nobody reads the stage before any more */
        const int32_t ahead = stage + STAGES - 1;
        if (ahead < stages)
            copies.copy(ahead, ring + (slot ? slot - 1 : STAGES - 1) * T::STAGE);
        end_copies();
        multiply_stage<X, T>(ring + slot * T::STAGE, stage, share, groups, lane, weights, total);
        slot = slot + 1 < STAGES ? slot + 1 : 0;
    }
    wait_for_copies<0>();
    __syncthreads();
    float *sums = (float *)ring;
    put_sums<T>(sums, share, scale, lane, total);
    __syncthreads();
    if (in_pairs(linear, at))
        store_pairs<T>(linear, at, first, count, sums);
    else
        store_tile<T>(linear, at, first, count, sums);
}

template <bool ANY> using Large = TileOf<4, 2, 1, ANY>;
template <bool ANY> using Small = TileOf<2, 1, 4, ANY>;

extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_f16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights, Large<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_f16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights, Small<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_bf16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Large<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_bf16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Small<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_f16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights, Large<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_f16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights, Small<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_bf16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Large<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_bf16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Small<true>>(args);
}
