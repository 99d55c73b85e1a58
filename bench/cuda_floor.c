/* The device's own limits: see cuda_floor.h. */
#include "cuda_floor.h"
#include "cuda_random.h"

#include <assert.h>
#include <stdlib.h>

/* ---- reading and copying ---- */

enum { LOADS = 8 /* under way in a thread */ };

/* at = base, base + step, ...: the i-th address in `from`, and whether there is so much. */
static void print_place(FILE *out, int i, const char *from) {
    if (!i)
        fprintf(out, "mov.u64 %%at, %%base;\n");
    fprintf(out,
            "setp.lt.u64 %%ok, %%at, %%count;\nshl.b64 %%address, %%at, 4;\n"
            "add.u64 %%address, %%address, %%%s;\nadd.u64 %%at, %%at, %%step;\n",
            from);
}

/* Thread i of T reads the 16 bytes at 16 (i + T j) for j = 0, 1, ..., LOADS of them at a time. copy_bytes
 * stores them at the same places of `to`. read_bytes stores a word there, and only if the xor of all that it
 * read has one certain value, so that no load can be left out. */
static void print_kernel(FILE *out, bool copies, bool early) {
    fprintf(out,
            ".visible .entry %s(.param .u64 data, .param .u64 count, .param .u64 to)\n{\n"
            ".reg .pred %%ok, %%more;\n.reg .b32 %%i, %%threads, %%size, %%sum, %%w<%d>;\n"
            ".reg .b64 %%at, %%base, %%data, %%count, %%step, %%address, %%to;\n%s"
            "ld.param.u64 %%data, [data];\nld.param.u64 %%count, [count];\nld.param.u64 %%to, [to];\n"
            "mov.u32 %%size, %%ntid.x;\nmov.u32 %%i, %%ctaid.x;\nmov.u32 %%threads, %%nctaid.x;\n"
            "mul.lo.u32 %%threads, %%threads, %%size;\nmul.lo.u32 %%i, %%i, %%size;\n"
            "mov.u32 %%size, %%tid.x;\nadd.u32 %%i, %%i, %%size;\n"
            "cvt.u64.u32 %%base, %%i;\ncvt.u64.u32 %%step, %%threads;\nmov.u32 %%sum, 0;\nnext:\n",
            copies ? "copy_bytes" : "read_bytes", 4 * LOADS,
            early ? "griddepcontrol.launch_dependents;\n" : "");
    for (int i = 0; i < LOADS; i++) {
        for (int j = 0; j < 4; j++)
            fprintf(out, "mov.u32 %%w%d, 0;\n", 4 * i + j);
        print_place(out, i, "data");
        fprintf(out, "@%%ok ld.global.nc.L1::no_allocate.v4.u32 {%%w%d, %%w%d, %%w%d, %%w%d}, [%%address];\n",
                4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3);
    }
    for (int i = 0; copies && i < LOADS; i++) {
        print_place(out, i, "to");
        fprintf(out, "@%%ok st.global.v4.u32 [%%address], {%%w%d, %%w%d, %%w%d, %%w%d};\n", 4 * i, 4 * i + 1,
                4 * i + 2, 4 * i + 3);
    }
    for (int i = 0; !copies && i < 4 * LOADS; i++)
        fprintf(out, "xor.b32 %%sum, %%sum, %%w%d;\n", i);
    fprintf(out,
            "mov.u64 %%base, %%at;\nsetp.lt.u64 %%more, %%base, %%count;\n@%%more bra next;\n%s%sret;\n}\n",
            early ? "griddepcontrol.wait;\n" : "",
            copies ? "" : "setp.eq.u32 %ok, %sum, 0x2545f491;\n@%ok st.global.u32 [%to], %sum;\n");
}

static char *kernels_source(int capability) {
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        quit(EXIT_REFUSED, "no memory for a kernel's text");
    bool early = capability >= 90;
    fprintf(out, ".version 7.8\n.target sm_%d\n.address_size 64\n", early ? 90 : 80);
    print_kernel(out, false, early);
    print_kernel(out, true, false);
    fclose(out);
    return text;
}

void reader_open(struct reader *reader, const struct gpu *gpu) {
    CUmodule module;
    reader->blocks = 4;
    reader->threads = 512;
    char *source = kernels_source(gpu->capability);
    gpu_check(gpu, gpu->driver.ModuleLoadData(&module, source), "the kernels that read and copy");
    gpu_check(gpu, gpu->driver.ModuleGetFunction(&reader->read, module, "read_bytes"), "read_bytes");
    gpu_check(gpu, gpu->driver.ModuleGetFunction(&reader->copy, module, "copy_bytes"), "copy_bytes");
    reader->sink = gpu_allocate(gpu, 16);
    free(source);
}

static void launch(const struct reader *reader, CUfunction function, const struct gpu *gpu, uint64_t from,
                   uint64_t bytes, uint64_t to, bool early) {
    uint64_t count = bytes / 16;
    void *arguments[] = {&from, &count, &to};
    CUlaunchAttribute serialization = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                       .value.programmaticStreamSerializationAllowed = 1};
    CUlaunchConfig config = {.gridDimX = (unsigned)(reader->blocks * gpu->multiprocessors),
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = (unsigned)reader->threads,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = gpu->stream,
                             .attrs = &serialization,
                             .numAttrs = early && gpu->capability >= 90};
    gpu_check(gpu, gpu->driver.LaunchKernelEx(&config, function, arguments, NULL), "reading or copying");
}

void reader_run(const struct reader *reader, const struct gpu *gpu, uint64_t address, uint64_t bytes,
                bool early) {
    launch(reader, reader->read, gpu, address, bytes, reader->sink, early);
}

/* ---- all of them ---- */

enum { SIDE = 8192 };
#define FLOOR_BYTES (UINT64_C(1) << 30)
#define UPLOAD_BYTES (UINT64_C(1) << 28)

struct floor_run {
    const struct gpu *gpu;
    const struct reader *reader;
    uint64_t from, to;
    void *host;
};

static void read_once(void *user, int i) {
    struct floor_run *run = user;
    (void)i;
    reader_run(run->reader, run->gpu, run->from, FLOOR_BYTES, false);
}

static void copy_once(void *user, int i) {
    struct floor_run *run = user;
    (void)i;
    launch(run->reader, run->reader->copy, run->gpu, run->from, FLOOR_BYTES, run->to, false);
}

static void driver_copy_once(void *user, int i) {
    struct floor_run *run = user;
    (void)i;
    gpu_check(run->gpu, run->gpu->driver.MemcpyDtoDAsync(run->to, run->from, FLOOR_BYTES, run->gpu->stream),
              "a copy on the device");
}

static void set_once(void *user, int i) {
    struct floor_run *run = user;
    (void)i;
    gpu_check(run->gpu, run->gpu->driver.MemsetD8Async(run->to, 1, FLOOR_BYTES, run->gpu->stream),
              "a memset");
}

static void upload_once(void *user, int i) {
    struct floor_run *run = user;
    (void)i;
    gpu_check(run->gpu, run->gpu->driver.MemcpyHtoDAsync(run->to, run->host, UPLOAD_BYTES, run->gpu->stream),
              "a copy to the device");
}

static void product_once(void *user, int i) {
    struct floor_run *run = user;
    const uint64_t matrix = (uint64_t)SIDE * SIDE * 2;
    (void)i;
    gpu_cublas(run->gpu, run->from, run->from + matrix, run->to, SIDE, SIDE, SIDE);
}

void floors_measure(struct floors *floors, const struct gpu *gpu, const struct reader *reader) {
    static_assert(2 * (uint64_t)SIDE * SIDE * 2 <= FLOOR_BYTES, "both factors lie in one buffer");
    struct floor_run run = {.gpu = gpu,
                            .reader = reader,
                            .from = gpu_random_halves(gpu, FLOOR_BYTES / 2),
                            .to = gpu_allocate(gpu, FLOOR_BYTES)};
    gpu_check(gpu, gpu->driver.MemAllocHost(&run.host, UPLOAD_BYTES), "pinned host memory");
    random_bytes(run.host, UPLOAD_BYTES, 1);
    const double bytes = (double)FLOOR_BYTES;
    *floors = (struct floors){
        .read = bytes / gpu_time(gpu, read_once, &run, 4).median,
        .copy = 2 * bytes / gpu_time(gpu, copy_once, &run, 4).median,
        .driver_copy = 2 * bytes / gpu_time(gpu, driver_copy_once, &run, 4).median,
        .set = bytes / gpu_time(gpu, set_once, &run, 4).median,
        .upload = (double)UPLOAD_BYTES / gpu_time(gpu, upload_once, &run, 1).median,
    };
    if (floors->driver_copy > floors->copy)
        floors->copy = floors->driver_copy;
    if (gpu->cublas)
        floors->product = 2.0 * SIDE * SIDE * SIDE / gpu_time(gpu, product_once, &run, 4).median;
    gpu_check(gpu, gpu->driver.MemFreeHost(run.host), "freeing pinned memory");
    gpu_free(gpu, run.from);
    gpu_free(gpu, run.to);
}

void floors_print(const struct floors *floors) {
    printf("Limits in this run: read %.2f TB/s, copy %.2f TB/s (read + written; cuMemcpyDtoD %.2f), set %.2f "
           "TB/s, upload from pinned memory %.1f GB/s, cuBLAS f16 at 8192 x 8192 x 8192 %.0f TFLOP/s.\n\n",
           1e-12 * floors->read, 1e-12 * floors->copy, 1e-12 * floors->driver_copy, 1e-12 * floors->set,
           1e-9 * floors->upload, 1e-12 * floors->product);
    fflush(stdout);
}
