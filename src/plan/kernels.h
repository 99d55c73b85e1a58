/* The one table of kernels. A plan is the first row, best first, that has no objection. */
#ifndef FMK_PLAN_KERNELS_H
#define FMK_PLAN_KERNELS_H

#include "../cpu/gemm/gemm.h"
#include "call.h"

struct fmk_context;

/* What a choice depends on: nothing else does. */
struct fmk_query {
    fmk_backend backend;
    uint32_t features; /* of the context */
    const struct fmk_packed *part;
    uint32_t flags; /* FMK_LINEAR_* */
    int64_t m;      /* rows of the product at most */
    int64_t depth;  /* of them, those of an expert if each gets as many */
    bool one;       /* it is best done token by token */
    bool bare;      /* nothing is to be added to the sums, or done with them */
    int64_t n;      /* of all parts, so that these share a launch */
    fmk_dtype in_type;
    fmk_route route;
    uint64_t workspace;      /* bytes that the call has */
    uint64_t gemm_workspace; /* and that cuda.*.cublas want at least */
};

enum fmk_acts_form {
    FMK_ACTS_F32,
    FMK_ACTS_Q8,        /* int8 for instructions that add up pairs */
    FMK_ACTS_Q8_BLOCKS, /* and four: struct fmk_acts_block */
    FMK_ACTS_Q8_LANES,  /* the same, by lanes: struct fmk_acts_lanes */
    FMK_ACTS_GEMM_F32,  /* of gemm kernels: struct fmk_gemm_acts */
    FMK_ACTS_GEMM_I16,
    FMK_ACTS_GEMM_BF16,
    FMK_ACTS_GEMM_BF16X2,
    FMK_ACTS_GEMM_INT8
};

/* How src/cuda/linear.c runs a row. */
enum fmk_cuda_path {
    FMK_CUDA_NONE, /* of another backend */
    FMK_CUDA_GEMM, /* cuBLAS on the weights as they are */
    FMK_CUDA_DECODE_GEMM,
    FMK_CUDA_ONE, /* one token a block, of dense weights */
    FMK_CUDA_MMA,
    FMK_CUDA_MANY, /* int4.t16, tiles of many tokens */
    FMK_CUDA_FEW,  /* tiles of few tokens, over int4.t64 */
    FMK_CUDA_WGMMA,
    FMK_CUDA_PLAIN,
    FMK_CUDA_DOUBLE /* plain, with double accumulators */
};

/* How src/vulkan/linear.c runs a row. */
enum fmk_vulkan_path {
    FMK_VULKAN_GEMV = 32, /* no number of fmk_cuda_path */
    FMK_VULKAN_GEMM,
    FMK_VULKAN_HALF, /* the same in f16 */
    FMK_VULKAN_COOPMAT,
    FMK_VULKAN_FEW, /* the same for few rows */
    FMK_VULKAN_PLAIN,
    FMK_VULKAN_DOUBLE /* plain, with sums as precise as doubles */
};

struct fmk_kernel {
    const char *name;
    fmk_backend backend;
    int32_t layout; /* enum fmk_layout_id, or 0 = any */
    uint32_t needs; /* features */
    enum fmk_acts_form acts;
    const char *(*why_not)(const struct fmk_query *query); /* NULL = no objection */
    fmk_tile_kernel *tile;                                 /* CPU */
    int32_t path;                /* CUDA: enum fmk_cuda_path; Vulkan: enum fmk_vulkan_path */
    const struct fmk_gemm *gemm; /* CPU, in place of tile: for many rows */
};

/* Row i of the table, NULL past its end. */
const struct fmk_kernel *fmk_kernel_row(int32_t i);
/* What the choice for part p of a call depends on, for `workspace` bytes. */
struct fmk_query fmk_kernel_query(const struct fmk_context *ctx, const struct fmk_projection *w,
                                  const struct fmk_call *call, int32_t p, uint64_t workspace);
/* Whether tokens are better taken one by one, on CUDA: there is one, or they are spread thinly over experts.
 */
bool fmk_call_one(const struct fmk_projection *w, const struct fmk_call *call);
/* The objection of a row, written to text when it has one. */
bool fmk_kernel_objects(const struct fmk_kernel *row, const struct fmk_query *query, char *text, size_t cap);
/* The first row that does not object. There always is one: each backend's reference serves anything. */
const struct fmk_kernel *fmk_kernel_choose(const struct fmk_query *query);

enum {
    /* Rows of an expert up to which a Vulkan kernel for few is the faster one. */
    FMK_VULKAN_GEMV_ROWS = 8,
    FMK_VULKAN_FEW_LEAST = 5, /* rows of few kernels */
    FMK_VULKAN_FEW_MOST = 16,
    /* Where the choice on CUDA changes. Of dense weights our kernels are as fast as cuBLAS up to so many
     * rows, if the weights are not too many; of packed ones faster up to so many rows. */
    FMK_GEMM_M_DENSE = 8,
    FMK_GEMM_WEIGHTS = 32 << 20,
    FMK_GEMM_M_DECODE = 64,
    /* Of int4.t16: rows of an expert from which on the kernel for many is faster, of weights with fewer rows
     * than FMK_MANY_ROWS, and with as many; and those up to which it is faster than cuBLAS on decoded
     * weights: reckoned, and measured with FMK_CUDA_FAST_GEMM. */
    FMK_MANY_LEAST_M = 33,
    FMK_MANY_ROWS = 16384,
    FMK_MANY_LEAST_M_ROWS = 16,
    FMK_MANY_MOST_M = 640,
    FMK_MANY_MOST_M_FAST = 160,
    /* Of int4.t64, on compute capability 9.0: rows of an expert from which on wgmma is faster than kernels
     * for few, of weights with so many numbers at most and of others, and those up to which it is than cuBLAS
     * on decoded weights. */
    FMK_WGMMA_SMALL = 32 << 20,
    FMK_WGMMA_LEAST_M_SMALL = 3,
    FMK_WGMMA_MEDIUM = 72 << 20,
    FMK_WGMMA_LEAST_M_MEDIUM = 5,
    FMK_WGMMA_LEAST_M = 9,
    FMK_WGMMA_MOST_M = 8192,
    FMK_BEST_WORKSPACE = 128 << 20, /* no call takes more at once, whatever m is */
    /* A call that cuBLAS serves has room for so much at once at least. */
    FMK_GEMM_WORKSPACE = 32 << 20, /* of cuBLAS itself */
    FMK_GEMM_LEAST_ROWS = 256,
    FMK_GEMM_LEAST_COLUMNS = 256
};

#endif
