/* GGUF files as `ferrumk quantize` needs them: the key-values of one, to be carried over as they are, and a
 * writer. The library reads tensors; its public header tells nothing of the other key-values. */
#ifndef GGUF_H
#define GGUF_H

#include "output.h"

#include <stdbool.h>
#include <stddef.h>

enum { GGUF_ALIGNMENT = 32 };

/* Tensor types and value types that are written here. */
enum { GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q4_K = 12, GGUF_Q6_K = 14, GGUF_BF16 = 30 };
enum { GGUF_KV_U32 = 4, GGUF_KV_F32 = 6, GGUF_KV_STRING = 8 };

struct gguf_kv {
    const char *key; /* key_size bytes, no final 0 */
    uint64_t key_size;
    uint32_t type;
    const uint8_t *raw, *value; /* of key and value; of the value alone */
    uint64_t raw_size, value_size;
};

/* The key-values of a file; they point into `bytes`. */
struct gguf_header {
    uint8_t *bytes;
    struct gguf_kv *kvs;
    uint64_t num_kvs;
};

/* Reads them, or ends the program with a sentence. */
void gguf_read_header(struct gguf_header *header, const char *path);
void gguf_free_header(struct gguf_header *header);
const struct gguf_kv *gguf_find(const struct gguf_header *header, const char *key);
/* The value as a number when it is an integer, float or bool; else `fallback`. */
double gguf_number(const struct gguf_header *header, const char *key, double fallback);
/* The value, to be freed, or NULL when there is none or it is no string. */
char *gguf_string(const struct gguf_header *header, const char *key);

/* Bytes that grow. */
struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

/* Key-values and tensors are declared in any order; then the header is written, then each tensor's bytes in
 * the order of declaration, padded to GGUF_ALIGNMENT. */
struct gguf_writer {
    struct bytes kvs, tensors;
    uint64_t num_kvs, num_tensors, data_size;
};

void gguf_put_u32(struct gguf_writer *writer, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_put_string(struct gguf_writer *writer, const char *key, const char *value);
void gguf_put_raw(struct gguf_writer *writer, const struct gguf_kv *kv);
/* dims[0] is the contiguous one. */
void gguf_put_tensor(struct gguf_writer *writer, const char *name, const int64_t *dims, uint32_t num_dims,
                     uint32_t type, uint64_t size);
void gguf_write_header(struct gguf_writer *writer, struct output *output);
void gguf_free_writer(struct gguf_writer *writer);

#endif
