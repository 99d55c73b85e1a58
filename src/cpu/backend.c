/* The CPU as a backend: one device, whose calls are done when they return. */
#include "../abi.h"
#include "../context.h"
#include "../error.h"
#include "../threads/threads.h"
#include "../weight.h"
#include "features.h"
#include "linear.h"
#include "slab.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* "model name" of the first processor, where the kernel tells. */
static void cpu_name(char *name, size_t cap) {
    snprintf(name, cap, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon)
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(name, cap, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    fclose(file);
}

static uint64_t positive(long value) {
    return value > 0 ? (uint64_t)value : 0;
}

/* Bytes of the outermost cache that the first processor sees; 0 = the kernel does not tell. sysconf would add
 * up the caches of processors that this one cannot reach. */
static uint64_t outermost_cache(void) {
    unsigned long long largest = 0;
    for (int i = 0; i < 10; i++) {
        char path[64];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *file = fopen(path, "re");
        if (!file)
            break;
        unsigned long long size = 0;
        char unit = 0;
        if (fscanf(file, "%llu%c", &size, &unit) == 2)
            size <<= unit == 'K' ? 10 : unit == 'M' ? 20 : 0;
        largest = size > largest ? size : largest;
        fclose(file);
    }
    return largest;
}

static fmk_status cpu_open(struct fmk_context *ctx, const fmk_context_desc *desc) {
    if (desc->device)
        return fmk_fail(FMK_ENODEVICE, "device %d: the CPU backend has only device 0", desc->device);
    if (desc->native)
        return fmk_fail(FMK_EINVAL, "native is not NULL; a CPU context has nothing to borrow");
    fmk_context_info_t *info = &ctx->info;
    info->struct_size = sizeof *info;
    info->backend = FMK_BACKEND_CPU;
    info->memory = positive(sysconf(_SC_PHYS_PAGES)) * positive(sysconf(_SC_PAGESIZE));
    info->last_level_cache = outermost_cache();
    cpu_name(info->name, sizeof info->name);
    ctx->features = fmk_cpu_features(desc->disable);
    fmk_cpu_feature_names(ctx->features, info->features, sizeof info->features);
    return fmk_threads_open(ctx, desc->cpu_threads);
}

static fmk_status check_native(struct fmk_context *ctx, void *native) {
    (void)ctx;
    return native ? fmk_fail(FMK_EINVAL, "native is not NULL; a CPU queue has no stream") : FMK_OK;
}

static fmk_status route_sort(struct fmk_queue *queue, const fmk_routing *ids, int64_t m, int32_t num_experts,
                             const fmk_routing *out) {
    (void)queue;
    fmk_sort_pairs(ids, m, num_experts, fmk_pointer(out->offsets), fmk_pointer(out->pairs));
    return FMK_OK;
}

/* Large weights lie in huge pages where the system has them on request: packing does not wait for a page
 * fault every 4 KB then, nor reading for the TLB. */
enum { HUGE_PAGE = 2 << 20 };

static fmk_status host_alloc(struct fmk_context *ctx, void *native, uint64_t size, uint64_t align,
                             uint64_t *out) {
    (void)ctx, (void)native;
    void *memory = NULL;
    bool huge = size >= HUGE_PAGE && align <= HUGE_PAGE;
    if (posix_memalign(&memory, huge ? HUGE_PAGE : align, size))
        return fmk_no_memory(size, "packed weights");
#ifdef MADV_HUGEPAGE
    if (huge)
        (void)madvise(memory, size / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* small ones do as well */
#endif
    *out = (uint64_t)(uintptr_t)memory;
    return FMK_OK;
}

static void host_release(struct fmk_context *ctx, void *native, uint64_t handle, uint64_t size) {
    (void)ctx, (void)native, (void)size;
    free((void *)(uintptr_t)handle);
}

const struct fmk_backend_row fmk_cpu_backend = {
    .id = FMK_BACKEND_CPU,
    .open = cpu_open,
    .close = fmk_threads_close,
    .check_native = check_native,
    .memory = FMK_MEM_HOST,
    .alloc = host_alloc,
    .release = host_release,
    .storage_align = FMK_STORAGE_ALIGN,
    .borrows = fmk_cpu_borrows,
    .fill = fmk_cpu_fill,
    .write = fmk_cpu_write,
    .read = fmk_cpu_read,
    .workspace = fmk_cpu_workspace,
    .linear = fmk_cpu_linear,
    .rows = fmk_cpu_rows,
    .dequantize = fmk_cpu_dequantize,
    .route_sort = route_sort,
};
