/* The part of cuBLAS that ferrumk opens: cublasGemmEx, column-major as cuBLAS is, summed in double. */
#include <cuda.h>

#include "numbers.h"

#include <stddef.h>
#include <vector>

extern "C" {
/* libcuda.so.1 of this folder */
CUresult fmk_emulated_enqueue(CUstream stream, void (*run)(const void *), const void *args, size_t size);
int fmk_emulated_on_device(const void *address, size_t bytes);

typedef struct cublasContext *cublasHandle_t;
}

/* Numbers of cublas_api.h and library_types.h. */
enum Status {
    SUCCESS = 0,
    INVALID_VALUE = 7,
    NOT_INITIALIZED = 1,
    EXECUTION_FAILED = 13,
    NOT_SUPPORTED = 15
};
enum Type { R_32F = 0, R_16F = 2, R_16BF = 14 };
enum Operation { OP_N = 0, OP_T = 1 };
enum PointerMode { ON_HOST = 0, ON_DEVICE = 1 };
enum Compute { COMPUTE_16F = 64, COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69 };

struct cublasContext {
    CUstream stream;
    bool has_stream;
    int pointer_mode;
};

struct Gemm {
    int transpose_a, transpose_b, m, n, k;
    const void *a, *b;
    int a_type, b_type, c_type;
    int64_t lda, ldb, ldc;
    void *c;
    const float *alpha_at, *beta_at; /* on the device, or NULL: */
    float alpha, beta;
};

static float load(const void *from, int type, int64_t at) {
    if (type == R_32F)
        return static_cast<const float *>(from)[at];
    uint16_t bits = static_cast<const uint16_t *>(from)[at];
    return type == R_16F ? emulator::f16_number(bits) : emulator::bf16_number(bits);
}

static void store(void *to, int type, int64_t at, float value) {
    if (type == R_32F)
        static_cast<float *>(to)[at] = value;
    else
        static_cast<uint16_t *>(to)[at] =
            type == R_16F ? emulator::f16_bits(value) : emulator::bf16_bits(value);
}

/* op(from) as [columns of op^T][k]: each vector that is summed over lies in one piece. */
static std::vector<float> unpack(const void *from, int type, int64_t ld, bool k_is_contiguous, int count,
                                 int k) {
    std::vector<float> all(static_cast<size_t>(count) * static_cast<size_t>(k));
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < k; j++)
            all[static_cast<size_t>(i * k + j)] = load(from, type, k_is_contiguous ? i * ld + j : j * ld + i);
    return all;
}

static void run_gemm(const void *args) {
    const Gemm &g = *static_cast<const Gemm *>(args);
    std::vector<float> a = unpack(g.a, g.a_type, g.lda, g.transpose_a, g.m, g.k);
    std::vector<float> b = unpack(g.b, g.b_type, g.ldb, !g.transpose_b, g.n, g.k);
    float alpha = g.alpha_at ? *g.alpha_at : g.alpha, beta = g.beta_at ? *g.beta_at : g.beta;
    for (int64_t column = 0; column < g.n; column++)
        for (int64_t row = 0; row < g.m; row++) {
            const float *x = &a[static_cast<size_t>(row * g.k)], *y = &b[static_cast<size_t>(column * g.k)];
            double sums[4] = {};
            int i = 0;
            for (; i + 4 <= g.k; i += 4)
                for (int s = 0; s < 4; s++)
                    sums[s] += static_cast<double>(x[i + s]) * static_cast<double>(y[i + s]);
            for (; i < g.k; i++)
                sums[0] += static_cast<double>(x[i]) * static_cast<double>(y[i]);
            double sum = static_cast<double>(alpha) * (sums[0] + sums[1] + sums[2] + sums[3]);
            int64_t at = column * g.ldc + row;
            if (beta != 0.0f) /* 0: what was there is not looked at */
                sum += static_cast<double>(beta) * static_cast<double>(load(g.c, g.c_type, at));
            store(g.c, g.c_type, at, static_cast<float>(sum));
        }
}

static size_t bytes_of(int type, int64_t ld, int64_t rows, int64_t columns) {
    return static_cast<size_t>((columns - 1) * ld + rows) * (type == R_32F ? 4 : 2);
}

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int cublasCreate_v2(cublasHandle_t *handle) {
    *handle = new cublasContext{nullptr, false, ON_HOST};
    return SUCCESS;
}

EXPORT int cublasDestroy_v2(cublasHandle_t handle) {
    delete handle;
    return SUCCESS;
}

EXPORT int cublasGetVersion_v2(cublasHandle_t, int *version) {
    *version = 120000;
    return SUCCESS;
}

EXPORT int cublasGetProperty(int property, int *value) {
    *value = property == 0 ? 12 : 0;
    return SUCCESS;
}

EXPORT const char *cublasGetStatusString(int) {
    return "a status of the emulated cuBLAS";
}

EXPORT int cublasSetStream_v2(cublasHandle_t handle, CUstream stream) {
    handle->stream = stream;
    handle->has_stream = true;
    return SUCCESS;
}

EXPORT int cublasGetStream_v2(cublasHandle_t handle, CUstream *stream) {
    *stream = handle->stream;
    return SUCCESS;
}

/* Setting the stream puts the workspace back to cuBLAS's own: the order of the two calls matters, but not
 * here. */
EXPORT int cublasSetWorkspace_v2(cublasHandle_t, void *workspace, size_t bytes) {
    return !bytes || fmk_emulated_on_device(workspace, bytes) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cublasSetMathMode(cublasHandle_t, int) {
    return SUCCESS;
}

EXPORT int cublasSetAtomicsMode(cublasHandle_t, int) {
    return SUCCESS;
}

EXPORT int cublasSetSmCountTarget(cublasHandle_t, int) {
    return SUCCESS;
}

EXPORT int cublasSetPointerMode_v2(cublasHandle_t handle, int mode) {
    handle->pointer_mode = mode;
    return SUCCESS;
}

EXPORT int cublasGemmEx(cublasHandle_t handle, int transpose_a, int transpose_b, int m, int n, int k,
                        const void *alpha, const void *a, int a_type, int lda, const void *b, int b_type,
                        int ldb, const void *beta, void *c, int c_type, int ldc, int compute, int) {
    if (!handle || !handle->has_stream)
        return NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || lda < (transpose_a ? k : m) || ldb < (transpose_b ? n : k) || ldc < m ||
        lda < 1 || ldb < 1 || ldc < 1 || !alpha || !beta)
        return INVALID_VALUE;
    if (a_type != b_type || (a_type != R_32F && a_type != R_16F && a_type != R_16BF) ||
        (c_type != a_type && c_type != R_32F) || (compute != COMPUTE_32F && compute != COMPUTE_32F_PEDANTIC))
        return NOT_SUPPORTED;
    if (!m || !n)
        return SUCCESS;
    if (!fmk_emulated_on_device(a, bytes_of(a_type, lda, transpose_a ? k : m, transpose_a ? m : k)) ||
        !fmk_emulated_on_device(b, bytes_of(b_type, ldb, transpose_b ? n : k, transpose_b ? k : n)) ||
        !fmk_emulated_on_device(c, bytes_of(c_type, ldc, m, n)))
        return EXECUTION_FAILED;
    Gemm gemm = {transpose_a, transpose_b, m,   n,   k, a,       b,       a_type, b_type,
                 c_type,      lda,         ldb, ldc, c, nullptr, nullptr, 0,      0};
    if (handle->pointer_mode == ON_DEVICE) {
        if (!fmk_emulated_on_device(alpha, sizeof(float)) || !fmk_emulated_on_device(beta, sizeof(float)))
            return EXECUTION_FAILED;
        gemm.alpha_at = static_cast<const float *>(alpha);
        gemm.beta_at = static_cast<const float *>(beta);
    } else {
        gemm.alpha = *static_cast<const float *>(alpha);
        gemm.beta = *static_cast<const float *>(beta);
    }
    return fmk_emulated_enqueue(handle->stream, run_gemm, &gemm, sizeof gemm) ? EXECUTION_FAILED : SUCCESS;
}
