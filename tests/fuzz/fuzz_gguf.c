/* Any bytes as a GGUF file: opened, every entry described, found and read. */
#define _GNU_SOURCE
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1;
    static char path[64];
    if (file < 0) {
        file = memfd_create("fuzz.gguf", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    fuzz_write(file, data, size);
    fuzz_open(path);
    return 0;
}
