/* Writes a safetensors file: tensors are declared, then the header is written, then each tensor's bytes in
 * the order of declaration. Tensors of 4-byte elements should be declared first: nothing pads. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "output.h"

#include <jansson.h>

struct safetensors_writer {
    json_t *header;
    uint64_t size; /* of the data so far */
};

void safetensors_begin(struct safetensors_writer *writer);
/* dtype: "I32", "F16" ... of element_size bytes; dims: row-major. Answers the tensor's size in bytes. */
uint64_t safetensors_put(struct safetensors_writer *writer, const char *name, const char *dtype,
                         uint64_t element_size, const int64_t *dims, int num_dims);
/* Writes the header and drops it. */
void safetensors_write_header(struct safetensors_writer *writer, struct output *output);

#endif
