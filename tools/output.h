/* A file that appears under its name only when it is complete: written beside it, then renamed. An exit
 * before that, an interrupt too, removes what was written. One at a time. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <stdint.h>
#include <stdio.h>

struct output {
    FILE *file;
    const char *path;
    uint64_t written;
};

void output_begin(struct output *output, const char *path);
void output_write(struct output *output, const void *bytes, uint64_t size);
/* Zeros up to the next multiple of `alignment`. */
void output_pad(struct output *output, uint64_t alignment);
void output_commit(struct output *output);

#endif
