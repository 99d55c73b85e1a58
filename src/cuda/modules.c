/* The kernels: their names, their images, and how they are loaded and launched. */
#include "modules.h"

#include "../error.h"
#include "device.h"
#include "embed.h"

#include <stdio.h>

enum { CAPTURES_EARLY = 12030 }; /* the first driver whose graphs can hold kernels that start early */

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Numbered as in modules.h, and in the headers of kernels/. */
static const char *const dense_one[] = {
    "dense_one_f16_f16",  "dense_one_f16_bf16",  "dense_one_f16_f32",
    "dense_one_bf16_f16", "dense_one_bf16_bf16", "dense_one_bf16_f32",
    "dense_one_f32_f16",  "dense_one_f32_bf16",  "dense_one_f32_f32",
};
static const char *const dense_mma[] = {
    "dense_f16_16x8",  "dense_f16_32x8",  "dense_f16_32x16",  "dense_f16_32x32",
    "dense_bf16_16x8", "dense_bf16_32x8", "dense_bf16_32x16", "dense_bf16_32x32",
};
static const char *const int4_mma[] = {
    "int4_f16_16x1",       "int4_f16_32x1",       "int4_f16_16x8",      "int4_f16_32x8",
    "int4_f16_32x16",      "int4_f16_32x32",      "int4_bf16_16x1",     "int4_bf16_32x1",
    "int4_bf16_16x8",      "int4_bf16_32x8",      "int4_bf16_32x16",    "int4_bf16_32x32",
    "int4_f32_16x1",       "int4_f32_32x1",       "int4_any_f16_16x1",  "int4_any_f16_32x1",
    "int4_any_f16_16x8",   "int4_any_f16_32x8",   "int4_any_f16_32x16", "int4_any_f16_32x32",
    "int4_any_bf16_16x1",  "int4_any_bf16_32x1",  "int4_any_bf16_16x8", "int4_any_bf16_32x8",
    "int4_any_bf16_32x16", "int4_any_bf16_32x32",
};
static const char *const int4_many[] = {
    "many_f16_128x16",      "many_f16_64x32",       "many_f16_128x32",      "many_f16_64x64",
    "many_f16_128x64",      "many_f16_128x128",     "many_bf16_128x16",     "many_bf16_64x32",
    "many_bf16_128x32",     "many_bf16_64x64",      "many_bf16_128x64",     "many_bf16_128x128",
    "many_any_f16_128x16",  "many_any_f16_64x32",   "many_any_f16_128x32",  "many_any_f16_64x64",
    "many_any_f16_128x64",  "many_any_f16_128x128", "many_any_bf16_128x16", "many_any_bf16_64x32",
    "many_any_bf16_128x32", "many_any_bf16_64x64",  "many_any_bf16_128x64", "many_any_bf16_128x128",
};
static const char *const int4_few[] = {
    "few_f16_1",      "few_f16_8",       "few_f16_16",    "few_bf16_1",    "few_bf16_8",     "few_bf16_16",
    "few_f32_1",      "few_f32_8",       "few_any_f16_1", "few_any_f16_8", "few_any_f16_16", "few_any_bf16_1",
    "few_any_bf16_8", "few_any_bf16_16", "few_any_f32_1", "few_any_f32_8",
};
static const char *const int4_once[] = {
    "once_f16_1",         "once_f16_8",         "once_f16_order",
    "once_bf16_1",        "once_bf16_8",        "once_bf16_order",
    "once_narrow_f16_1",  "once_narrow_f16_8",  "once_narrow_f16_order",
    "once_narrow_bf16_1", "once_narrow_bf16_8", "once_narrow_bf16_order",
    "once_group_f16_1",   "once_group_f16_8",   "once_group_f16_order",
    "once_group_bf16_1",  "once_group_bf16_8",  "once_group_bf16_order",
    "once_any_f16_1",     "once_any_f16_8",     "once_any_f16_order",
    "once_any_bf16_1",    "once_any_bf16_8",    "once_any_bf16_order",
};
static const char *const int4_wgmma[] = {
    "int4_f16_64x16",         "int4_f16_128x16",        "int4_f16_256x16",        "int4_f16_512x16",
    "int4_f16_64x32",         "int4_f16_128x32",        "int4_f16_256x32",        "int4_f16_128x64",
    "int4_f16_256x64",        "int4_f16_128x128",       "int4_f16_wide_128x128",  "int4_f16_wide_128x144",
    "int4_f16_wide_128x160",  "int4_f16_wide_128x192",  "int4_f16_wide_128x224",  "int4_f16_wide_256x256",
    "int4_f16_wide_192x128",  "int4_bf16_64x16",        "int4_bf16_128x16",       "int4_bf16_256x16",
    "int4_bf16_512x16",       "int4_bf16_64x32",        "int4_bf16_128x32",       "int4_bf16_256x32",
    "int4_bf16_128x64",       "int4_bf16_256x64",       "int4_bf16_128x128",      "int4_bf16_wide_128x128",
    "int4_bf16_wide_128x144", "int4_bf16_wide_128x160", "int4_bf16_wide_128x192", "int4_bf16_wide_128x224",
    "int4_bf16_wide_256x256", "int4_bf16_wide_192x128",
};
static const char *const q4k_mma[] = {
    "q4k_f16_16x1",   "q4k_f16_32x1",   "q4k_f16_16x8",  "q4k_f16_32x8",  "q4k_f16_32x16",
    "q4k_f16_32x32",  "q4k_bf16_16x1",  "q4k_bf16_32x1", "q4k_bf16_16x8", "q4k_bf16_32x8",
    "q4k_bf16_32x16", "q4k_bf16_32x32", "q4k_f32_16x1",  "q4k_f32_32x1",
};
static const char *const q6k_mma[] = {
    "q6k_f16_16x1",   "q6k_f16_32x1",   "q6k_f16_16x8",  "q6k_f16_32x8",  "q6k_f16_32x16",
    "q6k_f16_32x32",  "q6k_bf16_16x1",  "q6k_bf16_32x1", "q6k_bf16_16x8", "q6k_bf16_32x8",
    "q6k_bf16_32x16", "q6k_bf16_32x32", "q6k_f32_16x1",  "q6k_f32_32x1",
};
static const char *const plain[] = {
    "plain_dense_f32", "plain_int4_f32", "plain_q4k_f32", "plain_q6k_f32", "plain_int4_t64_f32",
    "plain_dense_f64", "plain_int4_f64", "plain_q4k_f64", "plain_q6k_f64", "plain_int4_t64_f64",
};
static const char *const decode[] = {
    "decode_int4", "decode_q4k", "decode_q6k",      "rows_dense",    "rows_int4",
    "rows_q4k",    "rows_q6k",   "decode_int4_t64", "rows_int4_t64",
};
static const char *const rows[] = {
    "rows_gather",      "rows_finish",      "rows_reduce",     "rows_route_small",
    "rows_route_clear", "rows_route_count", "rows_route_scan", "rows_route_place",
};
static const char *const pack[] = {"pack_int4", "pack_q4k", "pack_q6k", "pack_rows", "pack_range"};

static const struct {
    const char *name;
    const unsigned char *sm80, *sm90; /* images; NULL: none for such devices */
    const char *const *kernels;
    int32_t count;
    bool dynamic; /* they have dynamic shared memory */
} modules[FMK_MODULES] = {
    [FMK_MODULE_DENSE_ONE] = {"dense_one", fmk_dense_one_sm80, fmk_dense_one_sm90, dense_one,
                              COUNT(dense_one), false},
    [FMK_MODULE_DENSE_MMA] = {"dense_mma", fmk_dense_mma_sm80, fmk_dense_mma_sm90, dense_mma,
                              COUNT(dense_mma), false},
    [FMK_MODULE_INT4_MMA] = {"int4_mma", fmk_int4_mma_sm80, fmk_int4_mma_sm90, int4_mma, COUNT(int4_mma),
                             false},
    [FMK_MODULE_INT4_MANY] = {"int4_many", fmk_int4_many_sm80, fmk_int4_many_sm90, int4_many,
                              COUNT(int4_many), true},
    [FMK_MODULE_INT4_FEW] = {"int4_few", NULL, fmk_int4_few_sm90, int4_few, COUNT(int4_few), true},
    [FMK_MODULE_INT4_ONCE] = {"int4_once", NULL, fmk_int4_once_sm90, int4_once, COUNT(int4_once), true},
    [FMK_MODULE_INT4_WGMMA] = {"int4_wgmma", NULL, fmk_int4_wgmma_sm90, int4_wgmma, COUNT(int4_wgmma), true},
    [FMK_MODULE_Q4K_MMA] = {"q4k_mma", fmk_q4k_mma_sm80, fmk_q4k_mma_sm90, q4k_mma, COUNT(q4k_mma), false},
    [FMK_MODULE_Q6K_MMA] = {"q6k_mma", fmk_q6k_mma_sm80, fmk_q6k_mma_sm90, q6k_mma, COUNT(q6k_mma), false},
    [FMK_MODULE_PLAIN] = {"plain", fmk_plain_sm80, fmk_plain_sm90, plain, COUNT(plain), false},
    [FMK_MODULE_DECODE] = {"decode", fmk_decode_sm80, fmk_decode_sm90, decode, COUNT(decode), false},
    [FMK_MODULE_ROWS] = {"rows", fmk_rows_sm80, fmk_rows_sm90, rows, COUNT(rows), false},
    [FMK_MODULE_PACK] = {"pack", fmk_pack_sm80, fmk_pack_sm90, pack, COUNT(pack), false},
};

static fmk_status load(struct fmk_context *ctx, enum fmk_cuda_module module) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    const struct fmk_driver *driver = cuda->driver;
    const void *image = ctx->features & FMK_CUDA_SM90 ? modules[module].sm90 : modules[module].sm80;
    char what[64];
    CUmodule loaded;
    snprintf(what, sizeof what, "loading kernels %s", modules[module].name);
    fmk_status status = fmk_cuda_check(ctx, driver->ModuleLoadData(&loaded, image), what);
    if (status)
        return status;
    CUfunction functions[FMK_MODULE_KERNELS];
    int32_t count = modules[module].count;
    for (int32_t i = 0; !status && i < count; i++) {
        const char *name = modules[module].kernels[i];
        snprintf(what, sizeof what, "kernel %s", name);
        status = fmk_cuda_check(ctx, driver->ModuleGetFunction(&functions[i], loaded, name), what);
        if (!status && modules[module].dynamic)
            status = fmk_cuda_check(ctx,
                                    driver->FuncSetAttribute(functions[i],
                                                             CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                             cuda->shared_bytes),
                                    what);
    }
    if (status) {
        driver->ModuleUnload(loaded);
        return status;
    }
    for (int32_t i = 0; i < count; i++)
        atomic_store_explicit(&cuda->function[module][i], functions[i], memory_order_release);
    cuda->module[module] = loaded;
    return FMK_OK;
}

fmk_status fmk_cuda_load(struct fmk_context *ctx, enum fmk_cuda_module module) {
    struct fmk_cuda *cuda = fmk_cuda_of(ctx);
    pthread_mutex_lock(&cuda->lock);
    fmk_status status = cuda->module[module] ? FMK_OK : load(ctx, module);
    pthread_mutex_unlock(&cuda->lock);
    return status;
}

CUfunction fmk_cuda_function(const struct fmk_context *ctx, enum fmk_cuda_module module, int32_t kernel) {
    return atomic_load_explicit(&fmk_cuda_of(ctx)->function[module][kernel], memory_order_acquire);
}

fmk_status fmk_cuda_launch(struct fmk_queue *queue, enum fmk_cuda_module module, int32_t kernel,
                           struct fmk_cuda_grid grid, const void *args, bool early) {
    const struct fmk_driver *driver = fmk_cuda_of(queue->ctx)->driver;
    CUfunction function = fmk_cuda_function(queue->ctx, module, kernel);
    if (!function)
        return fmk_fail(
            FMK_ENOTPREPARED,
            "the kernels %s are not loaded; call fmk_prepare with this weight and arguments first",
            modules[module].name);
    /* Not as a buffer: a parameter that wants a large alignment does not begin where a buffer does. */
    void *params[] = {(void *)(uintptr_t)args};
    CUresult result;
    CUlaunchAttribute attributes[2];
    unsigned count = 0;
    if (early && queue->ctx->features & FMK_CUDA_SM90 && driver->version >= CAPTURES_EARLY)
        attributes[count++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                                  .value.programmaticStreamSerializationAllowed = 1};
    if (grid.cluster > 1)
        attributes[count++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                                  .value.clusterDim = {grid.cluster, 1, 1}};
    if (count) {
        CUlaunchConfig config = {.gridDimX = grid.x,
                                 .gridDimY = grid.y,
                                 .gridDimZ = grid.z,
                                 .blockDimX = grid.threads,
                                 .blockDimY = 1,
                                 .blockDimZ = 1,
                                 .sharedMemBytes = grid.shared,
                                 .hStream = queue->native,
                                 .attrs = attributes,
                                 .numAttrs = count};
        result = driver->LaunchKernelEx(&config, function, params, NULL);
    } else {
        result = driver->LaunchKernel(function, grid.x, grid.y, grid.z, grid.threads, 1, 1, grid.shared,
                                      queue->native, params, NULL);
    }
    return result ? fmk_cuda_check(queue->ctx, result, modules[module].kernels[kernel]) : FMK_OK;
}
