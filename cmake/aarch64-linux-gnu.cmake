# Cross-compiles for 64-bit ARM Linux with Debian's gcc-aarch64-linux-gnu, and runs the tests under qemu-user:
#     ./scripts/sysroot-arm64 build/sysroot-arm64
#     cmake -S . -B build/arm64 -G Ninja --toolchain cmake/aarch64-linux-gnu.cmake \
#           -DFERRUMK_SYSROOT=$PWD/build/sysroot-arm64 -DFERRUMK_CUDA=OFF
# The environment's QEMU_CPU chooses the processor: max, cortex-a72 ...
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_OBJCOPY aarch64-linux-gnu-objcopy)
set(FERRUMK_SYSROOT "" CACHE PATH "where the libraries for aarch64 were unpacked")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES FERRUMK_SYSROOT)
set(CMAKE_FIND_ROOT_PATH ${FERRUMK_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
