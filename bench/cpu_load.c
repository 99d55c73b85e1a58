/* How fast weights are packed, beside memcpy of as many bytes, and how large they become. */
#include "cpu_threads.h"
#include "tool.h"

#include <inttypes.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>

enum { REPETITIONS = 5 };

/* Of fmk_weight_create, into that memory; handle 0: into memory of the library's own, new each time. */
static struct timed create_time(const struct device *device, const fmk_part *part, fmk_buffer storage) {
    double samples[REPETITIONS];
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = part, .num_parts = 1, .storage = storage};
    for (int i = 0; i < REPETITIONS; i++) {
        fmk_weight *weight;
        double before = seconds();
        check(fmk_weight_create(&weight, device->queue, &desc), "fmk_weight_create");
        samples[i] = seconds() - before;
        fmk_weight_destroy(weight, device->queue);
    }
    return timed_of(samples, REPETITIONS);
}

static void line(struct bench *bench, const struct device *device, const struct bench_peer_source *source) {
    const struct ceilings *ceilings = &bench->ceilings[bench->stage];
    const double file = (double)source_bytes(source);
    fmk_part part = source_part(source);
    fmk_weight_desc desc = {.struct_size = sizeof desc, .parts = &part, .num_parts = 1};
    uint64_t size, align;
    check(fmk_weight_storage(device->context, &desc, &size, &align), "fmk_weight_storage");
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        quit(EXIT_REFUSED, "no memory for %" PRIu64 " bytes", size);
    madvise(memory, size, MADV_HUGEPAGE); /* as the library's own */
    memset(memory, 1, size);
    const fmk_buffer used = {.handle = (uintptr_t)memory, .size = size};
    const struct {
        const char *name;
        struct timed time;
        double copy;
    } ways[] = {
        {"pack to memory in use", create_time(device, &part, used), ceilings->copy},
        {"pack to new memory", create_time(device, &part, (fmk_buffer){0}), ceilings->copy_fresh},
    };
    munmap(memory, size);
    printf("| %s | %.3f |", source->format, (double)size / file);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        double rate = file / ways[i].time.least;
        printf(" %.2f |", 1e-9 * rate);
        if (ways[i].copy > 0)
            printf(" %.0f %% |", 100 * rate / ways[i].copy);
        else
            printf(" |");
        result_add(bench, (struct result){.record = "load",
                                          .format = source->format,
                                          .name = ways[i].name,
                                          .threads = bench->threads,
                                          .n = source->n,
                                          .k = source->k,
                                          .time = ways[i].time,
                                          .bytes = size,
                                          .file_bytes = source_bytes(source),
                                          .error = -1,
                                          .outlier_error = -1,
                                          .rate = rate});
    }
    printf("\n");
    fflush(stdout);
}

void bench_load(struct bench *bench) {
    const struct options *o = bench->options;
    const struct shape shape = {o->load_rows, 4096};
    struct device device;
    struct device_options options = {.backend = "cpu", .threads = bench->threads, .disable = o->disable};
    printf("### Packing %" PRId64 " x %" PRId64 ", %" PRId32 " thread%s\n\n", shape.n, shape.k,
           bench->threads, bench->threads > 1 ? "s" : "");
    printf("GB/s of the file's bytes, the best of %d times, and what share that is of memcpy's rate.\n\n"
           "| format | packed / file | to memory in use | | to new memory | |\n|---|---|---|---|---|---|\n",
           REPETITIONS);
    mallopt(M_MMAP_MAX, 65536); /* new memory is new: see keep_freed_memory */
    device_open(&device, &options);
    for (int f = 0; f < o->num_formats; f++) {
        struct bench_peer_source source;
        source_make(&source, bench, o->formats[f], shape);
        line(bench, &device, &source);
        source_free(&source);
    }
    device_close(&device);
    mallopt(M_MMAP_MAX, 0);
    printf("\n");
}
