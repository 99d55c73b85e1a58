/* What ThreadSanitizer says of a kernel whose threads read one another's numbers: test_races COPY ORDER, as
 * selftest.h has them. CMake knows which of these are races. */
#include "selftest.h"

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>

static void check(CUresult result, const char *what) {
    if (result) {
        fprintf(stderr, "%s: %d\n", what, static_cast<int>(result));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction function;
    CUdeviceptr in, out;
    check(cuInit(0), "cuInit");
    check(cuDeviceGet(&device, 0), "cuDeviceGet");
    check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    check(cuModuleLoadData(&module, "image"), "cuModuleLoadData");
    check(cuModuleGetFunction(&function, module, "selftest_neighbour"), "cuModuleGetFunction");
    check(cuMemAlloc(&in, 128 * sizeof(int32_t)), "cuMemAlloc");
    check(cuMemAlloc(&out, 32 * sizeof(int32_t)), "cuMemAlloc");
    selftest_neighbour_args args = {reinterpret_cast<const int32_t *>(in), reinterpret_cast<int32_t *>(out),
                                    atoi(argv[1]), atoi(argv[2])};
    void *params[] = {&args};
    check(cuLaunchKernel(function, 2, 1, 1, 32, 1, 1, 0, nullptr, params, nullptr), "cuLaunchKernel");
    check(cuCtxSynchronize(), "cuCtxSynchronize");
    return 0;
}
