/* The device's memory is the process's: an address is an address. An allocation ends before a page that
 * cannot be touched, starts after a fence, and is full of a pattern that makes a NaN of any float. */
#include "driver.h"

#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>

namespace emulator {

constexpr size_t PAGE = 4096, ALIGN = 256;
constexpr uint8_t FRESH = 0xff, FENCE = 0xa7;

struct Allocation {
    uint8_t *pages; /* the mapping: PAGE that cannot be touched, what is used, and PAGE again */
    size_t mapped, bytes;
    CUcontext context;
};

struct Pinned {
    size_t bytes;
    bool registered; /* memory of the caller's */
};

static std::mutex lock;
using Held = std::lock_guard<std::mutex>;

static std::map<uintptr_t, Allocation> &allocations() {
    static auto *all = new std::map<uintptr_t, Allocation>; /* outlives static destructors */
    return *all;
}
static std::map<uintptr_t, Pinned> &pinned() {
    static auto *all = new std::map<uintptr_t, Pinned>;
    return *all;
}
static size_t used;

static size_t total() {
    const char *wanted = getenv("FMK_EMULATED_MEMORY");
    return wanted ? strtoull(wanted, nullptr, 0) : size_t(8) << 30;
}

/* The entry that holds address .. address + bytes - 1. */
template <class Map> static typename Map::iterator holding(Map &map, uintptr_t address, size_t bytes) {
    auto after = map.upper_bound(address);
    if (after == map.begin())
        return map.end();
    auto found = std::prev(after);
    size_t offset = address - found->first, size = found->second.bytes;
    return offset < size && bytes <= size - offset ? found : map.end();
}

bool on_device(CUdeviceptr address, size_t bytes) {
    Held held(lock);
    return holding(allocations(), address, bytes) != allocations().end();
}

bool is_pinned(const void *address, size_t bytes) {
    Held held(lock);
    return holding(pinned(), reinterpret_cast<uintptr_t>(address), bytes) != pinned().end();
}

/* The ALIGN bytes before it, and what it leaves of its last ALIGN. */
static bool fences_whole(uintptr_t start, const Allocation &a) {
    static const std::string whole(ALIGN, static_cast<char>(FENCE));
    const char *begin = reinterpret_cast<const char *>(start);
    return !memcmp(begin - ALIGN, whole.data(), ALIGN) &&
           !memcmp(begin + a.bytes, whole.data(), (ALIGN - a.bytes % ALIGN) % ALIGN);
}

void check_fences(const char *after) {
    Held held(lock);
    for (const auto &entry : allocations())
        if (!fences_whole(entry.first, entry.second)) {
            fprintf(stderr, "emulator: %s wrote next to the %zu bytes at %p\n", after, entry.second.bytes,
                    reinterpret_cast<void *>(entry.first));
            abort();
        }
}

static CUresult allocate(CUdeviceptr *address, size_t bytes) {
    CUcontext context = current_context();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    Held held(lock);
    if (rounded < bytes || rounded > total() || used > total() - rounded)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* The fence before it has ALIGN bytes at least. */
    size_t inner = (rounded + ALIGN + PAGE - 1) / PAGE * PAGE, mapped = inner + 2 * PAGE;
    void *pages = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint8_t *first = static_cast<uint8_t *>(pages) + PAGE;
    if (mprotect(first, inner, PROT_READ | PROT_WRITE)) {
        munmap(pages, mapped);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    uint8_t *start = first + inner - rounded;
    memset(first, FENCE, static_cast<size_t>(start - first));
    memset(start, FRESH, bytes);
    memset(start + bytes, FENCE, rounded - bytes);
    used += rounded;
    *address = reinterpret_cast<uintptr_t>(start);
    allocations()[*address] = Allocation{static_cast<uint8_t *>(pages), mapped, bytes, context};
    return CUDA_SUCCESS;
}

/* Gives it up; unmapped, so that a late access is seen. */
static CUresult free_now(CUdeviceptr address) {
    check_fences("something before a free");
    Held held(lock);
    auto found = allocations().find(address);
    if (found == allocations().end())
        return CUDA_ERROR_INVALID_VALUE;
    used -= (found->second.bytes + ALIGN - 1) / ALIGN * ALIGN;
    munmap(found->second.pages, found->second.mapped);
    allocations().erase(found);
    return CUDA_SUCCESS;
}

static void *host(CUdeviceptr address) {
    return reinterpret_cast<void *>(static_cast<uintptr_t>(address));
}

} // namespace emulator

using namespace emulator;

/* Bytes on the device that are allocated, for tests that look for what is left behind. */
extern "C" size_t fmk_emulated_used() {
    Held held(lock);
    return used;
}

extern "C" int fmk_emulated_on_device(const void *address, size_t bytes) {
    return on_device(reinterpret_cast<uintptr_t>(address), bytes);
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) {
    if (CUresult result = ordered("cuMemAlloc"))
        return result;
    if (CUresult result = refuse_while_capturing())
        return result;
    return allocate(address, bytes);
}

CUresult cuMemFree(CUdeviceptr address) {
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!address)
        return CUDA_SUCCESS;
    if (CUresult result = refuse_while_capturing())
        return result;
    finish_all(current_context());
    return free_now(address);
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream) {
    if (CUresult result = ordered("cuMemAllocAsync"))
        return result;
    if (is_capturing(stream))
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return allocate(address, bytes);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
    if (!on_device(address, 1))
        return CUDA_ERROR_INVALID_VALUE;
    return enqueue(stream, [address] { free_now(address); });
}

CUresult cuMemGetInfo(size_t *unused, size_t *all) {
    Held held(lock);
    *all = total();
    *unused = *all > used ? *all - used : 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    *bytes = total();
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

/* ---- pinned memory ---- */

CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    if (CUresult result = ordered("cuMemHostAlloc"))
        return result;
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (CUresult result = refuse_while_capturing())
        return result;
    *address = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!*address)
        return CUDA_ERROR_OUT_OF_MEMORY;
    Held held(lock);
    pinned()[reinterpret_cast<uintptr_t>(*address)] = Pinned{bytes, false};
    return CUDA_SUCCESS;
}

CUresult cuMemAllocHost(void **address, size_t bytes) {
    return cuMemHostAlloc(address, bytes, 0);
}

CUresult cuMemFreeHost(void *address) {
    if (current_context())
        finish_all(current_context());
    Held held(lock);
    auto found = pinned().find(reinterpret_cast<uintptr_t>(address));
    if (found == pinned().end() || found->second.registered)
        return CUDA_ERROR_INVALID_VALUE;
    pinned().erase(found);
    free(address);
    return CUDA_SUCCESS;
}

CUresult cuMemHostRegister(void *address, size_t bytes, unsigned) {
    Held held(lock);
    pinned()[reinterpret_cast<uintptr_t>(address)] = Pinned{bytes, true};
    return CUDA_SUCCESS;
}

CUresult cuMemHostUnregister(void *address) {
    if (current_context())
        finish_all(current_context());
    Held held(lock);
    return pinned().erase(reinterpret_cast<uintptr_t>(address)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- copies ---- */

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    if (CUresult result = ordered("cuMemcpyHtoDAsync"))
        return result;
    if (!bytes)
        return CUDA_SUCCESS;
    if (!on_device(to, bytes))
        return CUDA_ERROR_INVALID_VALUE;
    /* Memory that is not pinned has been read when the call returns. */
    if (is_pinned(from, bytes) || is_capturing(stream))
        return enqueue(stream, [=] { memcpy(host(to), from, bytes); });
    std::string copy(static_cast<const char *>(from), bytes);
    return enqueue(stream, [to, copy = std::move(copy)] { memcpy(host(to), copy.data(), copy.size()); });
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    if (CUresult result = ordered("cuMemcpyDtoHAsync"))
        return result;
    if (!bytes)
        return CUDA_SUCCESS;
    if (!on_device(from, bytes))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enqueue(stream, [=] { memcpy(to, host(from), bytes); });
    if (!result && !is_pinned(to, bytes) && !is_capturing(stream))
        finish(stream_of(stream));
    return result;
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    if (!bytes)
        return CUDA_SUCCESS;
    if (!on_device(to, bytes) || !on_device(from, bytes))
        return CUDA_ERROR_INVALID_VALUE;
    return enqueue(stream, [=] { memmove(host(to), host(from), bytes); });
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    if (on_device(to, bytes))
        return on_device(from, bytes) ? cuMemcpyDtoDAsync(to, from, bytes, stream)
                                      : cuMemcpyHtoDAsync(to, host(from), bytes, stream);
    return cuMemcpyDtoHAsync(host(to), from, bytes, stream);
}

/* On the default stream, then waited for. */
static CUresult at_once(CUresult (*copy)(CUdeviceptr, CUdeviceptr, size_t), CUdeviceptr to, CUdeviceptr from,
                        size_t bytes) {
    if (!current_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (CUresult result = refuse_while_capturing())
        return result;
    CUresult result = copy(to, from, bytes);
    finish(stream_of(nullptr));
    return result;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
    return at_once(
        [](CUdeviceptr t, CUdeviceptr f, size_t n) { return cuMemcpyHtoDAsync(t, host(f), n, nullptr); }, to,
        reinterpret_cast<uintptr_t>(from), bytes);
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) {
    return at_once(
        [](CUdeviceptr t, CUdeviceptr f, size_t n) { return cuMemcpyDtoHAsync(host(t), f, n, nullptr); },
        reinterpret_cast<uintptr_t>(to), from, bytes);
}

CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return at_once([](CUdeviceptr t, CUdeviceptr f, size_t n) { return cuMemcpyDtoDAsync(t, f, n, nullptr); },
                   to, from, bytes);
}

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return at_once([](CUdeviceptr t, CUdeviceptr f, size_t n) { return cuMemcpyAsync(t, f, n, nullptr); }, to,
                   from, bytes);
}

/* Where one side of a 2D copy lies; NULL when it should be on the device and is not. */
static char *side(CUmemorytype type, const void *on_host, CUdeviceptr device, size_t x, size_t y,
                  size_t pitch, size_t width, size_t height) {
    size_t first = y * pitch + x;
    if (type == CU_MEMORYTYPE_HOST)
        return static_cast<char *>(const_cast<void *>(on_host)) + first;
    if (type != CU_MEMORYTYPE_DEVICE || !on_device(device + first, (height - 1) * pitch + width))
        return nullptr;
    return static_cast<char *>(host(device)) + first;
}

CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D *c, CUstream stream) {
    if (CUresult result = ordered("cuMemcpy2DAsync"))
        return result;
    size_t width = c->WidthInBytes, height = c->Height;
    if (!width || !height)
        return CUDA_SUCCESS;
    size_t from_pitch = c->srcPitch ? c->srcPitch : width, to_pitch = c->dstPitch ? c->dstPitch : width;
    if (from_pitch < width || to_pitch < width || from_pitch > INT32_MAX || to_pitch > INT32_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    const char *from =
        side(c->srcMemoryType, c->srcHost, c->srcDevice, c->srcXInBytes, c->srcY, from_pitch, width, height);
    char *to =
        side(c->dstMemoryType, c->dstHost, c->dstDevice, c->dstXInBytes, c->dstY, to_pitch, width, height);
    if (!from || !to)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enqueue(stream, [=] {
        for (size_t row = 0; row < height; row++)
            memcpy(to + row * to_pitch, from + row * from_pitch, width);
    });
    bool pageable = (c->srcMemoryType == CU_MEMORYTYPE_HOST && !is_pinned(from, width)) ||
                    (c->dstMemoryType == CU_MEMORYTYPE_HOST && !is_pinned(to, width));
    if (!result && pageable && !is_capturing(stream))
        finish(stream_of(stream));
    return result;
}

CUresult cuMemcpy2D(const CUDA_MEMCPY2D *copy) {
    CUresult result = refuse_while_capturing();
    if (!result)
        result = cuMemcpy2DAsync(copy, nullptr);
    if (!result)
        finish(stream_of(nullptr));
    return result;
}

template <class T> static CUresult fill(CUdeviceptr to, T value, size_t count, CUstream stream) {
    if (!count)
        return CUDA_SUCCESS;
    if (to % sizeof(T) || !on_device(to, count * sizeof(T)))
        return CUDA_ERROR_INVALID_VALUE;
    return enqueue(stream, [=] {
        for (size_t i = 0; i < count; i++)
            static_cast<T *>(host(to))[i] = value;
    });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    return fill(to, value, count, stream);
}
CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    return fill(to, value, count, stream);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return fill(to, value, count, stream);
}
CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) {
    CUresult result = refuse_while_capturing();
    return result ? result : fill(to, value, count, nullptr);
}
CUresult cuMemsetD32(CUdeviceptr to, unsigned value, size_t count) {
    CUresult result = refuse_while_capturing();
    return result ? result : fill(to, value, count, nullptr);
}

/* ---- what an address is ---- */

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address) {
    Held held(lock);
    auto device = holding(allocations(), address, 1);
    auto host_side = holding(pinned(), address, 1);
    bool here = device != allocations().end(), there = host_side != pinned().end();
    if (!here && !there)
        return CUDA_ERROR_INVALID_VALUE;
    switch (static_cast<int>(attribute)) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *static_cast<CUcontext *>(value) = here ? device->second.context : nullptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *static_cast<unsigned *>(value) = here ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *static_cast<CUdeviceptr *>(value) = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (here)
            return CUDA_ERROR_INVALID_VALUE;
        *static_cast<void **>(value) = host(address);
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *static_cast<unsigned *>(value) = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *static_cast<int *>(value) = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *static_cast<CUdeviceptr *>(value) = here ? device->first : host_side->first;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *static_cast<size_t *>(value) = here ? device->second.bytes : host_side->second.bytes;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

static size_t attribute_size(CUpointer_attribute attribute) {
    switch (static_cast<int>(attribute)) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        return 4;
    default:
        return 8;
    }
}

/* Memory that CUDA does not know is no error here: all is 0. */
CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **values,
                                CUdeviceptr address) {
    for (unsigned i = 0; i < count; i++)
        if (cuPointerGetAttribute(values[i], attributes[i], address)) {
            memset(values[i], 0, attribute_size(attributes[i]));
            if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
                *static_cast<int *>(values[i]) = -2;
        }
    return CUDA_SUCCESS;
}
