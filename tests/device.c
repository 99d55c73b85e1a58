/* Twins of host buffers in a GPU's memory; see device.h. */
#include "device.h"
#include "device_gpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

/* ---- what the run asks for ---- */

static bool told(const char *name, const char *value) {
    const char *is = getenv(name);
    return is && !strcmp(is, value);
}

bool quick(void) {
    return told("FERRUMK_TEST_QUICK", "1");
}

bool sources_on_gpu(void) {
    return told("FERRUMK_TEST_SOURCES", "device");
}

/* ---- the kinds of GPU ---- */

static const struct gpu *gpu; /* NULL: the CPU */
static void *stream;

bool on_gpu(void) {
    static bool asked;
    if (!asked) {
        asked = true;
        gpu = told("FERRUMK_TEST_BACKEND", "cuda")     ? &gpu_cuda
              : told("FERRUMK_TEST_BACKEND", "vulkan") ? &gpu_vulkan
                                                       : NULL;
        if (gpu)
            stream = gpu->open();
    }
    return gpu;
}

fmk_backend test_backend(void) {
    return on_gpu() ? gpu->backend : FMK_BACKEND_CPU;
}

const void *test_native(void) {
    return on_gpu() ? gpu->native() : NULL;
}

void *test_stream(void) {
    return on_gpu() ? stream : NULL;
}

uint64_t gpu_alloc(size_t size) {
    return gpu->alloc(size);
}

void gpu_free(uint64_t memory) {
    gpu->free(memory);
}

void gpu_write(uint64_t to, const void *from, size_t size) {
    gpu->write(to, from, size);
}

void gpu_read(void *to, uint64_t from, size_t size) {
    gpu->read(to, from, size);
}

void gpu_fill(uint64_t to, unsigned char value, size_t size) {
    gpu->fill(to, value, size);
}

uint64_t gpu_memory(uint64_t handle) {
    return gpu->memory(handle);
}

fmk_buffer gpu_buffer(uint64_t memory, size_t size) {
    return gpu->buffer(memory, size);
}

/* ---- twins ---- */

enum { FENCE = 256, POISON = 0x5a, MOST_RANGES = 12 };

/* Under compute-sanitizer allocations end where the buffer does, so that it sees what is read past the end.
 */
static size_t fence(void) {
    return told("FERRUMK_TEST_FENCES", "0") ? 0 : FENCE;
}

enum use { READ, WRITTEN, SCRATCH };

/* Host memory [begin, end), and the address of its twin, which has the same alignment. */
struct range {
    uint64_t begin, end, allocation, twin;
    enum use use;
    uint8_t *before; /* what was uploaded */
};

struct twins {
    struct range range[MOST_RANGES];
    int count;
};

/* Buffers that overlap share a twin, in which they overlap alike. */
static void add(struct twins *t, fmk_buffer buffer, enum use use) {
    if (!buffer.handle)
        return;
    struct range all = {.begin = buffer.handle + buffer.offset, .use = use};
    all.end = all.begin + buffer.size;
    for (int i = 0; i < t->count; i++) {
        struct range other = t->range[i];
        if (other.begin >= all.end || all.begin >= other.end)
            continue;
        all.begin = other.begin < all.begin ? other.begin : all.begin;
        all.end = other.end > all.end ? other.end : all.end;
        all.use = other.use == all.use ? all.use : WRITTEN;
        t->range[i] = t->range[--t->count];
        i = -1; /* the union may touch others */
    }
    assert_true(t->count < MOST_RANGES);
    t->range[t->count++] = all;
}

static size_t size_of(const struct range *r) {
    return (size_t)(r->end - r->begin);
}

static const void *host_of(const struct range *r) {
    return (const void *)(uintptr_t)r->begin;
}

/* Workspaces hold NaN of any type: their content is arbitrary. */
static void upload(struct twins *t) {
    for (int i = 0; i < t->count; i++) {
        struct range *r = &t->range[i];
        size_t lead = fence() + r->begin % 256, size = size_of(r);
        r->allocation = gpu_alloc(lead + size + fence());
        r->twin = r->allocation + lead;
        gpu_fill(r->allocation, POISON, lead);
        gpu_fill(r->twin + size, POISON, fence());
        if (r->use == SCRATCH) {
            gpu_fill(r->twin, 0xff, size);
            continue;
        }
        r->before = malloc(size + 1);
        assert_non_null(r->before);
        memcpy(r->before, host_of(r), size);
        gpu_write(r->twin, r->before, size);
    }
}

static fmk_buffer twin(const struct twins *t, fmk_buffer buffer) {
    for (int i = 0; buffer.handle && i < t->count; i++) {
        uint64_t begin = buffer.handle + buffer.offset;
        const struct range *r = &t->range[i];
        if (begin >= r->begin && begin + buffer.size <= r->end && (begin < r->end || r->begin == r->end)) {
            return gpu_buffer(r->twin + (begin - r->begin), buffer.size);
        }
    }
    return buffer;
}

static bool all_poison(uint64_t memory, size_t size) {
    uint8_t bytes[2 * FENCE];
    gpu_read(bytes, memory, size);
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != POISON)
            return false;
    return true;
}

static const char *download_range(struct range *r, bool done) {
    size_t size = size_of(r);
    const char *wrong = NULL;
    if (!all_poison(r->allocation, (size_t)(r->twin - r->allocation)))
        wrong = "wrote in front of a buffer";
    if (!all_poison(r->twin + size, fence()))
        wrong = "wrote past a buffer";
    if (r->use != SCRATCH) {
        uint8_t *now = malloc(size + 1);
        assert_non_null(now);
        gpu_read(now, r->twin, size);
        if (r->use == WRITTEN && done)
            memcpy((void *)(uintptr_t)r->begin, now, size);
        else if (memcmp(now, r->before, size))
            wrong = done ? "wrote what it only may read" : "wrote, and was refused";
        free(now);
    }
    free(r->before);
    gpu_free(r->allocation);
    return wrong;
}

static void download(struct twins *t, bool done, const char *call) {
    for (int i = 0; i < t->count; i++) {
        const char *wrong = download_range(&t->range[i], done);
        if (wrong)
            fail_msg("%s %s", call, wrong);
    }
}

/* ---- calls ---- */

static fmk_status finish(struct twins *t, fmk_queue *queue, fmk_status status, void *context,
                         const char *call) {
    if (gpu->current() != context)
        fail_msg("%s left another CUcontext current", call);
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", fmk_last_error());
    gpu->wait(queue);
    download(t, status == FMK_OK, call);
    assert_string_equal(sentence, fmk_last_error());
    return status;
}

static fmk_status prepared_linear(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *args) {
    fmk_status status = fmk_prepare(queue, weight, args);
    return status ? status : fmk_linear(queue, weight, args);
}

fmk_status run_linear(fmk_queue *queue, const fmk_weight *weight, const fmk_linear_args *host) {
    if (!on_gpu())
        return prepared_linear(queue, weight, host);
    fmk_linear_args args = *host;
    fmk_routing routing = {0};
    if (args.routing) {
        routing = *args.routing;
        args.routing = &routing;
    }
    fmk_buffer *read[] = {&args.in,     &args.addend,     &args.in_rows,  &args.m_dev,
                          &routing.ids, &routing.offsets, &routing.pairs, &routing.pair_weights};
    enum { READS = sizeof read / sizeof read[0] };
    struct twins t = {0};
    for (int i = 0; i < READS; i++)
        add(&t, *read[i], READ);
    add(&t, args.out, WRITTEN);
    add(&t, args.workspace, SCRATCH);
    upload(&t);
    for (int i = 0; i < READS; i++)
        *read[i] = twin(&t, *read[i]);
    args.out = twin(&t, args.out);
    args.workspace = twin(&t, args.workspace);
    void *context = gpu->current();
    return finish(&t, queue, prepared_linear(queue, weight, &args), context, "fmk_linear");
}

fmk_status run_rows(fmk_queue *queue, const fmk_weight *weight, const fmk_rows_args *host) {
    if (!on_gpu())
        return fmk_rows(queue, weight, host);
    fmk_rows_args args = *host;
    struct twins t = {0};
    add(&t, args.ids, READ);
    add(&t, args.out, WRITTEN);
    upload(&t);
    args.ids = twin(&t, args.ids);
    args.out = twin(&t, args.out);
    void *context = gpu->current();
    return finish(&t, queue, fmk_rows(queue, weight, &args), context, "fmk_rows");
}

fmk_status run_dequantize(fmk_queue *queue, const fmk_weight *weight, int32_t expert, const fmk_buffer *host,
                          fmk_dtype out_type, int64_t out_stride) {
    if (!on_gpu())
        return fmk_weight_dequantize(queue, weight, expert, host, out_type, out_stride);
    struct twins t = {0};
    add(&t, *host, WRITTEN);
    upload(&t);
    fmk_buffer out = twin(&t, *host);
    void *context = gpu->current();
    return finish(&t, queue, fmk_weight_dequantize(queue, weight, expert, &out, out_type, out_stride),
                  context, "fmk_weight_dequantize");
}

fmk_status run_route_sort(fmk_queue *queue, const fmk_routing *host_ids, int64_t m, int32_t num_experts,
                          const fmk_routing *host_out) {
    if (!on_gpu())
        return fmk_route_sort(queue, host_ids, m, num_experts, host_out);
    fmk_routing ids = *host_ids, out = *host_out;
    struct twins t = {0};
    add(&t, ids.ids, READ);
    add(&t, out.offsets, WRITTEN);
    add(&t, out.pairs, WRITTEN);
    upload(&t);
    ids.ids = twin(&t, ids.ids);
    out.offsets = twin(&t, out.offsets);
    out.pairs = twin(&t, out.pairs);
    void *context = gpu->current();
    return finish(&t, queue, fmk_route_sort(queue, &ids, m, num_experts, &out), context, "fmk_route_sort");
}

/* ---- weights ---- */

enum { MOST_PARTS = 64, TENSORS = 6, MOST_BORROWED = 4096 };

static struct {
    uint64_t memory;
    size_t size;
} borrowed[MOST_BORROWED];
static int num_borrowed;

/* A tensor's bytes in the device's memory, at the same alignment. */
static void move_tensor(fmk_tensor *tensor) {
    if (!tensor->data.handle)
        return;
    assert_true(num_borrowed < MOST_BORROWED && tensor->data.size > 0);
    uint64_t begin = tensor->data.handle + tensor->data.offset;
    size_t size = (size_t)tensor->data.size, lead = begin % 256;
    uint64_t memory = gpu_alloc(lead + size);
    gpu_write(memory + lead, (const void *)(uintptr_t)begin, size);
    borrowed[num_borrowed].memory = memory;
    borrowed[num_borrowed++].size = lead + size;
    tensor->data = gpu_buffer(memory + lead, size);
    tensor->memory = FMK_MEM_DEVICE;
}

static void free_from(int first) {
    while (num_borrowed > first) {
        num_borrowed--;
        gpu_fill(borrowed[num_borrowed].memory, 0xee, borrowed[num_borrowed].size);
        gpu_free(borrowed[num_borrowed].memory);
    }
}

void free_borrowed_sources(void) {
    free_from(0);
}

static fmk_status create_and_wait(fmk_weight **out, fmk_queue *queue, const fmk_weight_desc *host) {
    fmk_weight_desc desc = *host;
    if (desc.storage.handle)
        desc.storage = gpu_buffer(desc.storage.handle + desc.storage.offset, desc.storage.size);
    fmk_status status = fmk_weight_create(out, queue, &desc);
    return status ? status : fmk_weight_ready(*out, 1);
}

fmk_status run_create(fmk_weight **out, fmk_queue *queue, const fmk_weight_desc *host) {
    if (!on_gpu())
        return fmk_weight_create(out, queue, host);
    if (!sources_on_gpu())
        return create_and_wait(out, queue, host);
    assert_true(host->num_parts <= MOST_PARTS);
    fmk_part parts[MOST_PARTS];
    fmk_weight_desc desc = *host;
    desc.parts = parts;
    int first = num_borrowed;
    for (int p = 0; p < desc.num_parts; p++) {
        parts[p] = host->parts[p];
        fmk_tensor *tensors[TENSORS] = {&parts[p].qweight, &parts[p].scales, &parts[p].qzeros,
                                        &parts[p].g_idx,   &parts[p].bias,   &parts[p].n_order};
        for (int i = 0; i < TENSORS; i++)
            move_tensor(tensors[i]);
    }
    fmk_status status = create_and_wait(out, queue, &desc);
    fmk_weight_info_t info = {.struct_size = sizeof info};
    if (status || (!fmk_weight_info(*out, &info) && !info.borrowed))
        free_from(first);
    return status;
}

/* ---- storage ---- */

void *storage_alloc(size_t size) {
    if (on_gpu()) {
        uint64_t memory = gpu_alloc(size + 2 * FENCE);
        gpu_fill(memory, POISON, size + 2 * FENCE);
        return (void *)(uintptr_t)(memory + FENCE);
    }
    uint8_t *memory = aligned_alloc(256, (size + 2 * FENCE + 255) / 256 * 256);
    assert_non_null(memory);
    memset(memory, POISON, size + 2 * FENCE);
    return memory + FENCE;
}

void storage_free(void *storage, size_t size) {
    uint8_t *memory = (uint8_t *)storage - FENCE, fences[2 * FENCE];
    if (on_gpu()) {
        gpu_read(fences, (uintptr_t)memory, FENCE);
        gpu_read(fences + FENCE, (uintptr_t)memory + FENCE + size, FENCE);
        gpu_free((uintptr_t)memory);
    } else {
        memcpy(fences, memory, FENCE);
        memcpy(fences + FENCE, memory + FENCE + size, FENCE);
        free(memory);
    }
    for (int i = 0; i < 2 * FENCE; i++)
        if (fences[i] != POISON)
            fail_msg("a fence of a weight's storage was written over, %d bytes %s",
                     i < FENCE ? FENCE - i : i - FENCE, i < FENCE ? "in front of it" : "past it");
}
