/* GGUF headers in and out: see gguf.h. */
#include "gguf.h"
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

/* What is left of the header; `end` is the end of the bytes read so far. */
struct cursor {
    const uint8_t *at, *end;
    const char *path;
};

static const uint8_t *take(struct cursor *cursor, uint64_t size) {
    if (size > (uint64_t)(cursor->end - cursor->at))
        quit(EXIT_REFUSED, "%s: the GGUF header ends early", cursor->path);
    const uint8_t *start = cursor->at;
    cursor->at += size;
    return start;
}

static uint32_t take_u32(struct cursor *cursor) {
    uint32_t value;
    memcpy(&value, take(cursor, sizeof value), sizeof value);
    return value;
}

static uint64_t take_u64(struct cursor *cursor) {
    uint64_t value;
    memcpy(&value, take(cursor, sizeof value), sizeof value);
    return value;
}

/* Bytes of a scalar of a value type; 0 for strings, arrays and types that do not exist. */
static uint64_t scalar_size(uint32_t type) {
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

enum { TYPE_BOOL = 7, TYPE_ARRAY = 9 };

static void skip_value(struct cursor *cursor, uint32_t type, int depth) {
    uint64_t size = scalar_size(type);
    if (size) {
        take(cursor, size);
    } else if (type == GGUF_KV_STRING) {
        take(cursor, take_u64(cursor));
    } else if (type == TYPE_ARRAY && depth < 4) {
        uint32_t element = take_u32(cursor);
        uint64_t count = take_u64(cursor);
        if (scalar_size(element)) {
            if (count > UINT64_MAX / 8)
                quit(EXIT_REFUSED, "%s: a GGUF array has %" PRIu64 " elements", cursor->path, count);
            take(cursor, count * scalar_size(element));
        } else {
            while (count--)
                skip_value(cursor, element, depth + 1);
        }
    } else {
        quit(EXIT_REFUSED, "%s: a GGUF value has type %" PRIu32 "; 0..12 are known", cursor->path, type);
    }
}

/* The start of the file, at most `most` bytes. */
static uint8_t *read_start(const char *path, uint64_t most, uint64_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseeko(file, 0, SEEK_END))
        quit(EXIT_USAGE, "%s: %s", path, strerror(errno));
    *size = (uint64_t)ftello(file);
    *size = *size < most ? *size : most;
    uint8_t *bytes = allocate(*size, 1);
    rewind(file);
    if (fread(bytes, 1, *size, file) != *size)
        quit(EXIT_USAGE, "%s: %s", path, strerror(errno));
    fclose(file);
    return bytes;
}

void gguf_read_header(struct gguf_header *header, const char *path) {
    /* Vocabularies make the largest headers, some ten megabytes. */
    enum { LONGEST_HEADER = 256 << 20, SMALLEST_KV = 13 };
    uint64_t size;
    *header = (struct gguf_header){.bytes = read_start(path, LONGEST_HEADER, &size)};
    struct cursor cursor = {header->bytes, header->bytes + size, path};
    if (memcmp(take(&cursor, 4), "GGUF", 4))
        quit(EXIT_REFUSED, "%s is not a GGUF file", path);
    take_u32(&cursor);
    take_u64(&cursor); /* tensors */
    header->num_kvs = take_u64(&cursor);
    if (header->num_kvs > size / SMALLEST_KV)
        quit(EXIT_REFUSED, "%s: %" PRIu64 " key-values do not fit in the file", path, header->num_kvs);
    header->kvs = allocate(header->num_kvs, sizeof *header->kvs);
    for (uint64_t i = 0; i < header->num_kvs; i++) {
        struct gguf_kv *kv = &header->kvs[i];
        kv->raw = cursor.at;
        kv->key_size = take_u64(&cursor);
        kv->key = (const char *)take(&cursor, kv->key_size);
        kv->type = take_u32(&cursor);
        kv->value = cursor.at;
        skip_value(&cursor, kv->type, 0);
        kv->value_size = (uint64_t)(cursor.at - kv->value);
        kv->raw_size = (uint64_t)(cursor.at - kv->raw);
    }
}

void gguf_free_header(struct gguf_header *header) {
    free(header->kvs);
    free(header->bytes);
    *header = (struct gguf_header){0};
}

const struct gguf_kv *gguf_find(const struct gguf_header *header, const char *key) {
    for (uint64_t i = 0; i < header->num_kvs; i++)
        if (header->kvs[i].key_size == strlen(key) && !memcmp(header->kvs[i].key, key, strlen(key)))
            return &header->kvs[i];
    return NULL;
}

double gguf_number(const struct gguf_header *header, const char *key, double fallback) {
    enum { U8, I8, U16, I16, U32, I32, F32, BOOL, U64 = 10, I64, F64 };
    const struct gguf_kv *kv = gguf_find(header, key);
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } v;
    if (!kv || !scalar_size(kv->type))
        return fallback;
    memcpy(&v, kv->value, kv->value_size);
    switch (kv->type) {
    case U8:
    case BOOL:
        return v.u8;
    case I8:
        return v.i8;
    case U16:
        return v.u16;
    case I16:
        return v.i16;
    case U32:
        return v.u32;
    case I32:
        return v.i32;
    case U64:
        return (double)v.u64;
    case I64:
        return (double)v.i64;
    case F32:
        return v.f32;
    case F64:
        return v.f64;
    }
    return fallback;
}

char *gguf_string(const struct gguf_header *header, const char *key) {
    const struct gguf_kv *kv = gguf_find(header, key);
    if (!kv || kv->type != GGUF_KV_STRING)
        return NULL;
    return text_of("%.*s", (int)(kv->value_size - 8), (const char *)kv->value + 8);
}

/* ---- writing ---- */

static void append(struct bytes *bytes, const void *data, size_t size) {
    if (size > bytes->capacity - bytes->size) {
        bytes->capacity = 2 * bytes->capacity + size + 4096;
        bytes->data = realloc(bytes->data, bytes->capacity);
        if (!bytes->data)
            quit(EXIT_REFUSED, "no memory for a header of %zu bytes", bytes->capacity);
    }
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static void append_u32(struct bytes *bytes, uint32_t value) {
    append(bytes, &value, sizeof value);
}

static void append_u64(struct bytes *bytes, uint64_t value) {
    append(bytes, &value, sizeof value);
}

static void append_string(struct bytes *bytes, const char *text) {
    append_u64(bytes, strlen(text));
    append(bytes, text, strlen(text));
}

static void put_key(struct gguf_writer *w, const char *key, uint32_t type) {
    append_string(&w->kvs, key);
    append_u32(&w->kvs, type);
    w->num_kvs++;
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value) {
    put_key(w, key, GGUF_KV_U32);
    append_u32(&w->kvs, value);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float value) {
    put_key(w, key, GGUF_KV_F32);
    append(&w->kvs, &value, sizeof value);
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *value) {
    put_key(w, key, GGUF_KV_STRING);
    append_string(&w->kvs, value);
}

void gguf_put_raw(struct gguf_writer *w, const struct gguf_kv *kv) {
    append(&w->kvs, kv->raw, kv->raw_size);
    w->num_kvs++;
}

void gguf_put_tensor(struct gguf_writer *w, const char *name, const int64_t *dims, uint32_t num_dims,
                     uint32_t type, uint64_t size) {
    append_string(&w->tensors, name);
    append_u32(&w->tensors, num_dims);
    for (uint32_t i = 0; i < num_dims; i++)
        append_u64(&w->tensors, (uint64_t)dims[i]);
    append_u32(&w->tensors, type);
    append_u64(&w->tensors, w->data_size);
    w->num_tensors++;
    w->data_size += (size + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

void gguf_write_header(struct gguf_writer *w, struct output *output) {
    enum { VERSION = 3 };
    struct bytes start = {0};
    append(&start, "GGUF", 4);
    append_u32(&start, VERSION);
    append_u64(&start, w->num_tensors);
    append_u64(&start, w->num_kvs);
    output_write(output, start.data, start.size);
    output_write(output, w->kvs.data, w->kvs.size);
    output_write(output, w->tensors.data, w->tensors.size);
    output_pad(output, GGUF_ALIGNMENT);
    free(start.data);
}

void gguf_free_writer(struct gguf_writer *w) {
    free(w->kvs.data);
    free(w->tensors.data);
    *w = (struct gguf_writer){0};
}
