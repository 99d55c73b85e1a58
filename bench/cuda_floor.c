/* The device's own limits: see cuda_floor.h. */
#include "cuda_floor.h"
#include "cuda_random.h"

#include <assert.h>
#include <stdlib.h>

/* ---- reading ---- */

enum { READER_THREADS = 512, READER_BLOCKS = 4 /* of a multiprocessor */, READER_LOADS = 8 /* under way */ };

/* Thread i of T reads the 16 bytes at 16 (i + T j) for j = 0, 1, ..., READER_LOADS of them at a time. What it
 * read is stored only if its xor has one certain value, so that no load can be left out. */
static char *reader_source(int capability) {
    bool early = capability >= 90;
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        quit(EXIT_REFUSED, "no memory for a kernel's text");
    fprintf(out,
            ".version 7.8\n.target sm_%d\n.address_size 64\n"
            ".visible .entry read_bytes(.param .u64 data, .param .u64 count, .param .u64 sink)\n{\n"
            ".reg .pred %%ok, %%more;\n.reg .b32 %%i, %%threads, %%size, %%sum, %%w<%d>;\n"
            ".reg .b64 %%at, %%base, %%data, %%count, %%step, %%address, %%sink;\n%s"
            "ld.param.u64 %%data, [data];\nld.param.u64 %%count, [count];\nld.param.u64 %%sink, [sink];\n"
            "mov.u32 %%size, %%ntid.x;\nmov.u32 %%i, %%ctaid.x;\nmov.u32 %%threads, %%nctaid.x;\n"
            "mul.lo.u32 %%threads, %%threads, %%size;\nmul.lo.u32 %%i, %%i, %%size;\n"
            "mov.u32 %%size, %%tid.x;\nadd.u32 %%i, %%i, %%size;\n"
            "cvt.u64.u32 %%base, %%i;\ncvt.u64.u32 %%step, %%threads;\nmov.u32 %%sum, 0;\n"
            "next:\nmov.u64 %%at, %%base;\n",
            early ? 90 : 80, 4 * READER_LOADS, early ? "griddepcontrol.launch_dependents;\n" : "");
    for (int i = 0; i < READER_LOADS; i++) {
        for (int j = 0; j < 4; j++)
            fprintf(out, "mov.u32 %%w%d, 0;\n", 4 * i + j);
        fprintf(out,
                "setp.lt.u64 %%ok, %%at, %%count;\nshl.b64 %%address, %%at, 4;\n"
                "add.u64 %%address, %%address, %%data;\n"
                "@%%ok ld.global.nc.L1::no_allocate.v4.u32 {%%w%d, %%w%d, %%w%d, %%w%d}, [%%address];\n"
                "add.u64 %%at, %%at, %%step;\n",
                4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3);
    }
    for (int i = 0; i < 4 * READER_LOADS; i++)
        fprintf(out, "xor.b32 %%sum, %%sum, %%w%d;\n", i);
    fprintf(out,
            "mov.u64 %%base, %%at;\nsetp.lt.u64 %%more, %%base, %%count;\n@%%more bra next;\n%s"
            "setp.eq.u32 %%ok, %%sum, 0x2545f491;\n@%%ok st.global.u32 [%%sink], %%sum;\nret;\n}\n",
            early ? "griddepcontrol.wait;\n" : "");
    fclose(out);
    return text;
}

void reader_open(struct reader *reader, const struct gpu *gpu) {
    CUmodule module;
    char *source = reader_source(gpu->capability);
    gpu_check(gpu, gpu->driver.ModuleLoadData(&module, source), "the kernel that reads");
    gpu_check(gpu, gpu->driver.ModuleGetFunction(&reader->function, module, "read_bytes"), "read_bytes");
    reader->sink = gpu_allocate(gpu, 16);
    free(source);
}

void reader_run(const struct reader *reader, const struct gpu *gpu, uint64_t address, uint64_t bytes,
                bool early) {
    uint64_t count = bytes / 16, sink = reader->sink;
    void *arguments[] = {&address, &count, &sink};
    CUlaunchAttribute serialization = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                       .value.programmaticStreamSerializationAllowed = 1};
    CUlaunchConfig config = {.gridDimX = (unsigned)(READER_BLOCKS * gpu->multiprocessors),
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = READER_THREADS,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = gpu->stream,
                             .attrs = &serialization,
                             .numAttrs = early && gpu->capability >= 90};
    gpu_check(gpu, gpu->driver.LaunchKernelEx(&config, reader->function, arguments, NULL),
              "the kernel that reads");
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
        .set = bytes / gpu_time(gpu, set_once, &run, 4).median,
        .upload = (double)UPLOAD_BYTES / gpu_time(gpu, upload_once, &run, 1).median,
    };
    if (gpu->cublas)
        floors->product = 2.0 * SIDE * SIDE * SIDE / gpu_time(gpu, product_once, &run, 4).median;
    gpu_check(gpu, gpu->driver.MemFreeHost(run.host), "freeing pinned memory");
    gpu_free(gpu, run.from);
    gpu_free(gpu, run.to);
}

void floors_print(const struct floors *floors) {
    printf("Limits in this run: read %.2f TB/s, copy %.2f TB/s (read + written), set %.2f TB/s, upload from "
           "pinned "
           "memory %.1f GB/s, cuBLAS f16 at 8192 x 8192 x 8192 %.0f TFLOP/s.\n\n",
           1e-12 * floors->read, 1e-12 * floors->copy, 1e-12 * floors->set, 1e-9 * floors->upload,
           1e-12 * floors->product);
    fflush(stdout);
}
