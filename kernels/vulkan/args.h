/* What the host and the Vulkan kernels agree on: push constants, specialisation constants, grids. Read by C
 * and, through GL_GOOGLE_include_directive, by GLSL; so there are no pointers and no enums in it.
 *
 * Kernels bind nothing. Every array is an address of buffer device memory (GL_EXT_buffer_reference), 0 where
 * it is absent; a kernel's arguments are its push constants: at most 128 bytes, which every device has. That
 * is what lets a call be recorded without descriptor sets, from any byte offset of a buffer of any size.
 *
 * Kernels may count on: bufferDeviceAddress, shaderInt64, 16-bit and 8-bit storage (storageBuffer16BitAccess,
 * storageBuffer8BitAccess), 128 invocations of a workgroup along x, 16384 bytes of shared memory. 16-bit and
 * 8-bit arithmetic, subgroup operations and the like are for modules of their own, which the host loads where
 * the device has what they need.
 *
 * Sums are floats made in an order that depends on K and on the specialisation constants other than TOKENS:
 * no atomics on floats, and a token's bits are the same alone and among eight.
 *
 * Layouts: dense.rows, q4_k.rows, q6_k.rows are the file's own rows (docs/formats.md). int4.x8 is described
 * in src/cpu/layouts/x8.h; only its `data` is needed, k_index having been applied by gather.comp. */
#ifndef FMK_KERNELS_VULKAN_ARGS_H
#define FMK_KERNELS_VULKAN_ARGS_H

#ifndef VULKAN /* which GLSL compilers define */
#include <stdint.h>
#endif

/* Numbers of ferrumk.h, for GLSL. */
#define FMK_VK_F16 1
#define FMK_VK_BF16 2
#define FMK_VK_F32 3
#define FMK_VK_SILU_MUL 1
#define FMK_VK_GELU_TANH_MUL 2
#define FMK_VK_SWIGLU_CLAMP 3

/* Families, as enum fmk_family has them. */
#define FMK_VK_DENSE 0
#define FMK_VK_INT4 1
#define FMK_VK_Q4_K 2
#define FMK_VK_Q6_K 3

/* Modules: NAME.spv for any device that has the above, and of some
 *     NAME_subgroups  gemv, where a subgroup size can be required (subgroupSizeControl, computeFullSubgroups)
 *                     and subgroups shuffle: SUBGROUP is that size
 *     NAME_coopmat    gemm, where there are cooperative matrices of f16, 16 x 16 x 16, with sums of f32, of a
 *                     subgroup, and shaderFloat16 and vulkanMemoryModel: SUBGROUP likewise. Activations are
 *                     as halve makes them, weights are rounded to f16, brought into its range before
 *     NAME_few        gemm, likewise, with matrices of 16 x 8 x 16, where subgroups shuffle and vote: for up
 *                     to 16 tokens
 *     NAME_half       gemm, with shaderFloat16: products, and sums of 64 of them, in f16.
 *                     Activations and weights as above
 *
 * Specialisation constants, by constant_id. A kernel declares those that it looks at, with any default.
 * Numbers of rows, tokens, lanes and invocations are powers of two.
 *
 * gemv: a workgroup has ROWS rows, LANES invocations share one, and so each has ROWS * LANES / THREADS rows
 * of its own, 1 .. 8; int4: at least 2, and 4 * LANES <= THREADS. Shared memory: TOKENS * STAGE * 35 / 8
 * bytes and 4 for each invocation.
 *
 * gemm: ROWS * TOKENS / THREADS is 32 or 64; THREADS <= 2 * ROWS and <= 8 * TOKENS. Shared memory: 128 bytes
 * for each row and token of the tile, and with f16 4 more.
 *
 * gemm_coopmat: a subgroup has LANES rows of the tile, 16 .. ROWS, and TOKENS * SUBGROUP * ROWS / LANES /
 * THREADS tokens, a multiple of 16; THREADS <= 4 * ROWS and <= 8 * TOKENS. Shared memory: 144 bytes for each
 * row and token of the tile, and 4 more.
 *
 * gemm_few: ROWS >= 16; TOKENS is 8 or 16, and rows of activations up to a multiple of it can be read. Shared
 * memory: 144 bytes for each row of each subgroup. */
#define FMK_VK_SPEC_THREADS 0     /* local_size_x_id: invocations of a workgroup, 32 .. 1024 */
#define FMK_VK_SPEC_ROWS 1        /* weight rows of a workgroup, or of its tile */
#define FMK_VK_SPEC_TOKENS 2      /* tokens of a workgroup: gemv 1, 2, 4 or 8; or of its tile */
#define FMK_VK_SPEC_IN_TYPE 3     /* gemm: of the activations */
#define FMK_VK_SPEC_WEIGHT_TYPE 4 /* dense: of the weights; int4: of the scales */
#define FMK_VK_SPEC_GLU 5         /* gemv: 1: gate and up together: args.up is there, out is act(gate, up) */
#define FMK_VK_SPEC_CHUNKS 6      /* int4: struct fmk_packed.chunks */
#define FMK_VK_SPEC_ROUTED 7      /* 1: args.lists are a call's lists, and workgroup y is tile y of them */
#define FMK_VK_SPEC_FAMILY 8      /* plain, decode: FMK_VK_DENSE .. */
#define FMK_VK_SPEC_DOUBLE 9      /* plain: 1: sums with the precision of double, by pairs of floats */
#define FMK_VK_SPEC_SUBGROUP 10   /* the subgroup size that is required of the device, or 0 */
#define FMK_VK_SPEC_LANES 11      /* see above */
#define FMK_VK_SPEC_VECTORS 12    /* gemv, gemm: 1: rows of weights begin at multiples of 16 bytes */
#define FMK_VK_SPEC_SCALED                                                                                   \
    13 /* gemv: 1: weights are scaled, for TOKENS > 2; 0: sums are. Not the same bits */
#define FMK_VK_SPEC_NATIVE_HALF 14 /* 1: the device's own conversion of f16 keeps subnormals */
#define FMK_VK_SPEC_STAGE 15 /* gemv: k of the activations in shared memory: a power of two, 256 or more */
#define FMK_VK_SPECS 16

/* fmk_vk_*.types: fmk_dtype of `to`, of the addend, and fmk_act; of `from` and the weights where they are not
 * specialised. */
#define FMK_VK_TYPES(out_type, addend_type, act, in_type, weight_type)                                       \
    ((out_type) | (addend_type) << 4 | (act) << 8 | (in_type) << 12 | (weight_type) << 16)
#define FMK_VK_OUT_TYPE(types) ((types)&15u)
#define FMK_VK_ADDEND_TYPE(types) ((types) >> 4 & 15u)
#define FMK_VK_ACT(types) ((types) >> 8 & 15u)
#define FMK_VK_IN_TYPE(types) ((types) >> 12 & 15u)
#define FMK_VK_WEIGHT_TYPE(types) ((types) >> 16 & 15u)

/* Tokens of one expert that are computed together, numbered as in_rows and out_rows are. 16 bytes. */
struct fmk_vk_tile {
    int32_t expert, first, count, reserved; /* count 0: nothing to do */
};

/* The lists of a routed call, at one address:
 *     struct fmk_vk_tile tiles[num_tiles]
 *     int32_t in_rows[capacity]      row of `from` of each token
 *     int32_t out_rows[capacity]     row of `to`, addend and weights of each
 * num_tiles * 16 is where in_rows begin. A kernel without ROUTED has rows first .. m-1, each its own row of
 * `from` and of `to`, and `lists` is the address of an int32_t: m is then the lesser of both; or 0. */

/* gemv_dense, gemv_q4k, gemv_q6k, gemv_int4, and the same of gemm: one part, or with GLU a pair of them.
 *     t = in . W^T + bias + addend;  out = t, or act(t gate, t up);  out *= weights
 * Grid: x walks over the blocks of ROWS weight rows in steps of gl_NumWorkGroups.x (the host gives at most
 * 65535 workgroups); y is a run of TOKENS tokens from `first` on, or with ROUTED a tile (of at most TOKENS).
 * Rows of `from` begin at multiples of 16 bytes and have k columns, a multiple of 8; so do dense weights'
 * rows, whose stride is a multiple of 16 bytes. Weights of the K quants' rows may begin at any even byte
 * (q6_k), at any multiple of 4 (q4_k); int4.x8's panels at a multiple of 8. */
struct fmk_vk_linear_args {
    uint64_t data, up;      /* row 0 of expert 0; up: of the other part, GLU alone, same numbers otherwise */
    uint64_t bias, up_bias; /* float [experts][n], or 0 */
    uint64_t from;          /* activations (GLSL has `in` and `out` for itself) */
    uint64_t to;            /* out, at the part's first column */
    uint64_t addend;        /* at the part's first column, or 0. GLU: up's columns are n further */
    uint64_t lists;
    uint64_t weights;                              /* float, by row of `to`, or 0 */
    uint32_t n, k;                                 /* rows of the part; columns, in packed order */
    uint32_t stride;                               /* bytes from row to row; int4: from panel to panel */
    uint32_t expert_stride;                        /* in units of 2 bytes */
    uint32_t in_stride, out_stride, addend_stride; /* elements */
    uint32_t first, m; /* without ROUTED: rows first .. m-1. With: first 1: the row of `from` is the
                          entry's own number, and in_rows is not looked at */
    uint32_t num_tiles, capacity; /* with ROUTED: of the lists */
    uint32_t types;
    float alpha, limit; /* SWIGLU_CLAMP */
};

/* plain: any part, any alignment: one sum an invocation or so. FAMILY, DOUBLE, ROUTED; TOKENS is 8. Grid: x
 * walks over blocks of THREADS weight rows, y over runs of 8 tokens or tiles. The same formula without GLU.
 */
struct fmk_vk_plain_args {
    uint64_t data, k_index; /* k_index: int32_t [experts][k_packed], -1 = padding; or 0 */
    uint64_t bias, from, to, addend, lists, weights;
    uint32_t n, k, k_packed;
    uint32_t stride, expert_stride;
    uint32_t in_stride, out_stride, addend_stride;
    uint32_t first, m, num_tiles, capacity;
    uint32_t types;
    uint32_t chunks; /* int4 */
};

/* decode: W rows to numbers, by the published formulas bit for bit (no fma where the formula has none:
 * `precise`). FAMILY. Grid: x walks over m rows of the output; invocations over its columns. Row i is row
 * ids[i] of all the parts' rows, or where ids is 0 row first + i of the part. */
struct fmk_vk_decode_args {
    uint64_t data, k_index; /* of the expert. k_index: int32_t [k_packed], columns go where it says; or 0 */
    uint64_t ids;
    uint64_t to;
    uint32_t n, k, k_packed; /* of the part */
    uint32_t stride, chunks, types;
    uint32_t out_stride; /* elements */
    uint32_t m;
    int32_t first;   /* ids: of the part's row 0: row id - first of it. No ids: as above */
    int32_t total;   /* ids outside 0 .. total-1 make rows of zeros, */
    uint32_t zeroes; /* which this launch writes if 1 */
};

/* gather: rows of `from` in the order, type and distance that a product wants. Grid: x walks over columns, 2
 * an invocation; y over rows first .. m-1 (with `lists`, up to the int32_t there, as above). */
struct fmk_vk_gather_args {
    uint64_t from, to; /* to: of row 0, aligned to 16 bytes */
    uint64_t in_rows;  /* int32_t: row of `from` of each row, or 0: its number; < 0 or >= in_limit: zeros */
    uint64_t k_index;  /* int32_t [width]: column of `from`, or -1: zero; or 0: its number */
    uint64_t lists;    /* an int32_t, or 0 */
    uint32_t in_limit;
    uint32_t k, width; /* columns of in; of out: a multiple of 8, zeros past the end */
    uint32_t in_stride, out_stride;
    uint32_t first, m;
    uint32_t types;     /* in, out */
    uint32_t num_tiles; /* gather_routed: of the lists */
};

/* halve: likewise, as f16 brought into its range by a power of two, of each four columns in the order 0 2 1
 * 3; the float that takes the power off again lies behind a row. width is a multiple of 128, out_stride
 * counts f16 and is width + 8, num_tiles is the columns of k_index. Grid: y walks over rows. */

/* gather_routed: likewise for a routed call whose experts have k_index of their own: y is a tile of the
 * lists, `to`'s row is the entry's number. k_index is [experts][width]. lists are the call's, in_rows is not
 * looked at. */

/* glu: out = act(sums[row][j], sums[row][up + j]) * weights[row], where gate and up were made apart.
 * Grid: x walks over columns; y over rows first .. m-1 (with `lists`, up to the int32_t there); or
 * ROUTED: y is a tile of the lists, whose out_rows say which rows of sums and out they are. */
struct fmk_vk_glu_args {
    uint64_t sums, to, lists, weights;
    uint32_t n, up; /* columns of out; column of sums where up begins */
    uint32_t sums_stride, out_stride;
    uint32_t first, m, num_tiles, capacity;
    uint32_t types;
    float alpha, limit;
};

/* reduce: out[token] = addend[token] + sum over its pairs in the order of the slots, without those
 * absent. Grid: x walks over columns, y is a token first + y. */
struct fmk_vk_reduce_args {
    uint64_t pairs;   /* float [pair - first * top_k][width] */
    uint64_t present; /* uint32_t [pair - first * top_k]: 0 = there is none */
    uint64_t to, addend, m_dev;
    uint32_t width, top_k, first, m;
    uint32_t out_stride, addend_stride;
    uint32_t types;
};

/* route: pairs begin .. end-1 -> the lists of a call, grouped by expert, stable, and the tiles. One
 * workgroup of THREADS. Whatever the arrays hold, nothing past their ends is touched. All num_tiles tiles
 * are written.
 */
struct fmk_vk_route_args {
    uint64_t ids; /* IDS: int32_t [m * top_k]; else 0 */
    uint64_t offsets,
        pairs;      /* SORTED: int32_t [experts + 1]; [sorted_limit], or 0: the sorted row's number */
    uint64_t m_dev; /* or 0: only pairs of the first *m_dev tokens */
    uint64_t lists;
    uint64_t present; /* uint32_t [end - begin], or 0 */
    uint64_t counts;  /* int32_t [experts + 1]: for the kernel's own use */
    int32_t expert_base, experts;
    int32_t top_k, in_per_pair; /* in_per_pair 0: the row of in is pair / top_k */
    int32_t begin, end, sorted_limit;
    uint32_t capacity, num_tiles, tile; /* tile: entries of one at most */
};

/* copy: rows of bytes. Grid: x walks over a row's units, y over rows. */
struct fmk_vk_copy_args {
    uint64_t from, to, from_stride, to_stride, bytes; /* bytes of a row */
    uint32_t rows;
    uint32_t unit; /* 16, 4 or 1 bytes at a time: all addresses, strides and bytes are multiples of it */
};

/* route_sort: for fmk_route_sort: ids -> offsets [experts + 1], pairs. One workgroup. */
struct fmk_vk_route_sort_args {
    uint64_t ids, offsets, pairs;
    int32_t expert_base, experts;
    int32_t count; /* of pairs */
};

#endif
