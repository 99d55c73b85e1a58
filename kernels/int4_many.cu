/* Grouped INT4 for many tokens: out = in . W^T over int4.t16 by mma.m16n8k16, weights as the A operand, on
 * any GPU since compute capability 8.0.
 *
 * A block computes a tile of weight rows by tokens. Stages of K travel through a ring in shared memory, by
 * cp.async; a warp multiplies 32 or 64 rows by up to 64 tokens, of its share of a stage's K. Codes become
 * weights, rounded once, in registers. At the end sums go through shared memory, those of the shares of K in
 * their order. */
#include "layout.h"
#include "linear_mma.cuh"
#include "many.h"

enum { STAGES = FMK_MANY_STAGES };

/* Panels and eights of tokens of a warp; warps along rows, tokens and K; K of a stage. */
template <int P, int NT, int WR, int WT, int WK, int STAGE_K, bool ANY_GROUPS> struct TileOf {
    static constexpr int PANELS = P, ROWS = 16 * P * WR, TOKENS = 8 * NT * WT, BLOCK_PANELS = ROWS / 16,
                         COLUMNS = NT;
    static constexpr int UNITS = STAGE_K > FMK_INT4_UNIT_K ? STAGE_K / FMK_INT4_UNIT_K : 1; /* of a stage */
    static constexpr int K = STAGE_K, BLOCKS = K / WK / 32; /* of 32 k: of a warp, in a stage */
    static constexpr int ROW_WARPS = WR, TOKEN_WARPS = WT, K_WARPS = WK;
    static constexpr bool ANY = ANY_GROUPS;
    static constexpr int ACTS = TOKENS * K * 2, CODES = ROWS * K / 2; /* bytes of a stage */
    static constexpr int SCALES = FMK_MANY_SCALES(ANY), STAGE = FMK_MANY_STAGE(ROWS, TOKENS, K, ANY);
    static constexpr int PITCH = ROWS + 4; /* of a token's sums: a warp's stores meet no bank twice */
    static_assert(WR * WT * WK * 32 == FMK_MANY_THREADS, "eight warps");
    static constexpr int FIT = STAGES * STAGE / (4 * TOKENS * PITCH); /* such sums where the ring was, */
    static constexpr int BUFFERS = FIT < WK ? FIT < 2 ? 1 : 2 : WK;   /* and those that are used */
    static_assert(FIT > 0, "sums go where the ring was");
};

/* ---- codes to weights ---- */

/* Scales and zero points of rows g and g + 8. */
struct Group {
    float scale[2];
    uint32_t zero[2];
};

/* 1024 has a last place of 1: its low bits take a code, or four bits higher 16 times it. FINE: a scale may be
 * f32, and is the sum of two, or the weight would be rounded twice. */
template <bool FINE> struct HalfWeights : F16 {
    static constexpr bool RANGED = true;  /* weights may be out of its range: see struct fmk_range */
    uint32_t scale[2], rest[2], zeros[2]; /* each twice; zeros: of row g 1024 + zero, of g + 8 -(64 + zero) */

    __device__ __forceinline__ void set(const Group &group) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            scale[i] = f32_to_f16x2(group.scale[i], group.scale[i]);
            const float left = group.scale[i] - f16_to_f32((uint16_t)scale[i]);
            rest[i] = f32_to_f16x2(left, left);
        }
        zeros[0] = 0x64006400 + 0x10001 * group.zero[0];
        zeros[1] = 0xd400d400 + 0x100010 * group.zero[1];
    }

    __device__ __forceinline__ uint32_t scaled(uint32_t codes, int row) const {
        const uint32_t product = mul_f16x2(codes, FINE ? rest[row] : scale[row]);
        return FINE ? fma_f16x2(codes, scale[row], product) : product;
    }

    __device__ __forceinline__ void unpack(uint32_t word, uint32_t a[4]) const {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t w = word >> 8 * half;
            const uint32_t low = sub_f16x2(and_or(w, 0x000f000f, 0x64006400), zeros[0]);
            const uint32_t high = fma_f16x2(and_or(w, 0x00f000f0, 0x64006400), 0x2c002c00, zeros[1]);
            a[2 * half] = scaled(low, 0);
            a[2 * half + 1] = scaled(high, 1);
        }
    }
};

/* 128 likewise takes a code in its low bits. A scale is the sum of two. */
struct Bf16Weights : Bf16 {
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

/* What a thread copies of every stage: 16 bytes of some panels' codes and some tokens' activations; some
 * threads also scales. */
template <class T> struct Copies {
    static constexpr int TILES = T::K / 64; /* of a panel, in a stage */
    static constexpr int PANELS_APART = FMK_MANY_THREADS / 32 / TILES,
                         FROM_PANELS = T::BLOCK_PANELS / PANELS_APART;
    static constexpr int CHUNKS = T::K / 8, TOKENS_APART = FMK_MANY_THREADS / CHUNKS,
                         FROM_TOKENS = T::TOKENS / TOKENS_APART;
    const uint8_t *codes[FROM_PANELS], *scales;
    const uint16_t *acts;                  /* of the first of its tokens */
    int64_t apart;                         /* elements to the next */
    uint32_t at_acts, at_codes, at_scales; /* in a stage */
    int32_t of_codes, of_scales;           /* unit of a stage */
    int32_t unit, units;                   /* bytes of one; of all of K */
    int32_t k, tokens;                     /* columns, and tokens, from the thread's first on */
    bool has_scales;

    static __device__ __forceinline__ const uint8_t *panel(const struct fmk_linear_kernel_args &args,
                                                           const RowBlock &at, int panel) {
        const struct fmk_linear_part &part = args.part[args.glu ? panel % 2 : at.part];
        const int32_t row = at.row + 16 * (args.glu ? panel / 2 : panel);
        return (const uint8_t *)part.data +
               (uint64_t)(args.expert + (int32_t)blockIdx.z) * part.expert_stride +
               (uint64_t)min(row / 16, (part.n - 1) / 16) * part.stride;
    }

    __device__ __forceinline__ void start(const struct fmk_linear_kernel_args &args, const RowBlock &at,
                                          int32_t first, int32_t count) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const struct fmk_linear_part &part = args.part[at.part];
        const int32_t scale_bytes =
            4 / part.chunks * 16 * ((int32_t)number_size(part.dtype) + (part.has_zeros ? 1 : 0));
        unit = FMK_INT4_UNIT_CODES + scale_bytes;
#pragma unroll
        for (int i = 0; i < FROM_PANELS; i++)
            codes[i] = panel(args, at, warp / TILES + PANELS_APART * i) + warp % TILES / 2 * unit +
                       FMK_T16_TILE * (warp % TILES % 2) + 16 * lane;
        has_scales = warp < T::BLOCK_PANELS * T::UNITS && 16 * lane < scale_bytes;
        scales = panel(args, at, warp / T::UNITS % T::BLOCK_PANELS) + warp % T::UNITS * unit +
                 FMK_INT4_UNIT_CODES + 16 * lane;
        units = args.k_packed / FMK_INT4_UNIT_K;
        of_codes = warp % TILES / 2;
        of_scales = warp % T::UNITS;
        at_codes = not_before_here(T::ACTS + 16 * threadIdx.x);
        at_scales = not_before_here(T::ACTS + T::CODES + T::SCALES * warp + 16 * lane);
        const int chunk = threadIdx.x % CHUNKS, token = threadIdx.x / CHUNKS;
        k = args.k - 8 * chunk;
        tokens = count - token;
        at_acts = not_before_here(2 * T::K * token + 16 * (chunk ^ token % 2 * 4));
        acts = (const uint16_t *)args.in + blockIdx.z * args.expert_in_stride +
               (int64_t)(first + token) * args.in_stride + 8 * chunk;
        apart = TOKENS_APART * args.in_stride;
    }

    /* Of the next stage, number `stage`. Of a unit that is not there zeros: a weight is to be a number. */
    __device__ __forceinline__ void copy(int32_t stage, uint32_t to) {
        const bool codes_there = T::UNITS == 1 || T::UNITS * stage + of_codes < units;
        const bool scales_there = T::UNITS == 1 || T::UNITS * stage + of_scales < units;
        const int32_t step =
            T::K < FMK_INT4_UNIT_K ? stage % 2 ? unit - FMK_T16_TILE : FMK_T16_TILE : T::UNITS * unit;
#pragma unroll
        for (int i = 0; i < FROM_PANELS; i++) {
            copy_16_async(to + at_codes + FMK_MANY_THREADS * 16 * i, codes[i], codes_there);
            codes[i] += step;
        }
        if (has_scales)
            copy_16_async(to + at_scales, scales, scales_there);
        if (T::K >= FMK_INT4_UNIT_K || stage % 2)
            scales += T::UNITS * unit;
#pragma unroll
        for (int i = 0; i < FROM_TOKENS; i++)
            copy_16_async(to + at_acts + 2 * T::K * TOKENS_APART * i, acts + i * apart,
                          k > 0 && TOKENS_APART * i < tokens);
        acts += T::K;
        k -= T::K;
    }
};

/* ---- products ---- */

/* Where a warp's work is in a tile. */
struct Share {
    int rows, tokens, k; /* numbers of warps along each */
};

template <class T> struct Groups {
    int32_t dtype, chunks, zeros; /* of scales; k by 32 to a group; offset behind the scales, 0: none */
    float inverse[T::PANELS];     /* of struct fmk_range */

    /* `scales`: of a stage; `block` of 32 k in the unit of the panel. */
    __device__ __forceinline__ Group load(const uint8_t *scales, int panel, int unit, int32_t block,
                                          int g) const {
        const uint8_t *from = scales + T::SCALES * (T::UNITS * panel + unit);
        const int32_t group = T::ANY ? block / chunks : 0;
        Group found;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int32_t row = 16 * group + g + 8 * i;
            if (T::ANY) {
                found.scale[i] = load_number(from, dtype, row) * inverse[panel % T::PANELS];
            } else {
                const uint16_t bits = ((const uint16_t *)from)[row];
                found.scale[i] =
                    (dtype == NUMBER_F16 ? f16_to_f32(bits) : bf16_to_f32(bits)) * inverse[panel % T::PANELS];
            }
            found.zero[i] = zeros ? from[zeros + row] : 8;
        }
        return found;
    }
};

template <class X, class T>
__device__ __forceinline__ void multiply_stage(uint32_t stage, const uint8_t *scales, int32_t number,
                                               const Share &share, const Groups<T> &groups, int lane,
                                               X (&weights)[T::PANELS],
                                               float (&total)[T::PANELS][T::COLUMNS][4]) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < T::BLOCKS; b++) {
        const int block = T::BLOCKS * share.k + b; /* of 32 k, in the stage */
        uint32_t a[2][T::PANELS][4];
#pragma unroll
        for (int r = 0; r < T::PANELS; r++) {
            const int panel = T::PANELS * share.rows + r;
            /* A stage of 64 k is half a unit. */
            if (T::ANY || (b == 0 && (T::K >= FMK_INT4_UNIT_K || number % 2 == 0)))
                weights[r].set(groups.load(scales, panel, T::UNITS > 1 ? block / 4 : 0,
                                           (T::K / 32 * number + block) % 4, g));
            const uint2 words = load_shared_8(stage + T::ACTS + T::K * 8 * panel + block / 2 * FMK_T16_TILE +
                                              16 * lane + block % 2 * 8);
            weights[r].unpack(words.x, a[0][r]);
            weights[r].unpack(words.y, a[1][r]);
        }
        const uint32_t acts =
            stage + 2 * T::K * (8 * T::COLUMNS * share.tokens + g) + 16 * ((4 * block + t) ^ g % 2 * 4);
#pragma unroll
        for (int n = 0; n < T::COLUMNS; n += 2) {
            const uint4 x[2] = {load_shared_16(acts + 16 * T::K * n),
                                load_shared_16(acts + 16 * T::K * (n + 1))};
            /* Sums are added to twice, not one right after the other. */
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int r = 0; r < T::PANELS; r++)
                    X::mma(total[r][n + i], a[0][r], x[i].x, x[i].y, total[r][n + i]);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int r = 0; r < T::PANELS; r++)
                    X::mma(total[r][n + i], a[1][r], x[i].z, x[i].w, total[r][n + i]);
        }
    }
}

/* ---- sums ---- */

/* Those of T::BUFFERS shares of K lie beside one another; the others' are added to them, round by round. */
template <class T>
__device__ __forceinline__ void put_sums(float *sums, const Share &share, const float (&scale)[T::PANELS],
                                         int lane, const float (&total)[T::PANELS][T::COLUMNS][4]) {
#pragma unroll
    for (int round = 0; round < T::K_WARPS / T::BUFFERS; round++) {
        if (share.k / T::BUFFERS == round) {
#pragma unroll
            for (int r = 0; r < T::PANELS; r++)
#pragma unroll
                for (int n = 0; n < T::COLUMNS; n++)
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        const int row = 16 * (T::PANELS * share.rows + r) + lane / 4 + 8 * (c / 2);
                        const int token = 8 * (T::COLUMNS * share.tokens + n) + 2 * (lane % 4) + c % 2;
                        float *to = &sums[(share.k % T::BUFFERS * T::TOKENS + token) * T::PITCH + row];
                        *to = total[r][n][c] * scale[r] + (round ? *to : 0.0f);
                    }
        }
        __syncthreads();
    }
}

template <class T> __device__ __forceinline__ float sum_at(const float *sums, int token, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < T::BUFFERS; k++)
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
    const int warp = not_before_here(threadIdx.x / 32), lane = not_before_here(threadIdx.x % 32);
    const uint32_t base = not_before_here(shared_address(ring));
    const Share share = {warp % T::ROW_WARPS, warp / T::ROW_WARPS % T::TOKEN_WARPS,
                         warp / (T::ROW_WARPS * T::TOKEN_WARPS)};
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
    const int32_t stages = (linear.k_packed + T::K - 1) / T::K;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < stages)
            copies.copy(stage, base + stage * T::STAGE);
        end_copies();
    }

    const struct fmk_linear_part &part = linear.part[at.part];
    Groups<T> groups = {part.dtype,
                        part.chunks,
                        part.has_zeros ? 4 / part.chunks * 16 * (int32_t)number_size(part.dtype) : 0,
                        {}};
    float scale[T::PANELS], total[T::PANELS][T::COLUMNS][4] = {};
#pragma unroll
    for (int r = 0; r < T::PANELS; r++) {
        const float *range = X::RANGED ? args.range[linear.glu ? r % 2 : at.part] : NULL;
        scale[r] = range ? range[1] : 1.0f;
        groups.inverse[r] = range ? range[2] : 1.0f;
    }
    X weights[T::PANELS];
    int32_t slot = 0;
    for (int32_t stage = 0; stage < stages; stage++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads(); /* all have what all copied, and nobody reads the stage before any more */
        const int32_t ahead = stage + STAGES - 1;
        if (ahead < stages)
            copies.copy(ahead, base + (slot ? slot - 1 : STAGES - 1) * T::STAGE);
        end_copies();
        multiply_stage<X, T>(base + slot * T::STAGE, ring + slot * T::STAGE + T::ACTS + T::CODES, stage,
                             share, groups, lane, weights, total);
        slot = slot + 1 < STAGES ? slot + 1 : 0;
    }
    wait_for_copies<0>();
    __syncthreads();
    float *sums = (float *)ring;
    put_sums<T>(sums, share, scale, lane, total);
    if (in_pairs(linear, at))
        store_pairs<T>(linear, at, first, count, sums);
    else
        store_tile<T>(linear, at, first, count, sums);
}

template <bool ANY> using Tile128x16 = TileOf<2, 2, 4, 1, 2, 128, ANY>;
template <bool ANY> using Tile64x32 = TileOf<4, 4, 1, 1, 8, 256, ANY>;
template <bool ANY> using Tile128x32 = TileOf<2, 4, 4, 1, 2, 128, ANY>;
template <bool ANY> using Tile64x64 = TileOf<4, 8, 1, 1, 8, 256, ANY>;
template <bool ANY> using Tile128x64 = TileOf<2, 8, 4, 1, 2, 128, ANY>;
template <bool ANY> using Tile128x128 = TileOf<2, 8, 4, 2, 1, 64, ANY>;

extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_f16_128x16(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<false>, Tile128x16<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_f16_64x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<false>, Tile64x32<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_f16_128x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<false>, Tile128x32<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_f16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<false>, Tile64x64<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_f16_128x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<false>, Tile128x64<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_f16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<false>, Tile128x128<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_bf16_128x16(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x16<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_bf16_64x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile64x32<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_bf16_128x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x32<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_bf16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile64x64<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_bf16_128x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x64<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_bf16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x128<false>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_f16_128x16(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<true>, Tile128x16<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_any_f16_64x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<true>, Tile64x32<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_f16_128x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<true>, Tile128x32<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_any_f16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<true>, Tile64x64<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_f16_128x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<true>, Tile128x64<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_f16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<HalfWeights<true>, Tile128x128<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_bf16_128x16(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x16<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_any_bf16_64x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile64x32<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_bf16_128x32(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x32<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 1) void many_any_bf16_64x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile64x64<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_bf16_128x64(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x64<true>>(args);
}
extern "C" __global__ __launch_bounds__(FMK_MANY_THREADS, 2) void many_any_bf16_128x128(
    const __grid_constant__ struct fmk_many_args args) {
    linear_many<Bf16Weights, Tile128x128<true>>(args);
}
