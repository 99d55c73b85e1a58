/* Any bytes as the JSON header and the data of a safetensors file, opened, every entry described, found and
 * read. The input is the header, and after the first newline the data. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1;
    static char path[64];
    if (file < 0) {
        file = memfd_create("fuzz.safetensors", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    const uint8_t *end = memchr(data, '\n', size);
    uint64_t header = end ? (uint64_t)(end - data) : size;
    uint8_t *bytes = malloc(sizeof header + size);
    if (!bytes)
        return 0;
    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, data, header);
    size_t rest = end ? size - header - 1 : 0;
    if (rest)
        memcpy(bytes + sizeof header + header, end + 1, rest);
    fuzz_write(file, bytes, sizeof header + header + rest);
    free(bytes);
    fuzz_open(path);
    return 0;
}
