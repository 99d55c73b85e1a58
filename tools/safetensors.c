/* The safetensors writer: see safetensors.h. */
#include "safetensors.h"
#include "tool.h"

#include <stdlib.h>
#include <string.h>

void safetensors_begin(struct safetensors_writer *w) {
    *w = (struct safetensors_writer){.header = json_object()};
    /* transformers opens only files that say which framework their tensors are for. */
    json_put(w->header, "__metadata__", json_pack("{s:s}", "format", "pt"));
}

uint64_t safetensors_put(struct safetensors_writer *w, const char *name, const char *dtype,
                         uint64_t element_size, const int64_t *dims, int num_dims) {
    uint64_t size = element_size;
    json_t *shape = json_array();
    for (int i = 0; i < num_dims; i++) {
        size *= (uint64_t)dims[i];
        json_array_append_new(shape, json_integer(dims[i]));
    }
    json_put(w->header, name,
             json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                       (json_int_t)w->size, (json_int_t)(w->size + size)));
    w->size += size;
    return size;
}

void safetensors_write_header(struct safetensors_writer *w, struct output *output) {
    char *text = json_dumps(w->header, JSON_COMPACT);
    if (!text)
        quit(EXIT_REFUSED, "no memory for the header of %s", output->path);
    uint64_t length = strlen(text), padded = (length + 7) / 8 * 8;
    output_write(output, &padded, sizeof padded);
    output_write(output, text, length);
    output_write(output, "       ", padded - length);
    free(text);
    json_decref(w->header);
}
