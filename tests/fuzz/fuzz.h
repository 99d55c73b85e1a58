/* For fuzzers of checkpoints: bytes as a file that can be opened by a path, and a walk over what is in it. */
#ifndef FMK_TESTS_FUZZ_H
#define FMK_TESTS_FUZZ_H

#include "ferrumk.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Replaces what the file holds. */
static inline void fuzz_write(int file, const uint8_t *data, size_t size) {
    if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size)
        abort();
}

/* Describes and finds an entry, touches both ends of its tensors, and reads it where it is a vector. */
static inline void fuzz_entry(fmk_checkpoint *c, int32_t index) {
    fmk_entry entry = {.struct_size = sizeof entry};
    fmk_part part = {.struct_size = sizeof part};
    int32_t experts = 0;
    int64_t count = 0;
    if (fmk_checkpoint_entry(c, index, &entry))
        abort();
    if (!fmk_checkpoint_find(c, entry.name, &part, &experts)) {
        const fmk_tensor *tensors[] = {&part.qweight, &part.scales, &part.qzeros, &part.g_idx, &part.bias};
        volatile uint8_t sink = 0;
        for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
            const uint8_t *bytes = (const uint8_t *)(uintptr_t)tensors[i]->data.handle;
            if (bytes && tensors[i]->data.size)
                sink = bytes[0] ^ bytes[tensors[i]->data.size - 1];
        }
        (void)sink;
    }
    if (!fmk_checkpoint_vector(c, entry.name, NULL, 0, &count) && count <= 1 << 20) {
        float *values = malloc(((size_t)count + 1) * sizeof *values);
        if (values && fmk_checkpoint_vector(c, entry.name, values, count, &count))
            abort();
        free(values);
    }
}

static inline void fuzz_open(const char *path) {
    fmk_checkpoint *c = NULL;
    if (fmk_checkpoint_open(&c, path)) {
        if (c || !*fmk_last_error())
            abort();
        return;
    }
    fmk_checkpoint_info_t info = {.struct_size = sizeof info};
    if (fmk_checkpoint_info(c, &info))
        abort();
    for (int32_t i = 0; i < info.num_entries && i < 64; i++)
        fuzz_entry(c, i);
    fmk_checkpoint_close(c);
}

#endif
