/* The emulator against plain loops. */
#include "numbers.h"
#include "selftest.h"

#include <cuda.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static CUmodule module;
static CUstream stream;

template <class T> struct Array {
    size_t count;
    CUdeviceptr at;
    explicit Array(const std::vector<T> &values) : count(values.size()) {
        CHECK(!cuMemAlloc(&at, count * sizeof(T)));
        CHECK(!cuMemcpyHtoD(at, values.data(), count * sizeof(T)));
    }
    ~Array() {
        CHECK(!cuMemFree(at));
    }
    T *data() {
        return reinterpret_cast<T *>(at);
    }
    std::vector<T> values() {
        std::vector<T> all(count);
        CHECK(!cuStreamSynchronize(stream));
        CHECK(!cuMemcpyDtoH(all.data(), at, count * sizeof(T)));
        return all;
    }
};

template <class Args>
static void launch(const char *name, unsigned x, unsigned y, unsigned threads, Args args,
                   unsigned shared_bytes = 0, unsigned cluster = 1) {
    CUfunction function;
    CHECK(!cuModuleGetFunction(&function, module, name));
    CHECK(!cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                              static_cast<int>(shared_bytes)));
    void *params[] = {&args};
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = cluster;
    attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1;
    CUlaunchConfig config = {x, y, 1, threads, 1, 1, shared_bytes, stream, &attribute, 1};
    CHECK(!cuLaunchKernelEx(&config, function, params, nullptr));
}

static void test_numbers() {
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t half = static_cast<uint16_t>(bits);
        int exponent = half >> 10 & 31, mantissa = half & 1023;
        double want = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        float got = emulator::f16_number(half);
        if (exponent == 31) {
            CHECK(mantissa ? isnan(got) : isinf(got));
        } else {
            CHECK(static_cast<double>(got) == (half & 0x8000 ? -want : want));
            CHECK(emulator::f16_bits(got) == half);
            /* Half way to the next goes to the even one. */
            float next = emulator::f16_number(static_cast<uint16_t>(half + 1));
            if ((half & 0x7fff) < 0x7bff)
                CHECK(emulator::f16_bits((got + next) / 2) == ((half + 1) & 0xfffe));
        }
        float wide = emulator::bf16_number(half);
        CHECK(isnan(wide) || emulator::bf16_bits(wide) == half);
    }
    CHECK(emulator::f16_bits(65519.99f) == 0x7bff && emulator::f16_bits(65520.0f) == 0x7c00);
    CHECK(emulator::f16_bits(1e30f) == 0x7c00 && emulator::f16_bits(-INFINITY) == 0xfc00);
    CHECK(emulator::f16_bits(0x1p-25f) == 0 && emulator::f16_bits(0x1.01p-25f) == 1);
    CHECK(emulator::f16_bits(NAN) == 0x7fff && emulator::bf16_bits(NAN) == 0x7fff);
}

static void test_reverse() {
    std::vector<int32_t> in(256 * 12);
    for (size_t i = 0; i < in.size(); i++)
        in[i] = static_cast<int32_t>(i * 7919);
    for (int rounds : {1, 2, 33}) {
        Array<int32_t> from(in), to(std::vector<int32_t>(in.size(), -1));
        launch("selftest_reverse", 4, 3, 256, selftest_reverse_args{from.data(), to.data(), rounds});
        std::vector<int32_t> got = to.values();
        for (size_t i = 0; i < in.size(); i++)
            CHECK(got[i] == (rounds % 2 ? in[i / 256 * 256 + 255 - i % 256] : in[i]));
    }
}

static void test_sum() {
    for (unsigned threads : {32u, 64u, 1024u}) {
        std::vector<int32_t> in(100003);
        int32_t want = 0;
        for (size_t i = 0; i < in.size(); i++)
            want += in[i] = rand() % 1000;
        Array<int32_t> from(in), out(std::vector<int32_t>(5)), total(std::vector<int32_t>(1)),
            largest(std::vector<int32_t>(1));
        launch("selftest_sum", 5, 1, threads,
               selftest_sum_args{from.data(), out.data(), total.data(), largest.data(), 100003});
        int32_t sum = 0, most = 0;
        for (int32_t part : out.values()) {
            sum += part;
            most = part > most ? part : most;
        }
        CHECK(sum == want && total.values()[0] == want && largest.values()[0] == most);
    }
}

static void test_shuffle() {
    Array<int32_t> out(std::vector<int32_t>(7 * 64));
    launch("selftest_shuffle", 1, 1, 64, selftest_shuffle_args{out.data()});
    std::vector<int32_t> got = out.values();
    for (int me = 0; me < 64; me++) {
        int lane = me % 32, warp = me - lane;
        const int32_t *mine = &got[static_cast<size_t>(me)];
        CHECK(mine[0] == warp + 5);
        CHECK(mine[64] == (me ^ 3));
        CHECK(mine[128] == (lane % 16 + 7 < 16 ? me + 7 : me));
        CHECK(mine[192] == (lane % 8 >= 3 ? me - 3 : me));
        CHECK(static_cast<uint32_t>(mine[256]) == 0x49249249);
        CHECK(mine[320] == warp + (lane < 16 ? 2 : 18));
        CHECK(mine[384] == (me ^ 1));
    }
}

static void test_mma() {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        std::vector<uint16_t> a(256), b(128);
        std::vector<float> c(128);
        auto number = bf16 ? emulator::bf16_number : emulator::f16_number;
        for (uint16_t &bits : a) /* f16: codes as subnormals */
            bits = static_cast<uint16_t>(bf16 ? 0x3f80 + rand() % 256 : rand() % 64);
        for (uint16_t &bits : b)
            bits = bf16 ? emulator::bf16_bits(static_cast<float>(rand() % 9 - 4))
                        : emulator::f16_bits(static_cast<float>(rand() % 9 - 4));
        for (float &value : c)
            value = static_cast<float>(rand() % 100) * (bf16 ? 1.0f : 0x1p-24f);
        Array<uint16_t> a_there(a), b_there(b);
        Array<float> c_there(c), d_there(std::vector<float>(128));
        launch("selftest_mma", 1, 1, 32,
               selftest_mma_args{a_there.data(), b_there.data(), c_there.data(), d_there.data(), bf16, 1});
        std::vector<float> d = d_there.values();
        for (size_t row = 0; row < 16; row++)
            for (size_t column = 0; column < 8; column++) {
                float want = c[row * 8 + column];
                for (size_t k = 0; k < 16; k++)
                    want += number(a[row * 16 + k]) * number(b[column * 16 + k]);
                CHECK(d[row * 8 + column] == want);
            }
    }
}

constexpr unsigned RING_BYTES = 3 * 256 + 2 * 3 * 8;

static bool ring_is_right(int units, int wrong) {
    const unsigned blocks = 4;
    std::vector<uint32_t> in(static_cast<size_t>(blocks) * static_cast<size_t>(units) * 64),
        want(blocks * 32);
    for (size_t i = 0; i < in.size(); i++) {
        in[i] = static_cast<uint32_t>(rand());
        want[i / 64 / static_cast<size_t>(units) * 32 + i % 32] += in[i];
    }
    Array<uint32_t> from(in), to(std::vector<uint32_t>(want.size()));
    launch("selftest_ring", blocks, 1, 96, selftest_ring_args{from.data(), to.data(), units, wrong},
           RING_BYTES);
    return to.values() == want;
}

static void test_ring() {
    for (int units : {1, 2, 3, 4, 31})
        CHECK(ring_is_right(units, 0));
    CHECK(!ring_is_right(31, 1));
}

static void test_matrices() {
    std::vector<uint16_t> in(256);
    for (size_t i = 0; i < in.size(); i++)
        in[i] = static_cast<uint16_t>(7 * i);
    Array<uint16_t> from(in), to(std::vector<uint16_t>(512));
    launch("selftest_matrices", 1, 1, 32, selftest_matrices_args{from.data(), to.data()});
    std::vector<uint16_t> got = to.values();
    for (size_t row = 0; row < 32; row++)
        for (size_t i = 0; i < 8; i++) {
            CHECK(got[8 * row + i] == in[row / 8 * 64 + 8 * i + row % 8]);
            CHECK(got[256 + 8 * row + i] == in[i / 2 * 64 + row / 4 * 8 + row % 4 * 2 + i % 2]);
        }
}

static void test_graph() {
    std::vector<int32_t> in(256, 3);
    Array<int32_t> from(in), to(std::vector<int32_t>(256));
    CUgraph graph;
    CUgraphExec exec;
    CUstreamCaptureStatus status;
    CHECK(!cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK(!cuStreamIsCapturing(stream, &status) && status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    launch("selftest_reverse", 1, 1, 256, selftest_reverse_args{from.data(), to.data(), 1});
    CHECK(!cuStreamEndCapture(stream, &graph));
    CHECK(to.values()[0] == 0);
    CHECK(!cuGraphInstantiateWithFlags(&exec, graph, 0) && !cuGraphLaunch(exec, stream));
    CHECK(to.values()[0] == 3);
    CHECK(!cuGraphExecDestroy(exec) && !cuGraphDestroy(graph));
    CHECK(!cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    CUdeviceptr nothing;
    CHECK(cuMemAlloc(&nothing, 16) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

static void do_fault(int kind) {
    Array<int32_t> memory(std::vector<int32_t>(100));
    launch("selftest_fault", 1, 1, 64, selftest_fault_args{memory.data(), 100, kind});
}

static void wait_for_ring(int wrong) {
    ring_is_right(3, wrong);
}

/* A kernel that does wrong ends the process, with a sentence that says so. */
static void test_fault(void (*wrong)(int), int kind, const char *sentence) {
    int ends[2];
    CHECK(!pipe(ends));
    pid_t child = fork();
    if (!child) {
        dup2(ends[1], 2);
        wrong(kind);
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char text[256];
    for (ssize_t got; (got = read(ends[0], text, sizeof text)) > 0;)
        said.append(text, static_cast<size_t>(got));
    close(ends[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    if (said.find(sentence) == std::string::npos) {
        fprintf(stderr, "instead of \"%s\": %s\n", sentence, said.c_str());
        exit(1);
    }
}

static double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

static void print_speed() {
    const int rounds = 10000;
    Array<int32_t> from(std::vector<int32_t>(256)), to(std::vector<int32_t>(256));
    double before = seconds();
    launch("selftest_reverse", 1, 1, 256, selftest_reverse_args{from.data(), to.data(), rounds});
    printf("a barrier: %.1f ns per thread\n", (seconds() - before) * 1e9 / rounds / 2 / 256);
    Array<uint16_t> a(std::vector<uint16_t>(256)), b(std::vector<uint16_t>(128));
    Array<float> c(std::vector<float>(128)), d(std::vector<float>(128));
    before = seconds();
    launch("selftest_mma", 1, 1, 32, selftest_mma_args{a.data(), b.data(), c.data(), d.data(), 0, rounds});
    printf("an mma: %.2f us\n", (seconds() - before) * 1e6 / rounds);
    before = seconds();
    for (int round = 0; round < rounds; round++)
        launch("selftest_mma", 1, 1, 32, selftest_mma_args{a.data(), b.data(), c.data(), d.data(), 0, 1});
    printf("a launch: %.1f us\n", (seconds() - before) * 1e6 / rounds);
}

int main() {
    CUdevice device;
    CUcontext context;
    CHECK(!cuInit(0) && !cuDeviceGet(&device, 0) && !cuDevicePrimaryCtxRetain(&context, device) &&
          !cuCtxSetCurrent(context) && !cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING) &&
          !cuModuleLoadData(&module, "image"));
    test_numbers();
    test_reverse();
    test_sum();
    test_shuffle();
    test_mma();
    test_ring();
    test_matrices();
    test_graph();
    test_fault(wait_for_ring, 2, "copies are under way to a block that has ended");
    test_fault(wait_for_ring, 3, "waiting for others' arrival or copies");
    test_fault(do_fault, 0, "selftest_fault wrote next to the 400 bytes");
    test_fault(do_fault, 1, "thread (37, 0, 0) of (64, 1, 1): Segmentation fault at");
    test_fault(do_fault, 2, "has lanes that are not there or have ended");
    print_speed();
    return 0;
}
