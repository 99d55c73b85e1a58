/* out = in . W^T without tensor cores: every weight as a float, every product and sum in float or in double.
 * For calls that want no rounding of activations, for what the mma kernels do not serve, and as their
 * reference.
 *
 * A block computes 4 weight rows, of 16 that lie together, by up to 8 tokens. Its warps take turns along K,
 * 256 k at a time; half of a warp has rows g and the other g + 1, each lane 16 k of a row and of the one 8
 * further. The order of an output's additions depends on K and on the layout alone. */
#include "epilogue.cuh"
#include "plain.h"
#include "weights.cuh"

enum { WARPS = FMK_PLAIN_THREADS / 32, TOKENS = FMK_PLAIN_TOKENS, STEP_K = 256, QUADS = 4 };

__device__ __forceinline__ float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}

__device__ __forceinline__ double multiply_add(double a, double b, double c) {
    return fma(a, b, c);
}

/* ---- activations ---- */

struct activations {
    const struct fmk_linear_kernel_args &args;
    const int32_t *index; /* k of each packed position, -1 = padding; or NULL */
    bool vectors;         /* rows are aligned to four numbers */
};

/* Positions k .. k+3 of one plane of the row that begins at `at`; 0 where there is nothing. */
__device__ __forceinline__ void load_plane(const struct activations &x, int64_t at, int32_t k, float v[4]) {
    int32_t type = x.args.in_type;
    const char *row = (const char *)x.args.in + at * number_size(type);
    if (!x.index) {
        load_quad(row, type, k, x.args.k, x.vectors, v);
        return;
    }
    for (int i = 0; i < 4; i++)
        v[i] = x.index[k + i] >= 0 ? load_number(row, type, x.index[k + i]) : 0.0f;
}

template <class Sum>
__device__ __forceinline__ void load_activations(const struct activations &x, int64_t at, int32_t k,
                                                 Sum v[4]) {
    float plane[4];
    load_plane(x, at, k, plane);
    for (int i = 0; i < 4; i++)
        v[i] = plane[i];
#pragma unroll 1
    for (int p = 1; p < x.args.planes; p++) {
        load_plane(x, at + p * x.args.plane_stride, k, plane);
        for (int i = 0; i < 4; i++)
            v[i] += plane[i];
    }
}

/* ---- a step: a lane's weights of rows g and g + 8; quad q begins at k + quad_offset ---- */

struct step {
    struct fragment f;
    int32_t k, near, far;
};

__device__ __forceinline__ int32_t quad_offset(const struct step &s, int q) {
    return q % 2 * s.near + q / 2 * s.far;
}

/* A dense row: its lane, of 16, loads 16 bytes at a time. */
__device__ __forceinline__ void load_dense(const uint8_t *row, int32_t type, const struct step &s,
                                           int32_t count, bool whole, float w[16]) {
    if (!whole) { /* the end of K, or not aligned */
#pragma unroll
        for (int q = 0; q < QUADS; q++)
            load_quad(row, type, s.k + quad_offset(s, q), count, false, w + 4 * q);
    } else if (type == NUMBER_F32) {
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            uint4 v = load_stream((const float *)row + s.k + quad_offset(s, q));
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[4 * q + i] = bits_to_f32(word_of(v, i));
        }
    } else {
#pragma unroll
        for (int q = 0; q < QUADS; q += 2) {
            uint4 v = load_stream((const uint16_t *)row + s.k + quad_offset(s, q));
#pragma unroll
            for (int i = 0; i < 4; i++)
                split_pair(word_of(v, i), type, w + 4 * q + 2 * i);
        }
    }
}

/* The two rows that a lane serves. Past the last row it is that one again: nobody takes the result. */
struct dense_rows {
    const uint8_t *row[2];
    bool vectors; /* aligned to 16 bytes */
};

__device__ __forceinline__ struct dense_rows find_rows(const struct fmk_linear_part &part,
                                                       const uint8_t *data, int32_t panel, int g) {
    struct dense_rows rows;
    for (int i = 0; i < 2; i++) {
        int64_t n = 16 * (int64_t)panel + g + 8 * i;
        rows.row[i] = data + (n < part.n ? n : part.n - 1) * part.stride;
    }
    rows.vectors = (((uintptr_t)rows.row[0] | (uintptr_t)rows.row[1]) & 15) == 0;
    return rows;
}

__device__ __forceinline__ void load_step(const struct fmk_linear_part &part, const struct dense_rows &rows,
                                          int32_t k, int32_t count, struct step &s) {
    int lane = threadIdx.x % 16;
    s.k = k + (part.dtype == NUMBER_F32 ? 4 : 8) * lane;
    s.near = part.dtype == NUMBER_F32 ? 64 : 4;
    s.far = 128;
    bool whole = rows.vectors && k + STEP_K <= count;
#pragma unroll
    for (int i = 0; i < 2; i++)
        load_dense(rows.row[i], part.dtype, s, count, whole, s.f.w[i]);
}

template <int family>
__device__ __forceinline__ void load_step(const struct fmk_linear_part &part, const uint8_t *block, int panel,
                                          int g, int32_t k, struct step &s) {
    int t = threadIdx.x % 4, tile = k % UNIT_K<family> / 64;
    const uint8_t *unit = block + (int64_t)(k / UNIT_K<family>)*unit_bytes<family>(part);
    struct lane_codes codes = load_codes<family>(unit, panel, tile, 4 * g + t);
    struct unit_headers<family> headers;
    load_headers(unit, g, headers);
    decode_fragment(part, unit, headers, 16 * panel + g, tile, codes, s.f);
    s.k = k + fragment_k<family>(t, 0);
    s.near = fragment_k<family>(0, 1);
    s.far = fragment_k<family>(0, 2);
}

/* ---- a block ---- */

/* What the threads of a block share. A thread's own sums are there too: that way the loop over tokens need
 * not be unrolled, and registers are left for weights in flight. */
template <class Sum> struct shared {
    int64_t in_at[TOKENS]; /* first element of each token's row */
    Sum own[TOKENS][2][FMK_PLAIN_THREADS];
    Sum sum[WARPS][TOKENS][4]; /* of rows g, g + 8, g + 1, g + 9 */
};

/* Adds a step's products for every token. */
template <class Sum>
__device__ __forceinline__ void multiply_step(const struct step &s, const struct activations &x, int tokens,
                                              struct shared<Sum> &shared) {
#pragma unroll 1
    for (int token = 0; token < tokens; token++) {
        Sum sum[2] = {0, 0};
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            /* Or the compiler would work out the addresses of all quads before the loop, and keep them. */
            uint32_t k = not_before_here((uint32_t)(s.k + quad_offset(s, q)));
            Sum v[4];
            load_activations(x, shared.in_at[token], (int32_t)k, v);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int row = 0; row < 2; row++)
                    sum[row] = multiply_add((Sum)s.f.w[row][4 * q + i], v[i], sum[row]);
        }
        for (int row = 0; row < 2; row++)
            shared.own[token][row][threadIdx.x] += sum[row];
    }
}

template <int family, class Sum>
__device__ __forceinline__ void multiply_rows(const struct fmk_linear_kernel_args &a,
                                              const struct fmk_linear_part &part, const struct activations &x,
                                              int32_t expert, int32_t panel, int g, int tokens,
                                              struct shared<Sum> &shared) {
    const uint8_t *data = (const uint8_t *)part.data + (uint64_t)expert * part.expert_stride;
    int32_t first = threadIdx.x / 32 * STEP_K;
    for (int token = 0; token < tokens; token++)
        shared.own[token][0][threadIdx.x] = shared.own[token][1][threadIdx.x] = 0;
    if constexpr (family == DENSE) {
        struct dense_rows rows = find_rows(part, data, panel, g);
        for (int32_t k = first; k < a.k_packed; k += WARPS * STEP_K) {
            struct step s;
            load_step(part, rows, k, a.k_packed, s);
            multiply_step(s, x, tokens, shared);
        }
    } else {
        data = block_of_row<family>(part, data, 16 * (int64_t)panel);
        panel %= BLOCK_ROWS<family> / 16;
        for (int32_t k = first + threadIdx.x % 16 / 4 * 64; k < a.k_packed; k += WARPS * STEP_K) {
            struct step s;
            load_step<family>(part, data, panel, g, k, s);
            multiply_step(s, x, tokens, shared);
        }
    }
}

/* The sum for thread i < 32: token i / 4, row i % 4. */
template <class Sum> __device__ __forceinline__ Sum add_up(struct shared<Sum> &shared, int tokens) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int token = 0; token < tokens; token++)
        for (int row = 0; row < 2; row++) {
            Sum sum = shared.own[token][row][threadIdx.x];
            for (int lanes = 8; lanes; lanes /= 2)
                sum += __shfl_xor_sync(~0u, sum, lanes);
            if (lane % 16 == 0)
                shared.sum[warp][token][lane / 16 * 2 + row] = sum;
        }
    __syncthreads();
    Sum total = 0;
    if (warp == 0 && lane / 4 < tokens)
        for (int i = 0; i < WARPS; i++)
            total += shared.sum[i][lane / 4][lane % 4];
    __syncthreads();
    return total;
}

/* Which rows a block has. */
struct place {
    int32_t part, panel, g;
};

__device__ __forceinline__ struct place find_place(const struct fmk_linear_kernel_args &a) {
    int32_t block = blockIdx.x, part = 0;
    while (part < a.num_parts - 1 && block >= FMK_PLAIN_BLOCKS(a.part[part].n))
        block -= FMK_PLAIN_BLOCKS(a.part[part++].n);
    return {part, block / FMK_PLAIN_PANEL_BLOCKS, block % FMK_PLAIN_PANEL_BLOCKS * 2};
}

template <int family, class Sum>
__device__ __forceinline__ void compute(const struct fmk_linear_kernel_args &a, struct shared<Sum> &shared,
                                        const struct place &place, int32_t expert, int32_t first,
                                        int tokens) {
    if ((int)threadIdx.x < tokens) {
        int32_t token = first + (int32_t)threadIdx.x;
        shared.in_at[threadIdx.x] =
            (a.in_rows ? a.in_rows[token] : token) * a.in_stride + blockIdx.z * a.expert_in_stride;
    }
    __syncthreads();
    bool vectors =
        is_aligned(a.in, a.in_type) && (a.in_stride | a.plane_stride | a.expert_in_stride) % 4 == 0;

    int sides = a.glu ? 2 : 1;
    float t[2] = {0, 0};
    int token = threadIdx.x / 4, i = threadIdx.x % 4;
    int64_t row = 16 * (int64_t)place.panel + place.g + i / 2 + i % 2 * 8;
    bool mine = token < tokens && row < a.part[place.part].n;
    for (int side = 0; side < sides; side++) {
        const struct fmk_linear_part &part = a.part[place.part + side];
        struct activations x = {a, part.k_index ? part.k_index + (int64_t)expert * a.k_packed : NULL,
                                vectors};
        multiply_rows<family>(a, part, x, expert, place.panel, place.g + threadIdx.x % 32 / 16, tokens,
                              shared);
        Sum total = add_up(shared, tokens);
        float bias = part.bias && mine ? part.bias[(int64_t)expert * part.n + row] : 0.0f;
        t[side] = (float)total + bias;
    }
    if (!mine)
        return;
    const struct fmk_epilogue_args &e = a.epilogue;
    void *out = (char *)e.out + blockIdx.z * a.expert_out_stride * number_size(e.out_type);
    int64_t out_row = a.out_rows ? a.out_rows[first + token] : first + token;
    int32_t column = a.part[place.part].column + (int32_t)row;
    if (a.glu)
        finish_glu(e, out, out_row, column, t[0], t[1]);
    else
        finish(e, out, out_row, column, t[0]);
}

template <int family, class Sum>
__device__ __forceinline__ void linear_plain(const struct fmk_linear_kernel_args &a) {
    __shared__ struct shared<Sum> shared;
    allow_dependents();
    wait_for_dependency();
    struct place place = find_place(a);
    int32_t expert = a.expert + (int32_t)blockIdx.z;
    int64_t first = a.first_row + TOKENS * (int64_t)blockIdx.y, end = a.m,
            stride = TOKENS * (int64_t)gridDim.y;
    if (a.tiles) {
        struct fmk_token_tile tile = a.tiles[blockIdx.y];
        expert = tile.expert;
        first = tile.first;
        end = first + tile.count;
        stride = TOKENS;
    } else if (a.m_dev && *a.m_dev < end) {
        end = *a.m_dev;
    }
    for (; first < end; first += stride)
        compute<family>(a, shared, place, expert, (int32_t)first,
                        (int)(end - first < TOKENS ? end - first : TOKENS));
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 3) void plain_dense_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<DENSE, float>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 3) void plain_int4_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<INT4, float>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 3) void plain_q4k_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<Q4K, float>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 3) void plain_q6k_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<Q6K, float>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 3) void plain_int4_t64_f32(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<INT4_T64, float>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 1) void plain_dense_f64(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<DENSE, double>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 1) void plain_int4_f64(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<INT4, double>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 1) void plain_q4k_f64(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<Q4K, double>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 1) void plain_q6k_f64(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<Q6K, double>(args);
}

extern "C" __global__ __launch_bounds__(FMK_PLAIN_THREADS, 1) void plain_int4_t64_f64(
    const __grid_constant__ struct fmk_linear_kernel_args args) {
    linear_plain<INT4_T64, double>(args);
}
